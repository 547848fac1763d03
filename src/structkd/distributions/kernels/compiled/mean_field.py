"""Compiled mean field for second-order parsing from factors, see `MeanFieldDependency.from_factors`.

Sentences are processed one by one, in float64. The field is in log space, so underflow is harmless and impossible arcs
stay impossible. Matrices are padded with 0 to rows of whole vectors and to whole blocks of `_ROWS` rows.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .lanes import WIDTH, aligned_zeros, exp, fma, inner, keep, kernel, load, maximum, splat, spread, store, weighted
from .runtime import array, launch, ranges

#: Factors of h, d and c, each [B, N, r].
Factors = tuple[Tensor, Tensor, Tensor]

_ROWS = 4


@inner
def _product(left, stride, right, width, rows, count, out, out_stride):
    """Compute out[i, :width] = sum over k < count of left[i, k] right[k, :width], for rows in whole blocks."""
    for i in range(0, rows, _ROWS):
        a, b = i * stride, (i + 1) * stride
        c, d = (i + 2) * stride, (i + 3) * stride
        v = 0
        while v + WIDTH < width:
            a0, a1, b0, b1 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            c0, c1, d0, d1 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            at = v
            for k in range(count):
                x, y = load(right, at), load(right, at + WIDTH)
                w = spread(left, a + k)
                a0, a1 = fma(w, x, a0), fma(w, y, a1)
                w = spread(left, b + k)
                b0, b1 = fma(w, x, b0), fma(w, y, b1)
                w = spread(left, c + k)
                c0, c1 = fma(w, x, c0), fma(w, y, c1)
                w = spread(left, d + k)
                d0, d1 = fma(w, x, d0), fma(w, y, d1)
                at += width
            to = i * out_stride + v
            store(out, to, a0)
            store(out, to + WIDTH, a1)
            store(out, to + out_stride, b0)
            store(out, to + out_stride + WIDTH, b1)
            store(out, to + 2 * out_stride, c0)
            store(out, to + 2 * out_stride + WIDTH, c1)
            store(out, to + 3 * out_stride, d0)
            store(out, to + 3 * out_stride + WIDTH, d1)
            v += 2 * WIDTH
        if v < width:
            a0, b0, c0, d0 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            at = v
            for k in range(count):
                x = load(right, at)
                a0, b0 = fma(spread(left, a + k), x, a0), fma(spread(left, b + k), x, b0)
                c0, d0 = fma(spread(left, c + k), x, c0), fma(spread(left, d + k), x, d0)
                at += width
            to = i * out_stride + v
            store(out, to, a0)
            store(out, to + out_stride, b0)
            store(out, to + 2 * out_stride, c0)
            store(out, to + 3 * out_stride, d0)


@inner
def _posterior(field, length, width, posterior, transposed):
    """Compute the softmax of every column, with 0 on the diagonal, and its transpose; 0 in an impossible column."""
    none, one = splat(0.0), splat(1.0)
    for v in range(0, width, WIDTH):
        top = splat(-1e300)  # Finite, so that an impossible column gives exp(-inf) = 0 rather than NaN.
        for k in range(v, length * width, width):
            top = maximum(load(field, k), top)
        sums = none
        for k in range(v, length * width, width):
            x = exp(load(field, k) - top)
            store(posterior, k, x)
            sums = sums + x
        inverse = one / sums
        for k in range(v, length * width, width):
            store(posterior, k, keep(weighted(load(posterior, k), inverse), length - v, 0.0))
    for h in range(length):
        posterior[h * width + h] = 0.0
        for d in range(length):
            transposed[d * width + h] = posterior[h * width + d]


@inner
def _blocks(count, size):
    """Round up to a multiple of `size`."""
    return -(-count // size) * size


@kernel
def _field(arcs, siblings, grandparents, iterations, lengths, first, last, field):
    """Compute sentences first..last - 1 of `field`; factors are [3, B, N, r], with r = 0 if there are none."""
    words, s, g = arcs.shape[1], siblings.shape[3], grandparents.shape[3]
    inner, widest = s + 2 * g, _blocks(words, WIDTH)
    s_width, g_width = _blocks(s, WIDTH), _blocks(g, WIDTH)
    room = _blocks(words, _ROWS)
    square = room * widest
    first_order, scores, message = aligned_zeros(square), aligned_zeros(square), aligned_zeros(square)
    posterior, transposed = aligned_zeros(square), aligned_zeros(square)
    same_head, same_line = aligned_zeros(square), aligned_zeros(square)
    # The rows of third, above and heads are words; those of dependents are factors. heads @ dependents is the message.
    third, above = aligned_zeros(words * s_width), aligned_zeros(words * g_width)
    heads, dependents = np.zeros(room * inner), aligned_zeros((inner + _ROWS) * widest)
    middle = aligned_zeros((g + _ROWS) * widest)
    expected = aligned_zeros(max(room * max(s_width, g_width), (g + _ROWS) * widest))
    for b in range(first, last):
        n = lengths[b]
        width, rows = _blocks(n, WIDTH), _blocks(n, _ROWS)
        for h in range(n):
            for d in range(n):
                first_order[h * width + d] = scores[h * width + d] = arcs[b, h, d]
        # The contributions of repeated indices, per unit of Q, which are subtracted from the sums.
        for h in range(n):
            for k in range(s):
                heads[h * s + k] = siblings[0, b, h, k]
                dependents[k * width + h] = siblings[1, b, h, k] * siblings[2, b, h, k]
                third[h * s_width + k] = siblings[2, b, h, k]
        _product(heads, s, dependents, width, rows, s, same_head, width)
        for h in range(n):
            for k in range(g):
                outer = grandparents[0, b, h, k] * grandparents[2, b, h, k]
                heads[h * 2 * g + k] = dependents[(g + k) * width + h] = outer
                heads[h * 2 * g + g + k] = dependents[k * width + h] = grandparents[1, b, h, k]
                middle[k * width + h] = grandparents[1, b, h, k]
                above[h * g_width + k] = grandparents[0, b, h, k]
        _product(heads, 2 * g, dependents, width, rows, 2 * g, same_line, width)
        for h in range(n):
            for k in range(s):
                dependents[k * width + h] = siblings[1, b, h, k]
            for k in range(g):
                heads[h * inner + s + k] = grandparents[0, b, h, k]
                dependents[(s + g + k) * width + h] = grandparents[2, b, h, k]
        below = dependents[(s + g) * width :]
        for _ in range(iterations):
            _posterior(scores, n, width, posterior, transposed)
            if s:
                _product(posterior, width, third, s_width, rows, n, expected, s_width)
                for h in range(n):
                    for k in range(s):
                        heads[h * inner + k] = siblings[0, b, h, k] * expected[h * s_width + k]
            if g:
                _product(transposed, width, above, g_width, rows, n, expected, g_width)
                for h in range(n):
                    for k in range(g):
                        heads[h * inner + s + g + k] = grandparents[1, b, h, k] * expected[h * g_width + k]
                _product(below, width, transposed, width, _blocks(g, _ROWS), n, expected, width)
                for k in range(0, g * width, WIDTH):
                    store(dependents, s * width + k, load(middle, k) * load(expected, k))
            _product(heads, inner, dependents, width, rows, inner, message, width)
            for k in range(0, n * width, WIDTH):
                x = load(first_order, k) + load(message, k) - load(posterior, k) * load(same_head, k)
                store(scores, k, x - load(transposed, k) * load(same_line, k))
            for d in range(n):
                scores[d * width + d] = first_order[d * width + d]
        field[b] = 0.0
        for h in range(n):
            field[b, h, :n] = scores[h * width : h * width + n]
    return True


def field(
    arcs: Tensor, siblings: Factors | None, grandparents: Factors | None, lengths: Tensor, iterations: int
) -> Tensor | None:
    """Compute F after the last iteration of `MeanFieldDependency.from_factors`, [B, N, N] float64, 0 in the padding.

    Args:
        arcs: [B, N, N]; -inf for impossible arcs.
        siblings, grandparents: three tensors [B, N, r], or None.
        lengths: LongTensor [B], 1..N. iterations: T.

    Returns None if the kernel does not compile. Costs O(T N^2 r) time a sentence and O(N (N + r)) memory a thread.
    """
    batch, words, _ = arcs.shape
    none = (arcs.new_empty(batch, words, 0),) * 3
    factors = [array(torch.stack(triple or none)) for triple in (siblings, grandparents)]
    result = torch.empty(batch, words, words, dtype=torch.float64)
    rank = sum(factor.shape[3] for factor in factors)
    over = ranges(batch, 0.2 * batch * (iterations + 1) * words * words * rank)
    arguments = array(arcs), *factors, iterations, array(lengths, torch.long)
    return result if launch(_field, over, arguments, (result,)) else None
