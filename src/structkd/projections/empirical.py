"""Projections of weighted structures by counting, conditioned on the structures that the student can build.

For a teacher with structures y_k of weight w_k, and the student's parts u,

    P_t(u) = sum_k w_k [y_k can be built] [u in y_k] / sum_k w_k [y_k can be built].
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from ..distributions import Empirical, HeadLabeling, HeadSelection, LinearChainCRF, MaxEnt, SpanCRF
from ..distributions.arcs import ArcDistribution
from ..distributions.base import Parts, StructuredDistribution, class_name
from ..distributions.faults import tree_faults
from ..distributions.kernels.arithmetic import logarithm, working_precision
from ..distributions.tag_tables import reader, writer
from ..distributions.transition_counts import TransitionCounts, weighted_parts
from .registry import register_projection


def buildable(teacher: Empirical, student: StructuredDistribution) -> Tensor:
    """Return the structures of a teacher that the student's class can build, BoolTensor [B, K].

    Trees for a student over trees (projective or with a single root, if it is over these), and sets of spans that do
    not overlap for a student over flat spans or tags. Costs O(B K N log N).

    >>> import structkd, torch
    >>> teacher = structkd.Empirical.from_heads(torch.tensor([[[0, 0], [1, 0]]]))  # a tree and a cycle
    >>> buildable(teacher, structkd.DependencyCRF(torch.zeros(1, 2, 2))).tolist()
    [[True, False]]
    """
    teacher = teacher.to(student.lengths.device)
    possible = torch.ones_like(teacher.weights, dtype=torch.bool)
    if teacher.kind == "spans":
        return possible & ~_overlapping(teacher)
    if teacher.kind == "heads" and isinstance(student, ArcDistribution) and student.tree:
        mask = teacher.word_mask.unsqueeze(1).expand_as(teacher.structures)
        mask = (mask & (teacher.weights > 0).unsqueeze(2)).flatten(0, 1)
        faults = tree_faults(teacher.structures.flatten(0, 1).clamp_min(0), mask, student.projective, student.multiroot)
        for wrong in faults.values():
            possible &= ~wrong.view_as(possible)
    return possible | (teacher.weights == 0)


def conditioned_on(teacher: Empirical, student: StructuredDistribution) -> Empirical:
    """Return the teacher on the student's device, conditioned on the structures that the student can build."""
    teacher = teacher.to(student.lengths.device)
    return teacher.keep(buildable(teacher, student), f"is one that {class_name(student)} cannot build")


def _overlapping(teacher: Empirical) -> Tensor:
    """Return whether spans of a structure overlap, BoolTensor [B, K]."""
    batch, number = teacher.weights.shape
    cells = teacher.structures
    ends = torch.zeros(batch * number, teacher.words + 1, dtype=torch.long, device=cells.device)
    row, one = cells[:, 0] * number + cells[:, 1], torch.ones_like(cells[:, 0])
    ends.index_put_((row, cells[:, 2]), one, accumulate=True)
    ends.index_put_((row, cells[:, 3] + 1), -one, accumulate=True)
    return (ends.cumsum(1) > 1).any(1).view(batch, number)


# -- labels -----------------------------------------------------------------------------------------------------------


@register_projection(Empirical, MaxEnt)
@register_projection(Empirical, LinearChainCRF)
def _(teacher: Empirical, student: Any) -> Parts:
    """Count labels, and pairs of neighbouring labels for a chain. Spans are written as the student's tags."""
    teacher = conditioned_on(teacher, student)
    labels = _labels(teacher, student)
    words, size = student.words, student.event_shape[-1]
    unary = _label_counts(teacher, labels, words, size)
    if isinstance(student, MaxEnt):
        return (unary,)
    return unary, _bigram_counts(teacher, labels, student)


def _labels(teacher: Empirical, student: Any) -> Tensor:
    """Return the label sequences as labels of the student, LongTensor [B, K, N]; -1 in the padding."""
    if teacher.kind == "spans":
        return tags_of_spans(teacher, student.labels, student.words)
    if teacher.kind != "labels":
        raise NotImplementedError(
            f"The structures of the teacher are {teacher.kind}, and {class_name(student)} is over labels. Build the "
            "teacher with structkd.Empirical.from_labels or from_spans."
        )
    labels = teacher.padded(student.words)
    size = student.event_shape[-1]
    if labels.numel() and int(labels.amax()) >= size:
        raise ValueError(
            f"The teacher has label {int(labels.amax())}, and the student has {size} labels, 0..{size - 1}."
            " Number the labels of both sides by one inventory, or use structkd.relabel."
        )
    return labels


def tags_of_spans(teacher: Empirical, labels: list[str] | None, words: int) -> Tensor:
    """Write the spans of a teacher as tags of an inventory, LongTensor [B, K, N]; -1 in the padding."""
    if teacher.types is None:
        raise ValueError(
            "Spans become tags by their names, and the types of the teacher's spans have no names. Build it with "
            "types=[...]."
        )
    writing = writer(labels, teacher.types, teacher.structures.device)
    batch, number = teacher.weights.shape
    item, k, start, end, kind = teacher.structures.T
    # every word of a span, in O(words in spans)
    size = end - start + 1
    span = torch.repeat_interleave(torch.arange(len(size), device=size.device), size)
    offset = torch.arange(len(span), device=size.device) - (size.cumsum(0) - size)[span]
    word = start[span] + offset
    tags = torch.full((batch, number, words), writing.outside, device=size.device)
    tags[item[span], k[span], word] = writing.table[kind[span], (offset == 0).long(), (word == end[span]).long()]
    inside = torch.arange(words, device=size.device) < teacher.lengths.unsqueeze(1)
    return tags.masked_fill(~inside.unsqueeze(1), -1)


def _scattered(index: Tensor, values: Tensor, cells: int) -> Tensor:
    """Add values [B, ...] up in cells [B, cells] by their indices [B, ...]; -1 is left out."""
    dtype = working_precision(values)
    index, values = index.flatten(1), values.to(dtype).expand(index.shape).flatten(1)
    total = torch.zeros(len(index), cells, dtype=dtype, device=index.device)
    return total.scatter_add_(1, index.clamp_min(0), values.masked_fill(index < 0, 0.0))


def _label_counts(teacher: Empirical, labels: Tensor, words: int, size: int) -> Tensor:
    position = torch.arange(words, device=labels.device)
    index = torch.where(labels < 0, -1, position * size + labels)
    return _scattered(index, teacher.weights.unsqueeze(2), words * size).view(-1, words, size)


def _bigram_counts(teacher: Empirical, labels: Tensor, student: LinearChainCRF) -> Any:
    size, bigrams = student.event_shape[-1], student.words - 1
    following, previous, weights = labels[..., 1:], labels[..., :-1], teacher.weights.unsqueeze(2)
    pair = torch.where(following < 0, -1, following * size + previous)
    if not student.factored:
        position = torch.arange(bigrams, device=labels.device) * size**2
        index = torch.where(pair < 0, -1, position + pair)
        return _scattered(index, weights, bigrams * size**2).view(-1, bigrams, size, size)
    if labels.shape[1] * bigrams >= size:
        return TransitionCounts.from_dense(_scattered(pair, weights, size**2).view(-1, size, size))
    # few bigrams of many labels: as indicators of each they take less room than the counts of all
    after, before = (_indicators(side.flatten(1), size) for side in (following, previous))
    weights = weights.expand(following.shape).flatten(1).to(after.dtype)
    return TransitionCounts((after * weights.unsqueeze(2), before, None))


def _indicators(labels: Tensor, size: int) -> Tensor:
    one = torch.zeros(*labels.shape, size, dtype=working_precision(labels), device=labels.device)
    return one.scatter_(-1, labels.clamp_min(0).unsqueeze(-1), (labels >= 0).to(one.dtype).unsqueeze(-1))


# -- spans ------------------------------------------------------------------------------------------------------------


@register_projection(Empirical, SpanCRF)
def _(teacher: Empirical, student: SpanCRF) -> Parts:
    """Count spans. Tags are read as spans, as decoding reads them."""
    teacher = conditioned_on(teacher, student)
    words, size = student.words, student.event_shape[-1]
    if teacher.kind == "spans":
        item, k, start, end, kind = teacher.structures.T
        if len(kind) and int(kind.amax()) >= size:
            raise ValueError(
                f"The teacher's spans have type {int(kind.amax())}, and the student has {size} types, 0..{size - 1}. "
                "Number the types of both sides by one inventory, or use structkd.relabel."
            )
    elif teacher.kind == "labels":
        item, k, start, end, kind = spans_of_tags(teacher, student.types)
    else:
        raise NotImplementedError(
            "The structures of the teacher are heads, and SpanCRF is over spans. Build the teacher with "
            "structkd.Empirical.from_spans or from_labels."
        )
    dtype = working_precision(teacher.weights)
    weights = teacher.weights.to(dtype)[item, k]
    event = torch.zeros(*student.batch_shape, *student.event_shape, dtype=dtype, device=item.device)
    event.index_put_((item, start, end, kind), weights, accumulate=True)
    covered = torch.zeros(len(event), words + 1, dtype=dtype, device=item.device)
    covered.index_put_((item, start), weights, accumulate=True)
    covered.index_put_((item, end + 1), -weights, accumulate=True)
    return event, (1.0 - covered.cumsum(1)[:, :words]).clamp_min(0.0) * student.word_mask


def spans_of_tags(teacher: Empirical, types: list[str] | None) -> tuple[Tensor, ...]:
    """Return item, structure, first word, last word and type of every span, LongTensors [M], of tag sequences."""
    if types is None:
        raise ValueError("Tags become spans by their names, and the span model's types have none. Give types=[...].")
    reading = reader(teacher.labels, types, teacher.structures.device)
    kinds, begins, ends = reading.read(teacher.structures)
    first, last = begins.nonzero(), ends.nonzero()  # in the same order: spans do not overlap
    return first[:, 0], first[:, 1], first[:, 2], last[:, 2], kinds[tuple(first.T)]


# -- arcs -------------------------------------------------------------------------------------------------------------


@register_projection(Empirical, ArcDistribution)
def _(teacher: Empirical, student: ArcDistribution) -> Parts:
    """Count arcs, with their relations if the student has them."""
    _require_heads(teacher, student)
    if student.labelled and teacher.relations is None:
        raise ValueError(
            "The student has relations, and the teacher has none. Give relations to structkd.Empirical.from_heads, or "
            "sum the student's relations out with scores.logsumexp(-1)."
        )
    return (_arc_counts(conditioned_on(teacher, student), student.words, student.event_shape[2:]),)


def _require_heads(teacher: Empirical, student: StructuredDistribution) -> None:
    if teacher.kind != "heads":
        raise NotImplementedError(
            f"The structures of the teacher are {teacher.kind}, and {class_name(student)} is over dependency arcs. "
            "Build the teacher with structkd.Empirical.from_heads."
        )


def _arc_counts(teacher: Empirical, words: int, relations: Any) -> Tensor:
    """Return P(h -> d), [B, N, N], or with a last axis of relations."""
    heads, position = teacher.padded(words), torch.arange(words, device=teacher.structures.device)
    index, shape = heads * words + position, [words, words]
    if relations:
        (count,) = relations
        given = teacher.padded_relations(words)
        assert given is not None
        if given.numel() and int(given.amax()) >= count:
            raise ValueError(
                f"The teacher's arcs have relation {int(given.amax())}, and the student has {count} relations, "
                f"0..{count - 1}. Number the relations of both sides by one inventory, or use structkd.relabel."
            )
        index, shape = index * count + given, [words, words, count]
    index = torch.where(heads < 0, -1, index)
    return _scattered(index, teacher.weights.unsqueeze(2), torch.Size(shape).numel()).view(-1, *shape)


def as_arcs(teacher: Empirical, student: HeadLabeling) -> ArcDistribution:
    """Return the teacher's arcs as independent choices of heads, for a student that chooses word by word."""
    _require_heads(teacher, student)
    teacher = teacher.to(student.lengths.device)
    relations: Any = ()
    if student.relations is not None and teacher.relations is not None:
        largest = [int(each.amax()) for each in (student.relations, teacher.relations) if each.numel()]
        relations = (max(largest, default=0) + 1,)
    counts = _arc_counts(teacher, student.words, relations)
    return HeadSelection(logarithm(counts), student.lengths, validate_args=False)


def counted_labels(teacher: Empirical, student: HeadLabeling) -> Tensor:
    """Count the labels of a teacher whose structures are labels of an inventory, [B, N, K]."""
    teacher = teacher.to(student.lengths.device)
    return _label_counts(teacher, _labels(teacher, student), student.words, student.event_shape[-1])


# -- any other student ------------------------------------------------------------------------------------------------


@register_projection(Empirical, StructuredDistribution)
def _(teacher: Empirical, student: StructuredDistribution) -> Parts:
    """Count the parts of one structure after the other, in the form that the student's `decode` returns."""
    teacher = teacher.to(student.lengths.device)
    if teacher.kind == "spans" and student.structures_are == "labels":
        teacher = conditioned_on(teacher, student)
        tags = tags_of_spans(teacher, student.labels, student.words)
        teacher = Empirical("labels", tags, teacher.weights, teacher.lengths, student.words)
    if student.structures_are not in ("", teacher.kind):
        raise NotImplementedError(
            f"The structures of the teacher are {teacher.kind}, and those of {class_name(student)} are "
            f"{student.structures_are}."
        )
    read, possible = [], torch.ones_like(teacher.weights, dtype=torch.bool)
    for number in range(teacher.weights.shape[1]):
        structure = teacher.one(number)
        if isinstance(structure, Tensor):
            absent = (teacher.weights[:, number] == 0).unsqueeze(1)
            structure = structure[..., : student.words]
            if structure.shape[1] < student.words:
                pad = student.words - structure.shape[1]
                structure = torch.nn.functional.pad(structure, (0, pad), value=-1)
            structure = structure.masked_fill(absent, 0)
        structure, faults = student.read_structure(structure)
        for wrong in faults.values():
            possible[:, number] &= ~wrong.to(possible.device)
        read.append(structure)
    teacher = teacher.keep(possible | (teacher.weights == 0), f"is one that {class_name(student)} cannot build")
    counted = []
    for structure, weight in zip(read, teacher.weights.T, strict=True):
        counted.append(tuple(weighted_parts(part, weight) for part in student.parts_of_structure(structure)))
    return tuple(reduce(add, ranked) for ranked in zip(*counted, strict=True))
