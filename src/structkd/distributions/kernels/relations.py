"""Sums over the relations of every arc, and the probabilities of relations given the arc."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from .arithmetic import NEG_INF, sentences_at_once, working_precision
from .engines import compiled_for


class Relations:
    """P(relation | arc), the softmax of scores / temperature. It is computed on demand, for a slice of the batch.

    Attributes:
        count: L, the number of relations.
        temperature: T.
    """

    def __init__(self, build: Callable[[], Tensor], count: int, temperature: float) -> None:
        self._build, self.count, self.temperature = build, count, temperature

    @cached_property
    def scores(self) -> Tensor:
        """The given scores [B, N, N, L] without a graph. The padding may hold anything."""
        with torch.no_grad():
            return self._build().detach()

    @cached_property
    def normaliser(self) -> Tensor:
        """The log sum exp over relations, [B, N, N] in working precision; -inf if all relations are impossible."""
        scores, temperature = self.scores, self.temperature
        compiled = compiled_for("relations", scores)
        found: Tensor | None = None if compiled is None else compiled.normalisers(scores, temperature)
        if found is not None:
            return found
        normalisers = torch.empty(scores.shape[:3], dtype=working_precision(scores), device=scores.device)
        at_once = sentences_at_once(scores)
        for some, normaliser in zip(scores.split(at_once), normalisers.split(at_once), strict=True):
            # The best score is exact and the remainder lies in 0..log L, so float32 is precise enough for it.
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
        """The arcs without a possible relation, BoolTensor [B, N, N]; None if no score is -inf or NaN."""
        return None if not len(self.scores) or self.scores.amin() > NEG_INF else self.normaliser == NEG_INF

    def times(self, arcs: Tensor, some: slice) -> Tensor:
        """Compute P(arc) P(relation | arc), [B', N, N, L], for a slice of sentences with P(arc), [B', N, N].

        The padding may hold anything.
        """
        # A softmax depends on differences of scores only, so their own precision is enough.
        scores = self.scores[some].to(torch.promote_types(self.scores.dtype, torch.float32))
        if self.temperature != 1:
            scores = (scores - scores.amax(-1, keepdim=True)).mul_(1.0 / self.temperature)
        share = scores.softmax(-1)
        if self.impossible is not None:
            share.masked_fill_(self.impossible[some].unsqueeze(-1), 0.0)
        return share.mul_(arcs.to(share.dtype).unsqueeze(-1))


def over_relations(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the scores of arcs [...], the log sum exp of scores [..., L] over relations, and P(relation | arc).

    P(relation | arc) is 0 for an impossible arc. Leaves no graph.
    """
    scores = scores.detach()
    best = scores.amax(-1)
    relations = (scores - best.masked_fill(best == NEG_INF, 0.0).unsqueeze(-1)).exp_()
    total = relations.sum(-1).clamp_min(1.0)  # The best relation alone contributes 1.
    return best + total.log(), relations.mul_(1 / total.unsqueeze(-1))
