"""Compiled forward-backward for linear chains, in float64 probability space.

Sentences are processed one by one, with labels in the lanes of vectors: a row of C labels is padded with zeros to whole
vectors, `width` numbers. Two chains run side by side (the teacher's and the student's, or two sentences), because one
chain alone would wait for the result of its own last step.

Scores are shifted by their maximum, per word or per bigram. The messages of one direction are divided, at every step,
by their sum (the step's normaliser). Those of the other direction are divided by the same normalisers, so that products
of the two are marginals. Both also certify them. A number that underflows in a message is below 1e-307, weighs at most
1 / normaliser after the division, and enters the marginals times the other direction's message. If normalisers stay
above `_SMALL` and the sum of those messages below 1 / `_SMALL`, no such error exceeds 1e-100. An exact 0 is no error,
so impossible labels cost nothing. Sums, unlike maxima, keep a NaN, and comparisons are written so that a NaN fails
them.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .lanes import (
    PRODUCT,
    WIDTH,
    aligned,
    aligned_zeros,
    exp,
    fma,
    inlined,
    inner,
    keep,
    kernel,
    largest,
    load,
    load_first,
    maximum,
    splat,
    spread,
    store,
    store_row,
    total,
    totals,
    weighted,
)
from .runtime import array, common_dtype, launch, ranges

#: emissions [B, N, C], transitions [C, C] as [next, previous], start [C] or None, end [C] or None
Scores = tuple[Tensor, Tensor, Tensor | None, Tensor | None]
Gradients = tuple[Tensor, Tensor, Tensor | None, Tensor | None]

_SMALL = 1e-100


@inlined
def _combine(rows_a, weights_a, out_a, rows_b, weights_b, out_b, at, stride, first, count, to, width):
    """out[to : to + width] = sum over k < count of weights[first + k] * rows[at + k * stride :], for a and for b.

    The sums of several vectors grow together: each waits four cycles for its last addition.
    """
    v = 0
    while v + 3 * WIDTH <= width:
        p, q, r = splat(0.0), splat(0.0), splat(0.0)
        x, y, z = splat(0.0), splat(0.0), splat(0.0)
        row = at + v
        for k in range(first, first + count):
            a, b = spread(weights_a, k), spread(weights_b, k)
            p, x = fma(a, load(rows_a, row), p), fma(b, load(rows_b, row), x)
            q, y = fma(a, load(rows_a, row + WIDTH), q), fma(b, load(rows_b, row + WIDTH), y)
            r, z = fma(a, load(rows_a, row + 2 * WIDTH), r), fma(b, load(rows_b, row + 2 * WIDTH), z)
            row += stride
        store(out_a, to + v, p)
        store(out_a, to + v + WIDTH, q)
        store(out_a, to + v + 2 * WIDTH, r)
        store(out_b, to + v, x)
        store(out_b, to + v + WIDTH, y)
        store(out_b, to + v + 2 * WIDTH, z)
        v += 3 * WIDTH
    if v + 2 * WIDTH <= width:
        p, q = splat(0.0), splat(0.0)
        x, y = splat(0.0), splat(0.0)
        row = at + v
        for k in range(first, first + count):
            a, b = spread(weights_a, k), spread(weights_b, k)
            p, x = fma(a, load(rows_a, row), p), fma(b, load(rows_b, row), x)
            q, y = fma(a, load(rows_a, row + WIDTH), q), fma(b, load(rows_b, row + WIDTH), y)
            row += stride
        store(out_a, to + v, p)
        store(out_a, to + v + WIDTH, q)
        store(out_b, to + v, x)
        store(out_b, to + v + WIDTH, y)
    elif v < width:
        # Even and odd rows have separate sums, so that additions need not wait for each other.
        p, q = splat(0.0), splat(0.0)
        x, y = splat(0.0), splat(0.0)
        row = at + v
        for k in range(first, first + count - 1, 2):
            p, x = fma(spread(weights_a, k), load(rows_a, row), p), fma(spread(weights_b, k), load(rows_b, row), x)
            row += stride
            q = fma(spread(weights_a, k + 1), load(rows_a, row), q)
            y = fma(spread(weights_b, k + 1), load(rows_b, row), y)
            row += stride
        if count % 2:
            k = first + count - 1
            p, x = fma(spread(weights_a, k), load(rows_a, row), p), fma(spread(weights_b, k), load(rows_b, row), x)
        store(out_a, to + v, p + q)
        store(out_b, to + v, x + y)


@inlined
def _fill(array, start, count, number):
    for position in range(start, start + count, WIDTH):
        store(array, position, splat(number))


@inlined
def _sum(array, count):
    sums = splat(0.0)
    for position in range(0, count, WIDTH):
        sums = sums + load(array, position)
    return total(sums)


@inner
def _log_product(norm, start, stop):
    """Sum the logarithms of norm[start:stop]; NaN if a number is not above `_SMALL`."""
    logarithm, product = 0.0, 1.0
    for n in range(start, stop):
        if not norm[n] > _SMALL:
            return math.nan
        product *= norm[n]
        if not PRODUCT < product < 1.0 / PRODUCT:
            logarithm += math.log(product)
            product = 1.0
    return logarithm + math.log(product)


# -- chains that share their transitions -------------------------------------------------------------------------------


@inner
def _moves(transitions, factor, moved, by_previous, width):
    """Compute exp(transitions * factor - shift) as [next, previous] and as [previous, next]; return the shift."""
    size = transitions.shape[0]
    flat = transitions.reshape(-1)
    shift = -math.inf
    for cell in range(size * size):
        if not flat[cell] <= shift:
            shift = float(flat[cell])
    shift = 0.0 if shift == -math.inf else shift * factor
    for j in range(size):
        for v in range(0, width, WIDTH):
            scores = load_first(flat, j * size + v, size - v, -math.inf)
            store(moved, j * width + v, exp(fma(scores, splat(factor), splat(-shift))))
    for j in range(size):
        for i in range(size):
            by_previous[i * width + j] = moved[j * width + i]
    return shift


@inner
def _emit(emissions, start, end, factor, sentence, length, width, scores, emitted):
    """Compute a sentence's tempered scores, with start and end, and shifted exponentials; return the sum of shifts."""
    words, size = emissions.shape[1], emissions.shape[2]
    flat = emissions.reshape(-1)
    shifts = 0.0
    for n in range(length):
        top = splat(-math.inf)
        for v in range(0, width, WIDTH):
            row = load_first(flat, (sentence * words + n) * size + v, size - v, -math.inf)
            if n == 0 and start.size:
                row = row + load_first(start, v, size - v, -math.inf)
            if n == length - 1 and end.size:
                row = row + load_first(end, v, size - v, -math.inf)
            row = row * splat(factor)
            store(scores, n * width + v, row)
            top = maximum(row, top)
        shift = largest(top)
        if shift == -math.inf:
            shift = 0.0
        shifts += shift
        for v in range(n * width, (n + 1) * width, WIDTH):
            store(emitted, v, exp(load(scores, v) - splat(shift)))
    return shifts


@inner
def _forward_backward(
    length_a, by_previous_a, moved_a, emitted_a, message_a, norm_a, ahead_a, future_a,
    length_b, by_previous_b, moved_b, emitted_b, message_b, norm_b, ahead_b, future_b,
    size, width,
):  # fmt: skip
    """Compute the forward and backward messages of two chains, in rows of `width` per word.

    message[n] sums to 1 after division by norm[n]; message[n] * future[n] are the label marginals at n, and
    moved[j, i] * ahead[n, j] * message[n - 1, i] those of label i at n - 1 followed by j. Rows beyond a chain's length
    have no meaning.
    """
    length = max(length_a, length_b)
    for n in range(length):
        here = n * width
        if n:
            _combine(
                by_previous_a, message_a, message_a, by_previous_b, message_b, message_b,
                0, width, here - width, size, here, width,
            )  # fmt: skip
        else:
            _fill(message_a, 0, width, 1.0)
            _fill(message_b, 0, width, 1.0)
        sum_a, sum_b = splat(0.0), splat(0.0)
        for v in range(here, here + width, WIDTH):
            a = load(message_a, v) * load(emitted_a, v)
            b = load(message_b, v) * load(emitted_b, v)
            store(message_a, v, a)
            store(message_b, v, b)
            sum_a, sum_b = sum_a + a, sum_b + b
        norm_a[n], norm_b[n] = total(sum_a), total(sum_b)
        inverse_a, inverse_b = splat(1.0 / norm_a[n]), splat(1.0 / norm_b[n])
        for v in range(here, here + width, WIDTH):
            store(message_a, v, load(message_a, v) * inverse_a)
            store(message_b, v, load(message_b, v) * inverse_b)

    _fill(future_a, (length - 1) * width, width, 1.0)
    _fill(future_b, (length - 1) * width, width, 1.0)
    for n in range(length - 1, 0, -1):
        here = n * width
        if n == length_a - 1:
            _fill(future_a, here, width, 1.0)
        if n == length_b - 1:
            _fill(future_b, here, width, 1.0)
        inverse_a, inverse_b = splat(1.0 / norm_a[n]), splat(1.0 / norm_b[n])
        for v in range(here, here + width, WIDTH):
            store(ahead_a, v, load(emitted_a, v) * inverse_a * load(future_a, v))
            store(ahead_b, v, load(emitted_b, v) * inverse_b * load(future_b, v))
        _combine(moved_a, ahead_a, future_a, moved_b, ahead_b, future_b, 0, width, here, size, here - width, width)
    if length_a == 1:
        _fill(future_a, 0, width, 1.0)
    if length_b == 1:
        _fill(future_b, 0, width, 1.0)


@inlined
def _collect(x, cell, moved, factor, counts, weights, product):
    x = x * load(moved, cell)
    store(counts, cell, fma(splat(factor), x, load(counts, cell)))
    return fma(load(weights, cell), x, product)


@inner
def _count(ahead, message, length, size, width, moved, factor, counts, weights):
    """Add factor * E[j, i], a sentence's expected transitions, to counts; return the sum of weights[j, i] * E[j, i].

    E[j, i] = moved[j, i] * sum over n of ahead[n, j] * message[n - 1, i]: a matrix product, by four rows and two
    vectors at once.
    """
    product = splat(0.0)
    for j in range(0, size, 4):
        for v in range(0, width, 2 * WIDTH):
            # If the number of vectors is odd, the last one is paired with itself.
            second = min(v + WIDTH, width - WIDTH)
            a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            e, f, g, h = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            for n in range(1, length):
                x, y = load(message, (n - 1) * width + v), load(message, (n - 1) * width + second)
                k = n * width + j
                p, q, r, s = spread(ahead, k), spread(ahead, k + 1), spread(ahead, k + 2), spread(ahead, k + 3)
                a, b, c, d = fma(p, x, a), fma(q, x, b), fma(r, x, c), fma(s, x, d)
                e, f, g, h = fma(p, y, e), fma(q, y, f), fma(r, y, g), fma(s, y, h)
            cell = j * width + v
            product = _collect(a, cell, moved, factor, counts, weights, product)
            product = _collect(b, cell + width, moved, factor, counts, weights, product)
            product = _collect(c, cell + 2 * width, moved, factor, counts, weights, product)
            product = _collect(d, cell + 3 * width, moved, factor, counts, weights, product)
            if second > v:
                cell += WIDTH
                product = _collect(e, cell, moved, factor, counts, weights, product)
                product = _collect(f, cell + width, moved, factor, counts, weights, product)
                product = _collect(g, cell + 2 * width, moved, factor, counts, weights, product)
                product = _collect(h, cell + 3 * width, moved, factor, counts, weights, product)
    return total(product)


@kernel
def _factored_kd(
    emissions_t, transitions_t, start_t, end_t, emissions_s, transitions_s, start_s, end_s,
    lengths, temperature, first, last, loss, gradient, shared,
):  # fmt: skip
    """Compute sentences first..last - 1 of `factored_kd`; return False if one cannot be certified.

    `start` and `end` are empty if there are none. `shared` [C * C + 2 C] receives the gradients by transitions,
    start and end.
    """
    words, size = emissions_s.shape[1], emissions_s.shape[2]
    width = -(-size // WIDTH) * WIDTH
    factor = 1.0 / temperature
    cells = -(-size // 4) * 4 * width  # `_count` works by four rows
    moved_t, moved_s = aligned_zeros(cells), aligned_zeros(cells)
    by_previous_t, by_previous_s = aligned_zeros(size * width), aligned_zeros(size * width)
    _moves(transitions_t, factor, moved_t, by_previous_t, width)
    shift = _moves(transitions_s, factor, moved_s, by_previous_s, width)
    counts, weights, none = aligned_zeros(cells), aligned_zeros(cells), aligned_zeros(cells)
    for j in range(size):
        for i in range(size):
            if moved_t[j * width + i] != 0.0:
                score = transitions_s[j, i] * factor
                if not abs(score) < math.inf:
                    return False
                weights[j * width + i] = score

    rows = words * width
    scores_t, emitted_t, message_t, future_t = aligned(rows), aligned(rows), aligned(rows), aligned(rows)
    scores_s, emitted_s, message_s, future_s = aligned(rows), aligned(rows), aligned(rows), aligned(rows)
    ahead_t, ahead_s, norm_t, norm_s = aligned(rows), aligned(rows), aligned(words), aligned(words)
    at_start, at_end = aligned_zeros(width), aligned_zeros(width)
    flat = gradient.reshape(-1)
    scale = splat(temperature)
    for b in range(first, last):
        length = lengths[b]
        _emit(emissions_t, start_t, end_t, factor, b, length, width, scores_t, emitted_t)
        log_partition = _emit(emissions_s, start_s, end_s, factor, b, length, width, scores_s, emitted_s)
        _forward_backward(
            length, by_previous_t, moved_t, emitted_t, message_t, norm_t, ahead_t, future_t,
            length, by_previous_s, moved_s, emitted_s, message_s, norm_s, ahead_s, future_s,
            size, width,
        )  # fmt: skip
        if not _sum(future_t, length * width) + _sum(future_s, length * width) < 1.0 / _SMALL:
            return False
        if not _log_product(norm_t, 0, length) < math.inf:
            return False
        log_partition += _log_product(norm_s, 0, length) + (length - 1) * shift

        expected = splat(0.0)
        base, stop = b * words * size, (b + 1) * words * size
        for n in range(length):
            for v in range(0, width, WIDTH):
                here = n * width + v
                wanted = load(message_t, here) * load(future_t, here)
                expected = expected + weighted(wanted, load(scores_s, here))
                gap = scale * (load(message_s, here) * load(future_s, here) - wanted)
                store_row(flat, base + n * size + v, gap, size - v, stop)
                if n == 0:
                    store(at_start, v, load(at_start, v) + gap)
                if n == length - 1:
                    store(at_end, v, load(at_end, v) + gap)
        flat[base + length * size : stop] = 0.0

        score = total(expected)
        if length > 1:
            score += _count(ahead_t, message_t, length, size, width, moved_t, -temperature, counts, weights)
            _count(ahead_s, message_s, length, size, width, moved_s, temperature, counts, none)
        loss[b] = temperature * temperature * (log_partition - score)
        if not abs(loss[b]) < math.inf:
            return False

    for j in range(size):
        shared[j * size : (j + 1) * size] = counts[j * width : j * width + size]
    shared[size * size : size * (size + 1)] = at_start[:size]
    shared[size * (size + 1) :] = at_end[:size]
    return True


@inner
def _write_expectations(
    b, length, size, width, moved, shifts, message, norm, ahead, future, counts, none,
    log_partition, labels, bigrams, safe,
):  # fmt: skip
    words = labels.shape[1]
    log_partition[b] = shifts + _log_product(norm, 0, length)
    safe[b] = _sum(future, length * width) < 1.0 / _SMALL and abs(log_partition[b]) < math.inf
    flat = labels.reshape(-1)
    base, stop = b * words * size, (b + 1) * words * size
    for n in range(length):
        for v in range(0, width, WIDTH):
            here = n * width + v
            store_row(flat, base + n * size + v, load(message, here) * load(future, here), size - v, stop)
    flat[base + length * size : stop] = 0.0
    counts[:] = 0.0
    if length > 1:
        _count(ahead, message, length, size, width, moved, 1.0, counts, none)
    for j in range(size):
        for i in range(size):
            bigrams[b, j, i] = counts[j * width + i]


@kernel
def _factored_expectations(unary, transitions, lengths, order, first, last, log_partition, labels, bigrams, safe):
    """Compute sentences order[first..last - 1] of `factored_expectations`, two at a time."""
    words, size = unary.shape[1], unary.shape[2]
    width = -(-size // WIDTH) * WIDTH
    cells = -(-size // 4) * 4 * width
    moved, by_previous = aligned_zeros(cells), aligned_zeros(size * width)
    shift = _moves(transitions, 1.0, moved, by_previous, width)
    counts, none, nothing = aligned_zeros(cells), aligned_zeros(cells), np.empty(0)
    rows = words * width
    scores, emitted_a, message_a, future_a = aligned(rows), aligned(rows), aligned(rows), aligned(rows)
    emitted_b, message_b, future_b = aligned(rows), aligned(rows), aligned(rows)
    ahead_a, ahead_b, norm_a, norm_b = aligned(rows), aligned(rows), aligned(words), aligned(words)
    for k in range(first, last, 2):
        a, b = order[k], order[min(k + 1, last - 1)]
        shifts_a = _emit(unary, nothing, nothing, 1.0, a, lengths[a], width, scores, emitted_a)
        shifts_b = _emit(unary, nothing, nothing, 1.0, b, lengths[b], width, scores, emitted_b)
        _forward_backward(
            lengths[a], by_previous, moved, emitted_a, message_a, norm_a, ahead_a, future_a,
            lengths[b], by_previous, moved, emitted_b, message_b, norm_b, ahead_b, future_b,
            size, width,
        )  # fmt: skip
        shifts_a += (lengths[a] - 1) * shift
        shifts_b += (lengths[b] - 1) * shift
        _write_expectations(
            a, lengths[a], size, width, moved, shifts_a, message_a, norm_a, ahead_a, future_a,
            counts, none, log_partition, labels, bigrams, safe,
        )  # fmt: skip
        if b != a:
            _write_expectations(
                b, lengths[b], size, width, moved, shifts_b, message_b, norm_b, ahead_b, future_b,
                counts, none, log_partition, labels, bigrams, safe,
            )  # fmt: skip


# -- chains with scores per bigram -------------------------------------------------------------------------------------


@inner
def _exponentials(potentials, start, cells, factor, moved, to):
    """Store exp((scores - shift) * factor) of the bigram at potentials[start:] to moved[to:]; return shift * factor."""
    top = splat(-math.inf)
    for cell in range(0, cells - WIDTH + 1, WIDTH):
        top = maximum(load(potentials, start + cell), top)
    rest = cells - cells % WIDTH
    if rest < cells:
        top = maximum(load_first(potentials, start + rest, cells - rest, -math.inf), top)
    # `maximum` drops a NaN, but the exponentials keep it.
    shift = largest(top) * factor
    if shift == -math.inf:
        shift = 0.0
    for cell in range(0, cells - WIDTH + 1, WIDTH):
        store(moved, to + cell, exp(fma(load(potentials, start + cell), splat(factor), splat(-shift))))
    if rest < cells:
        last = load_first(potentials, start + rest, cells - rest, -math.inf)
        store(moved, to + rest, exp(fma(last, splat(factor), splat(-shift))))
    return shift


@inlined
def _normalise(future, here, size, width):
    """Set the cells beyond the labels to 0, and divide future[here:] by its sum; return the sum."""
    sums = splat(0.0)
    for v in range(0, width, WIDTH):
        x = keep(load(future, here + v), size - v, 0.0)
        store(future, here + v, x)
        sums = sums + x
    norm = total(sums)
    inverse = splat(1.0 / norm)
    for v in range(here, here + width, WIDTH):
        store(future, v, load(future, v) * inverse)
    return norm


@inlined
def _first(array, here, size, width, number):
    """Store a number for every label, and 0 beyond the labels."""
    for v in range(0, width, WIDTH):
        store(array, here + v, keep(splat(number), size - v, 0.0))


@inner
def _dense_backward(
    potentials_a, start_a, length_a, moved_a, future_a, norm_a,
    potentials_b, start_b, length_b, moved_b, future_b, norm_b,
    size, width, factor,
):  # fmt: skip
    """Compute the backward messages of two sentences, in rows of `width`, each divided by its sum, the norm.

    The bigrams' scores start at flat positions; their shifted exponentials are whole vectors, moved[n * block :].
    Returns the sums of the shifts.
    """
    cells = size * size
    block = -(-cells // WIDTH) * WIDTH
    shifts_a, shifts_b = 0.0, 0.0
    # Rows are read in whole vectors, so the last row is read beyond its end.
    _fill(moved_a, (length_a - 1) * block, width, 0.0)
    _fill(moved_b, (length_b - 1) * block, width, 0.0)
    for n in range(max(length_a, length_b) - 2, -1, -1):
        if n < length_a - 1:
            shifts_a += _exponentials(potentials_a, start_a + n * cells, cells, factor, moved_a, n * block)
        if n < length_b - 1:
            shifts_b += _exponentials(potentials_b, start_b + n * cells, cells, factor, moved_b, n * block)
        there = (n + 1) * width
        if n + 2 == length_a:
            _first(future_a, there, size, width, 1.0 / size)
        if n + 2 == length_b:
            _first(future_b, there, size, width, 1.0 / size)
        _combine(
            moved_a, future_a, future_a, moved_b, future_b, future_b, n * block, size, there, size, there - width, width
        )
        norm_a[n] = _normalise(future_a, there - width, size, width)
        norm_b[n] = _normalise(future_b, there - width, size, width)
    if length_a == 1:
        _first(future_a, 0, size, width, 1.0 / size)
    if length_b == 1:
        _first(future_b, 0, size, width, 1.0 / size)
    return shifts_a, shifts_b


@inlined
def _advance(sums, size, width, norm, past):
    """Compute past[j] = (sum of the lanes of sums[j * WIDTH :]) / norm; return the sum of past."""
    inverse = splat(1.0 / norm)
    everything = splat(0.0)
    for j in range(0, size, WIDTH):
        k = j * WIDTH
        x = inverse * totals(
            load(sums, k), load(sums, k + 8), load(sums, k + 16), load(sums, k + 24),
            load(sums, k + 32), load(sums, k + 40), load(sums, k + 48), load(sums, k + 56),
        )  # fmt: skip
        store(past, j, x)
        everything = everything + x
    return total(everything)


@kernel
def _dense_kd(teacher, student, lengths, temperature, first, last, loss, gradient):
    """Compute sentences first..last - 1 of `dense_kd`; return False if one cannot be certified.

    past[i] * future[n, i] are the label marginals at n, and past[i] * moved[n, j, i] * future[n + 1, j] / norm[n] those
    of bigrams: forward, marginals, loss and gradient take one pass over `moved`.
    """
    bigrams, size = student.shape[1], student.shape[2]
    cells = size * size
    width = -(-size // WIDTH) * WIDTH
    factor = 1.0 / temperature
    scores_t, scores_s, flat = teacher.reshape(-1), student.reshape(-1), gradient.reshape(-1)
    block = -(-cells // WIDTH) * WIDTH
    moved_t, moved_s = aligned(bigrams * block + width), aligned(bigrams * block + width)
    future_t, future_s = aligned((bigrams + 1) * width), aligned((bigrams + 1) * width)
    norm_t, norm_s = aligned(bigrams), aligned(bigrams)
    past_t, past_s = aligned(width), aligned(width)
    sums_t, sums_s = aligned_zeros(width * WIDTH), aligned_zeros(width * WIDTH)
    last_bigram = np.zeros(cells + width, student.dtype)
    square = temperature * temperature
    for b in range(first, last):
        length = lengths[b]
        base, stop = b * bigrams * cells, (b + 1) * bigrams * cells
        _, shifts = _dense_backward(
            scores_t, base, length, moved_t, future_t, norm_t,
            scores_s, base, length, moved_s, future_s, norm_s,
            size, width, factor,
        )  # fmt: skip
        if not _log_product(norm_t, 0, length - 1) < math.inf:
            return False
        log_partition = shifts + math.log(size) + _log_product(norm_s, 0, length - 1)
        _first(past_t, 0, size, width, 1.0)
        _first(past_s, 0, size, width, 1.0)
        expected = splat(0.0)
        for n in range(length - 1):
            row, cell = n * block, base + n * cells
            source, at = scores_s, cell
            if cell + cells + width > scores_s.size:
                # Whole vectors would be read beyond the end of the array, so copy the last bigram.
                last_bigram[:cells] = scores_s[cell : cell + cells]
                source, at = last_bigram, 0
            to = 0
            # Multiply by the temperature, which is a factor of the gradient.
            scale_t, scale_s = temperature / norm_t[n], temperature / norm_s[n]
            for j in range((n + 1) * width, (n + 1) * width + size):
                r_t, r_s = splat(scale_t * future_t[j]), splat(scale_s * future_s[j])
                sum_t, sum_s = splat(0.0), splat(0.0)
                for v in range(0, width, WIDTH):
                    wanted = load(moved_t, row + v) * load(past_t, v)
                    got = load(moved_s, row + v) * load(past_s, v)
                    sum_t, sum_s = sum_t + wanted, sum_s + got
                    wanted = wanted * r_t
                    expected = expected + weighted(wanted, load(source, at + v))
                    gap = got * r_s - wanted
                    store_row(flat, cell + v, gap, size - v, stop)
                store(sums_t, to, sum_t)
                store(sums_s, to, sum_s)
                row += size
                cell += size
                at += size
                to += WIDTH
            weight = _advance(sums_t, size, width, norm_t[n], past_t)
            weight += _advance(sums_s, size, width, norm_s[n], past_s)
            if not weight < 1.0 / _SMALL:
                return False
        flat[base + (length - 1) * cells : stop] = 0.0
        loss[b] = square * log_partition - total(expected)
        if not abs(loss[b]) < math.inf:
            return False
    return True


@inner
def _write_dense_expectations(
    b, length, size, width, shifts, moved, future, norm, past, sums, log_partition, labels, marginals, safe
):
    bigrams = marginals.shape[1]
    cells = size * size
    block = -(-cells // WIDTH) * WIDTH
    flat, flat_labels = marginals.reshape(-1), labels.reshape(-1)
    base, stop = b * bigrams * cells, (b + 1) * bigrams * cells
    base_labels, stop_labels = b * (bigrams + 1) * size, (b + 1) * (bigrams + 1) * size
    log_partition[b] = shifts + math.log(size) + _log_product(norm, 0, length - 1)
    weight = 0.0
    _first(past, 0, size, width, 1.0)
    for n in range(length):
        for v in range(0, width, WIDTH):
            position = base_labels + n * size + v
            store_row(flat_labels, position, load(past, v) * load(future, n * width + v), size - v, stop_labels)
        if n == length - 1:
            break
        row, cell = n * block, base + n * cells
        for j in range(size):
            factor = splat(future[(n + 1) * width + j] / norm[n])
            row_sum = splat(0.0)
            for v in range(0, width, WIDTH):
                x = load(moved, row + v) * load(past, v)
                row_sum = row_sum + x
                store_row(flat, cell + v, x * factor, size - v, stop)
            store(sums, j * WIDTH, row_sum)
            row += size
            cell += size
        weight += _advance(sums, size, width, norm[n], past)
    flat[base + (length - 1) * cells : stop] = 0.0
    flat_labels[base_labels + length * size : stop_labels] = 0.0
    safe[b] = weight < 1.0 / _SMALL and abs(log_partition[b]) < math.inf


@kernel
def _dense_expectations(potentials, lengths, order, first, last, log_partition, labels, marginals, safe):
    """Compute sentences order[first..last - 1] of `dense_expectations`, two at a time."""
    bigrams, size = potentials.shape[1], potentials.shape[2]
    cells = size * size
    width = -(-size // WIDTH) * WIDTH
    scores = potentials.reshape(-1)
    block = -(-cells // WIDTH) * WIDTH
    moved_a, moved_b = aligned(bigrams * block + width), aligned(bigrams * block + width)
    future_a, future_b = aligned((bigrams + 1) * width), aligned((bigrams + 1) * width)
    norm_a, norm_b = aligned(bigrams), aligned(bigrams)
    past, sums = aligned(width), aligned_zeros(width * WIDTH)
    for k in range(first, last, 2):
        a, b = order[k], order[min(k + 1, last - 1)]
        shifts_a, shifts_b = _dense_backward(
            scores, a * bigrams * cells, lengths[a], moved_a, future_a, norm_a,
            scores, b * bigrams * cells, lengths[b], moved_b, future_b, norm_b,
            size, width, 1.0,
        )  # fmt: skip
        _write_dense_expectations(
            a, lengths[a], size, width, shifts_a, moved_a, future_a, norm_a, past, sums,
            log_partition, labels, marginals, safe,
        )  # fmt: skip
        if b != a:
            _write_dense_expectations(
                b, lengths[b], size, width, shifts_b, moved_b, future_b, norm_b, past, sums,
                log_partition, labels, marginals, safe,
            )  # fmt: skip


# -- from Python -------------------------------------------------------------------------------------------------------


def factored_kd(
    teacher: Scores, student: Scores, lengths: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Gradients, bool]:
    """Compute the structural loss of chains that share their transitions, and its gradient, in one pass over both.

    Args:
        teacher, student: emissions [B, N, C], transitions [C, C] (next, previous), start [C] and end [C] or None;
            float32 or float64, on the CPU.
        lengths: LongTensor [B], 1..N.
        temperature: T; the scores of both sides are divided by it.

    Returns:
        T^2 (log Z_s - <P_t, s_s / T>) for every sentence, [B] float64; T (P_s - P_t), the gradient of their sum by
        the student's emissions, transitions, start and end, in the dtype of each; and whether they can be relied on.

    Costs O(N C^2) time a sentence and O(N C + C^2) memory a thread.
    """
    emissions, transitions, start, end = student
    batch, words, size = emissions.shape
    dtype = common_dtype(*teacher, *student)
    loss = torch.empty(batch, dtype=torch.float64)
    gradient = torch.empty(batch, words, size, dtype=dtype)
    over = ranges(batch, _cost(batch * words, size))
    shared = np.empty((len(over), size * (size + 2)))
    scores = [array(tensor, dtype) for tensor in (*teacher, *student)]
    ok = launch(_factored_kd, over, (*scores, array(lengths, torch.long), temperature), (loss, gradient), shared)
    total = torch.from_numpy(shared[0] if len(over) == 1 else shared.sum(0))
    by_label = total[size * size :]
    gradients = (
        gradient.to(emissions.dtype),
        total[: size * size].view(size, size).to(transitions.dtype),
        None if start is None else by_label[:size].to(start.dtype),
        None if end is None else by_label[size:].to(end.dtype),
    )
    return loss, gradients, ok


def dense_kd(
    teacher: Tensor, student: Tensor, lengths: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor, bool]:
    """Compute the structural loss of chains with scores per bigram, and its gradient.

    Args:
        teacher, student: [B, N-1, C, C]; cell [b, n, j, i] scores label i at word n followed by label j at n + 1.
        lengths: LongTensor [B], 1..N. A sentence of one word is uniform.
        temperature: T.

    Returns:
        T^2 (log Z_s - <P_t, s_s / T>), [B] float64; T (P_s - P_t), [B, N-1, C, C] in the student's dtype; and whether
        they can be relied on.

    Costs O(N C^2) time a sentence and memory a thread.
    """
    dtype = common_dtype(teacher, student)
    loss = torch.empty(len(student), dtype=torch.float64)
    gradient = torch.empty(student.shape, dtype=dtype)
    arguments = array(teacher, dtype), array(student, dtype), array(lengths, torch.long), temperature
    ok = launch(_dense_kd, ranges(len(student), 4.0 * gradient.numel()), arguments, (loss, gradient))
    return loss, gradient.to(student.dtype), ok


def factored_expectations(unary: Tensor, transitions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute log Z [B], label marginals [B, N, C], expected transition counts [B, C, C] and safe, bool [B].

    Args:
        unary: [B, N, C] float64 scores of labels. transitions: [C, C] float64 (next, previous).
        lengths: LongTensor [B].

    Costs O(N C^2) time a sentence.
    """
    batch, words, size = unary.shape
    log_partition = torch.empty(batch, dtype=torch.float64)
    labels = torch.empty(batch, words, size, dtype=torch.float64)
    counts = torch.empty(batch, size, size, dtype=torch.float64)
    safe = torch.zeros(batch, dtype=torch.bool)
    count = array(lengths, torch.long)
    over = ranges(batch, 0.5 * _cost(batch * words, size), least=2, pieces=2)
    arguments = array(unary), array(transitions), count, count.argsort()
    launch(_factored_expectations, over, arguments, (log_partition, labels, counts, safe))
    return log_partition, labels, counts, safe


def dense_expectations(potentials: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute log Z [B], label marginals [B, N, C], bigram marginals [B, N-1, C, C] and safe, bool [B].

    Args:
        potentials: [B, N-1, C, C] float64, (next, previous). lengths: LongTensor [B].

    Costs O(N C^2) time a sentence.
    """
    batch, bigrams, size, _ = potentials.shape
    log_partition = torch.empty(batch, dtype=torch.float64)
    labels = torch.empty(batch, bigrams + 1, size, dtype=torch.float64)
    marginals = torch.empty(batch, bigrams, size, size, dtype=torch.float64)
    safe = torch.zeros(batch, dtype=torch.bool)
    count = array(lengths, torch.long)
    over = ranges(batch, 2.0 * potentials.numel(), least=2, pieces=2)
    arguments = array(potentials), count, count.argsort()
    launch(_dense_expectations, over, arguments, (log_partition, labels, marginals, safe))
    return log_partition, labels, marginals, safe


def _cost(words: int, size: int) -> float:
    """Estimate the time for a number of words, in nanoseconds."""
    return words * (100.0 + 0.5 * size * size)
