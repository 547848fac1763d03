"""Projections of semi-Markov chains of labelled segments onto words, chains and spans."""

from __future__ import annotations

import torch
from torch import Tensor

from ..distributions import LinearChainCRF, MaxEnt, SemiMarkovCRF, SpanCRF
from ..distributions.base import Parts
from ..distributions.transition_counts import TransitionCounts
from .registry import check_words, register_projection


@register_projection(SemiMarkovCRF, SemiMarkovCRF)
def _(teacher: SemiMarkovCRF, student: SemiMarkovCRF) -> Tensor:
    """Return P_t(segment and the label that follows), the teacher's marginals. Costs O(N K C^2)."""
    check_words(teacher, student, trailing=1)
    return teacher.expected_event()


@register_projection(SemiMarkovCRF, MaxEnt)
def _(teacher: SemiMarkovCRF, student: MaxEnt) -> Parts:
    """Return P_t(a segment of that label covers the word), [B, N, C]. Costs O(N K C^2)."""
    check_words(teacher, student, trailing=1)
    return (_label_marginals(*teacher.segments()),)


@register_projection(SemiMarkovCRF, LinearChainCRF)
def _(teacher: SemiMarkovCRF, student: LinearChainCRF) -> Parts:
    """Return the marginals of words' labels and of pairs of them: in one segment, or across a boundary.

        P(i, j at n, n+1) = [i = j] sum over segments of label i that cover both + sum over segments of label i that end
        at n and are followed by label j.

    Costs O(N K C^2).
    """
    check_words(teacher, student, trailing=1)
    segments, last = teacher.segments()
    event = teacher.expected_event()
    bigrams = event.new_zeros(len(event), student.words - 1, *event.shape[3:])
    for size in range(1, min(event.shape[2], student.words)):
        bigrams[:, size - 1 :] += event[:, : student.words - size, size]  # ends at n = start + size - 1
    bigrams.diagonal(0, 2, 3).add_(_covering(segments, 1)[:, :-1])
    pairs = TransitionCounts.from_dense(bigrams.sum(1)) if student.factored else bigrams
    return _label_marginals(segments, last), pairs


@register_projection(SemiMarkovCRF, SpanCRF)
def _(teacher: SemiMarkovCRF, student: SpanCRF) -> Parts:
    """Return P_t(segment) for every span and label; a segment of every label is a span. Costs O(N K C^2 + N^2 C)."""
    check_words(teacher, student, trailing=1)
    segments, last = teacher.segments()
    event = segments.new_zeros(*student.batch_shape, *student.event_shape)
    for size in range(1, min(segments.shape[2], student.words)):
        event.diagonal(size - 1, 1, 2).copy_(segments[:, : student.words - size + 1, size].transpose(1, 2))
    event.diagonal(0, 1, 2).add_(last.transpose(1, 2))
    return event, segments.new_zeros(*student.batch_shape, student.words)


def _label_marginals(segments: Tensor, last: Tensor) -> Tensor:
    return _covering(segments, 0) + last


def _covering(segments: Tensor, gap: int) -> Tensor:
    """Return the mass of segments that cover a word and the `gap` words after it, [B, N, C].

    Args:
        segments: [B, N, K, C], by first word, number of words and label.
        gap: a number of words.
    """
    longer = segments.flip(2).cumsum(2).flip(2)  # of at least k words
    total = torch.zeros_like(segments[:, :, 0])
    words = segments.shape[1]
    for before in range(min(segments.shape[2] - 1 - gap, words)):
        total[:, before:] += longer[:, : words - before, before + 1 + gap]
    return total
