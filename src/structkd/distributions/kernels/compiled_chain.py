"""Compiled forward-backward for linear chains, in float64 probability space; entered through `compiled`.

One sentence at a time, its labels in the lanes of vectors, rows of labels padded to whole vectors with zeros.

Every word's scores are shifted by their maximum and one direction (`_normalised`) is normalised at every step. The other
is multiplied by the same normalisers, so that the products of both are the marginals themselves. Both hold what
certifies them: what underflows is below 1e-307 of the normaliser's total of 1, weighs 1/normaliser after division, and
enters a marginal times the other direction's message. Normalisers above `_SMALL` and messages below 1 / `_SMALL` leave
every error below 1e-107. Comparisons are so written that NaN fails them.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import numpy as np
from numba import njit

from .compiled_lanes import (
    WIDTH,
    exp,
    fma,
    keep,
    largest,
    load,
    load_first,
    maximum,
    splat,
    store,
    store_first,
    total,
    totals,
    weighted,
)
from .compiled_lanes import compiled as _entry

_SMALL = 1e-100
# normalisers are multiplied up, to save logarithms, as long as their product stays this far from underflow
_PRODUCT = 1e-150

_inner = njit(error_model="numpy", nogil=True)
_inlined = njit(error_model="numpy", nogil=True, forceinline=True)


@_inlined
def _vectors(size):
    return (size + WIDTH - 1) // WIDTH


@_inner
def _combine(rows, at, stride, weights, first, count, out, to, vectors):
    """out[to:] = sum over k < count of weights[first + k] * rows[at + k * stride :], `vectors` vectors long.

    Independent partial sums keep the multipliers busy: a multiply-add takes four cycles, two can start in each.
    """
    v = 0
    while v + 4 <= vectors:
        a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
        for k in range(count):
            weight = splat(weights[first + k])
            row = at + k * stride + v * WIDTH
            a = fma(weight, load(rows, row), a)
            b = fma(weight, load(rows, row + WIDTH), b)
            c = fma(weight, load(rows, row + 2 * WIDTH), c)
            d = fma(weight, load(rows, row + 3 * WIDTH), d)
        store(out, to + v * WIDTH, a)
        store(out, to + (v + 1) * WIDTH, b)
        store(out, to + (v + 2) * WIDTH, c)
        store(out, to + (v + 3) * WIDTH, d)
        v += 4
    while v + 2 <= vectors:
        a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
        for k in range(0, count - 1, 2):
            weight, other = splat(weights[first + k]), splat(weights[first + k + 1])
            row = at + k * stride + v * WIDTH
            a = fma(weight, load(rows, row), a)
            b = fma(weight, load(rows, row + WIDTH), b)
            c = fma(other, load(rows, row + stride), c)
            d = fma(other, load(rows, row + stride + WIDTH), d)
        if count % 2:
            weight = splat(weights[first + count - 1])
            row = at + (count - 1) * stride + v * WIDTH
            a = fma(weight, load(rows, row), a)
            b = fma(weight, load(rows, row + WIDTH), b)
        store(out, to + v * WIDTH, a + c)
        store(out, to + (v + 1) * WIDTH, b + d)
        v += 2
    if v < vectors:
        a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
        row = at + v * WIDTH
        k = 0
        while k + 4 <= count:
            a = fma(splat(weights[first + k]), load(rows, row), a)
            b = fma(splat(weights[first + k + 1]), load(rows, row + stride), b)
            c = fma(splat(weights[first + k + 2]), load(rows, row + 2 * stride), c)
            d = fma(splat(weights[first + k + 3]), load(rows, row + 3 * stride), d)
            row += 4 * stride
            k += 4
        while k < count:
            a = fma(splat(weights[first + k]), load(rows, row), a)
            row += stride
            k += 1
        store(out, to + v * WIDTH, (a + b) + (c + d))


# -- chains that share their transitions -------------------------------------------------------------------------------


@_inner
def _moves(transitions, factor, moved, by_previous, width):
    """exp(transitions * factor - shift) into rows [next, previous] and their transpose; the shift is returned."""
    size = transitions.shape[0]
    flat = transitions.reshape(-1)
    shift = -math.inf
    for cell in range(size * size):
        if not flat[cell] <= shift:
            shift = float(flat[cell])
    shift *= factor
    if shift == -math.inf:
        shift = 0.0
    for j in range(size):
        for v in range(width // WIDTH):
            inside = min(size - v * WIDTH, WIDTH)
            scores = load_first(flat, j * size + v * WIDTH, inside, -math.inf)
            store(moved, j * width + v * WIDTH, exp(fma(scores, splat(factor), splat(-shift))))
    for j in range(size):
        for i in range(size):
            by_previous[i * width + j] = moved[j * width + i]
    return shift


@_inner
def _emit(emissions, start, end, factor, sentence, length, width, scores, emitted):
    """Tempered scores of a sentence and their exponentials, shifted; both in rows of `width`. Returns the shift."""
    size = emissions.shape[2]
    flat = emissions.reshape(-1)
    first = sentence * emissions.shape[1] * size
    vectors = width // WIDTH
    shifts = 0.0
    for n in range(length):
        top = splat(-math.inf)
        for v in range(vectors):
            inside = min(size - v * WIDTH, WIDTH)
            row = load_first(flat, first + n * size + v * WIDTH, inside, -math.inf)
            if n == 0 and start.size:
                row = row + load_first(start, v * WIDTH, inside, -math.inf)
            if n == length - 1 and end.size:
                row = row + load_first(end, v * WIDTH, inside, -math.inf)
            row = row * splat(factor)
            store(scores, n * width + v * WIDTH, row)
            top = maximum(row, top)
        shift = largest(top)
        if shift == -math.inf:
            shift = 0.0
        shifts += shift
        for v in range(vectors):
            position = n * width + v * WIDTH
            store(emitted, position, exp(load(scores, position) - splat(shift)))
    return shifts


@_inlined
def _forward_step(n, size, width, by_previous, emitted, message):
    """message[n], which sums to 1, from message[n - 1]; returns its normaliser."""
    here = n * width
    if n:
        _combine(by_previous, 0, width, message, here - width, size, message, here, width // WIDTH)
    sums = splat(0.0)
    for v in range(width // WIDTH):
        x = load(emitted, here + v * WIDTH)
        if n:
            x = x * load(message, here + v * WIDTH)
        store(message, here + v * WIDTH, x)
        sums = sums + x
    normaliser = total(sums)
    inverse = splat(1.0 / normaliser)
    for v in range(width // WIDTH):
        store(message, here + v * WIDTH, load(message, here + v * WIDTH) * inverse)
    return normaliser


@_inlined
def _backward_step(n, size, width, moved, emitted, normaliser, ahead, future):
    """future[n - 1] from future[n], by way of ahead[n], future[n] with the word's own score."""
    here = n * width
    inverse = splat(1.0 / normaliser)
    for v in range(width // WIDTH):
        position = here + v * WIDTH
        store(ahead, position, load(emitted, position) * (load(future, position) * inverse))
    _combine(moved, 0, width, ahead, here, size, future, here - width, width // WIDTH)


@_inlined
def _accumulated(product, logarithm, normaliser):
    product *= normaliser
    if not _PRODUCT < product < 1.0 / _PRODUCT:
        logarithm += math.log(product)
        product = 1.0
    return product, logarithm


@_inlined
def _largest_of(rows, count):
    top = splat(0.0)
    for position in range(0, count, WIDTH):
        # a NaN on the right wins and stays
        top = maximum(top, load(rows, position))
    return largest(top)


@_inner
def _count(ahead, message, length, size, width, moved, factor, counts, weights):
    """counts[j, i] += factor * E[transitions from i to j] in a sentence; returns sum weights[j, i] * E[...].

    E[j, i] = moved[j, i] * sum over n of ahead[n, j] * message[n - 1, i]: a matrix product, in blocks of 4 rows by 2
    vectors.
    """
    product = splat(0.0)
    for j in range(0, size, 4):
        # a vector that is alone is paired with itself; its second half is dropped
        for v in range(0, width, 2 * WIDTH):
            second = min(v + WIDTH, width - WIDTH)
            a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            e, f, g, h = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            for n in range(1, length):
                x, y = load(message, (n - 1) * width + v), load(message, (n - 1) * width + second)
                row = n * width + j
                p, q, r, s = splat(ahead[row]), splat(ahead[row + 1]), splat(ahead[row + 2]), splat(ahead[row + 3])
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


@_inlined
def _collect(x, cell, moved, factor, counts, weights, product):
    x = x * load(moved, cell)
    store(counts, cell, fma(splat(factor), x, load(counts, cell)))
    return fma(load(weights, cell), x, product)


@_entry
def factored_kd(
    emissions_t,
    transitions_t,
    start_t,
    end_t,
    emissions_s,
    transitions_s,
    start_s,
    end_s,
    lengths,
    temperature,
    first,
    last,
    loss,
    gradient,
    shared,
):
    """Sentences first..last - 1 of `compiled.factored_kd`; False where it cannot be certified.

    `shared` [C * C + 2 C] float64 receives this range's gradient by transitions, start and end.
    """
    words, size = emissions_s.shape[1], emissions_s.shape[2]
    width = _vectors(size) * WIDTH
    factor = 1.0 / temperature
    rows = -(-size // 4) * 4
    moved = np.zeros((2, rows * width))
    by_previous = np.zeros((2, size * width))
    shift_t = _moves(transitions_t, factor, moved[0], by_previous[0], width)
    shift_s = _moves(transitions_s, factor, moved[1], by_previous[1], width)
    counts = np.zeros(rows * width)
    no_weights = np.zeros(rows * width)
    weights = np.zeros(rows * width)  # what the student scores where the teacher moves
    for j in range(size):
        for i in range(size):
            if moved[0, j * width + i] != 0.0:
                weights[j * width + i] = float(transitions_s[j, i]) * factor
                if not abs(weights[j * width + i]) < math.inf:
                    return False

    longest = words * width
    scores_t, scores_s = np.empty(longest), np.empty(longest)
    emitted_t, emitted_s = np.empty(longest), np.empty(longest)
    message_t, message_s = np.empty(longest), np.empty(longest)
    # `_count` reads ahead in fours
    ahead_t, ahead_s = np.zeros(longest + 4), np.zeros(longest + 4)
    future_t, future_s = np.empty(longest), np.empty(longest)
    norm_t, norm_s = np.empty(words), np.empty(words)
    at_start, at_end = np.zeros(width), np.zeros(width)
    flat = gradient.reshape(-1)

    for b in range(first, last):
        length = lengths[b]
        _emit(emissions_t, start_t, end_t, factor, b, length, width, scores_t, emitted_t)
        log_partition = _emit(emissions_s, start_s, end_s, factor, b, length, width, scores_s, emitted_s)
        log_partition += (length - 1) * shift_s
        product = 1.0
        least = math.inf
        for n in range(length):
            norm_t[n] = _forward_step(n, size, width, by_previous[0], emitted_t, message_t)
            norm_s[n] = _forward_step(n, size, width, by_previous[1], emitted_s, message_s)
            product, log_partition = _accumulated(product, log_partition, norm_s[n])
            if not (norm_t[n] > _SMALL and norm_s[n] > _SMALL):
                return False
        log_partition += math.log(product)

        end = (length - 1) * width
        for v in range(0, width, WIDTH):
            store(future_t, end + v, splat(1.0))
            store(future_s, end + v, splat(1.0))
        for n in range(length - 1, 0, -1):
            _backward_step(n, size, width, moved[0], emitted_t, norm_t[n], ahead_t, future_t)
            _backward_step(n, size, width, moved[1], emitted_s, norm_s[n], ahead_s, future_s)
        if not max(_largest_of(future_t, end + width), _largest_of(future_s, end + width)) < 1.0 / _SMALL:
            return False

        expected = splat(0.0)
        base = b * words * size
        scale = splat(temperature)
        for n in range(length):
            for v in range(0, width, WIDTH):
                here = n * width + v
                wanted = load(message_t, here) * load(future_t, here)
                expected = expected + weighted(wanted, load(scores_s, here))
                gap = scale * (load(message_s, here) * load(future_s, here) - wanted)
                if n < length - 1:
                    # what runs over is in the next row, written later
                    store(flat, base + n * size + v, gap)
                else:
                    store_first(flat, base + n * size + v, gap, min(size - v, WIDTH))
                    store(at_end, v, load(at_end, v) + gap)
                if n == 0:
                    store(at_start, v, load(at_start, v) + gap)
        flat[base + length * size : base + words * size] = 0.0

        log_score = total(expected)
        if length > 1:
            log_score += _count(ahead_t, message_t, length, size, width, moved[0], -temperature, counts, weights)
            _count(ahead_s, message_s, length, size, width, moved[1], temperature, counts, no_weights)
        loss[b] = temperature * temperature * (log_partition - log_score)
        if not abs(loss[b]) < math.inf:
            return False

    for j in range(size):
        shared[j * size : (j + 1) * size] = counts[j * width : j * width + size]
    shared[size * size : size * (size + 1)] = at_start[:size]
    shared[size * (size + 1) :] = at_end[:size]
    return True
