"""Maximum-entropy taggers: independent words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .semirings import working_precision
from .structure import (
    Parts,
    StructuredDistribution,
    check_inventory,
    check_labels,
    check_lengths,
    check_scores,
)
from .wordwise import WordwiseDistribution


class _LabelDistribution(WordwiseDistribution):
    """Words that choose labels alone; event [N, C]."""

    def _parts(self) -> Parts:
        scores = self.log_potentials.to(working_precision(self.log_potentials))
        return (torch.where(self._event_mask(), scores, 0.0) if self.ragged else scores,)

    def _event_mask(self) -> Tensor:
        return self.word_mask.unsqueeze(-1)

    def _decode(self, parts: Parts) -> Tensor:
        return parts[0].argmax(-1).masked_fill(~self.word_mask, -1)

    def _encode(self, structure: Tensor) -> Parts:
        size = self.event_shape[-1]
        check_labels(structure, self.word_mask, size)
        one_hot = torch.nn.functional.one_hot(structure.clamp(0, size - 1), size)
        return ((one_hot * self._event_mask()).to(working_precision(self.log_potentials)),)

    def to_event(self, sequence: Tensor, extra: object = None, lengths: Tensor | None = None) -> Tensor:
        """Labels [B, N] as indicators, LongTensor [B, N, C]; 0 beyond `lengths` (default: this batch's)."""
        if lengths is None:
            lengths = self.lengths
        mask = torch.arange(sequence.shape[1], device=sequence.device) < lengths.view(-1, 1)
        return torch.nn.functional.one_hot(sequence.clamp_min(0), self.event_shape[-1]) * mask.unsqueeze(-1)

    def from_event(self, event: Tensor) -> tuple[Tensor, int]:
        """Indicators [B, N, C] as labels [B, N] (0 in the padding) and C."""
        return event.argmax(-1), event.shape[-1]


class MaxEnt(_LabelDistribution):
    """Every word takes its label alone: P(y) = prod_n softmax(logits[n])[y_n].

    Args:
        logits: [B, N, C]; cell [b, n, i] scores label i at word n.
        lengths: LongTensor [B], words per sentence, 1..N; None means N for all.
        labels: the tag inventory in score order, C strings.
        validate_args: check values (NaN, +inf); None means torch.distributions' default.

    `marginals` are [B, N, C], `decode()` labels [B, N]. Costs O(N C).
    Raises TypeError or ValueError for a wrong kind, shape, length, inventory or value.
    """

    def __init__(
        self,
        logits: Tensor,
        lengths: Tensor | None = None,
        labels: Sequence[str] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        check_scores("logits", logits, ("B", "N", "C"))
        batch, words, size = logits.shape
        if size < 1:
            raise ValueError(f"logits must have shape [B, N, C] with C >= 1, got {list(logits.shape)}")
        lengths = check_lengths(lengths, batch, words, logits.device)
        self.labels = check_inventory("labels", labels, size)
        self.log_potentials = logits
        super().__init__(batch, (words, size), logits.dtype, lengths, validate_args)
        self._check_values("logits", logits, self._event_mask)

    @property
    def logits(self) -> Tensor:
        return self.log_potentials

    def _with_scores(self, *scores: Tensor | None) -> MaxEnt:
        return MaxEnt(scores[0], self.lengths, self.labels, validate_args=False)  # type: ignore[arg-type]

    def label_marginals(self) -> Tensor:
        """P(label) for every word, [B, N, C], in working precision; 0 in the padding."""
        return self.expected_parts()[0]


class HeadLabeling(_LabelDistribution):
    """Dependency parsing as sequence labelling (Strzyz et al., 2019): every word takes a label that names a head.

    Args:
        logits: [B, N, K]; cell [b, d, k] scores label k at word d.
        heads: LongTensor [B, N, K]; the head that label k names at word d, 0-based; d itself means root; -1, or a
            head beyond the sentence, names no word (the label keeps its share of the softmax).
        relations: LongTensor [K] or [B, N, K], the relation each label names, or None for unlabelled parsing.
        lengths: LongTensor [B], words per sentence, 1..N; None means N for all.
        validate_args: check values (NaN, +inf, heads and relations below -1); None means torch.distributions' default.

    Parts are labels: `marginals` are [B, N, K] and `decode()` gives label indices [B, N]; `decode_heads()` the heads
    they name, which need not form a tree. Costs O(N K).
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
        batch, words, size = logits.shape
        if size < 1:
            raise ValueError(f"logits must have shape [B, N, K] with K >= 1, got {list(logits.shape)}")
        self.heads = self._check_indices("heads", heads, [logits.shape])
        if relations is not None:
            relations = self._check_indices("relations", relations, [logits.shape, logits.shape[-1:]])
        self.relations = relations
        lengths = check_lengths(lengths, batch, words, logits.device)
        self.log_potentials = logits
        super().__init__(batch, (words, size), logits.dtype, lengths, validate_args)
        self._check_values("logits", logits, self._event_mask)
        if self._validate_args:
            for name, indices in (("heads", self.heads), ("relations", relations)):
                if indices is not None and ((indices.expand(logits.shape) < -1) & self._event_mask()).any():
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
        return indices.long()

    @property
    def logits(self) -> Tensor:
        return self.log_potentials

    def _with_scores(self, *scores: Tensor | None) -> HeadLabeling:
        return HeadLabeling(scores[0], self.heads, self.relations, self.lengths, validate_args=False)  # type: ignore[arg-type]

    def _check_comparable(self, other: StructuredDistribution) -> None:
        super()._check_comparable(other)
        if not self.names_as(other):
            raise ValueError("cross-entropy needs labels that name the same heads and relations in both distributions")

    def names_as(self, other: HeadLabeling) -> bool:
        """Whether both name the same head and relation with every label inside the sentences."""
        mask = self._event_mask()
        pairs = [(self.heads, other.heads)]
        if self.relations is not None and other.relations is not None:
            pairs.append((self.relations.expand(self.heads.shape), other.relations.expand(other.heads.shape)))
        same_kind = (self.relations is None) == (other.relations is None)
        return same_kind and all(a.shape == b.shape and not ((a != b) & mask).any() for a, b in pairs)

    @property
    def named(self) -> Tensor:
        """BoolTensor [B, N, K]: True where a label of a word inside the sentence names a head inside it."""
        inside = (self.heads >= 0) & (self.heads < self.lengths.view(-1, 1, 1))
        return inside & self._event_mask()

    def decode_heads(self) -> Tensor:
        """The heads that the best labels name, LongTensor [B, N]; root = own index, -1 where none or in the padding."""
        labels = self.decode()
        heads = self.heads.gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)
        return heads.masked_fill((labels < 0) | (heads >= self.lengths.unsqueeze(1)), -1)
