"""Projections from and onto second-order chains (label trigrams)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..distributions import LinearChainCRF, MaxEnt, SecondOrderChainCRF
from ..distributions.base import Parts
from ..distributions.transition_counts import TransitionCounts
from .registry import check_words, register_projection


@register_projection(SecondOrderChainCRF, SecondOrderChainCRF)
def _(teacher: SecondOrderChainCRF, student: SecondOrderChainCRF) -> Tensor:
    """Return P_t(y_{n-2}, y_{n-1}, y_n), the teacher's marginals. Costs O(N C^3)."""
    check_words(teacher, student, trailing=1)
    return teacher.expected_event()


@register_projection(SecondOrderChainCRF, MaxEnt)
def _(teacher: SecondOrderChainCRF, student: MaxEnt) -> Tensor:
    """Return P_t(y_n), summed over the two labels before. Costs O(N C^3)."""
    check_words(teacher, student, trailing=1)
    return teacher.label_marginals()


@register_projection(SecondOrderChainCRF, LinearChainCRF)
def _(teacher: SecondOrderChainCRF, student: LinearChainCRF) -> Parts:
    """Return P_t(y_n) and P_t(y_n, y_{n+1}), summed over the label before. Costs O(N C^3)."""
    check_words(teacher, student, trailing=1)
    bigrams = teacher.expected_event()[:, 1:].sum(4)
    return teacher.label_marginals(), TransitionCounts.from_dense(bigrams.sum(1)) if student.factored else bigrams


@register_projection(LinearChainCRF, SecondOrderChainCRF)
def _(teacher: LinearChainCRF, student: SecondOrderChainCRF) -> Tensor:
    """Return P_t(i, j) P_t(j, k) / P_t(j) for every trigram, by the chain's Markov property. Costs O(N C^3)."""
    check_words(teacher, student, trailing=1)
    labels, bigrams = teacher.label_marginals(), teacher.expected_event()
    return trigrams(labels, bigrams)


@register_projection(MaxEnt, SecondOrderChainCRF)
def _(teacher: MaxEnt, student: SecondOrderChainCRF) -> Tensor:
    """Return P_t(i) P_t(j) P_t(k) for every trigram of independent words. Costs O(N C^3)."""
    check_words(teacher, student, trailing=1)
    labels = teacher.label_marginals()
    return trigrams(labels, labels[:, 1:, :, None] * labels[:, :-1, None, :])


def trigrams(labels: Tensor, bigrams: Tensor) -> Tensor:
    """Return trigram marginals [B, N, C, C, C] of a Markov chain from its label and bigram marginals."""
    batch, words, size = labels.shape
    event = labels.new_zeros(batch, words, size, size, size)
    event[:, 0, :, 0, 0] = labels[:, 0]
    event[:, 1:2, :, :, 0] = bigrams[:, :1]
    middle = labels[:, 1:-1].unsqueeze(-1)
    given = torch.where(middle > 0, bigrams[:, :-1] / middle.masked_fill(middle == 0, 1.0), 0.0)  # P(i | j)
    event[:, 2:] = bigrams[:, 1:].unsqueeze(-1) * given.unsqueeze(2)
    return event
