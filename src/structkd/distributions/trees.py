"""What the distributions over dependency trees share: sums over relations, and teachers that run along."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .arcs import ArcDistribution
from .kernels.counts import weighted_by_sentence
from .kernels.dispatch import compiled_for
from .semirings import NEG_INF, logsumexp
from .structure import Gradient, Parts, expected_score


class TreeDistribution(ArcDistribution):
    """Base of the distributions over dependency trees. A subclass gives `_programme` and `_compiled_kd`."""

    tree = True

    def _programme(self, arcs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """log Z [B] and arc marginals [B, N, N] for unlabelled arcs, without a graph; log Z = -inf where none."""
        raise NotImplementedError

    def _without_graph(self, scores: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """log Z [B] and marginals shaped like `scores`: given the arc, relations are independent of the tree."""
        if not self.labelled:
            return self._programme(scores, lengths)
        arcs = logsumexp(scores)
        value, marginals = self._programme(arcs, lengths)
        relations = (scores - arcs.masked_fill(arcs == NEG_INF, 0.0).unsqueeze(-1)).exp_()
        return value, marginals.unsqueeze(-1) * relations

    def _expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        if torch.is_grad_enabled() and parts[0].requires_grad:
            return super()._expectations(parts)
        value, marginals = self._without_graph(parts[0].detach(), self.lengths)
        self._require_structures(value, parts)
        return value, (marginals,)

    def _compiled_kd(self, compiled: ModuleType) -> Callable[..., tuple[Tensor, Tensor, bool]]:
        """The compiled kernel for a whole loss over unlabelled arcs, of the module given."""
        raise NotImplementedError

    def _distil(self, teacher: Any, temperature: float) -> tuple[Tensor, Gradient] | None:
        """Any arc-factored teacher whose structures, conditioned on this class's, are this class's."""
        if not isinstance(teacher, ArcDistribution) or teacher.event_shape != self.event_shape:
            return None
        if teacher.projective > self.projective or teacher.multiroot < self.multiroot:
            return None
        own = self.log_potentials.detach()
        if not self.labelled:
            # a mean-field teacher's scores are its log posterior at this temperature
            theirs = teacher.tempered(temperature).log_potentials.detach()
            theirs = theirs if temperature == 1 else theirs * temperature
            compiled = compiled_for(theirs, own)
            if compiled is not None:
                arguments = theirs, own, self.lengths, self.multiroot, temperature
                loss, by_arc, ok = self._compiled_kd(compiled)(*arguments)
                if ok:
                    return loss, lambda weights: (weighted_by_sentence(by_arc, weights.to(by_arc.dtype)),)
        sides = teacher.tempered(temperature)._parts()[0], self.tempered(temperature)._parts()[0].detach()
        loss, gap = sides[0].new_empty(len(own)), torch.empty_like(own)
        at_once = self._sentences_at_once(own)
        for first in range(0, len(own), at_once):
            some = slice(first, first + at_once)
            both = torch.cat([side[some] for side in sides])
            value, marginals = self._without_graph(both, self.lengths[some].repeat(2))
            if not (value > NEG_INF).all():
                return None
            wanted, got = marginals.chunk(2)
            loss[some] = value[len(wanted) :] - expected_score(wanted, both[len(wanted) :])
            gap[some] = got.sub_(wanted)

        def gradient(weights: Tensor) -> tuple[Tensor | None, ...]:
            return (weighted_by_sentence(gap, (weights * temperature).to(own.dtype)),)

        return loss * temperature**2, gradient

    def _sentences_at_once(self, arcs: Tensor) -> int:
        """How many sentences a loss should take at a time."""
        return len(arcs)
