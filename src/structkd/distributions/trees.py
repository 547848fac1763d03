"""What the distributions over dependency trees share: sums over relations, and teachers that run along."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .arcs import ArcDistribution, over_relations
from .semirings import NEG_INF
from .structure import Gradient, Parts, expected_score


class TreeDistribution(ArcDistribution):
    """Base of the distributions over dependency trees. A subclass gives `_programme`."""

    tree = True

    def _programme(self, arcs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """log Z [B] and arc marginals [B, N, N] for unlabelled arcs, without a graph; log Z = -inf where none."""
        raise NotImplementedError

    def _without_graph(self, scores: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """log Z [B] and marginals shaped like `scores`: given the arc, relations are independent of the tree."""
        if not self.labelled:
            return self._programme(scores, lengths)
        arcs, relations = over_relations(scores)
        value, marginals = self._programme(arcs, lengths)
        return value, relations.mul_(marginals.unsqueeze(-1))

    def _expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        if torch.is_grad_enabled() and parts[0].requires_grad:
            return super()._expectations(parts)
        value, marginals = self._without_graph(parts[0].detach(), self.lengths)
        self._require_structures(value, parts)
        return value, (marginals,)

    def _distil(self, teacher: Any, temperature: float) -> tuple[Tensor, Gradient] | None:
        """Any arc-factored teacher whose structures, conditioned on this class's, are this class's."""
        if not isinstance(teacher, ArcDistribution) or teacher.event_shape != self.event_shape:
            return None
        if teacher.projective > self.projective or teacher.multiroot < self.multiroot:
            return None
        scores = self._parts()[0] / temperature
        both = torch.cat([teacher.tempered(temperature)._parts()[0], scores])
        value, marginals = self._without_graph(both, self.lengths.repeat(2))
        if not (value > NEG_INF).all():
            return None
        wanted, got = marginals.chunk(2)
        loss = value[len(wanted) :] - expected_score(wanted, scores)
        gap = got - wanted

        def gradient(weights: Tensor) -> tuple[Tensor | None, ...]:
            weights = (weights * temperature).view(-1, *[1] * (gap.dim() - 1))
            return ((gap * weights).to(self.log_potentials.dtype),)

        return loss * temperature**2, gradient
