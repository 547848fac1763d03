"""Dependency arcs onto dependency arcs, and onto labels that name heads: cases 1b and 2b."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..distributions import (
    DependencyCRF,
    HeadLabeling,
    HeadSelection,
    Mixture,
    NonProjectiveDependencyCRF,
)
from ..distributions.arcs import ArcDistribution
from ..distributions.base import Parts, StructuredDistribution, adopt, class_name
from ..distributions.checks import check_temperature
from ..distributions.kernels.head_labels import renormalised
from .registry import check_pair, check_words, fused, register_projection


def conditioned(teacher: StructuredDistribution, student: StructuredDistribution) -> Any:
    """The teacher on the structures that both sides allow; itself unless both are over arcs.

    For arc-factored teachers that is the teacher's scores on trees if either side has trees, projective ones if either
    has, with a single root if either wants one. (A mean-field teacher's scores are its log posterior.)
    """
    if not (isinstance(teacher, ArcDistribution) and isinstance(student, ArcDistribution)):
        return teacher
    tree, projective = teacher.tree or student.tree, teacher.projective or student.projective
    multiroot = teacher.multiroot and student.multiroot
    if (tree, projective, multiroot) == (teacher.tree, teacher.projective, teacher.multiroot):
        return teacher
    # working precision: scores of a half-precision teacher are exact in it
    (scores,) = teacher.parts()
    kind = DependencyCRF if projective else NonProjectiveDependencyCRF
    return kind(scores, teacher.lengths, multiroot, validate_args=False)


@fused
@register_projection(ArcDistribution, HeadSelection)
@register_projection(ArcDistribution, DependencyCRF)
@register_projection(ArcDistribution, NonProjectiveDependencyCRF)
def _(teacher: ArcDistribution, student: ArcDistribution) -> Tensor:
    """P_t(h -> d | the trees both allow)."""
    check_words(teacher, student, trailing=0)
    if student.labelled and not teacher.labelled:
        raise ValueError(
            "The student has relations, and the teacher has none. Give the teacher's scores a last axis of relations, "
            "or sum the student's relations out with scores.logsumexp(-1)."
        )
    if student.labelled:
        check_words(teacher, student, trailing=1)
    arcs = conditioned(teacher, student).arc_marginals()
    return arcs.sum(-1) if teacher.labelled and not student.labelled else arcs


@fused
@register_projection(ArcDistribution, HeadLabeling)
def _(teacher: ArcDistribution, student: HeadLabeling, temperature: float) -> Parts:
    """Cases 1b and 2b: a label gets its arc's mass, shared by the labels that name the same arc, renormalised."""
    mass = label_mass(teacher, student, temperature)
    renormalised(mass)
    return (mass,)


@register_projection(HeadLabeling, HeadLabeling)
def _(teacher: HeadLabeling, student: HeadLabeling, temperature: float) -> Tensor:
    """P_t(label), where both sides' labels name the same heads and relations."""
    return label_mass(teacher, student, temperature)


@register_projection(Mixture, HeadLabeling)
def _(teacher: Mixture, student: HeadLabeling, temperature: float) -> Tensor:
    """The components' arc marginals average first; what labels can name of the average is renormalised then."""
    mass = _mixed_mass(teacher, student, temperature)
    renormalised(mass)
    return mass


def _mixed_mass(teacher: Distribution, student: HeadLabeling, temperature: float) -> Tensor:
    if not isinstance(teacher, Mixture):
        return label_mass(teacher, student, temperature)
    masses = [_mixed_mass(component, student, temperature) for component in teacher.components]
    return torch.stack([weight * mass for weight, mass in zip(teacher.weights, masses, strict=True)]).sum(0)


def label_mass(teacher: Distribution, student: HeadLabeling, temperature: float) -> Tensor:
    """Mass at a temperature of the arc (and relation) each label names, [B, N, K], shared equally by labels of one arc.

    Labels that name no word get exactly 0. Rows sum to what the labels cover of the teacher, at most 1.
    """
    if isinstance(teacher, HeadLabeling):
        if teacher.event_shape != student.event_shape or not teacher.names_as(student):
            raise ValueError(
                "Teacher and student must name the same heads and relations with the same labels, and their labels "
                "differ. Build both with the same label inventory."
            )
        return teacher.tempered(temperature).expected_parts()[0]
    if not isinstance(teacher, ArcDistribution):
        raise NotImplementedError(
            "The components of a Mixture that teaches a HeadLabeling student must be dependency distributions, got "
            f"{class_name(teacher)}."
        )
    check_words(teacher, student, trailing=0)
    masses = [mass for _, mass in student.label_masses(teacher, temperature)]
    return torch.cat(masses) if masses else torch.zeros_like(student.logits)


def uncovered(teacher: Any, student: HeadLabeling, temperature: float = 1.0) -> Tensor:
    """Teacher mass of the arcs that no label of a word names, [B, N]; 0 in the padding.

    The targets of `project` are renormalised over the rest; a word with less than 1e-6 of it covered carries no loss.
    """
    teacher = adopt(teacher)
    if not isinstance(student, HeadLabeling):
        raise TypeError(
            f"The student of uncovered() must be a HeadLabeling, got {class_name(student)}. All other students cover "
            "every arc."
        )
    check_pair(teacher, student)
    temperature = check_temperature(temperature)
    with torch.no_grad():
        mass = _mixed_mass(teacher, student, temperature)
        rest = (1.0 - mass.sum(-1)).clamp_min(0.0) * student.word_mask
    return rest.to(torch.promote_types(getattr(teacher, "dtype", student.dtype), student.dtype))
