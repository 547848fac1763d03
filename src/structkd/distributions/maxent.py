"""Maximum-entropy taggers: independent words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..numbering import NOWHERE, UNLABELLED
from .base import Parts, ordinary_tensors
from .checks import check_inventory, check_labels, check_scores
from .faults import SEVERAL_PARTS, Faults, choices_of_event
from .kernels.arithmetic import NEG_INF, Gradient, sentences_at_once, working_precision
from .kernels.viterbi import Legality, check_legality, viterbi
from .transition_counts import scale_gradient_
from .wordwise import WordwiseDistribution


class LabelDistribution(WordwiseDistribution):
    """Base of the distributions in which words choose labels independently; event [N, C]."""

    structures_are = "labels"

    def parts(self) -> Parts:
        scores = self.log_potentials.masked_fill(~self.event_mask(), 0.0) if self.ragged else self.log_potentials
        return (scores.to(working_precision(scores)),)

    def event_mask(self) -> Tensor:
        return self.word_mask.unsqueeze(-1)

    def structure_of_parts(self, parts: Parts) -> Tensor:
        return parts[0].argmax(-1).masked_fill(~self.word_mask, NOWHERE)

    def placeholder_event(self) -> Tensor:
        event = torch.zeros(self.event_shape, dtype=torch.bool, device=self._device)
        event[:, 0] = True
        return event

    def faults_of_event(self, event: Tensor, as_gold: bool = False) -> Faults:
        _, missing, several = choices_of_event(event, self.word_mask, 1)
        return {SEVERAL_PARTS: several | self._is_incomplete(missing, as_gold)}

    def read_structure(self, structure: Any) -> tuple[Tensor, Faults]:
        return check_labels(structure, self.word_mask, self.event_shape[-1]), {}

    def parts_of_structure(self, structure: Tensor) -> Parts:
        size = self.event_shape[-1]
        inside = self.word_mask.unsqueeze(-1).to(working_precision(self.log_potentials))
        labels = torch.zeros(*self.batch_shape, *self.event_shape, dtype=inside.dtype, device=structure.device)
        return (labels.scatter_(-1, structure.clamp(0, size - 1).unsqueeze(-1), inside),)

    def constrained(self, parts: Parts, structure: Tensor) -> Parts:
        known = (structure != UNLABELLED) & self.word_mask
        index = torch.arange(self.event_shape[-1], device=structure.device)
        return (parts[0].masked_fill(known.unsqueeze(-1) & (structure.unsqueeze(-1) != index), NEG_INF),)

    def measured_from(self, structure: Parts, parts: Parts) -> Parts:
        return (parts[0] - torch.where(structure[0] > 0, parts[0].detach(), 0.0).sum(-1, keepdim=True),)

    def fused_likelihood(self, gold: Any) -> tuple[Tensor, Gradient] | None:
        """Return the likelihood of labels; sentences take turns, so only a few are held in working precision."""
        if self.is_event(gold):
            return None
        scores, size = self.log_potentials.detach(), self.event_shape[-1]
        inside = self.word_mask
        known = inside & (gold != UNLABELLED)
        hidden = None if known.all() else ~known
        labels = gold.clamp(0, size - 1).unsqueeze(-1)
        likelihoods = torch.empty(gold.shape, dtype=working_precision(scores), device=scores.device)
        gap = torch.empty_like(scores, dtype=torch.promote_types(scores.dtype, torch.float32))
        certain = likelihoods.new_ones(()).expand(labels.shape)
        at_once = sentences_at_once(scores)
        for first in range(0, len(scores), at_once):
            some = slice(first, first + at_once)
            share = scores[some].softmax(-1, dtype=likelihoods.dtype)
            likelihoods[some] = share.gather(-1, labels[some]).squeeze(-1)
            share.scatter_add_(-1, labels[some], -certain[some])
            gap[some] = share if hidden is None else share.masked_fill_(hidden[some].unsqueeze(-1), 0.0)
        # near the smallest number digits are lost; where a word has no possible label, NaN is not even at least 0
        least = 1e8 * torch.finfo(likelihoods.dtype).tiny
        if not torch.where(known, likelihoods > least, (likelihoods >= 0) | ~inside).all():
            return None
        surprisals = likelihoods.log_().neg_()
        if hidden is not None:
            surprisals.masked_fill_(hidden, 0.0)
        return surprisals.sum(1), lambda weights: (scale_gradient_(gap, weights).to(scores.dtype),)

    def to_event(self, sequence: Tensor, extra: object = None, lengths: Tensor | None = None) -> Tensor:
        """Return labels [B, N] as indicators, LongTensor [B, N, C]; 0 beyond `lengths` (default: this batch's)."""
        if lengths is None:
            lengths = self.lengths
        mask = torch.arange(sequence.shape[1], device=sequence.device) < torch.as_tensor(lengths).view(-1, 1)
        return torch.nn.functional.one_hot(sequence.long().clamp_min(0), self.event_shape[-1]) * mask.unsqueeze(-1)

    def from_event(self, event: Tensor) -> tuple[Tensor, int]:
        """Return indicators [B, N, C] as labels [B, N] (0 in the padding) and C."""
        return event.argmax(-1), event.shape[-1]


class MaxEnt(LabelDistribution):
    """A distribution in which words choose their labels independently: P(y) = prod_n softmax(logits[n])[y_n].

    Args:
        logits: [B, N, C]; cell [b, n, i] scores label i at word n.
        lengths: LongTensor [B], words per sentence, 1..N; None means N for all.
        labels: the tag inventory in score order, C strings.
        validate_args: check values (NaN, +inf); None means torch.distributions' default.

    `marginals` are [B, N, C], `decode()` labels [B, N]. Costs O(N C).
    Raises TypeError or ValueError for a wrong kind, shape, length, inventory or value.

    Example:
        >>> import torch
        >>> tagger = MaxEnt(torch.tensor([[[0.0, 1.0], [2.0, 0.0]]]))
        >>> tagger.decode().tolist()
        [[1, 0]]
        >>> [[round(p, 2) for p in word] for word in tagger.marginals[0].tolist()]
        [[0.27, 0.73], [0.88, 0.12]]
    """

    def __init__(
        self,
        logits: Tensor,
        lengths: Tensor | None = None,
        labels: Sequence[str] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        check_scores("logits", logits, ("B", "N", "C"))
        _, words, size = logits.shape
        if size < 1:
            raise ValueError(f"The logits must have shape [B, N, C] with C >= 1, got {list(logits.shape)}.")
        self.labels = check_inventory("labels", labels, size)
        self.log_potentials = logits
        super().__init__(logits, words, (words, size), lengths, validate_args)
        self.check_values("logits", logits, self.event_mask)

    @property
    def logits(self) -> Tensor:
        return self.log_potentials

    @ordinary_tensors
    def decode(self, legal: Legality | None = None) -> Tensor:
        """Find the best label of every word, or the best legal label sequence of every sentence.

        Args:
            legal: BoolTensors (start [C], transitions [C, C] as [next, previous], end [C]) that say which labels may
                start a sentence, follow each other and end it, as `structkd.data.legal_transitions` gives them. None
                leaves the words independent.

        Returns:
            LongTensor [B, N] of labels; -1 in the padding. With `legal`, O(N C^2) time for a sentence.

        Raises:
            ValueError: if a sentence has no sequence of finite score, with the batch items.
        """
        if legal is None:
            return super().decode()
        with torch.no_grad():
            check_legality(legal, self.event_shape[-1])
            # If the best labels of the words form a legal sequence, as they usually do, that sequence is the best.
            values, labels = self.logits.detach().max(-1)
            labels = labels.masked_fill_(~self.word_mask, NOWHERE) if self.ragged else labels
            others = (~self._is_legal(values, labels, legal)).nonzero().flatten()
            if len(others):
                scores, size = self.logits[others].to(working_precision(self.logits)), self.event_shape[-1]
                labels[others] = viterbi(
                    scores, scores.new_zeros(size, size), self.lengths[others], legal=legal, items=others
                )[1]
            return labels

    def _is_legal(self, values: Tensor, labels: Tensor, legal: Legality) -> Tensor:
        """Return whether sequences of labels, -1 in the padding, are legal and possible, BoolTensor [B]."""
        # Few cells are looked up, which numpy does in a fraction of torch's time.
        first, following, last = (mask.cpu().numpy() for mask in legal)
        tags, possible = labels.cpu().numpy(), (values > NEG_INF).cpu().numpy()
        pairs = following[tags[:, 1:], tags[:, :-1]]
        if not self.ragged:
            found = first[tags[:, 0]] & last[tags[:, -1]] & pairs.all(1) & possible.all(1)
        else:
            outside = ~self.word_mask.cpu().numpy()
            ends = tags[range(len(tags)), self.lengths.cpu().numpy() - 1]
            found = first[tags[:, 0]] & last[ends] & (pairs | outside[:, 1:]).all(1) & (possible | outside).all(1)
        return torch.from_numpy(found).to(labels.device)

    def label_marginals(self) -> Tensor:
        """Return P(label) for every word, [B, N, C], in working precision; 0 in the padding."""
        return self.expected_parts()[0]
