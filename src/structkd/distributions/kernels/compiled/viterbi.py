"""Compiled search for the best label sequences of chains with the same transitions at all words (Viterbi, 1967)."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .lanes import kernel
from .runtime import array, launch, ranges


@kernel
def _best(unary, by_previous, start, end, lengths, first, last, values, labels):
    """Search sentences first..last - 1. Rows of `by_previous` are scores of the next label, which the compiler adds
    and compares several at a time."""
    words, size = unary.shape[1:]
    for i in range(size):
        if math.isnan(start[i]) or math.isnan(end[i]) or np.isnan(by_previous[i]).any():
            return False
    reached = np.empty((words, size))
    for b in range(first, last):
        length = lengths[b]
        for j in range(size):
            if math.isnan(unary[b, 0, j]):
                return False
            reached[0, j] = unary[b, 0, j] + start[j]
        for n in range(1, length):
            before, here = reached[n - 1], reached[n]
            here[:] = -math.inf
            for i in range(size):
                score, steps = before[i], by_previous[i]
                for j in range(size):
                    arrived = score + steps[j]
                    here[j] = arrived if arrived > here[j] else here[j]
            for j in range(size):
                if math.isnan(unary[b, n, j]):
                    return False
                here[j] += unary[b, n, j]
        label, value = 0, -math.inf
        for j in range(size):
            score = reached[length - 1, j] + end[j]
            if score > value:
                label, value = j, score
        values[b] = value
        labels[b, length - 1] = label
        for n in range(length - 1, 0, -1):
            chosen, value = 0, -math.inf
            for i in range(size):
                score = by_previous[i, label] + reached[n - 1, i]
                if score > value:
                    chosen, value = i, score
            label = chosen
            labels[b, n - 1] = label
    return True


def best(unary: Tensor, pairwise: Tensor, lengths: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor] | None:
    """Find the best label sequence of every sentence.

    Args:
        unary: [B, N, C]. pairwise: [C, C] as [next, previous]. start, end: [C]. All of one dtype.
        lengths: LongTensor [B], 1..N.

    Returns:
        Scores [B] and labels, LongTensor [B, N]. The score of a sentence is -inf if it has no possible sequence. Labels
        are -1 in the padding. The result is None if the kernel does not compile or a score is NaN. The search takes
        O(N C^2) time for a sentence.
    """
    batch, words, size = unary.shape
    values, labels = unary.new_empty(batch), torch.full((batch, words), -1)
    arguments = *(array(scores, unary.dtype) for scores in (unary, pairwise.mT, start, end)), array(lengths, torch.long)
    over = ranges(batch, batch * words * (20.0 + 0.3 * size * size))
    return (values, labels) if launch(_best, over, arguments, (values, labels)) else None
