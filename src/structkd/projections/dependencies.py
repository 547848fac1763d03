"""Projections of dependency arcs onto dependency arcs and onto labels that name heads (cases 1b and 2b)."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..distributions import (
    DependencyCRF,
    Empirical,
    HeadLabeling,
    HeadSelection,
    Mixture,
    NonProjectiveDependencyCRF,
    Relabelled,
)
from ..distributions.arcs import ArcDistribution
from ..distributions.base import Parts, StructuredDistribution, adopt, class_name
from ..distributions.checks import check_temperature
from ..distributions.kernels.arithmetic import logarithm
from ..distributions.kernels.head_labels import renormalised
from .empirical import as_arcs, counted_labels
from .registry import check_pair, check_words, fused, register_projection


def conditioned(teacher: StructuredDistribution, student: StructuredDistribution) -> Any:
    """Condition the teacher on the structures that both sides allow; return it unchanged unless both are over arcs.

    For arc-factored teachers, the result has the teacher's scores. It is over trees if either side is over trees, over
    projective trees if either side is, and over single-rooted trees if either side is. (The scores of a mean-field
    teacher are its log posterior.)
    """
    if not (isinstance(teacher, ArcDistribution) and isinstance(student, ArcDistribution)):
        return teacher
    tree, projective = teacher.tree or student.tree, teacher.projective or student.projective
    multiroot = teacher.multiroot and student.multiroot
    if (tree, projective, multiroot) == (teacher.tree, teacher.projective, teacher.multiroot):
        return teacher
    # The parts are in working precision, in which the scores of a half-precision teacher are exact.
    (scores,) = teacher.parts()
    kind = DependencyCRF if projective else NonProjectiveDependencyCRF
    return kind(scores, teacher.lengths, multiroot, validate_args=False)


@fused
@register_projection(ArcDistribution, HeadSelection)
@register_projection(ArcDistribution, DependencyCRF)
@register_projection(ArcDistribution, NonProjectiveDependencyCRF)
def _(teacher: ArcDistribution, student: ArcDistribution) -> Tensor:
    """Return P_t(h -> d | the trees that both sides allow)."""
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
    """Cases 1b and 2b: divide an arc's mass among the labels that name it, then renormalize over the word's labels."""
    mass = label_mass(teacher, student, temperature)
    renormalised(mass)
    return (mass,)


@register_projection(Empirical, HeadLabeling)
def _(teacher: Empirical, student: HeadLabeling) -> Parts:
    """Count labels; divide an arc's mass among the labels that name it, then renormalize over the word's labels.

    The student chooses word by word, so a structure that it can write in part teaches the words it can write.
    """
    mass = label_mass(teacher, student, 1.0)
    renormalised(mass)
    return (mass,)


@register_projection(HeadLabeling, HeadLabeling)
def _(teacher: HeadLabeling, student: HeadLabeling, temperature: float) -> Tensor:
    """Return P_t(label) if the labels of both sides name the same heads and relations; else push P_t(label) forward.

    Labels of the teacher that name one arc (and relation) are added up, and divided among the labels of the student
    that name it; then a word's labels are renormalized. Both sides choose word by word, so this is the distribution of
    the teacher's arcs, conditioned on those that the student's labels name. Costs O(N K + N^2 R) for R relations.
    """
    mass = label_mass(teacher, student, temperature)
    if not teacher.names_as(student):
        renormalised(mass)
    return mass


@register_projection(Mixture, HeadLabeling)
def _(teacher: Mixture, student: HeadLabeling, temperature: float) -> Tensor:
    """Average the components' arc marginals first, then renormalize over the arcs that the student's labels name."""
    mass = label_mass(teacher, student, temperature)
    renormalised(mass)
    return mass


def mapped_arcs(teacher: Relabelled, student: StructuredDistribution) -> Tensor:
    """Return the marginals of arcs whose relations are mapped, [B, N, N, L], on the trees that both sides allow."""
    if teacher.kind != "heads":
        raise NotImplementedError(
            f"The teacher is a map of {class_name(teacher.source)}, and {class_name(student)} is over dependency arcs."
        )
    return teacher.merged(conditioned(teacher.source, student).arc_marginals())


@singledispatch
def label_mass(teacher: Distribution, student: HeadLabeling, temperature: float) -> Tensor:
    """Compute the teacher's mass of the arc (and relation) that each label names, [B, N, K], at a temperature.

    Labels that name the same arc share its mass equally. Labels that do not name a word get exactly 0. A row sums to
    the share of the teacher's mass that the word's labels cover, at most 1. Every kind of teacher registers a function.
    """
    raise NotImplementedError(
        "A HeadLabeling student, or a component of a Mixture that teaches one, needs a teacher over dependencies, got "
        f"{class_name(teacher)}."
    )


@label_mass.register
def _(teacher: HeadLabeling, student: HeadLabeling, temperature: float) -> Tensor:
    return _renamed(teacher.tempered(temperature).expected_parts()[0], teacher, student)


@label_mass.register
def _(teacher: ArcDistribution, student: HeadLabeling, temperature: float) -> Tensor:
    check_words(teacher, student, trailing=0)
    masses = [mass for _, mass in student.label_masses(teacher, temperature)]
    return torch.cat(masses) if masses else torch.zeros_like(student.logits)


@label_mass.register
def _(teacher: Empirical, student: HeadLabeling, temperature: float) -> Tensor:
    teacher = teacher.tempered(temperature)
    if teacher.kind == "labels":
        naming: Any = student if teacher.naming is None else teacher.naming
        return _renamed(counted_labels(teacher, naming), naming, student)
    return label_mass(as_arcs(teacher, student), student, 1.0)


@label_mass.register
def _(teacher: Relabelled, student: HeadLabeling, temperature: float) -> Tensor:
    arcs = logarithm(mapped_arcs(teacher.tempered(temperature), student))
    return label_mass(HeadSelection(arcs, student.lengths, validate_args=False), student, 1.0)


@label_mass.register
def _(teacher: Mixture, student: HeadLabeling, temperature: float) -> Tensor:
    masses = [label_mass(component, student, temperature) for component in teacher.components]
    return torch.stack([weight * mass for weight, mass in zip(teacher.weights, masses, strict=True)]).sum(0)


def _renamed(mass: Tensor, names: HeadLabeling, student: HeadLabeling) -> Tensor:
    """Push masses [B, N, K] of one inventory of head labels forward onto that of the student, by arc and relation.

    A side without relations names arcs alone. The mass of labels that name no arc, or one that no label of the student
    names, is in no label of the result.
    """
    if names.names_as(student):
        return mass
    check_words(names, student, trailing=0)
    count = 0  # of relations, if both sides have them
    if names.relations is not None and student.relations is not None:
        count = max(0, *(int(each.amax()) + 1 for each in (names.relations, student.relations) if each.numel()))
    given, sources = _cells(names, count)
    wanted, targets = _cells(student, count)
    arcs = mass.new_zeros(*mass.shape[:2], student.words * max(count, 1))
    arcs.scatter_add_(2, given, mass.masked_fill(~sources, 0.0))
    sharing = torch.zeros_like(arcs).scatter_add_(2, wanted, targets.to(arcs.dtype))
    found = arcs.gather(2, wanted) / sharing.gather(2, wanted).clamp_min(1.0)
    return found.masked_fill(~targets, 0.0)


def _cells(labels: HeadLabeling, relations: int) -> tuple[Tensor, Tensor]:
    """Return the number of the arc of each label among those of its word, and whether it names one, each [B, N, K].

    Arcs are numbered by head, or by head and relation if there are relations.
    """
    named, cells = labels.named, labels.heads.clamp(0, labels.words - 1)
    if not relations:
        return cells, named
    assert labels.relations is not None
    own = labels.relations.expand(cells.shape)
    return cells * relations + own.clamp_min(0), named & (own >= 0)


def uncovered(teacher: Any, student: HeadLabeling, temperature: float = 1.0) -> Tensor:
    """Compute the teacher's mass of the arcs that no label of a word names.

    The targets of `project` are renormalized over the arcs that labels name. A word whose labels cover less than 1e-6
    of the teacher's mass has no loss.

    Args:
        teacher: a dependency distribution, a HeadLabeling, or a Mixture of them.
        student: the HeadLabeling whose labels are examined; its scores are not read.
        temperature: the teacher's scores are divided by it first.

    Returns:
        A tensor [B, N] in 0..1, 0 in the padding.

    Raises:
        TypeError: if the student is not a HeadLabeling.
        ValueError: if the two sides have different sentences or inventories.

    >>> import structkd, torch
    >>> teacher = structkd.HeadSelection(torch.zeros(1, 2, 2))
    >>> heads = torch.tensor([[[0, 1], [0, -1]]])  # the labels of the second word name one head only
    >>> student = structkd.HeadLabeling(torch.zeros(1, 2, 2), heads)
    >>> structkd.uncovered(teacher, student)
    tensor([[0.0000, 0.5000]])
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
        mass = label_mass(teacher, student, temperature)
        rest = (1.0 - mass.sum(-1)).clamp_min(0.0) * student.word_mask
    return rest.to(torch.promote_types(getattr(teacher, "dtype", student.dtype), student.dtype))
