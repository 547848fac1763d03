"""The common base of distributions over dependency arcs: layout, masks and encoding."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..numbering import NOWHERE, UNLABELLED, to_conllu, to_own_index
from .base import Parts, StructuredDistribution, ordinary_tensors
from .checks import check_labels, check_scores
from .faults import HEAD_BEYOND, SEVERAL_PARTS, Faults, choices_of_event
from .kernels.arithmetic import NEG_INF, logarithm, working_precision
from .kernels.relations import Relations
from .maxent import MaxEnt
from .relations import RelationScores, Tabulated, along

Self = TypeVar("Self", bound="ArcDistribution")


class ArcDistribution(StructuredDistribution):
    """Base of the distributions whose parts are arcs: [B, N, N], cell [b, h, d] for head h and dependent d, root arcs
    on the diagonal [b, d, d]; labelled: a last axis of relations.
    """

    structures_are = "heads"
    #: Trees only, projective ones only, one root only: the space of structures.
    tree = False
    projective = False
    multiroot = True
    #: The distribution of unlabelled arcs and the scores of relations, if these were given separately.
    _by_arc: tuple[ArcDistribution, RelationScores] | None = None

    def _initialise(self, log_potentials: Tensor, lengths: Any, validate_args: bool | None) -> None:
        check_scores_of_arcs("log_potentials", log_potentials, labelled=True)
        self._log_potentials = log_potentials
        _, words, *_ = shape = log_potentials.shape
        StructuredDistribution.__init__(self, log_potentials, words, shape[1:], lengths, validate_args)
        self.check_values("log_potentials", log_potentials, self.event_mask)

    def with_relations(self: Self, relations: Tensor | RelationScores) -> Self:
        """Return the distribution with a relation on every arc: P(relation | arc) is the softmax of its scores.

        Args:
            relations: [B, N, N, L], or `RelationScores` that compute them. Every arc needs a possible relation.

        `structkd.supervised_loss` of boolean events takes the scores along the gold arcs alone, by the chain rule, in
        O(B N L) memory. `RelationScores` are expanded to [B, N, N, L] when anything else needs labelled arcs, once
        for every graph. If the scores of arcs are not being differentiated they are expanded at once, so that their
        factors may change afterwards.

        Raises:
            TypeError: if `relations` are neither a tensor nor `RelationScores`.
            ValueError: if their shape or a value is wrong, or these arcs bear relations already.
        """
        if self.labelled:
            raise ValueError(
                f"These arcs bear relations already: their event_shape is {list(self.event_shape)}. Call "
                "with_relations on the distribution of unlabelled arcs."
            )
        given: RelationScores
        if isinstance(relations, Tensor):
            given = Tabulated(check_scores("relations", relations, ("B", "N", "N", "L")))
        elif isinstance(relations, RelationScores):
            given = relations if self._needs_graph() else Tabulated(relations.everywhere())
        else:
            raise TypeError(
                "The relations must be a tensor [B, N, N, L] or structkd.RelationScores, got "
                f"{type(relations).__name__}."
            )
        labelled = copy.copy(self)
        labelled._by_arc, labelled._cache = (self, given), {}
        labelled._event_shape = torch.Size((*self.event_shape, given.count))
        labelled.dtype = torch.promote_types(self.dtype, given.dtype)
        if isinstance(given, Tabulated):
            labelled._check_relations(given.scores)
        return labelled

    @property
    @ordinary_tensors
    def log_potentials(self) -> Tensor:
        """Scores of arcs, [B, N, N], or of labelled arcs, [B, N, N, L]."""
        return self._log_potentials if self._by_arc is None else self._memo("labelled arcs", self._labelled_arcs)

    @log_potentials.setter
    def log_potentials(self, scores: Tensor) -> None:
        self._log_potentials, self._by_arc, self._event_shape = scores, None, scores.shape[1:]

    def _labelled_arcs(self) -> Tensor:
        assert self._by_arc is not None
        arcs, logarithms = self._by_arc[0].log_potentials.unsqueeze(-1), self._all_relations().log_softmax(-1)
        if torch.is_grad_enabled() or torch.promote_types(arcs.dtype, logarithms.dtype) != logarithms.dtype:
            return logarithms + arcs
        return logarithms.add_(arcs)  # the tensor may be a large one

    def _all_relations(self) -> Tensor:
        """Scores of relations given the arc, [B, N, N, L], if they were given separately."""
        assert self._by_arc is not None
        given = self._by_arc[1]
        if isinstance(given, Tabulated):
            return given.scores
        return self._memo("relations", lambda: self._check_relations(given.everywhere()))

    def _check_relations(self, relations: Tensor) -> Tensor:
        if relations.shape != self.batch_shape + self.event_shape or not relations.shape[-1]:
            expected = [*self.batch_shape, *self.event_shape[:2], "L >= 1"]
            raise ValueError(f"The relations must have shape {expected}, got {list(relations.shape)}.")
        # a sum stays NaN or infinite if a term is; the padding, which may hold anything, is then left out
        if self._validate_args and not relations.detach().sum().isfinite():
            self.check_values("relations", relations, self.event_mask)
            impossible = ((relations.detach().amax(-1) == NEG_INF) & self._arc_mask()).nonzero().tolist()
            if impossible:
                raise ValueError(
                    f"Every arc needs a possible relation, and cell {impossible[0]} (batch item first) of relations "
                    "has none. To exclude an arc, set its own score to -inf."
                )
        return relations

    def _needs_graph(self) -> bool:
        if self._by_arc is None:
            return super()._needs_graph()
        # relations are only left unexpanded if the scores of arcs are differentiated
        arcs, given = self._by_arc
        table = isinstance(given, Tabulated) and given.scores.requires_grad
        return arcs._needs_graph() or (torch.is_grad_enabled() and table)

    def sources(self) -> tuple[Tensor, ...]:
        if self._by_arc is None:
            return super().sources()
        arcs, relations = self._by_arc
        return *arcs.sources(), relations.along(torch.zeros_like(self.lengths).unsqueeze(1).expand(-1, self.words))

    def factor_likelihood(self, gold: Any) -> list[tuple[Distribution, Tensor]] | None:
        if self._by_arc is None:
            return None
        arcs, relations = self._by_arc
        if not self.is_event(gold):
            return [(arcs, gold)]  # heads alone
        if gold.dtype != torch.bool:
            return None
        gold_arcs = gold.any(-1) & self._arc_mask()
        heads = gold_arcs.to(torch.uint8).argmax(1)
        gold_relations = along(gold, heads)
        scores = relations.along(heads)
        self.check_values("scores of relations along gold arcs", scores, lambda: self.word_mask.unsqueeze(-1))
        return [(arcs, gold_arcs), (MaxEnt(scores, self.lengths, validate_args=False), gold_relations)]

    @property
    def labelled(self) -> bool:
        """Whether arcs carry relations (a last axis)."""
        return len(self.event_shape) == 3

    def _arc_mask(self) -> Tensor:
        """BoolTensor [B, N, N]: both words lie in the sentence."""
        inside = self.word_mask
        return inside.unsqueeze(2) & inside.unsqueeze(1)

    def event_mask(self) -> Tensor:
        mask = self._arc_mask()
        return mask.unsqueeze(-1) if self.labelled else mask

    def parts(self) -> Parts:
        scores = self.log_potentials.masked_fill(~self.event_mask(), 0.0) if self.ragged else self.log_potentials
        return (scores.to(working_precision(scores)),)

    def scores_before(self, temperature: float) -> Tensor:
        """Return arc scores which, divided by a temperature, define the distribution at that temperature."""
        return self.log_potentials

    def arc_marginals(self) -> Tensor:
        """Return P(arc), [B, N, N] or [B, N, N, L], in working precision; 0 in the padding."""
        return self.expected_parts()[0]

    def certain_of(self, parts: Parts) -> ArcDistribution:
        # every word picks its head with certainty, so a tree needs no recursion over trees
        return self.words_alone(torch.where(self.event_mask() & (parts[0] == 0), NEG_INF, 0.0))

    def alone(self) -> ArcDistribution:
        return self.words_alone(self.log_potentials)

    def words_alone(self, scores: Tensor | None = None) -> ArcDistribution:
        from .head_selection import HeadSelection  # which imports this module

        if scores is None:
            scores = torch.zeros(1, dtype=self.dtype, device=self._device).expand(*self.batch_shape, *self.event_shape)
        return HeadSelection(scores, self.lengths, validate_args=False)

    def posterior(self) -> ArcDistribution:
        return self.words_alone(logarithm(self.arc_marginals()).to(self.dtype))

    def arcs_and_relations(self, temperature: float = 1.0) -> tuple[ArcDistribution, Relations | None]:
        """Return the distribution of unlabelled arcs at a temperature, and P(relation | arc) or None.

        No tensor of the size of labelled arcs is created in working precision.
        """
        if not self.labelled:
            return self.tempered(temperature), None
        if self._by_arc is not None and temperature == 1:
            return self._by_arc[0], Relations(self._all_relations, self.event_shape[-1], temperature)
        relations = Relations(lambda: self.log_potentials, self.event_shape[-1], temperature)
        arcs = relations.normaliser.masked_fill(~self._arc_mask(), 0.0)
        return self.with_scores(arcs), relations

    def parts_of_event(self, marginals: Tensor) -> Parts:
        return (self._in_sentence(marginals).to(working_precision(self.log_potentials)),)

    def _check_comparable(self, other: StructuredDistribution) -> None:
        super()._check_comparable(other)
        if self.multiroot and not getattr(other, "multiroot", True):
            raise ValueError(
                "The cross-entropy from a multi-root to a single-root distribution is infinite. Build the first with "
                "multiroot=False, or use structkd.structural_kd_loss, which conditions it on a single root."
            )

    def structure_of_parts(self, parts: Parts) -> Tensor:
        arcs = parts[0].sum(-1) if self.labelled else parts[0]
        return arcs.argmax(1).masked_fill(~self.word_mask, NOWHERE)

    def placeholder_event(self) -> Tensor:
        event = torch.zeros(self.event_shape, dtype=torch.bool, device=self._device)
        (event[0, :, 0] if self.labelled else event[0]).fill_(True)
        return event

    def faults_of_event(self, event: Tensor, as_gold: bool = False) -> Faults:
        """Find words that have not exactly one head; trees check more."""
        return self._faults_of_arcs(event, as_gold)[0]

    def _faults_of_arcs(self, event: Tensor, as_gold: bool) -> tuple[Faults, Tensor]:
        """Return whether some word has not exactly one head and relation, and the heads, LongTensor [B, N]."""
        cells, missing, several = choices_of_event(event, self.word_mask, 2, (1,))
        return {SEVERAL_PARTS: several | self._is_incomplete(missing, as_gold)}, cells[..., 1]

    def read_structure(self, structure: Any) -> tuple[Tensor, Faults]:
        heads = check_labels(structure, self.word_mask, self.words, name="heads")
        if not self.ragged:
            return heads, {}
        return heads, {HEAD_BEYOND: ((heads >= self.lengths.unsqueeze(1)) & self.word_mask).any(1)}

    def leaves_open(self, structure: Any) -> bool:
        return self.labelled or super().leaves_open(structure)

    def constrained(self, parts: Parts, structure: Tensor) -> Parts:
        known = (structure != UNLABELLED) & self.word_mask
        position = torch.arange(self.words, device=structure.device).view(1, -1, 1)
        others = known.unsqueeze(1) & (structure.unsqueeze(1) != position)
        return (parts[0].masked_fill(others.unsqueeze(-1) if self.labelled else others, NEG_INF),)

    def measured_from(self, structure: Parts, parts: Parts) -> Parts:
        chosen = torch.where(structure[0] > 0, parts[0].detach(), 0.0).sum(1, keepdim=True)
        return (parts[0] - (chosen.sum(-1, keepdim=True) if self.labelled else chosen),)

    def parts_of_structure(self, structure: Tensor) -> Parts:
        arcs = torch.nn.functional.one_hot(structure.clamp(0, self.words - 1), self.words).transpose(1, 2)
        return ((arcs * self.event_mask()).to(working_precision(self.log_potentials)),)

    def to_event(self, sequence: Tensor, extra: Any = None, lengths: Tensor | None = None) -> Tensor:
        """Return heads [B, N] in torch-struct's numbering (1-based, 0 = root) as arcs, LongTensor [B, N, N].

        0 beyond `lengths` (default: this batch's).
        """
        if lengths is None:
            lengths = self.lengths
        sequence, words = sequence.long(), sequence.shape[1]
        position = torch.arange(words, device=sequence.device)
        inside = position < torch.as_tensor(lengths).view(-1, 1)
        heads = to_own_index(sequence.clamp(0, words))
        arcs = torch.nn.functional.one_hot(heads, words).transpose(1, 2)
        return arcs * (inside.unsqueeze(1) & inside.unsqueeze(2))

    def from_event(self, event: Tensor) -> tuple[Tensor, None]:
        """Return arcs [B, N, N] as heads [B, N] in torch-struct's numbering (1-based, 0 = root and padding)."""
        return to_conllu(event.argmax(1)).masked_fill(event.sum(1) == 0, 0), None


def check_scores_of_arcs(name: str, scores: Any, labelled: bool = False) -> Tensor:
    """Return the scores if they are a floating-point tensor [B, N, N] (or [B, N, N, L])."""
    if labelled and isinstance(scores, Tensor) and scores.dim() == 4:
        check_scores(name, scores, ("B", "N", "N", "L"))
        if scores.shape[-1] < 1:
            raise ValueError(f"{name} must have shape [B, N, N, L] with L >= 1, got {list(scores.shape)}.")
    else:
        check_scores(name, scores, ("B", "N", "N"))
    if scores.shape[1] != scores.shape[2]:
        raise ValueError(f"{name} must have shape [B, N, N], heads by dependents, got {list(scores.shape)}.")
    return scores
