"""Relations given the arc: their scores, given as a table or as what they are made of, and their probabilities."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from .kernels.arithmetic import NEG_INF, sentences_at_once, working_precision
from .kernels.engines import compiled_for


@runtime_checkable
class RelationScores(Protocol):
    """Scores of relations given the arc, [B, N, N, L], by what they are made of: a parser's bilinear form, say."""

    @property
    def count(self) -> int:
        """L."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the scores."""

    def everywhere(self) -> Tensor:
        """The scores of all arcs, [B, N, N, L]; cell [b, h, d, l] for relation l, root arcs on the diagonal."""

    def along(self, heads: Tensor) -> Tensor:
        """Those of one arc a word, [B, N, L]; heads LongTensor [B, N], root = own index."""


class Tabulated:
    """Scores of relations, [B, N, N, L], that are multiplied out already."""

    def __init__(self, scores: Tensor) -> None:
        self.scores, self.count, self.dtype = scores, scores.shape[-1], scores.dtype

    def everywhere(self) -> Tensor:
        return self.scores

    def along(self, heads: Tensor) -> Tensor:
        return along(self.scores, heads)


def along(cells: Tensor, heads: Tensor) -> Tensor:
    """Of cells [B, N, N, L], those of one arc a word, [B, N, L]; heads LongTensor [B, N], root = own index."""
    return cells.gather(1, heads[:, None, :, None].expand(-1, 1, -1, cells.shape[-1])).squeeze(1)


class Relations:
    """P(relation | arc), the softmax of scores / temperature, of as many sentences as are asked for.

    Attributes:
        count: L.
        temperature: T.
    """

    def __init__(self, build: Callable[[], Tensor], count: int, temperature: float) -> None:
        self._build, self.count, self.temperature = build, count, temperature

    @cached_property
    def scores(self) -> Tensor:
        """[B, N, N, L] as they were given, without a graph; anything in the padding."""
        with torch.no_grad():
            return self._build().detach()

    @cached_property
    def normaliser(self) -> Tensor:
        """[B, N, N] in working precision, log sum exp over relations; -inf where all are impossible."""
        scores, temperature = self.scores, self.temperature
        compiled = compiled_for("relations", scores)
        found = None if compiled is None else compiled.normalisers(scores, temperature)
        if found is not None:
            return found
        normalisers = torch.empty(scores.shape[:3], dtype=working_precision(scores), device=scores.device)
        at_once = sentences_at_once(scores)
        for some, normaliser in zip(scores.split(at_once), normalisers.split(at_once), strict=True):
            # the best is exact, and what is left lies in 0..log L: the precision of the scores will do, if not half
            some = some.to(torch.promote_types(some.dtype, torch.float32))
            best = some.amax(-1)
            impossible = best == NEG_INF
            if temperature != 1:
                some = (some - best.masked_fill(impossible, 0.0).unsqueeze(-1)).mul_(1.0 / temperature)
            normaliser.copy_(best).div_(temperature).sub_(some.log_softmax(-1).amax(-1))
            normaliser.masked_fill_(impossible, NEG_INF)
        return normalisers

    @cached_property
    def impossible(self) -> Tensor | None:
        """BoolTensor [B, N, N]: arcs without a possible relation; None where no cell is -inf or NaN."""
        return None if not len(self.scores) or self.scores.amin() > NEG_INF else self.normaliser == NEG_INF

    def times(self, arcs: Tensor, some: slice) -> Tensor:
        """P(arc) P(relation | arc), [B', N, N, L], of some sentences with P(arc), [B', N, N]."""
        # anything in the padding; a softmax is of differences of like scores: their precision will do here, too
        scores = self.scores[some].to(torch.promote_types(self.scores.dtype, torch.float32))
        if self.temperature != 1:
            scores = (scores - scores.amax(-1, keepdim=True)).mul_(1.0 / self.temperature)
        share = scores.softmax(-1)
        if self.impossible is not None:
            share.masked_fill_(self.impossible[some].unsqueeze(-1), 0.0)
        return share.mul_(arcs.to(share.dtype).unsqueeze(-1))


def over_relations(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Scores [..., L] of labelled arcs as scores [...] of arcs, log sum exp over relations, and P(relation | arc).

    0 for the relations of an impossible arc. Leaves no graph.
    """
    scores = scores.detach()
    best = scores.amax(-1)
    relations = (scores - best.masked_fill(best == NEG_INF, 0.0).unsqueeze(-1)).exp_()
    total = relations.sum(-1).clamp_min(1.0)  # the best alone gives 1
    return best + total.log(), relations.mul_(1 / total.unsqueeze(-1))
