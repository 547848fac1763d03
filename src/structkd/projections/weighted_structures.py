"""Projections of a teacher's single structures, its samples and its k best, as weighted structures."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..distributions import Empirical, HeadLabeling, Relabelled
from ..distributions.base import Parts, StructuredDistribution, class_name
from ..distributions.checks import check_count
from ..distributions.empirical import KINDS
from ..distributions.transition_counts import weighted_parts
from .dependencies import conditioned
from .registry import find_pair, require_pair


def sampled_targets(teacher: Any, student: Any, temperature: float, samples: Any) -> Parts:
    """Average the indicators of the student's parts over teacher samples: an unbiased estimate of P_t(u)."""
    samples = check_count("samples", samples)
    if temperature != 1:
        if not hasattr(teacher, "tempered"):
            raise ValueError(
                f"The teacher {class_name(teacher)} has no method tempered(temperature), and temperature {temperature} "
                "was asked for. Write that method, or use temperature 1."
            )
        teacher = teacher.tempered(temperature)
    if isinstance(teacher, StructuredDistribution):
        drawn = [parts for draw, count in teacher.draw(samples) for parts in _separate(draw, count)]
        return structure_targets(teacher, drawn, torch.ones(*teacher.batch_shape, samples), student)
    return _foreign(teacher, teacher.sample(torch.Size([samples])), student)


def standard_errors(estimate: Tensor, student: StructuredDistribution, samples: int) -> Tensor:
    """Return the standard error of an estimate [B, *event_shape] from samples, cell by cell.

    A sample's part is there or not, so that the variance of one is p (1 - p), or p (s - p) if several labels share a
    part and s is the share of one.
    """
    if samples < 2:
        raise ValueError(f"A standard error needs at least 2 samples, got {samples}.")
    share: Any = 1.0
    if isinstance(student, HeadLabeling):
        same = student.heads.unsqueeze(-1) == student.heads.unsqueeze(-2)
        share = 1.0 / same.sum(-1)
    return (estimate * (share - estimate)).clamp_min(0.0).div(samples - 1).sqrt()


def k_best(
    teacher: Any, student: StructuredDistribution, k: int, weighted: bool, temperature: float
) -> Empirical | Parts:
    """Return the teacher's k best structures that the student can build, as a distribution.

    If the structures are neither labels nor heads nor spans, return the student's parts at the temperature.
    """
    if isinstance(teacher, Relabelled):
        teacher = teacher.of(conditioned(teacher.source, student))
    teacher = conditioned(teacher, student)
    if isinstance(teacher, (Empirical, Relabelled)) or teacher.structures_are in KINDS:
        return Empirical.from_topk(teacher, k, weighted)
    with torch.no_grad():
        values, structures = teacher.k_best(check_count("k", k))
        found = (values > float("-inf")).to(values.dtype)
        weights = (values / temperature).softmax(0) if weighted else found
        # missing structures have weight 0, and the parts of the best, which are those of a structure
        whole = [
            tuple(torch.where(_along(there > 0, s), s, b) for s, b in zip(one, structures[0], strict=True))
            for one, there in zip(structures, found, strict=True)
        ]
        return structure_targets(teacher, whole, weights.T, student)


def structure_targets(
    teacher: StructuredDistribution, structures: list[Parts], weights: Tensor, student: StructuredDistribution
) -> Parts:
    """Return the weighted average of the student's parts over structures, given by the teacher's part indicators.

    Args:
        teacher: the distribution that the structures are of.
        structures: K tuples of part indicators.
        weights: [B, K], non-negative.
        student: the distribution whose parts are wanted.

    Labels, heads and spans are counted. A structure of another form is projected as the distribution that is certain of
    it; if the pair has no projection, it is first projected onto the student's words.
    """
    if teacher.structures_are in KINDS:
        empirical = Empirical.from_parts(teacher, structures, weights)
        pair = find_pair(empirical, student)
        assert pair is not None
        return pair.targets(1.0)
    weights = weights / weights.sum(1, keepdim=True)
    weights = weights.to(structures[0][0].device)
    counted = []
    for parts, weight in zip(structures, weights.T, strict=True):
        certain = teacher.certain_of(parts)
        pair = find_pair(certain, student)
        if pair is not None:
            targets = pair.targets(1.0)
        else:
            words = student.words_alone()
            structure = words.structure_of_parts(require_pair(certain, words).targets(1.0))
            targets = student.parts_of_structure(structure)
        counted.append(tuple(weighted_parts(part, weight) for part in targets))
    return tuple(reduce(add, ranked) for ranked in zip(*counted, strict=True))


def _foreign(teacher: Distribution, structures: Tensor, student: StructuredDistribution) -> Parts:
    """Read samples [K, B, ...] of a foreign class: events shaped like the student's, or labels or heads [K, B, N]."""
    if structures.shape[1:] == student.batch_shape + student.event_shape:
        return student.parts_of_event(structures.to(student.dtype).mean(0))
    compact = structures.shape[1:] == (*student.batch_shape, student.words) and not structures.is_floating_point()
    if compact and student.structures_are in ("labels", "heads"):
        build = Empirical.from_labels if student.structures_are == "labels" else Empirical.from_heads
        return require_pair(build(structures.transpose(0, 1), lengths=student.lengths), student).targets(1.0)
    raise NotImplementedError(
        f"One sample of {class_name(teacher)} has shape {list(structures.shape[1:])}; {class_name(student)} reads "
        f"events of shape {list(student.batch_shape + student.event_shape)} or integers of shape "
        f"{[*student.batch_shape, student.words]}. Let the teacher's sample() return one of them."
    )


def _separate(parts: Parts, count: int) -> list[Parts]:
    """Split parts [count * B, ...] into `count` parts [B, ...]."""
    return list(zip(*(p.unflatten(0, (count, -1)) for p in parts), strict=True))


def _along(batch: Tensor, parts: Tensor) -> Tensor:
    return batch.view(-1, *[1] * (parts.dim() - 1))
