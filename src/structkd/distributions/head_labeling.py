"""Dependency parsing as sequence labelling (Strzyz et al., 2019): labels that name heads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .arcs import ArcDistribution
from .base import StructuredDistribution, ordinary_tensors
from .checks import check_scores
from .kernels import head_labels
from .kernels.arborescence import maximum_arborescences
from .kernels.arithmetic import NEG_INF, Gradient
from .kernels.relations import Relations
from .maxent import LabelDistribution
from .transition_counts import scale_gradient_


class HeadLabeling(LabelDistribution):
    """Dependency parsing as sequence labelling (Strzyz et al., 2019): every word takes a label that names a head.

    Args:
        logits: [B, N, K]; cell [b, d, k] scores label k at word d.
        heads: LongTensor [B, N, K]; the head that label k names at word d, 0-based; d itself means root; -1, or a
            head beyond the sentence, names no word (the label keeps its share of the softmax).
        relations: LongTensor [K] or [B, N, K], the relation each label names, or None for unlabelled parsing.
        lengths: LongTensor [B], words per sentence, 1..N; None means N for all.
        validate_args: check values (NaN, +inf, heads and relations below -1); None means torch.distributions' default.

    Parts are labels: `marginals` are [B, N, K] and `decode()` gives label indices [B, N]; `decode_heads()` gives the
    best tree over the arcs that labels name. Costs O(N K); trees O(N K + N^2).
    Raises TypeError or ValueError for a wrong kind, shape, length or value.

    Example:
        >>> import torch
        >>> named = torch.tensor([[[0, 1], [0, 1]]])  # label k names word k; a word's own index is the root
        >>> labeling = HeadLabeling(torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), named)
        >>> labeling.decode().tolist()  # both words are roots
        [[0, 1]]
        >>> labeling.decode_heads().tolist()  # the best tree with a single root
        [[0, 0]]
    """

    def __init__(
        self,
        logits: Tensor,
        heads: Tensor,
        relations: Tensor | None = None,
        lengths: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        check_scores("logits", logits, ("B", "N", "K"))
        _, words, size = logits.shape
        if size < 1:
            raise ValueError(f"The logits must have shape [B, N, K] with K >= 1, got {list(logits.shape)}.")
        self._heads = self._check_indices("heads", heads, [logits.shape])
        if relations is not None:
            relations = self._check_indices("relations", relations, [logits.shape, logits.shape[-1:]]).long()
        self.relations = relations
        self.log_potentials = logits
        super().__init__(logits, words, (words, size), lengths, validate_args)
        self.check_values("logits", logits, self.event_mask)
        if self._validate_args:
            for name, indices in (("heads", self._heads), ("relations", relations)):
                if indices is None or not indices.numel() or indices.min() >= -1:
                    continue
                if ((indices.expand(logits.shape) < -1) & self.event_mask()).any():
                    raise ValueError(
                        f"{name} must be at least -1 (a label with -1 names none), got {int(indices.min())}."
                    )

    @staticmethod
    def _check_indices(name: str, indices: Tensor, shapes: list[torch.Size]) -> Tensor:
        if not isinstance(indices, Tensor):
            raise TypeError(f"{name} must be a LongTensor, got {type(indices).__name__}.")
        if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
            raise TypeError(f"{name} must be a LongTensor, got {indices.dtype}.")
        if indices.shape not in shapes:
            expected = " or ".join(str(list(shape)) for shape in shapes)
            raise ValueError(f"{name} must have shape {expected} to go with the logits, got {list(indices.shape)}.")
        return indices if indices.dtype.is_signed else indices.long()  # unsigned integers cannot hold -1

    @property
    def logits(self) -> Tensor:
        return self.log_potentials

    @property
    def heads(self) -> Tensor:
        """LongTensor [B, N, K], the head that every label names."""
        return self._heads.long()

    def _check_comparable(self, other: StructuredDistribution) -> None:
        super()._check_comparable(other)
        if not self.names_as(other):
            raise ValueError(
                "A cross-entropy needs labels that name the same heads and relations in both distributions. Use "
                "structkd.structural_kd_loss with a teacher over arcs instead."
            )

    def names_as(self, other: HeadLabeling) -> bool:
        """Return whether both name the same head and relation with every label inside the sentences."""
        mask = self.event_mask()
        pairs = [(self._heads, other._heads)]
        if self.relations is not None and other.relations is not None:
            pairs.append((self.relations.expand(self.heads.shape), other.relations.expand(other.heads.shape)))
        same_kind = (self.relations is None) == (other.relations is None)
        return same_kind and all(a.shape == b.shape and not ((a != b) & mask).any() for a, b in pairs)

    @property
    def named(self) -> Tensor:
        """BoolTensor [B, N, K]: True where a label of a word inside the sentence names a head inside it."""
        return head_labels.named(self._heads, self.lengths)

    def label_masses(self, teacher: ArcDistribution, temperature: float) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of sentences with the teacher's mass of the arc (and relation) that each label names.

        Masses are [B', N, K] in working precision, or in the precision of relations' scores if labels name these.

        Labels that name one arc share it equally; those that name no word, and all in the padding, get exactly 0. A
        word's labels sum to the share of the teacher that they cover, at most 1. The teacher's arcs and relations are
        stored separately, and multiplied only for pairs that labels name.
        """
        arcs, relations = self._teacher_arcs(teacher, temperature)
        return head_labels.masses(arcs.arc_marginals(), relations, self._heads, self.relations, self.lengths)

    def _teacher_arcs(self, teacher: ArcDistribution, temperature: float) -> tuple[ArcDistribution, Relations | None]:
        """Return the teacher's arcs, and its relations if labels name some."""
        arcs, relations = teacher.arcs_and_relations(temperature)
        return arcs, None if self.relations is None else relations

    def fused_loss(self, teacher: Any, temperature: float) -> tuple[Tensor, Gradient] | None:
        """Return the loss for any teacher over arcs; sentences take turns, so few are held in working precision."""
        if not isinstance(teacher, ArcDistribution) or teacher.words != self.words:
            return None
        scores = self.logits.detach()
        arcs, relations = self._teacher_arcs(teacher, temperature)
        mass, named = arcs.arc_marginals(), (self._heads, self.relations)
        loss, gap = head_labels.kd(mass, relations, scores, *named, self.lengths, temperature)
        if not math.isfinite(loss.sum()):
            self._require_choices(scores, (scores,))

        def gradient(weights: Tensor) -> tuple[Tensor | None, ...]:
            return (scale_gradient_(gap, weights * temperature).to(scores.dtype),)

        return loss, gradient

    @ordinary_tensors
    def decode_heads(self, multiroot: bool = False) -> Tensor:
        """Return the best dependency tree by posterior probability, LongTensor [B, N].

        A root is its own head; -1 stands in the padding. The tree is the maximum spanning arborescence over arcs scored
        by log P(arc), with one root, or any number if `multiroot`. P(arc) sums the probabilities of the word's labels
        that name its head. (`decode()` gives each word's best label instead, and the heads these name need not form a
        tree.) Arcs that no label names are taken only if there is no tree without them: the tree then has as few of
        them as possible, and its other arcs are the best.
        """
        return self._tree(multiroot)

    @ordinary_tensors
    def decode_trees(self, multiroot: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return `decode_heads()`, and for every arc its relation; None without relations.

        Returns:
            Heads and relations, LongTensor [B, N] each. A relation is the one with most probability among the labels
            that name the arc; for an arc that no possible label names, among all labels of the word. -1 in the padding,
            and for a word none of whose possible labels has a relation.
        """
        heads = self._tree(multiroot)
        if self.relations is None:
            return heads, None
        scores = self.logits.detach()
        return heads, head_labels.relations_of_arcs(scores, self._heads, self.relations, heads, self.lengths)

    def _tree(self, multiroot: bool) -> Tensor:
        scores = self.logits.detach()
        arcs = head_labels.log_arcs(scores, self._heads, self.lengths)
        if arcs.numel() and arcs.amax().isnan():
            self._require_choices(scores, (scores,))
        trees = maximum_arborescences(arcs, self.lengths, single_root=not multiroot)
        missing = (trees[:, 0] < 0).nonzero().flatten()
        if len(missing):
            arcs = arcs[missing]
            # Cheaper than any number of arcs with a probability, so that one such arc less is always better.
            worst = arcs.masked_fill(arcs == NEG_INF, 0.0).amin((1, 2), keepdim=True)
            arcs = torch.where(arcs == NEG_INF, self.words * worst - 1.0, arcs)
            trees[missing] = maximum_arborescences(arcs, self.lengths[missing], single_root=not multiroot)
        return trees
