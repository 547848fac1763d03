"""The common base of distributions over dependency trees: sums over relations, and fused losses."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arcs import ArcDistribution
from .base import Parts, StructuredDistribution, class_name
from .checks import TooLargeError
from .faults import Faults, choices_of_event, tree_faults
from .kernels import trees
from .kernels.arithmetic import NEG_INF, Gradient, sentences_at_once
from .kernels.relations import Relations, over_relations
from .transition_counts import scale_gradient_

# The largest error of an expected score, from marginals that do not add up.
_MISSED = 1e-5


def check_multiroot(multiroot: Any) -> bool:
    """Return a truth value; refuse anything else, such as the `args` that torch-struct's constructors take here."""
    if not isinstance(multiroot, (bool, np.bool_)):
        raise TypeError(
            f"The argument multiroot must be True or False, got {type(multiroot).__name__}. torch-struct orders its "
            "arguments differently, so give them by name."
        )
    return bool(multiroot)


class TreeDistribution(ArcDistribution):
    """Base of the distributions over dependency trees.

    A subclass gives `_recursion`, the module with `kd` and `expectations` of its trees, and `_best_heads`.
    """

    tree = True
    _recursion: ModuleType

    def checked_gold(self, gold: Any) -> Any:
        if self.labelled or not self.is_event(gold):
            return super().checked_gold(gold)
        faults, heads = self._faults_of_arcs(gold, as_gold=True)
        self._refuse(faults | self._faults_of_heads(heads))
        return heads

    def faults_of_event(self, event: Tensor, as_gold: bool = False) -> Faults:
        faults, heads = self._faults_of_arcs(event, as_gold)
        return faults | self._faults_of_heads(heads)

    def _faults_of_heads(self, heads: Tensor) -> Faults:
        return tree_faults(heads, self.word_mask, self.projective, self.multiroot)

    def read_structure(self, structure: Any) -> tuple[Tensor, Faults]:
        heads, faults = super().read_structure(structure)
        if StructuredDistribution.leaves_open(self, heads):
            return heads, faults  # whether trees agree with the others will be seen
        return heads, faults | self._faults_of_heads(heads.clamp(0, self.words - 1))

    def _without_graph(self, scores: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return log Z [B] and marginals shaped like `scores`: given the arc, relations are independent of the tree."""
        if not self.labelled:
            return self._recursion.expectations(scores, lengths, self.multiroot)
        arcs, relations = over_relations(scores)
        value, marginals = self._recursion.expectations(arcs, lengths, self.multiroot)
        return value, relations.mul_(marginals.unsqueeze(-1))

    def expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        if torch.is_grad_enabled() and parts[0].requires_grad:
            return super().expectations(parts)
        value, marginals = self._without_graph(parts[0].detach(), self.lengths)
        self._require_structures(value, parts)
        return value, (marginals,)

    def _best_heads(self, arcs: Tensor) -> Tensor:
        """Return the best trees over arcs [B, N, N], LongTensor [B, N]; -1 in the padding and without a tree."""
        raise NotImplementedError

    def best(self) -> tuple[Tensor, Parts]:
        if "best" not in self._cache:
            self._cache["best"] = self._best_trees(self.parts()[0].detach())
        return self._cache["best"]

    def _best_trees(self, scores: Tensor) -> tuple[Tensor, Parts]:
        """Return value [B] and indicators of the best trees, every arc with its best relation."""
        arcs = scores.amax(-1) if self.labelled else scores
        heads = self._best_heads(arcs)
        padding = ~self.word_mask
        value = arcs.gather(1, heads.clamp_min(0).unsqueeze(1)).squeeze(1).masked_fill(padding, 0.0).sum(1)
        value = value.masked_fill(heads[:, 0] < 0, NEG_INF)
        self._require_structures(value, (scores,))
        event = torch.zeros_like(arcs).scatter_(1, heads.clamp_min(0).unsqueeze(1), 1.0)
        event = event.masked_fill_((heads < 0).unsqueeze(1), 0.0)
        if self.labelled:
            relations = torch.zeros_like(scores).scatter_(-1, scores.argmax(-1, keepdim=True), 1.0)
            event = event.unsqueeze(-1) * relations
        return value, (event,)

    def _consistent_expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        # A word has one head. If its arcs' probabilities miss 1 by more, scores of this size show that, too.
        value, (marginals,) = self._exact_expectations(parts)
        found, scores = marginals.detach(), parts[0].detach()
        heads = found.sum(-1) if self.labelled else found
        missed = (heads.sum(1) - 1.0).abs().masked_fill(~self.word_mask, 0.0).amax(1)
        size = scores.masked_fill(found <= 0, 0.0).abs().flatten(1).amax(1)
        if bool((missed * size > _MISSED).any()):
            raise TooLargeError(class_name(self), float(size.amax()))
        return value, (marginals,)

    def fused_loss(self, teacher: Any, temperature: float) -> tuple[Tensor, Gradient] | None:
        """Return the loss for an arc-factored teacher that has all structures of this class."""
        if not isinstance(teacher, ArcDistribution) or teacher.event_shape != self.event_shape:
            return None
        if teacher.projective > self.projective or teacher.multiroot < self.multiroot:
            return None
        theirs, own = teacher.scores_before(temperature).detach(), self.log_potentials.detach()
        if self.labelled:
            found = trees.kd_from_expectations(self._without_graph, theirs, own, self.lengths, temperature)
        else:
            found = self._recursion.kd(theirs, own, self.lengths, self.multiroot, temperature)
        if found is None:
            return None
        loss, gap = found
        return loss, lambda weights: (scale_gradient_(gap, weights),)

    def fused_likelihood(self, gold: Any) -> tuple[Tensor, Gradient] | None:
        """Return the likelihood of trees of which all is known: heads, or events with relations.

        No tensor [B, N, N, L] is created in more than the scores' precision, and only the gradient is of more sentences
        than a cache holds.
        """
        if self.is_event(gold):
            cells, *_ = choices_of_event(gold, self.word_mask, 2, (1,))
            heads, kinds = cells[..., 1], cells[..., 3:].unbind(-1)
        elif self.leaves_open(gold):
            return None
        else:
            heads, kinds = gold.clamp(0, self.words - 1), ()
        scores = self.log_potentials.detach()
        arcs, relations = self.arcs_and_relations()
        loss, gap = self._recursion.expectations(arcs.parts()[0].detach(), self.lengths, self.multiroot)
        if relations is not None:
            gap = self._times_relations(gap, relations)
        item = torch.arange(len(heads), device=heads.device).unsqueeze(1)
        chosen = (item, heads, torch.arange(self.words, device=heads.device), *kinds)
        loss = loss - scores[chosen].to(loss.dtype).masked_fill(~self.word_mask, 0.0).sum(1)
        gap[chosen] -= self.word_mask.to(gap.dtype)
        if not loss.isfinite().all():  # no tree, or a tree that scores of -inf exclude
            return None
        return loss, lambda weights: (scale_gradient_(gap, weights).to(scores.dtype),)

    def _times_relations(self, arcs: Tensor, relations: Relations) -> Tensor:
        """Return the marginals of labelled arcs, in the precision of relations, given those of arcs [B, N, N]."""
        dtype = torch.promote_types(self.dtype, torch.float32)
        labelled = torch.empty(*arcs.shape, relations.count, dtype=dtype, device=arcs.device)
        padding = ~self.event_mask() if self.ragged else None
        at_once = sentences_at_once(labelled)
        for first in range(0, len(arcs), at_once):
            some = slice(first, first + at_once)
            share = relations.times(arcs[some], some)
            labelled[some] = share if padding is None else share.masked_fill_(padding[some], 0.0)
        return labelled
