"""Projections of relabelled and retagged distributions: sums of the source's marginals over all that become one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..distributions import (
    HeadLabeling,
    LinearChainCRF,
    MaxEnt,
    Relabelled,
    SecondOrderChainCRF,
    SpanCRF,
)
from ..distributions.arcs import ArcDistribution
from ..distributions.base import Parts, StructuredDistribution, class_name
from ..distributions.tag_tables import TagWriter
from ..distributions.transition_counts import Term, TransitionCounts
from .dependencies import label_mass, mapped_arcs, renormalised
from .registry import register_projection, targets
from .second_order import trigram_segments
from .spans import Neighbours, reading_of, segments, tag_bigrams, tag_marginals, writing_of


def _check(teacher: Relabelled, student: StructuredDistribution, kinds: tuple[str, ...]) -> None:
    if teacher.kind not in kinds:
        raise NotImplementedError(
            f"The teacher is a map of {class_name(teacher.source)}, and {class_name(student)} is over other parts."
        )
    count = student.event_shape[-1]
    if teacher.kind == "labels" and "spans" not in kinds and teacher.size != count:
        raise ValueError(
            f"The teacher's map leads to {teacher.size} labels, and the student has {count}. Give structkd.relabel the "
            "student's inventory as labels."
        )


def _over_words(teacher: Relabelled) -> MaxEnt:
    """Return independent words over the source's labels, a student whose targets are the source's label marginals."""
    zero = torch.zeros(1, dtype=teacher.dtype, device=teacher.lengths.device)
    shape = (*teacher.batch_shape, teacher.words, len(teacher.outputs))
    return MaxEnt(zero.expand(shape), teacher.lengths, validate_args=False)


def _over_bigrams(teacher: Relabelled, factored: bool) -> LinearChainCRF:
    """Return a chain over the source's labels, a student whose targets are the source's bigram marginals."""
    zero, size = torch.zeros(1, dtype=teacher.dtype, device=teacher.lengths.device), len(teacher.outputs)
    batch, words = teacher.batch_shape[0], teacher.words
    if factored:
        unary, transitions = zero.expand(batch, words, size), zero.expand(size, size)
        return LinearChainCRF.from_scores(unary, transitions, lengths=teacher.lengths, validate_args=False)
    return LinearChainCRF(zero.expand(batch, words - 1, size, size), teacher.lengths, validate_args=False)


@register_projection(Relabelled, MaxEnt)
def _(teacher: Relabelled, student: MaxEnt) -> Parts:
    """Return the sum over labels i with f(i) = j of P(y_n = i), for a map f; or the tags of spans with mapped types.

    Costs those of the source's label marginals, and O(N S) for S labels of the source.
    """
    _check(teacher, student, ("labels", "spans"))
    if teacher.kind == "spans":
        parts = teacher.source.expected_parts()
        return (tag_marginals(parts, _writing(teacher, student), student.event_shape[-1]),)
    _check(teacher, student, ("labels",))
    (labels,) = targets(teacher.source, _over_words(teacher))
    return (teacher.merged(labels),)


@register_projection(Relabelled, LinearChainCRF)
def _(teacher: Relabelled, student: LinearChainCRF) -> Parts:
    """Return sums of the source's bigram marginals, P(y_n, y_{n+1}); tags of spans whose types are mapped.

    Costs those of the source's bigram marginals, and O(N S^2); for a factored chain O(S^2) per sentence.
    """
    _check(teacher, student, ("labels", "spans"))
    if teacher.kind == "spans":
        parts, writing, size = teacher.source.expected_parts(), _writing(teacher, student), student.event_shape[-1]
        return tag_marginals(parts, writing, size), tag_bigrams(parts, writing, size, student.factored)
    _check(teacher, student, ("labels",))
    labels, pairs = targets(teacher.source, _over_bigrams(teacher, student.factored))
    if not isinstance(pairs, TransitionCounts):
        return teacher.merged(labels), teacher.merged(teacher.merged(pairs), -2)
    terms: list[Term] = []
    for after, before, scale in pairs.terms:
        if scale is None:
            terms.append((teacher.merged(after), teacher.merged(before), None))
        else:
            counts = (after.transpose(1, 2) @ before) * scale
            terms += TransitionCounts.from_dense(teacher.merged(teacher.merged(counts), -2)).terms
    return teacher.merged(labels), TransitionCounts(*terms)


@register_projection(Relabelled, SecondOrderChainCRF)
def _(teacher: Relabelled, student: SecondOrderChainCRF) -> Tensor:
    """Return sums of the source's trigram marginals. Costs those of the source's, O(N S^3)."""
    _check(teacher, student, ("labels",))
    zero, size = torch.zeros(1, dtype=teacher.dtype, device=teacher.lengths.device), len(teacher.outputs)
    potentials = zero.expand(*teacher.batch_shape, teacher.words, size, size, size)
    (found,) = targets(teacher.source, SecondOrderChainCRF(potentials, teacher.lengths, validate_args=False))
    event = found.new_zeros(*student.batch_shape, *student.event_shape)
    event[:, :1, :, 0, 0] = teacher.merged(found[:, :1, :, 0, 0])
    event[:, 1:2, :, :, 0] = teacher.merged(teacher.merged(found[:, 1:2, :, :, 0]), -2)
    event[:, 2:] = teacher.merged(teacher.merged(teacher.merged(found[:, 2:]), -2), -3)
    return event


@register_projection(Relabelled, SpanCRF)
def _(teacher: Relabelled, student: SpanCRF) -> Parts:
    """Return P(segment of the mapped tags), or sums of the source's span marginals over types that become one.

    Costs O(N^2 L S^2) for tags, with S the source's labels per type, O(N^2 L S^3) for tags of a second-order chain, and
    O(N^2 L) for spans.
    """
    _check(teacher, student, ("labels", "spans"))
    if teacher.kind == "labels":
        reading = reading_of(teacher.labels, student).of(teacher.outputs)
        if isinstance(teacher.source, SecondOrderChainCRF):
            return trigram_segments(teacher.source.expected_event(), reading, student)
        if not isinstance(teacher.source, (MaxEnt, LinearChainCRF)):
            raise NotImplementedError(
                f"Segments of the tags of {class_name(teacher.source)} are not known, as its words are not a chain. "
                "Give samples=K to project() for an estimate from the source, or a student over tags."
            )
        (labels,) = targets(teacher.source, _over_words(teacher))
        _, bigrams = targets(teacher.source, _over_bigrams(teacher, False))
        return segments(Neighbours(bigrams, labels), labels, reading, student)
    if teacher.types is not None and student.types is not None and teacher.types != student.types:
        raise ValueError(
            f"Teacher and student must have the same types in the same order, got {teacher.types} and {student.types}."
        )
    if teacher.size != student.event_shape[-1]:
        raise ValueError(
            f"The teacher's map leads to {teacher.size} types, and the student has {student.event_shape[-1]}."
        )
    mass, outside = teacher.source.expected_parts()
    dropped = mass[..., teacher.outputs < 0].sum(-1)
    started, ended = dropped.sum(2).cumsum(1), dropped.sum(1).cumsum(1)
    covered = started - torch.nn.functional.pad(ended[:, :-1], (1, 0))
    return teacher.merged(mass), (outside + covered) * student.word_mask


def _writing(teacher: Relabelled, student: Any) -> TagWriter:
    """Return the tags of the source's types: those of their targets, and O for types that fall outside."""
    writing = writing_of(teacher, student)
    table = writing.table[teacher.outputs.clamp_min(0)]
    table = torch.where((teacher.outputs < 0).view(-1, 1, 1), writing.outside, table)
    return TagWriter(writing.outside, table, writing.scheme)


# -- relations --------------------------------------------------------------------------------------------------------


@register_projection(Relabelled, ArcDistribution)
def _(teacher: Relabelled, student: ArcDistribution) -> Tensor:
    """Return sums of P(h -> d with relation r) over relations that become one, at the source's cost."""
    arcs = mapped_arcs(teacher, student)
    if not student.labelled:
        return arcs.sum(-1)
    if arcs.shape[-1] != student.event_shape[-1]:
        raise ValueError(
            f"The teacher's map leads to {arcs.shape[-1]} relations, and the student has {student.event_shape[-1]}."
        )
    return arcs


@register_projection(Relabelled, HeadLabeling)
def _(teacher: Relabelled, student: HeadLabeling) -> Parts:
    """Divide the mass of an arc with its mapped relation among the labels that name it, then renormalize."""
    mass = label_mass(teacher, student, 1.0)
    renormalised(mass)
    return (mass,)
