"""Projections of a teacher's single structures, its samples and its k best, onto the student's parts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..distributions.base import Parts, StructuredDistribution, class_name
from ..distributions.checks import check_count
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
        found = [structure_targets(teacher, parts, student) for parts in drawn]
    else:
        found = [_foreign(teacher, structure, student) for structure in teacher.sample(torch.Size([samples]))]
    return tuple(sum(parts[1:], start=parts[0]) / samples for parts in zip(*found, strict=True))


def k_best(teacher: StructuredDistribution, student: StructuredDistribution, k: int) -> tuple[Tensor, list[Parts]]:
    """Return the teacher's k best structures that the student can build: scores [k, B] and the student's parts of each.

    If a sentence has fewer structures, the remaining rows hold scores of -inf and the parts of its best structure.
    """
    teacher = conditioned(teacher, student)
    with torch.no_grad():
        if check_count("k", k) == 1:
            value, best = teacher.best()
            values, structures = value.unsqueeze(0), [best]
        else:
            values, structures = teacher.k_best(k)
        found = values > float("-inf")
        parts = []
        for rank, structure in enumerate(structures):
            one = tuple(
                torch.where(_along(found[rank], s), s, b) for s, b in zip(structure, structures[0], strict=True)
            )
            parts.append(structure_targets(teacher, one, student))
    return values, parts


def structure_targets(teacher: StructuredDistribution, parts: Parts, student: StructuredDistribution) -> Parts:
    """Return the indicators of the student's parts for one structure per sentence, from the teacher's part indicators.

    A structure is projected as the distribution that is certain of it. If the pair has no projection, the structure is
    first projected onto the student's words, and the student's parts are read from them.
    """
    certain = teacher.certain_of(parts)
    pair = find_pair(certain, student)
    if pair is not None:
        return pair.targets(1.0)
    words = student.words_alone()
    return student.parts_of_structure(words.structure_of_parts(require_pair(certain, words).targets(1.0)))


def _foreign(teacher: Distribution, structure: Tensor, student: StructuredDistribution) -> Parts:
    """Read a sample of a foreign class: an event shaped like the student's, or labels or heads [B, N]."""
    if structure.shape == student.batch_shape + student.event_shape:
        return student.parts_of_event(structure.to(student.dtype))
    if structure.shape == (*student.batch_shape, student.words) and not structure.is_floating_point():
        return student.parts_of_structure(student.read_structure(structure)[0])
    raise NotImplementedError(
        f"One sample of {class_name(teacher)} has shape {list(structure.shape)}; {class_name(student)} reads events of "
        f"shape {list(student.batch_shape + student.event_shape)} or integers of shape "
        f"{[*student.batch_shape, student.words]}. Let the teacher's sample() return one of them."
    )


def _separate(parts: Parts, count: int) -> list[Parts]:
    """Split parts [count * B, ...] into `count` parts [B, ...]."""
    return list(zip(*(p.unflatten(0, (count, -1)) for p in parts), strict=True))


def _along(batch: Tensor, parts: Tensor) -> Tensor:
    return batch.view(-1, *[1] * (parts.dim() - 1))
