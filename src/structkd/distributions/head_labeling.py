"""Dependency parsing as sequence labelling (Strzyz et al., 2019): labels that name heads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..numbering import NOWHERE
from .arborescence import maximum_arborescences
from .arcs import ArcDistribution
from .kernels.arithmetic import NEG_INF, Gradient, sentences_at_once, working_precision
from .kernels.engines import compiled_for
from .maxent import LabelDistribution
from .relations import Relations
from .structure import StructuredDistribution, check_scores, ordinary_tensors
from .transition_counts import expected_score, scale_gradient_

# Below this much teacher mass on the heads that a word's labels name, the word has nothing to imitate.
_LEAST_COVERED = 1e-6


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
    best tree over what the labels name. Costs O(N K); trees O(N K + N^2).
    Raises TypeError or ValueError for a wrong kind, shape, length or value.
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
            raise ValueError(f"logits must have shape [B, N, K] with K >= 1, got {list(logits.shape)}")
        self._heads = self._check_indices("heads", heads, [logits.shape])
        if relations is not None:
            relations = self._check_indices("relations", relations, [logits.shape, logits.shape[-1:]]).long()
        self.relations = relations
        self.log_potentials = logits
        super().__init__(logits, words, (words, size), lengths, validate_args)
        self._check_values("logits", logits, self._event_mask)
        if self._validate_args:
            for name, indices in (("heads", self._heads), ("relations", relations)):
                if indices is None or not indices.numel() or indices.min() >= -1:
                    continue
                if ((indices.expand(logits.shape) < -1) & self._event_mask()).any():
                    raise ValueError(f"{name} must be at least -1 (-1: names none), got {int(indices.min())}")

    @staticmethod
    def _check_indices(name: str, indices: Tensor, shapes: list[torch.Size]) -> Tensor:
        if not isinstance(indices, Tensor):
            raise TypeError(f"{name} must be a LongTensor, got {type(indices).__name__}")
        if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
            raise TypeError(f"{name} must be a LongTensor, got {indices.dtype}")
        if indices.shape not in shapes:
            expected = " or ".join(str(list(shape)) for shape in shapes)
            raise ValueError(f"{name} must have shape {expected} to go with the logits, got {list(indices.shape)}")
        return indices if indices.dtype.is_signed else indices.long()  # -1 is no number of the others

    @property
    def logits(self) -> Tensor:
        return self.log_potentials

    @property
    def heads(self) -> Tensor:
        """LongTensor [B, N, K], the head that every label names."""
        return self._heads.long()

    def _with_scores(self, *scores: Tensor | None) -> HeadLabeling:
        return HeadLabeling(scores[0], self._heads, self.relations, self.lengths, validate_args=False)  # type: ignore[arg-type]

    def _check_comparable(self, other: StructuredDistribution) -> None:
        super()._check_comparable(other)
        if not self.names_as(other):
            raise ValueError("cross-entropy needs labels that name the same heads and relations in both distributions")

    def names_as(self, other: HeadLabeling) -> bool:
        """Whether both name the same head and relation with every label inside the sentences."""
        mask = self._event_mask()
        pairs = [(self._heads, other._heads)]
        if self.relations is not None and other.relations is not None:
            pairs.append((self.relations.expand(self.heads.shape), other.relations.expand(other.heads.shape)))
        same_kind = (self.relations is None) == (other.relations is None)
        return same_kind and all(a.shape == b.shape and not ((a != b) & mask).any() for a, b in pairs)

    @property
    def named(self) -> Tensor:
        """BoolTensor [B, N, K]: True where a label of a word inside the sentence names a head inside it."""
        return self._named(slice(None))

    def _named(self, some: slice) -> Tensor:
        heads = self._heads[some]
        if not self.ragged:
            return self._heads_within(some, 0, self.words - 1) == heads  # one comparison
        ends = self.lengths[some].unsqueeze(1) * self.word_mask[some]  # no head is below 0 in the padding
        return (heads >= 0) & (heads < ends.unsqueeze(-1))

    def label_masses(self, teacher: ArcDistribution, temperature: float) -> Iterator[tuple[slice, Tensor]]:
        """Some sentences at a time, and the teacher's mass of the arc (and relation) that each of their labels names,
        [B', N, K] in working precision, or the precision of relations' scores where those count.

        Labels that name one arc share it equally; those that name no word, and all in the padding, get exactly 0. A
        word's labels sum to what they cover of the teacher, at most 1. The teacher's arcs and relations are kept apart,
        and multiplied for what the labels name alone.
        """
        if not len(self.logits):
            return
        if self.relations is not None and teacher.labelled:
            self._check_relations(teacher.event_shape[-1])
        arcs, relations = self._apart(teacher, temperature)
        mass = arcs.arc_marginals()
        # where the arc lies that a label names: by head, dependent and relation
        count = 1 if relations is None else relations.count
        place = torch.arange(self.words, device=mass.device).unsqueeze(1) * count
        by_word = None
        if relations is not None and self.relations is not None:
            chosen = self.relations.clamp(0, count - 1)
            if chosen.dim() == 1:
                place = place + chosen
            else:
                by_word = chosen
        at_once = sentences_at_once(self.logits)
        for first in range(0, len(mass), at_once):
            some = slice(first, first + at_once)
            named = self._named(some)
            cells = self._heads_within(some, 0, self.words - 1).long().mul_(self.words * count).add_(place)
            if by_word is not None:
                cells += by_word[some]
            masses = mass[some] if relations is None else relations.times(mass[some], some)
            cells, masses = cells.flatten(1), masses.flatten(1)
            found = masses.gather(1, cells).view(named.shape).masked_fill_(~named, 0.0)
            # as many labels of a word as name an arc; most encodings have one at most
            sharing = torch.zeros(masses.shape, dtype=torch.int32, device=cells.device)
            sharing.scatter_add_(1, cells, named.flatten(1).int())
            if sharing.max() > 1:
                found /= sharing.gather(1, cells).view(found.shape).clamp_min(1)
            yield some, found

    def _heads_within(self, some: slice, least: int, most: int) -> Tensor:
        """The heads of some sentences' labels, those beyond the limits moved there; a tensor of its own."""
        heads = self._heads[some]
        if heads.dtype not in (torch.int16, torch.int32):  # the smaller the faster, but bytes may not hold N
            heads = heads.long()
        return heads.clamp(least, most)

    def _apart(self, teacher: ArcDistribution, temperature: float) -> tuple[ArcDistribution, Relations | None]:
        """The teacher's arcs and, where labels have relations, too, its relations."""
        arcs, relations = teacher.apart(temperature)
        return arcs, None if self.relations is None else relations

    def _distil(self, teacher: Any, temperature: float) -> tuple[Tensor, Gradient] | None:
        """Any teacher over arcs. Nothing of [B, N, K] is made in working precision: sentences take turns."""
        if not isinstance(teacher, ArcDistribution) or teacher.words != self.words:
            return None
        scores = self.logits.detach()
        loss, gap = self._compiled_kd(scores, teacher, temperature) or self._torch_kd(scores, teacher, temperature)

        def gradient(weights: Tensor) -> tuple[Tensor | None, ...]:
            return (scale_gradient_(gap, weights * temperature).to(scores.dtype),)

        return loss, gradient

    def _compiled_kd(
        self, scores: Tensor, teacher: ArcDistribution, temperature: float
    ) -> tuple[Tensor, Tensor] | None:
        if compiled_for("head_labels", scores) is None:
            return None
        arcs, relations = self._apart(teacher, temperature)
        compiled = compiled_for("head_labels", scores, None if relations is None else relations.scores)
        if compiled is None:
            return None
        loss, gap, ok = compiled.kd(
            arcs.arc_marginals(),
            None if relations is None else relations.scores,
            scores,
            self._heads,
            None if relations is None else self.relations,
            self.lengths,
            _LEAST_COVERED,
            temperature,
        )
        return (loss, gap) if ok else None

    def _torch_kd(self, scores: Tensor, teacher: ArcDistribution, temperature: float) -> tuple[Tensor, Tensor]:
        self._require_choices(scores, (scores,))
        loss = scores.new_empty(len(scores), dtype=working_precision(scores))
        gap = torch.empty_like(scores, dtype=torch.promote_types(scores.dtype, torch.float32))
        padding = ~self.word_mask.unsqueeze(-1) if self.ragged else None
        for some, target in self.label_masses(teacher, temperature):
            imitated = renormalised(target)
            tempered = scores[some].to(loss.dtype)  # the caller's own, in float64
            if temperature != 1:
                tempered = tempered / temperature
            if padding is not None:
                tempered = tempered.masked_fill(padding[some], 0.0)
            probabilities = tempered.softmax(-1)
            # a word's normaliser is its best score less the logarithm of that label's probability
            normalisers = tempered.amax(-1) - probabilities.amax(-1).log()
            loss[some] = (normalisers * imitated).sum(-1) - expected_score(target, tempered)
            gap[some] = probabilities.mul_(imitated.unsqueeze(-1)).sub_(target)
        return loss * temperature**2, gap

    def _check_relations(self, size: int) -> None:
        """Refuse relations that are none of a teacher's, 0..size - 1, where a head is named."""
        relations = self.relations
        assert relations is not None
        if relations.min() >= 0 and relations.max() < size:
            return
        relations = relations.expand(self.logits.shape)
        wrong = self.named & ((relations < 0) | (relations >= size))
        if wrong.any():
            raise ValueError(
                f"the student's relations must lie in 0..{size - 1}, the teacher's; got {int(relations[wrong][0])}"
            )

    @ordinary_tensors
    def decode_heads(self, multiroot: bool = False) -> Tensor:
        """The best dependency tree by posterior probability, LongTensor [B, N]; root = own index, -1 in the padding.

        The maximum spanning arborescence over arcs scored by log P(arc), where P(arc) sums the probabilities of the
        word's labels that name its head (`decode()` gives each word's best label instead; what those name need not be
        a tree). With one root, or any number if `multiroot`. An arc that no label names is taken only where there is
        no tree without: then there are as few of them as possible, and the rest is the best.
        """
        return self._tree(multiroot)

    @ordinary_tensors
    def decode_trees(self, multiroot: bool = False) -> tuple[Tensor, Tensor | None]:
        """`decode_heads()`, and for every arc its relation; None without relations.

        Returns:
            Heads and relations, LongTensor [B, N] each. A relation is the one with most probability among the labels
            that name the arc; for an arc that no possible label names, among all labels of the word. -1 in the padding,
            and for a word none of whose possible labels has a relation.
        """
        heads = self._tree(multiroot)
        return heads, None if self.relations is None else self._relations_of(heads, self.relations)

    def _relations_of(self, heads: Tensor, relations: Tensor) -> Tensor:
        """The likeliest relation of every word's arc, LongTensor [B, N]; see `decode_trees`."""
        if not len(heads):
            return heads
        scores, size = self.logits.detach(), int(relations.max().clamp_min(0)) + 1
        compiled = compiled_for("head_labels", scores)
        if compiled is not None:
            best = compiled.relations_of_arcs(scores, self._heads, relations, heads, self.lengths, size)
            if best is not None:
                return best
        dtype = self._heads.dtype if self._heads.dtype in (torch.int16, torch.int32) else torch.long
        wanted, inside = heads.unsqueeze(-1).to(dtype), self.word_mask
        best, at_once = torch.empty_like(heads), sentences_at_once(scores)
        for first in range(0, len(scores), at_once):
            some = slice(first, first + at_once)
            usable = ((relations if relations.dim() == 1 else relations[some]) >= 0) & (scores[some] > NEG_INF)
            naming = (self._heads[some].to(dtype) == wanted[some]).logical_and_(usable)
            unnamed = inside[some] & ~naming.any(-1)
            if unnamed.any():
                naming |= unnamed.unsqueeze(-1) & usable
            # few labels name one arc: only they are looked at
            item, word, label = naming.nonzero(as_tuple=True)
            chosen = item + first, word, label
            masses = scores[chosen].to(working_precision(scores))
            cell = (item * self.words + word) * size + relations.expand(scores.shape)[chosen]
            total = _log_sums(masses, cell, naming[..., 0].numel() * size).view(*naming.shape[:2], size)
            best[some] = total.argmax(-1).masked_fill_(~(naming.any(-1) & inside[some]), NOWHERE)
        return best

    def _tree(self, multiroot: bool) -> Tensor:
        arcs = self._log_arcs()
        trees = maximum_arborescences(arcs, self.lengths, single_root=not multiroot)
        missing = (trees[:, 0] < 0).nonzero().flatten()
        if len(missing):
            arcs = arcs[missing]
            # Cheaper than any number of arcs with a probability, so that one such arc less is always better.
            worst = arcs.masked_fill(arcs == NEG_INF, 0.0).amin((1, 2), keepdim=True)
            arcs = torch.where(arcs == NEG_INF, self.words * worst - 1.0, arcs)
            trees[missing] = maximum_arborescences(arcs, self.lengths[missing], single_root=not multiroot)
        return trees

    def _log_arcs(self) -> Tensor:
        """log P(arc), [B, N, N] in working precision, by head and dependent: the log sum of the probabilities of the
        labels that name the arc, -inf where none does. Beyond a sentence, anything that is not NaN.
        """
        scores = self.logits.detach()
        compiled = compiled_for("head_labels", scores)
        if compiled is not None:
            arcs = compiled.log_arcs(scores, self._heads, self.lengths)
            if arcs is not None:
                return arcs
        self._require_choices(scores, (scores,))
        padding, count = ~self.word_mask.unsqueeze(-1), self.words + 2
        arcs = scores.new_empty(len(scores), self.words, count, dtype=working_precision(scores))
        represented = -0.9 * math.log(torch.finfo(arcs.dtype).tiny)
        at_once = sentences_at_once(scores)
        for first in range(0, len(scores), at_once):
            some = slice(first, first + at_once)
            # with a place for heads before and one for heads behind the sentence
            places = self._heads_within(some, -1, self.words).add_(1).long()
            labels = scores[some].to(arcs.dtype, copy=True).masked_fill_(padding[some], 0.0)
            best = labels.amax(-1, keepdim=True)
            if (labels.amin(-1, keepdim=True) > best - represented).all():
                arcs[some] = torch.zeros_like(arcs[some]).scatter_add_(-1, places, labels.sub_(best).exp_()).log_()
            else:
                arcs[some] = _log_sums(labels, places, count)
        return (arcs - arcs.logsumexp(-1, keepdim=True))[..., 1:-1].mT


def _log_sums(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """log sum exp over the last axis by groups: [..., K] and groups [..., K] to [..., count]; -inf for an empty one."""
    shape = (*values.shape[:-1], count)
    top = values.new_full(shape, NEG_INF).scatter_reduce(-1, groups, values, "amax")
    shift = top.masked_fill(top == NEG_INF, 0.0)
    return values.new_zeros(shape).scatter_add(-1, groups, (values - shift.gather(-1, groups)).exp()).log() + shift


def renormalised(mass: Tensor) -> Tensor:
    """Divide the masses of labels by what they cover of each word, in place; a word with too little of it gets 0.

    Returns what the words' masses then sum to, 1 or 0, [B, N].
    """
    covered = mass.sum(-1)
    enough = covered >= _LEAST_COVERED
    mass.mul_(torch.where(enough, 1 / covered.clamp_min(_LEAST_COVERED), 0.0).unsqueeze(-1))
    return enough.to(mass.dtype)
