"""A distribution of one's own: a file that imports what structkd exports, and needs no edit of structkd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import structkd


class SegmentCRF(structkd.StructuredDistribution):
    """Typed segments that cover the sentence; log_potentials [B, N, N, L], cell [b, i, j, l]: words i..j are one."""

    def __init__(self, log_potentials: Tensor, lengths: Any = None, validate_args: bool | None = None) -> None:
        structkd.check_scores("log_potentials", log_potentials, ("B", "N", "N", "L"))
        words = log_potentials.shape[1]
        self.log_potentials = log_potentials
        super().__init__(log_potentials, words, log_potentials.shape[1:], lengths, validate_args)
        self.check_values("log_potentials", log_potentials, self.event_mask)

    def event_mask(self) -> Tensor:
        inside = self.word_mask
        return (inside.unsqueeze(2) & inside.unsqueeze(1)).triu().unsqueeze(-1)

    def parts(self) -> tuple[Tensor, ...]:
        scores = self.log_potentials.to(structkd.working_precision(self.log_potentials))
        return (torch.where(self.event_mask(), scores, structkd.NEG_INF),)

    def inside(self, semiring: Any, parts: tuple[Tensor, ...], lengths: Tensor) -> Tensor:
        untyped = semiring.sum(semiring.lift(parts[0]))
        prefix = semiring.lift(parts[0].new_zeros(len(parts[0]), 1))  # [..., b, e]: the first e words
        for end in range(parts[0].shape[1]):
            closed = semiring.sum(semiring.times(prefix, untyped[..., : end + 1, end]))
            prefix = torch.cat([prefix, closed.unsqueeze(-1)], -1)
        return torch.take_along_dim(prefix, lengths.unsqueeze(-1).expand(*prefix.shape[:-1], 1), -1).squeeze(-1)

    def parts_of_structure(self, structure: list[list[tuple[int, int, int]]]) -> tuple[Tensor, ...]:
        event = torch.zeros(*self.batch_shape, *self.event_shape, dtype=torch.float64)
        for item, segments in enumerate(structure):
            for start, end, kind in segments:
                event[item, start, end, kind] = 1.0
        return (event,)

    def structure_of_parts(self, parts: tuple[Tensor, ...]) -> list[list[tuple[int, int, int]]]:
        return [[tuple(cell) for cell in event.nonzero().tolist()] for event in parts[0]]

    def parts_of_event(self, marginals: Tensor) -> tuple[Tensor, ...]:
        return (torch.where(self.event_mask(), marginals.double(), 0.0),)


@structkd.register_projection(SegmentCRF, SegmentCRF)
def _(teacher: SegmentCRF, student: SegmentCRF) -> Tensor:
    """P_t(segment): the teacher's own marginals."""
    return teacher.expected_event()


@structkd.register_projection(SegmentCRF, structkd.MaxEnt)
def _(teacher: SegmentCRF, student: structkd.MaxEnt) -> Tensor:
    """P_t(label of a word): the sum over the segments of that type that cover it."""
    word = torch.arange(student.words)
    cover = (word[:, None, None] <= word) & (word <= word[None, :, None])
    return torch.einsum("bijl,ijw->bwl", teacher.expected_event(), cover.double())
