"""Compiled sums over the relations of every arc."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .lanes import WIDTH, exp, kernel, largest, load, load_first, maximum, splat, total
from .runtime import array, common_dtype, launch, ranges


@kernel
def _normalisers(scores, temperature, first, last, normalisers):
    """Compute rows first..last - 1 of `normalisers`."""
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


def normalisers(scores: Tensor, temperature: float = 1.0) -> Tensor | None:
    """Compute log sum over relations of exp(scores / temperature), [B, N, N] float64; -inf if all are impossible.

    Args:
        scores: [B, N, N, L], float32 or float64, on the CPU. NaN and +inf affect only their own cell of the result.
        temperature: T.

    Returns None if the kernel does not compile. Costs O(N^2 L) time a sentence.
    """
    rows = array(scores.flatten(0, 2), common_dtype(scores))
    result = torch.empty(scores.shape[:3], dtype=torch.float64)
    over = ranges(len(rows), len(rows) * (30.0 + 0.5 * rows.shape[1]))
    return result if launch(_normalisers, over, (rows, temperature), (result.view(-1),)) else None
