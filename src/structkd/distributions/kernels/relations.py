"""Sums over the relations of every arc, and the probabilities of relations given the arc."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from .arithmetic import NEG_INF, sentences_at_once, working_precision
from .engines import compiled_for


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
        found: Tensor | None = None if compiled is None else compiled.normalisers(scores, temperature)
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
    """Compute scores [...] of arcs, log sum exp over relations of scores [..., L], and P(relation | arc).

    0 for the relations of an impossible arc. Leaves no graph.
    """
    scores = scores.detach()
    best = scores.amax(-1)
    relations = (scores - best.masked_fill(best == NEG_INF, 0.0).unsqueeze(-1)).exp_()
    total = relations.sum(-1).clamp_min(1.0)  # the best alone gives 1
    return best + total.log(), relations.mul_(1 / total.unsqueeze(-1))
