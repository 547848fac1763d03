"""Compiled CPU kernels for students that parse by labelling words, in float64 probability space.

Entered through `compiled`. One word at a time: what its labels name of the teacher, its softmax, the loss and the
gradient. Nothing is as large as the logits but the gradient.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import numpy as np
from numba import njit

from .compiled_lanes import (
    WIDTH,
    aligned_zeros,
    compiled,
    exp,
    fma,
    largest,
    load,
    load_first,
    maximum,
    splat,
    store,
    store_first,
    total,
    weighted,
)

_inner = njit(error_model="numpy", nogil=True)


@compiled
def relation_normalisers(scores, temperature, first, last, normalisers):
    """Rows first..last - 1 of `compiled.relation_normalisers`."""
    size = scores.shape[1]
    flat = scores.reshape(-1)
    scale = splat(1.0 / temperature)
    whole = size - size % WIDTH
    sums = np.empty(last - first)
    for row in range(first, last):
        start = row * size
        rest = load_first(flat, start + whole, size - whole, -math.inf)
        top = rest
        for v in range(start, start + whole, WIDTH):
            top = maximum(load(flat, v), top)
        best = largest(top)
        if best == -math.inf:
            best = 0.0
        down = splat(best)
        x = exp((rest - down) * scale)
        for v in range(start, start + whole, WIDTH):
            x = x + exp((load(flat, v) - down) * scale)
        normalisers[row] = best / temperature
        sums[row - first] = total(x)
    for row in range(first, last):
        normalisers[row] += math.log(sums[row - first])
    return True


@_inner
def _relations_of(scores, row, count, scale, mass, out, at):
    """out[at : at + count] = mass * the softmax of a row of scores; the rest of the last vector is overwritten, too."""
    start = row * count
    whole = count - count % WIDTH
    rest = load_first(scores, start + whole, count - whole, -math.inf)
    top = rest
    for v in range(0, whole, WIDTH):
        top = maximum(load(scores, start + v), top)
    down = splat(largest(top))
    rest = exp((rest - down) * scale)
    sums = rest
    for v in range(0, whole, WIDTH):
        x = exp((load(scores, start + v) - down) * scale)
        store(out, at + v, x)
        sums = sums + x
    share = splat(mass / total(sums))
    for v in range(0, whole, WIDTH):
        store(out, at + v, load(out, at + v) * share)
    if whole < count:
        store(out, at + whole, rest * share)


@compiled
def head_labels_kd(
    arcs, scores, logits, heads, relations, by_word, lengths, least, temperature, first, last, loss, gradient
):
    """Sentences first..last - 1 of `compiled.head_labels_kd`; whether the results can be relied on."""
    words, size = logits.shape[1], logits.shape[2]
    count = scores.shape[1]
    kinds = max(count, 1)
    width = -(-kinds // WIDTH) * WIDTH
    scored, own, named, flat = scores.reshape(-1), logits.reshape(-1), heads.reshape(-1), gradient.reshape(-1)
    # P(arc) P(relation | arc) by head and relation, 0 in the last cell, which is no label's; the word that a head's
    # are of; the last word with a label for the cell, and how many of its labels are for it
    nowhere = words * width
    cells, known = aligned_zeros(nowhere + 1), np.full(words, -1)
    seen, number = np.full(nowhere, -1), np.empty(nowhere + 1, np.int64)
    place = np.empty(size, np.uint64)  # a signed position would be looked at for whether it counts from the end
    target, power = aligned_zeros(size), aligned_zeros(size)
    factor, none, lowest = 1.0 / temperature, splat(0.0), -math.inf
    scale = splat(factor)
    for b in range(first, last):
        length = lengths[b]
        value = 0.0
        for d in range(length):
            word = b * words + d
            start = word * size
            of = start if by_word else 0
            shared = False
            for k in range(size):
                h = np.int64(named[np.uint64(start + k)])
                if h < 0 or h >= length:
                    place[k] = nowhere
                    target[k] = 0.0
                    continue
                if known[np.uint64(h)] != word:
                    known[h] = word
                    mass = arcs[b, h, d]
                    if count == 0:
                        cells[h * width] = mass
                    elif mass == 0.0:
                        cells[h * width : (h + 1) * width] = 0.0
                    else:
                        _relations_of(scored, (b * words + h) * words + d, count, scale, mass, cells, h * width)
                relation = 0
                if count > 0:
                    relation = relations[np.uint64(of + k)]
                    if relation < 0 or relation >= count:
                        return False
                cell = np.uint64(h * width + relation)
                shared |= seen[cell] == word
                seen[cell] = word
                place[k] = cell
                target[k] = cells[cell]
            if shared:
                for k in range(size):
                    number[place[k]] = 0
                for k in range(size):
                    number[place[k]] += 1
                for k in range(size):
                    target[k] /= number[place[k]]
            covered, top = none, splat(lowest)
            for v in range(0, size, WIDTH):
                covered = covered + load(target, v)
                top = maximum(load_first(own, start + v, size - v, lowest), top)
            mass, best = total(covered), largest(top)
            if not mass < 1.5 or best == lowest:
                return False
            if mass < least:
                flat[start : start + size] = 0.0
                continue
            down = splat(best)
            sums = none
            for v in range(0, size, WIDTH):
                x = exp((load_first(own, start + v, size - v, lowest) - down) * scale)
                store(power, v, x)
                sums = sums + x
            normal = total(sums)
            expected, renormalised, inverse = none, splat(1.0 / mass), splat(1.0 / normal)
            for v in range(0, size, WIDTH):
                p = load(target, v) * renormalised
                expected = expected + weighted(p, load_first(own, start + v, size - v, 0.0))
                store_first(flat, start + v, fma(load(power, v), inverse, none - p), size - v)
            value += best * factor + math.log(normal) - factor * total(expected)
        flat[(b * words + length) * size : (b + 1) * words * size] = 0.0
        loss[b] = temperature * temperature * value
        if not abs(loss[b]) < math.inf:
            return False
    return True
