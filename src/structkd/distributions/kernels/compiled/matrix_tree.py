"""Compiled sums over all dependency trees: the matrix-tree theorem without a subtraction, in float64 probability space.

Sentences are processed one by one, with words in the lanes of vectors. Words are eliminated from the last to the first
as in `kernels.matrix_tree.log_matrix_tree`, and restored in reverse order, which gives the derivative. With

    p       the weight of the heads of word n among those left (and the root, if there may be several)
    share   that of head h over p, at most 1
    A       the derivative of log Z by the weight of each arc, known among the words before n

the derivatives by the arcs of word n are

    A[n, d] = sum over h of A[h, d] * share[h]
    A[h, n] = (1 + e[h] - sum over h' of share[h'] e[h']) / p,    e[h] = sum over d of A[h, d] * weight[n, d].

The only difference is one of expected numbers of children of n, so the error of an arc's probability, weight * A, is of
the order of rounding for all scores. A number that underflows is below 1e-300 in the weight of an arc, whose column is
scaled to a largest weight of 1, and changes log Z by A times that. If the sum of all A is below 1 / `_SMALL`, such
errors are far below rounding. The sum is checked because, unlike a maximum, it keeps a NaN.
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
    exp,
    fma,
    inlined,
    inner,
    keep,
    kernel,
    load,
    load_first,
    maximum,
    splat,
    spread,
    store,
    store_row,
    total,
    weighted,
)
from .runtime import array, common_dtype, launch, ranges

_SMALL = 1e-200


@inlined
def _swap(array, width, word, length):
    """Exchange words 0 and `word`."""
    for k in range(0, length * width, width):
        array[k], array[k + word] = array[k + word], array[k]
    for k in range(length):
        array[k], array[word * width + k] = array[word * width + k], array[k]


@inner
def _reaches_all(weight, word, length, width):
    """Return whether arcs lead from a word to every other one."""
    reached = np.zeros(length, np.bool_)
    stack = np.empty(length, np.int64)
    reached[word], stack[0] = True, word
    waiting, found = 1, 1
    while waiting and found < length:
        waiting -= 1
        row = stack[waiting] * width
        for d in range(length):
            if not reached[d] and weight[row + d] > 0.0:
                reached[d], stack[waiting] = True, d
                waiting, found = waiting + 1, found + 1
    return found == length


@inner
def _weights(arcs, sentence, length, width, multiroot, factor, weight, roots, shift):
    """Exponentiate a sentence's scores, scaled by column, with root scores in `roots` and 0 on the diagonal.

    Return the sum of the shifts subtracted from the scores, and the word that is exchanged with the first one. With a
    single root, the last word to be eliminated must be able to be the root.
    """
    words = arcs.shape[1]
    flat = arcs.reshape(-1)
    for v in range(0, width, WIDTH):
        top = splat(-math.inf)
        for h in range(length):
            x = load_first(flat, (sentence * words + h) * words + v, length - v, -math.inf) * splat(factor)
            store(weight, h * width + v, x)
            if v <= h < v + WIDTH:
                roots[h] = weight[h * width + h]
                weight[h * width + h] = -math.inf
                x = load(weight, h * width + v)
            top = maximum(x, top)
        store(shift, v, top)
    shifts, root, best = 0.0, 0, -math.inf
    for d in range(length):
        if multiroot:
            shift[d] = max(shift[d], roots[d])
        elif shift[d] == -math.inf:
            root, best = d, math.inf
        elif roots[d] - shift[d] > best:
            root, best = d, roots[d] - shift[d]
        if shift[d] == -math.inf:
            shift[d] = 0.0
        shifts += shift[d]
    for v in range(0, width, WIDTH):
        down = load(shift, v)
        for h in range(length):
            x = exp(load(weight, h * width + v) - down)
            store(weight, h * width + v, keep(x, length - v, 0.0))
    highest = 0.0
    if not multiroot:
        highest = -math.inf
        for d in range(length):
            highest = max(highest, roots[d] - shift[d])
        if highest == -math.inf:
            highest = 0.0
        shifts += highest
    for v in range(0, width, WIDTH):
        x = load(roots, v) - load(shift, v) - splat(highest)
        store(roots, v, keep(exp(x), length - v, 0.0))
    if not multiroot and not _reaches_all(weight, root, length, width):
        root = 0
        while root < length - 1 and not (roots[root] > 0.0 and _reaches_all(weight, root, length, width)):
            root += 1
    if root:
        _swap(weight, width, root, length)
        roots[0], roots[root] = roots[root], roots[0]
    return shifts, root


@inlined
def _add_multiples(factors, row, first, target, width, count, stop):
    """Add factors[k] * row[first : first + stop] to target[k, :stop], for the first `count` rows of width `width`."""
    v = 0
    while v + 3 * WIDTH < stop:
        a, b = load(row, first + v), load(row, first + v + WIDTH)
        c, d = load(row, first + v + 2 * WIDTH), load(row, first + v + 3 * WIDTH)
        to = v
        for k in range(count):
            x = spread(factors, k)
            store(target, to, fma(x, a, load(target, to)))
            store(target, to + WIDTH, fma(x, b, load(target, to + WIDTH)))
            store(target, to + 2 * WIDTH, fma(x, c, load(target, to + 2 * WIDTH)))
            store(target, to + 3 * WIDTH, fma(x, d, load(target, to + 3 * WIDTH)))
            to += width
        v += 4 * WIDTH
    while v < stop:
        a = load(row, first + v)
        to = v
        for k in range(count):
            store(target, to, fma(spread(factors, k), a, load(target, to)))
            to += width
        v += WIDTH


@inlined
def _combine(rows, width, factors, first, count, out, stop):
    """Compute out[:stop] = sum over k < count of factors[first + k] * rows[k, :stop], rounded up to whole vectors."""
    v = 0
    while v + 3 * WIDTH < stop:
        a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
        at = v
        for k in range(first, first + count):
            x = spread(factors, k)
            a, b = fma(x, load(rows, at), a), fma(x, load(rows, at + WIDTH), b)
            c, d = fma(x, load(rows, at + 2 * WIDTH), c), fma(x, load(rows, at + 3 * WIDTH), d)
            at += width
        store(out, v, a)
        store(out, v + WIDTH, b)
        store(out, v + 2 * WIDTH, c)
        store(out, v + 3 * WIDTH, d)
        v += 4 * WIDTH
    while v < stop:
        a, b = splat(0.0), splat(0.0)
        at = v
        for k in range(first, first + count - 1, 2):
            a = fma(spread(factors, k), load(rows, at), a)
            b = fma(spread(factors, k + 1), load(rows, at + width), b)
            at += 2 * width
        if count % 2:
            a = fma(spread(factors, first + count - 1), load(rows, at), a)
        store(out, v, a + b)
        v += WIDTH


@inner
def _probabilities(arcs, sentence, length, multiroot, factor, work, vectors):
    """Arc probabilities of a sentence, rows of `width` in the array returned first; its log Z and whether it is good.

    All of `weight`, `left`, `shares`, `slopes` and `across` hold a row of `width` numbers per word: original weights,
    those left when the row's word is eliminated, its heads' shares, and A by head and by dependent.
    """
    weight, left, shares, slopes, across = work
    roots, roots_left, root_slopes, shift, by_head, by_dependent = vectors
    width = -(-length // WIDTH) * WIDTH
    log_partition, root = _weights(arcs, sentence, length, width, multiroot, factor, weight, roots, shift)
    for k in range(0, length * width, WIDTH):
        store(left, k, load(weight, k))
        store(slopes, k, splat(0.0))
        store(across, k, splat(0.0))
    for v in range(0, width, WIDTH):
        store(roots_left, v, load(roots, v))
        store(root_slopes, v, splat(0.0))

    product = 1.0
    for n in range(length - 1, 0, -1):
        row = n * width
        pivot = roots_left[n] if multiroot else 0.0
        cell = n
        for h in range(n):
            by_head[h] = left[cell]
            pivot += left[cell]
            cell += width
        inverse = 1.0 / pivot
        for v in range(0, n, WIDTH):
            share = keep(load(by_head, v) * splat(inverse), n - v, 0.0)
            store(by_head, v, share)
            store(shares, row + v, share)
        _add_multiples(by_head, left, row, left, width, n, n)
        through = splat(roots_left[n] * inverse)
        for v in range(0, n, WIDTH):
            store(roots_left, v, fma(through, keep(load(left, row + v), n - v, 0.0), load(roots_left, v)))
        shift[n] = inverse
        product *= pivot
        if not PRODUCT < product < 1.0 / PRODUCT:
            log_partition += math.log(product)
            product = 1.0
    log_partition += math.log(product * roots_left[0])

    root_slopes[0] = 1.0 / roots_left[0]
    sums = splat(0.0)
    for n in range(1, length):
        row = n * width
        inverse = shift[n]
        share = roots_left[n] * inverse
        # By head: e. By dependent: the value of an arc from n.
        _combine(across, width, left, row, n, by_head, n)
        at_root, children = splat(0.0), splat(0.0)
        for v in range(0, n, WIDTH):
            slope = load(root_slopes, v)
            at_root = fma(slope, keep(load(left, row + v), n - v, 0.0), at_root)
            children = fma(load(shares, row + v), load(by_head, v), children)
        from_root = total(at_root)
        expected = total(children) + share * from_root
        rest = splat(1.0 - expected)
        for v in range(0, n, WIDTH):
            x = keep((load(by_head, v) + rest) * splat(inverse), n - v, 0.0)
            store(across, row + v, x)
            sums = sums + x
        _combine(slopes, width, shares, row, n, by_dependent, n)
        for v in range(0, n, WIDTH):
            x = keep(fma(splat(share), load(root_slopes, v), load(by_dependent, v)), n - v, 0.0)
            store(slopes, row + v, x)
            store(by_dependent, v, x)
            sums = sums + x
        root_slopes[n] = (from_root + (1.0 - expected if multiroot else 0.0)) * inverse
        cell = n
        for k in range(n):
            slopes[cell] = across[row + k]
            across[cell] = by_dependent[k]
            cell += width
    for v in range(0, width, WIDTH):
        sums = sums + load(root_slopes, v)

    none, lowest = splat(0.0), splat(-1.0)
    for d in range(length):
        weight[d * width + d], slopes[d * width + d] = roots[d], root_slopes[d]
    for k in range(0, length * width, WIDTH):
        x = maximum(load(weight, k) * load(slopes, k), none)
        store(slopes, k, none - maximum(none - x, lowest))
    if root:
        _swap(slopes, width, root, length)
    return slopes, log_partition, total(sums) < 1.0 / _SMALL and abs(log_partition) < math.inf


@inner
def _room(words):
    width = -(-words // WIDTH) * WIDTH
    cells = words * width
    work = (aligned(cells), aligned(cells), aligned(cells), aligned(cells), aligned(cells))
    edge = (aligned(width), aligned(width), aligned(width), aligned(width), aligned(width), aligned(width))
    for vector in edge:
        vector[:] = 0.0
    return work, edge


@kernel
def _kd(teacher, student, lengths, multiroot, temperature, first, last, loss, gradient):
    """Compute sentences first..last - 1 of `kd`; return False if one cannot be certified."""
    words = student.shape[1]
    factor = 1.0 / temperature
    work_t, vectors = _room(words)
    work_s, _ = _room(words)
    scores, flat = student.reshape(-1), gradient.reshape(-1)
    scale = splat(temperature)
    for b in range(first, last):
        length = lengths[b]
        width = -(-length // WIDTH) * WIDTH
        wanted, _, certain = _probabilities(teacher, b, length, multiroot, factor, work_t, vectors)
        if not certain:
            return False
        got, log_partition, certain = _probabilities(student, b, length, multiroot, factor, work_s, vectors)
        if not certain:
            return False
        expected = splat(0.0)
        stop = (b + 1) * words * words
        for h in range(length):
            row = (b * words + h) * words
            for v in range(0, width, WIDTH):
                p = keep(load(wanted, h * width + v), length - v, 0.0)
                expected = expected + weighted(p, load_first(scores, row + v, length - v, 0.0))
                store_row(flat, row + v, scale * (load(got, h * width + v) - p), length - v, stop)
            flat[row + length : row + words] = 0.0
        flat[(b * words + length) * words : stop] = 0.0
        loss[b] = temperature * (temperature * log_partition - total(expected))
        if not abs(loss[b]) < math.inf:
            return False
    return True


@kernel
def _expectations(arcs, lengths, multiroot, first, last, log_partition, marginals, safe):
    """Compute sentences first..last - 1 of `expectations`."""
    words = arcs.shape[1]
    work, vectors = _room(words)
    for b in range(first, last):
        length = lengths[b]
        width = -(-length // WIDTH) * WIDTH
        found, value, certain = _probabilities(arcs, b, length, multiroot, 1.0, work, vectors)
        log_partition[b], safe[b] = value, certain
        marginals[b] = 0.0
        for h in range(length):
            marginals[b, h, :length] = found[h * width : h * width + length]


def kd(
    teacher: Tensor, student: Tensor, lengths: Tensor, multiroot: bool = False, temperature: float = 1.0
) -> tuple[Tensor, Tensor, bool]:
    """Compute the structural loss of all trees, crossing arcs included, and its gradient.

    Arguments and results as in `eisner.kd`. Costs O(N^3) time a sentence and O(N^2) memory a thread.
    """
    dtype = common_dtype(teacher, student)
    loss, gradient = torch.empty(len(student), dtype=torch.float64), torch.empty(student.shape, dtype=dtype)
    arguments = array(teacher, dtype), array(student, dtype), array(lengths, torch.long), bool(multiroot), temperature
    ok = launch(_kd, ranges(len(student), 2.0 * _cost(student)), arguments, (loss, gradient))
    return loss, gradient.to(student.dtype), ok


def expectations(arcs: Tensor, lengths: Tensor, multiroot: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Compute log Z [B], arc marginals [B, N, N] and safe, bool [B]; arguments as in `kd`, scores in float64."""
    log_partition, marginals = torch.empty(len(arcs), dtype=torch.float64), torch.empty(arcs.shape, dtype=torch.float64)
    safe = torch.zeros(len(arcs), dtype=torch.bool)
    arguments = array(arcs), array(lengths, torch.long), bool(multiroot)
    launch(_expectations, ranges(len(arcs), _cost(arcs)), arguments, (log_partition, marginals, safe))
    return log_partition, marginals, safe


def _cost(arcs: Tensor) -> float:
    """Estimate the time for the sentences, in nanoseconds."""
    batch, words, _ = arcs.shape
    return batch * words * (100.0 + 0.1 * words**2)
