"""Compiled inside-outside for projective trees (Eisner, 1996), in float64 probability space.

Eight sentences of about equal lengths are processed at a time, one in each lane (for a distillation loss, four pairs of
teacher and student). Every word has exactly one head, so its column of arc scores is shifted by its log-sum-exp over
heads. If numbers still leave the range of float64, all columns are shifted by one more constant, found from the spans
that did not. A number that underflows in a span is below 1e-300 and enters an arc's probability times the weight
outside the span. If weights inside and outside stay below 1 / `_SMALL` and that of all trees above `_SMALL`, no error
exceeds 1e-90. Sums are checked because, unlike maxima, they keep a NaN.

Charts hold cells of `WIDTH` numbers:

    arc[h, d]        the arc's exponentiated score; roots on the diagonal
    half[h, d]       spans from h to d whose arc h -> d is the outermost (incomplete spans)
    whole[h, e + 1]  spans headed by their left end h, up to e >= h (complete spans)
    whole[h, s]      spans headed by their right end h, from s <= h

The middle of both kinds of `half` over words i..j is then the dot product of two rows of `whole`, i and j.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit
from torch import Tensor

from .lanes import WIDTH, aligned, exp, fma, inlined, inner, kernel, lane, load, maximum, splat, store
from .runtime import array, common_dtype, launch, ranges

_SMALL = 1e-100
# Weights of all trees outside _NEAR..1 / _NEAR are rescaled; from those outside _FAR..1 / _FAR, no factor can be found.
_NEAR, _FAR = 1e-60, 1e-280
_LOWEST, _TINY = -1e300, 1e-300

# Functions to inline before compilation. Others are optimized once for themselves and again for every caller.
_spliced = njit(error_model="numpy", nogil=True, inline="always")


@inlined
def _dot(left, at, step, right, to, stride, count):
    """Sum left[at + k * step] * right[to + k * stride], cells of `WIDTH` numbers, over k < count."""
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    for _ in range(count // 4):
        a = fma(load(left, at), load(right, to), a)
        b = fma(load(left, at + step), load(right, to + stride), b)
        c = fma(load(left, at + 2 * step), load(right, to + 2 * stride), c)
        d = fma(load(left, at + 3 * step), load(right, to + 3 * stride), d)
        at += 4 * step
        to += 4 * stride
    for _ in range(count % 4):
        a = fma(load(left, at), load(right, to), a)
        at += step
        to += stride
    return (a + b) + (c + d)


@inner
def _inside(words, arc, half, whole, weights):
    """Fill `half` and `whole`, and weights[width] with the summed weight of all spans of a width."""
    row = (words + 1) * WIDTH  # of `whole`; those of the others are `words` cells
    arcs = words * WIDTH
    for i in range(words):
        store(whole, i * row + i * WIDTH, splat(1.0))
        store(whole, i * row + (i + 1) * WIDTH, splat(1.0))
    for width in range(1, words):
        weight = splat(0.0)
        for i in range(words - width):
            j = i + width
            left, right = i * row, j * row
            middle = _dot(whole, left + (i + 1) * WIDTH, WIDTH, whole, right + (i + 1) * WIDTH, WIDTH, width)
            to_right, to_left = i * arcs + j * WIDTH, j * arcs + i * WIDTH
            store(half, to_right, middle * load(arc, to_right))
            store(half, to_left, middle * load(arc, to_left))
            # i -> k, k's own words up to j; and i's own words up to k, k <- j
            column = (i + 1) * row + (j + 1) * WIDTH
            x = _dot(half, i * arcs + (i + 1) * WIDTH, WIDTH, whole, column, row, width)
            y = _dot(half, to_left, WIDTH, whole, left + i * WIDTH, row, width)
            store(whole, left + (j + 1) * WIDTH, x)
            store(whole, right + i * WIDTH, y)
            weight = weight + x + y
        store(weights, width * WIDTH, weight)


@inner
def _partition(words, lengths, multiroot, arc, whole, prefix, rooted, partition):
    """Attach the root's children and compute the weight of all trees, by lane.

    With several roots, prefix[e] is the weight of all trees of the first e words. rooted[r] is the same up to the left
    edge of r's span, including that span's left part and r's root arc.
    """
    row, diagonal = (words + 1) * WIDTH, (words + 1) * WIDTH
    if multiroot:
        store(prefix, 0, splat(1.0))
        for e in range(words):
            child = _dot(prefix, 0, WIDTH, whole, e * row, WIDTH, e + 1)
            store(rooted, e * WIDTH, child * load(arc, e * diagonal))
            store(prefix, (e + 1) * WIDTH, _dot(rooted, 0, WIDTH, whole, (e + 1) * WIDTH, row, e + 1))
        for k in range(WIDTH):
            partition[k] = prefix[lengths[k] * WIDTH + k]
    else:
        for k in range(WIDTH):
            partition[k] = 0.0
            for r in range(lengths[k]):
                left, right = whole[r * row + k], whole[r * row + lengths[k] * WIDTH + k]
                partition[k] += left * arc[r * diagonal + k] * right


@inner
def _roots(words, lengths, multiroot, arc, whole, prefix, rooted, partition, suffix, around):
    """Compute the weights outside the spans of root words, divided by that of all trees, in `around`; 0 elsewhere.

    Replace the root scores in `arc` by probabilities. Return the summed weight of prefixes and suffixes.
    """
    row, diagonal = (words + 1) * WIDTH, (words + 1) * WIDTH
    around[: words * row] = 0.0
    weight = splat(0.0)
    if not multiroot:
        for k in range(WIDTH):
            end = lengths[k] * WIDTH + k
            for r in range(lengths[k]):
                left, right = whole[r * row + k], whole[r * row + end]
                root = arc[r * diagonal + k] / partition[k]
                around[r * row + k] = root * right
                around[r * row + end] = root * left
                arc[r * diagonal + k] = root * left * right
        return weight
    # suffix[e]: the weight of all words after the first e, divided by that of all trees
    suffix[: (words + 1) * WIDTH] = 0.0
    for k in range(WIDTH):
        suffix[lengths[k] * WIDTH + k] = 1.0 / partition[k]
    for r in range(words - 1, -1, -1):
        after = splat(0.0)
        for e in range(r + 1, words + 1):
            ahead = load(suffix, e * WIDTH)
            after = fma(ahead, load(whole, r * row + e * WIDTH), after)
            store(around, r * row + e * WIDTH, ahead * load(rooted, r * WIDTH))
        before = after * load(arc, r * diagonal)
        for s in range(r + 1):
            store(around, r * row + s * WIDTH, before * load(prefix, s * WIDTH))
            store(suffix, s * WIDTH, fma(before, load(whole, r * row + s * WIDTH), load(suffix, s * WIDTH)))
        store(arc, r * diagonal, after * load(rooted, r * WIDTH))
    for e in range(0, (words + 1) * WIDTH, WIDTH):
        weight = weight + load(prefix, e) + load(suffix, e)
    return weight


@inner
def _outside(words, arc, half, whole, around, middles):
    """Replace `arc` by probabilities, from the widest spans to the narrowest; return the summed outside weight.

    around[h, ...] are the weights outside `whole`, over Z, to which the roots' contributions have been added;
    middles[i, j] = middles[j, i] those outside the middle of words i..j.
    """
    row, arcs = (words + 1) * WIDTH, words * WIDTH
    weight = splat(0.0)
    for width in range(words - 1, 0, -1):
        for i in range(words - width):
            j = i + width
            left, right = i * row, j * row
            # whole spans over i..j, headed by i: the right part of a longer one, or the left side of a middle
            here = left + (j + 1) * WIDTH
            x = load(around, here)
            x = x + _dot(around, (j + 1) * WIDTH, row, half, i * WIDTH, arcs, i)
            count, beyond = words - 1 - j, (j + 1) * row
            x = x + _dot(middles, i * arcs + (j + 1) * WIDTH, WIDTH, whole, beyond + (j + 1) * WIDTH, row, count)
            store(around, here, x)
            # headed by j
            here = right + i * WIDTH
            y = load(around, here)
            y = y + _dot(around, beyond + i * WIDTH, row, half, (j + 1) * arcs + j * WIDTH, arcs, count)
            y = y + _dot(middles, j * arcs, WIDTH, whole, i * WIDTH, row, i)
            store(around, here, y)
            weight = weight + x + y
            # half spans of the arcs i -> j and j -> i
            to_right, to_left = i * arcs + j * WIDTH, j * arcs + i * WIDTH
            x = _dot(around, left + (j + 1) * WIDTH, WIDTH, whole, right + (j + 1) * WIDTH, WIDTH, words - j)
            y = _dot(around, right, WIDTH, whole, left, WIDTH, i + 1)
            middle = fma(x, load(arc, to_right), y * load(arc, to_left))
            store(middles, to_right, middle)
            store(middles, to_left, middle)
            store(arc, to_right, x * load(half, to_right))
            store(arc, to_left, y * load(half, to_left))
    return weight


@inner
def _fill(arcs, sentence, length, words, factor, k, arc):
    """Store a sentence's tempered scores to lane k of `arc`. Words in the padding are roots with score 0."""
    for h in range(words):
        at = h * words * WIDTH + k
        for d in range(words):
            if h < length and d < length:
                arc[at] = arcs[sentence, h, d] * factor
            else:
                arc[at] = 0.0 if h == d else -math.inf
            at += WIDTH


@inner
def _normalise(words, arc, shifts):
    """Divide exp of the scores by each column's sum; store the sum of the sums' logarithms to `shifts`, by lane."""
    row = words * WIDTH
    shift, product = splat(0.0), splat(1.0)
    shifts[:] = 0.0
    for d in range(words):
        # Not -inf, even if all heads are impossible.
        top = splat(_LOWEST)
        for cell in range(d * WIDTH, words * row, row):
            top = maximum(load(arc, cell), top)
        sums = splat(0.0)
        for cell in range(d * WIDTH, words * row, row):
            x = exp(load(arc, cell) - top)
            store(arc, cell, x)
            sums = sums + x
        sums = maximum(splat(_TINY), sums)
        inverse = splat(1.0) / sums
        for cell in range(d * WIDTH, words * row, row):
            store(arc, cell, load(arc, cell) * inverse)
        shift, product = shift + top, product * sums
        if d % 16 == 15 or d == words - 1:
            for k in range(WIDTH):
                shifts[k] += math.log(lane(product, k))
            product = splat(1.0)
    store(shifts, 0, load(shifts, 0) + shift)


@_spliced
def _spans(words, lengths, multiroot, arc, half, whole, weights, prefix, rooted, partition, shifts):
    """Compute inside weights, scaled into the range of float64 by a constant for every word if possible."""
    row = words * WIDTH
    factors = aligned(WIDTH)
    for attempt in range(4):
        _inside(words, arc, half, whole, weights)
        _partition(words, lengths, multiroot, arc, whole, prefix, rooted, partition)
        rescaled = False
        for k in range(WIDTH):
            factors[k] = 1.0
            if _FAR < partition[k] < 1.0 / _FAR:
                if attempt < 3 and not 1.0 / _NEAR > partition[k] > _NEAR:
                    factors[k] = math.exp(-math.log(partition[k]) / lengths[k])
                    rescaled = True
            elif attempt < 3:
                # Estimate the constant from the widest spans whose weight is in range.
                width = lengths[k] - 1
                while width > 0 and not _FAR < weights[width * WIDTH + k] < 1.0 / _FAR:
                    width -= 1
                if width > 0:
                    factors[k] = math.exp(-math.log(weights[width * WIDTH + k]) / width)
                    rescaled = True
        if not rescaled:
            return
        factor = load(factors, 0)
        for cell in range(0, words * row, WIDTH):
            store(arc, cell, load(arc, cell) * factor)
        for k in range(WIDTH):
            shifts[k] -= lengths[k] * math.log(factors[k])


@_spliced
def _probabilities(
    words, lengths, multiroot, arc, half, whole, around, middles, weights, vectors, partition, shifts, safe
):
    """Replace scores in `arc` by probabilities; compute log Z, in `shifts`, and whether both are certified."""
    _normalise(words, arc, shifts)
    prefix, rooted, suffix = vectors[0], vectors[1], vectors[2]
    _spans(words, lengths, multiroot, arc, half, whole, weights, prefix, rooted, partition, shifts)
    weight = _roots(words, lengths, multiroot, arc, whole, prefix, rooted, partition, suffix, around)
    weight = weight + _outside(words, arc, half, whole, around, middles)
    for width in range(1, words):
        weight = weight + load(weights, width * WIDTH)
    for k in range(WIDTH):
        shifts[k] += math.log(partition[k])
        safe[k] = partition[k] > _SMALL and lane(weight, k) < 1.0 / _SMALL and abs(shifts[k]) < math.inf


@kernel
def _kd(teacher, student, lengths, order, multiroot, temperature, first, last, loss, gradient):
    """Compute sentences order[first..last - 1] of `kd`; return False if one cannot be certified.

    Teachers are in the first half of the lanes, their students in the second.
    """
    half_width = WIDTH // 2
    factor = 1.0 / temperature
    longest = 0
    for n in range(first, last):
        longest = max(longest, lengths[order[n]])
    arc, half, middles, whole, around, weights, vectors = _charts(longest)
    partition, shifts, safe = aligned(WIDTH), aligned(WIDTH), np.empty(WIDTH, np.bool_)
    block = np.empty(WIDTH, np.int64)
    for start in range(first, last, half_width):
        words = 1
        for k in range(half_width):
            # Lanes without a sentence repeat the last one.
            b = order[min(start + k, last - 1)]
            block[k] = block[k + half_width] = lengths[b]
            words = max(words, lengths[b])
        for k in range(half_width):
            b = order[min(start + k, last - 1)]
            _fill(teacher, b, lengths[b], words, factor, k, arc)
            _fill(student, b, lengths[b], words, factor, k + half_width, arc)
        _probabilities(
            words, block, multiroot, arc, half, whole, around, middles, weights, vectors, partition, shifts, safe
        )
        for k in range(WIDTH):
            if not safe[k]:
                return False
        for k in range(min(half_width, last - start)):
            b = order[start + k]
            length = lengths[b]
            expected = 0.0
            for h in range(length):
                at = h * words * WIDTH + k
                for d in range(length):
                    wanted = arc[at]
                    if wanted != 0.0:
                        expected += wanted * student[b, h, d]
                    gradient[b, h, d] = temperature * (arc[at + half_width] - wanted)
                    at += WIDTH
                gradient[b, h, length:] = 0.0
            gradient[b, length:] = 0.0
            loss[b] = temperature * (temperature * shifts[k + half_width] - expected)
            if not abs(loss[b]) < math.inf:
                return False
    return True


@kernel
def _expectations(arcs, lengths, order, multiroot, first, last, log_partition, marginals, safe):
    """Compute sentences order[first..last - 1] of `expectations`."""
    longest = 0
    for n in range(first, last):
        longest = max(longest, lengths[order[n]])
    arc, half, middles, whole, around, weights, vectors = _charts(longest)
    partition, shifts, certified = aligned(WIDTH), aligned(WIDTH), np.empty(WIDTH, np.bool_)
    block = np.empty(WIDTH, np.int64)
    for start in range(first, last, WIDTH):
        words = 1
        for k in range(WIDTH):
            block[k] = lengths[order[min(start + k, last - 1)]]
            words = max(words, block[k])
        for k in range(WIDTH):
            _fill(arcs, order[min(start + k, last - 1)], block[k], words, 1.0, k, arc)
        _probabilities(
            words, block, multiroot, arc, half, whole, around, middles, weights, vectors, partition, shifts, certified
        )
        for k in range(min(WIDTH, last - start)):
            b, length = order[start + k], block[k]
            log_partition[b], safe[b] = shifts[k], certified[k]
            for h in range(length):
                at = h * words * WIDTH + k
                for d in range(length):
                    marginals[b, h, d] = arc[at]
                    at += WIDTH
                marginals[b, h, length:] = 0.0
            marginals[b, length:] = 0.0


@inlined
def _best_dot(left, at, step, right, to, stride, count):
    """Return the maximum of left[at + k * step] + right[to + k * stride], cells, over k < count."""
    a = b = splat(-math.inf)
    for _ in range(count // 2):
        a = maximum(load(left, at) + load(right, to), a)
        b = maximum(load(left, at + step) + load(right, to + stride), b)
        at += 2 * step
        to += 2 * stride
    if count % 2:
        a = maximum(load(left, at) + load(right, to), a)
    return maximum(a, b)


@inner
def _best_inside(words, arc, half, whole):
    """Compute `_inside` with maxima and sums of scores in place of sums and products of weights."""
    row = (words + 1) * WIDTH  # of `whole`; those of the others are `words` cells
    arcs = words * WIDTH
    for i in range(words):
        store(whole, i * row + i * WIDTH, splat(0.0))
        store(whole, i * row + (i + 1) * WIDTH, splat(0.0))
    for width in range(1, words):
        for i in range(words - width):
            j = i + width
            left, right = i * row, j * row
            middle = _best_dot(whole, left + (i + 1) * WIDTH, WIDTH, whole, right + (i + 1) * WIDTH, WIDTH, width)
            to_right, to_left = i * arcs + j * WIDTH, j * arcs + i * WIDTH
            store(half, to_right, middle + load(arc, to_right))
            store(half, to_left, middle + load(arc, to_left))
            column = (i + 1) * row + (j + 1) * WIDTH
            x = _best_dot(half, i * arcs + (i + 1) * WIDTH, WIDTH, whole, column, row, width)
            y = _best_dot(half, to_left, WIDTH, whole, left + i * WIDTH, row, width)
            store(whole, left + (j + 1) * WIDTH, x)
            store(whole, right + i * WIDTH, y)


@inner
def _best_split(left, at, right, to, stride, count):
    """Find the k < count that maximizes left[at + k * WIDTH] + right[to + k * stride], numbers of one lane."""
    best, found = -math.inf, 0
    for k in range(count):
        x = left[at + k * WIDTH] + right[to + k * stride]
        if x > best:
            best, found = x, k
    return found


@inner
def _best_roots(words, length, multiroot, k, arc, whole, stack, heads):
    """Push the spans (head, edge) of the root words of lane k's best tree on the stack; return their number."""
    row = (words + 1) * WIDTH
    if not multiroot:
        best, root = -math.inf, -1
        for r in range(length):
            x = whole[r * row + k] + arc[r * row + k] + whole[r * row + length * WIDTH + k]
            if x > best:
                best, root = x, r
        if root < 0:
            return 0
        stack[0], stack[1] = (root, 0), (root, length)
        heads[root] = root
        return 2
    done, rooted = np.zeros(length + 1), np.empty(length)
    begin, last = np.zeros(length, np.int64), np.zeros(length + 1, np.int64)
    for e in range(length):
        rooted[e], done[e + 1] = -math.inf, -math.inf
        for s in range(e + 1):
            x = done[s] + whole[e * row + s * WIDTH + k]
            if x > rooted[e]:
                rooted[e], begin[e] = x, s
        rooted[e] += arc[e * row + k]
        for r in range(e + 1):
            x = rooted[r] + whole[r * row + (e + 1) * WIDTH + k]
            if x > done[e + 1]:
                done[e + 1], last[e + 1] = x, r
    size, end = 0, length if done[length] > -math.inf else 0
    while end > 0:
        root = last[end]
        stack[size], stack[size + 1] = (root, begin[root]), (root, end)
        heads[root] = root
        size += 2
        end = begin[root]
    return size


@kernel
def _best_trees(arcs, lengths, order, multiroot, first, last, heads):
    """Compute sentences order[first..last - 1] of `best_trees`; all heads are -1 at first."""
    longest = 0
    for n in range(first, last):
        longest = max(longest, lengths[order[n]])
    cells = longest * longest * WIDTH
    arc, half, whole = aligned(cells), aligned(cells), aligned(cells + longest * WIDTH)
    stack = np.empty((2 * longest + 2, 2), np.int64)
    for start in range(first, last, WIDTH):
        words = 1
        for k in range(WIDTH):
            words = max(words, lengths[order[min(start + k, last - 1)]])
        for k in range(WIDTH):
            b = order[min(start + k, last - 1)]
            _fill(arcs, b, lengths[b], words, 1.0, k, arc)
        _best_inside(words, arc, half, whole)
        row, column = (words + 1) * WIDTH, words * WIDTH
        for k in range(min(WIDTH, last - start)):
            b = order[start + k]
            size = _best_roots(words, lengths[b], multiroot, k, arc, whole, stack, heads[b])
            while size > 0:
                size -= 1
                h, edge = stack[size]
                if edge == h or edge == h + 1:
                    continue
                # d is h's outermost dependent in the span, and t the split between the words of h and d.
                d = edge if edge < h else h + 1
                at = h * column + d * WIDTH + k
                d += _best_split(half, at, whole, d * row + edge * WIDTH + k, row, abs(edge - h) - (edge > h))
                heads[b, d] = h
                low, high = min(h, d), max(h, d)
                t = low + 1
                t += _best_split(whole, low * row + t * WIDTH + k, whole, high * row + t * WIDTH + k, WIDTH, high - low)
                stack[size], stack[size + 1], stack[size + 2] = (h, t), (d, t), (d, edge)
                size += 3
    return True


@inner
def _charts(words):
    cells = words * words * WIDTH
    wide = words * (words + 1) * WIDTH
    edge = (words + 1) * WIDTH
    vectors = (aligned(edge), aligned(edge), aligned(edge))
    return aligned(cells), aligned(cells), aligned(cells), aligned(wide), aligned(wide), aligned(edge), vectors


def kd(
    teacher: Tensor, student: Tensor, lengths: Tensor, multiroot: bool = False, temperature: float = 1.0
) -> tuple[Tensor, Tensor, bool]:
    """Compute the structural loss of projective trees, and its gradient.

    Args:
        teacher, student: arc scores [B, N, N]; cell [b, h, d] for head h and dependent d, root arcs on the diagonal.
        lengths: LongTensor [B], 1..N.
        multiroot: whether several words may hang from the root, rather than exactly one.
        temperature: T.

    Returns:
        T^2 (log Z_s - <P_t, s_s / T>), [B] float64; T (P_s - P_t), [B, N, N] in the student's dtype; and whether they
        can be relied on.

    Costs O(N^3) time a sentence and O(N^2) memory a thread.
    """
    dtype = common_dtype(teacher, student)
    loss, gradient = torch.empty(len(student), dtype=torch.float64), torch.empty(student.shape, dtype=dtype)
    arguments = array(teacher, dtype), array(student, dtype), *_longest_first(lengths), bool(multiroot), temperature
    ok = launch(_kd, ranges(len(student), _cost(student), least=4, pieces=4), arguments, (loss, gradient))
    return loss, gradient.to(student.dtype), ok


def expectations(arcs: Tensor, lengths: Tensor, multiroot: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Compute log Z [B], arc marginals [B, N, N] and safe, bool [B]; arguments as in `kd`, scores in float64."""
    log_partition, marginals = torch.empty(len(arcs), dtype=torch.float64), torch.empty(arcs.shape, dtype=torch.float64)
    safe = torch.zeros(len(arcs), dtype=torch.bool)
    arguments = array(arcs), *_longest_first(lengths), bool(multiroot)
    over = ranges(len(arcs), 0.5 * _cost(arcs), least=8, pieces=4)
    launch(_expectations, over, arguments, (log_partition, marginals, safe))
    return log_partition, marginals, safe


def best_trees(arcs: Tensor, lengths: Tensor, multiroot: bool = False) -> Tensor | None:
    """Find the best trees, LongTensor [B, N]; -1 in the padding, and throughout a sentence that has none.

    Arguments as in `kd`. None if it does not compile. Costs O(N^3) time a sentence and O(N^2) memory a thread.
    """
    heads = torch.full(arcs.shape[:2], -1)
    arguments = array(arcs, common_dtype(arcs)), *_longest_first(lengths), bool(multiroot)
    over = ranges(len(arcs), 0.2 * _cost(arcs), least=8, pieces=4)
    return heads if launch(_best_trees, over, arguments, (heads,)) else None


def _longest_first(lengths: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the lengths, and the order of sentences from the longest to the shortest."""
    count = array(lengths, torch.long)
    return count, count.argsort()[::-1].copy()


def _cost(arcs: Tensor) -> float:
    """Estimate the time for the sentences, in nanoseconds."""
    return len(arcs) * (500.0 + 0.8 * arcs.shape[1] ** 3)
