"""Projections of label sequences onto label sequences (cases 1a, 2a and 3)."""

from __future__ import annotations

from torch import Tensor

from ..distributions import LinearChainCRF, MaxEnt
from ..distributions.base import Parts
from .registry import check_words, fused, register_projection


@register_projection(LinearChainCRF, MaxEnt)
def _(teacher: LinearChainCRF, student: MaxEnt) -> Tensor:
    """Case 2a: return P_t(y_n), the label marginals of forward-backward (Wang et al., 2021, section 3.2)."""
    check_words(teacher, student, trailing=1)
    return teacher.label_marginals()


@register_projection(MaxEnt, MaxEnt)
def _(teacher: MaxEnt, student: MaxEnt) -> Tensor:
    """Return P_t(y_n), the teacher's marginals."""
    check_words(teacher, student, trailing=1)
    return teacher.label_marginals()


@fused
@register_projection(LinearChainCRF, LinearChainCRF)
def _(teacher: LinearChainCRF, student: LinearChainCRF) -> Tensor | Parts:
    """Case 1a: return P_t(y_n, y_{n+1}) by forward-backward, or their sums if both sides are factored."""
    check_words(teacher, student, trailing=1)
    if student.factored and teacher.factored:
        return teacher.expected_parts()
    return teacher.expected_event()


@register_projection(MaxEnt, LinearChainCRF)
def _(teacher: MaxEnt, student: LinearChainCRF) -> Parts:
    """Case 3: return P_t(y_n) P_t(y_{n+1}) for every bigram, and P_t(y_1) for the first word's score."""
    check_words(teacher, student, trailing=1)
    labels = teacher.label_marginals()
    return labels, student.bigrams(labels)
