"""Single structures of a teacher (samples, its k best) as parts of the student."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..distributions import HeadSelection, LinearChainCRF, MaxEnt, SpanCRF
from ..distributions.arcs import ArcDistribution
from ..distributions.structure import Parts, StructuredDistribution, check_count, class_name
from .dependencies import conditioned
from .registry import targets
from .spans import tag_marginals


def sampled_targets(teacher: Any, student: Any, temperature: float, samples: Any) -> Parts:
    """The mean, over independent teacher samples, of the indicators of the student's parts: unbiased for P_t(u)."""
    samples = check_count("samples", samples)
    if temperature != 1:
        if not hasattr(teacher, "tempered"):
            raise ValueError(f"{class_name(teacher)} has no method tempered(temperature); sample it at temperature 1")
        teacher = teacher.tempered(temperature)
    if isinstance(teacher, StructuredDistribution):
        drawn = [parts for draw, count in teacher._draw(samples) for parts in _separate(draw, count)]
        found = [structure_targets(teacher, parts, student) for parts in drawn]
    else:
        found = [_foreign(teacher, structure, student) for structure in teacher.sample(torch.Size([samples]))]
    return tuple(sum(parts[1:], start=parts[0]) / samples for parts in zip(*found, strict=True))


def k_best(teacher: StructuredDistribution, student: StructuredDistribution, k: int) -> tuple[Tensor, list[Parts]]:
    """The teacher's k best structures that the student can build: scores [k, B] and the student's parts of each.

    A sentence with fewer has scores of -inf, and its best structure's parts, for the rest.
    """
    if isinstance(teacher, ArcDistribution) and isinstance(student, ArcDistribution):
        teacher = conditioned(teacher, student)
    with torch.no_grad():
        if check_count("k", k) == 1:
            value, best = teacher._best()
            values, structures = value.unsqueeze(0), [best]
        else:
            values, structures = teacher._k_best(k)
        found = values > float("-inf")
        parts = []
        for rank, structure in enumerate(structures):
            one = tuple(
                torch.where(_along(found[rank], s), s, b) for s, b in zip(structure, structures[0], strict=True)
            )
            parts.append(structure_targets(teacher, one, student))
    return values, parts


def structure_targets(teacher: StructuredDistribution, parts: Parts, student: StructuredDistribution) -> Parts:
    """The indicators of the student's parts for one structure per sentence, given by the teacher's part indicators."""
    if isinstance(teacher, ArcDistribution):
        # a tree is a distribution of its own: every word picks its head with certainty
        arcs = torch.where(teacher._event_mask() & (parts[0] == 0), float("-inf"), 0.0)
        return targets(HeadSelection(arcs, teacher.lengths, validate_args=False), student)
    if isinstance(teacher, SpanCRF) and isinstance(student, SpanCRF):
        return parts
    if isinstance(student, (LinearChainCRF, MaxEnt)):
        if isinstance(teacher, SpanCRF):
            return student._encode(tag_marginals(teacher, parts, student.labels).argmax(-1))
        if isinstance(teacher, (LinearChainCRF, MaxEnt)):
            return student._encode(parts[0].argmax(-1))
    if isinstance(teacher, type(student)) and teacher.event_shape == student.event_shape:
        return student.marginals_to_targets(teacher._event(parts))
    raise NotImplementedError(
        f"structures of {class_name(teacher)} cannot be read as structures of {class_name(student)}: register a "
        "projection for the pair with structkd.register_projection"
    )


def _foreign(teacher: Distribution, structure: Tensor, student: StructuredDistribution) -> Parts:
    """A sample of a class that is not ours: an event shaped like the student's, or labels or heads [B, N]."""
    if structure.shape == student.batch_shape + student.event_shape:
        return student.marginals_to_targets(structure.to(student.dtype))
    if structure.shape == (*student.batch_shape, student.words) and not structure.is_floating_point():
        return student._encode(student._read(structure)[0])
    raise NotImplementedError(
        f"samples of {class_name(teacher)} have shape {list(structure.shape)} a batch; {class_name(student)} reads "
        f"events {list(student.batch_shape + student.event_shape)} or integers {[*student.batch_shape, student.words]}"
    )


def _separate(parts: Parts, count: int) -> list[Parts]:
    """Parts [count * B, ...] as `count` parts [B, ...]."""
    return list(zip(*(p.unflatten(0, (count, -1)) for p in parts), strict=True))


def _along(batch: Tensor, parts: Tensor) -> Tensor:
    return batch.view(-1, *[1] * (parts.dim() - 1))
