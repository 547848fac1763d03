"""Compiled inside-outside for flat typed spans, in log space over words and in probability space over types."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import torch
from torch import Tensor

from .lanes import (
    WIDTH,
    aligned,
    exp,
    inner,
    keep,
    kernel,
    largest,
    load,
    load_first,
    maximum,
    splat,
    store_first,
    total,
)
from .runtime import array, launch, ranges


@inner
def _log_sum(left, at, right, to, count, alone):
    """Return log(exp(alone) + sum over k < count of exp(left[at + k] + right[to + k])) for a finite `alone`."""
    top = splat(alone)
    for k in range(0, count, WIDTH):
        x = keep(load(left, at + k) + load(right, to + k), count - k, -math.inf)
        top = maximum(x, top)
    shift = largest(top)
    sums = splat(0.0)
    for k in range(0, count, WIDTH):
        x = keep(load(left, at + k) + load(right, to + k), count - k, -math.inf)
        sums = sums + exp(x - splat(shift))
    return shift + math.log(total(sums) + math.exp(alone - shift))


@kernel
def _expectations(spans, lengths, first, last, log_partition, marginals, outside, safe):
    """Compute sentences first..last - 1 of `expectations`.

    Types are summed in probability space, after subtracting the score of the span's best type. Prefixes and suffixes
    are summed in log space.
    """
    words, types = spans.shape[1], spans.shape[3]
    scores, flat = spans.reshape(-1), marginals.reshape(-1)
    # by_start[i, j - i] and by_end[j, i] hold the log-sum-exp over types, best[i, j - i] the best score.
    row = -(-words // WIDTH) * WIDTH
    by_start, by_end, best = aligned(words * row), aligned(words * row), aligned(words * row)
    prefix, suffix = aligned(words + 1), aligned(words + 1)
    for b in range(first, last):
        length = lengths[b]
        marginals[b] = 0.0
        for i in range(length):
            for j in range(i, length):
                cell = ((b * words + i) * words + j) * types
                top = splat(-math.inf)
                for v in range(0, types, WIDTH):
                    top = maximum(load_first(scores, cell + v, types - v, -math.inf), top)
                shift = largest(top)
                if shift == -math.inf:
                    shift = 0.0
                sums = splat(0.0)
                for v in range(0, types, WIDTH):
                    x = exp(load_first(scores, cell + v, types - v, -math.inf) - splat(shift))
                    store_first(flat, cell + v, x, types - v)
                    sums = sums + x
                weight = total(sums)
                logarithm = -math.inf if weight == 0.0 else shift + math.log(weight)
                best[i * row + j - i] = shift
                by_start[i * row + j - i] = logarithm
                by_end[j * row + i] = logarithm
        prefix[0] = 0.0
        for end in range(length):
            prefix[end + 1] = _log_sum(prefix, 0, by_end, end * row, end + 1, prefix[end])
        suffix[length] = 0.0
        for start in range(length - 1, -1, -1):
            suffix[start] = _log_sum(suffix, start + 1, by_start, start * row, length - start, suffix[start + 1])
        value = prefix[length]
        log_partition[b] = value
        safe[b] = abs(value) < math.inf
        for i in range(length):
            outside[b, i] = math.exp(prefix[i] + suffix[i + 1] - value)
            for j in range(i, length):
                cell = ((b * words + i) * words + j) * types
                factor = math.exp(best[i * row + j - i] + prefix[i] + suffix[j + 1] - value)
                for k in range(cell, cell + types):
                    flat[k] *= factor
        outside[b, length:] = 0.0


def expectations(spans: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute log Z [B], span marginals [B, N, N, L], marginals [B, N] of words in no span, and safe, bool [B].

    Args:
        spans: [B, N, N, L] float64 log-odds of the span from word i to word j >= i bearing type l; cells with j < i are
            ignored. lengths: LongTensor [B].

    Costs O(N^2 L) time a sentence.
    """
    batch, words, _, types = spans.shape
    log_partition = torch.empty(batch, dtype=torch.float64)
    marginals = torch.empty(batch, words, words, types, dtype=torch.float64)
    outside = torch.empty(batch, words, dtype=torch.float64)
    safe = torch.zeros(batch, dtype=torch.bool)
    over = ranges(batch, batch * words * words * (20.0 + types))
    arguments = array(spans), array(lengths, torch.long)
    launch(_expectations, over, arguments, (log_partition, marginals, outside, safe))
    return log_partition, marginals, outside, safe
