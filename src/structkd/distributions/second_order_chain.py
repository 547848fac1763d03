"""Second-order linear chains: label trigrams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..numbering import NOWHERE, UNLABELLED
from .base import Parts, StructuredDistribution
from .checks import check_inventory, check_labels, check_scores
from .faults import NOT_ONE_STRUCTURE, Faults, choices_of_event
from .kernels.arithmetic import NEG_INF, logarithm, working_precision
from .maxent import MaxEnt
from .semirings import Log


class SecondOrderChainCRF(StructuredDistribution):
    """A distribution over the label sequences of each sentence, factored over label trigrams.

    Args:
        log_potentials: [B, N, C, C, C]; cell [b, n, k, j, i] scores label k at word n after label j at word n-1 and
            label i at word n-2 (**next, previous, the one before**). A word before the sentence counts as label 0: of
            the first word only the cells [k, 0, 0] are read, and of the second only [k, j, 0].
        lengths: LongTensor [B], words per sentence, 1..N; None means N for all.
        labels: the tag inventory in score order, C strings.
        validate_args: check values (NaN, +inf); None means torch.distributions' default.

    `marginals` are [B, N, C, C, C], one cell for every word, and `decode()` gives labels [B, N]. Costs O(N C^3).
    Raises TypeError or ValueError for a wrong kind, shape, length, inventory or value.

    Example:
        >>> import torch
        >>> trigrams = torch.zeros(2, 2, 2)
        >>> trigrams[1, 0, 1] = 3.0  # label 1 after label 0 after label 1
        >>> chain = SecondOrderChainCRF.from_scores(torch.zeros(1, 3, 2), trigrams=trigrams)
        >>> chain.decode().tolist(), chain.max.item()
        ([[1, 0, 1]], 3.0)
    """

    structures_are = "labels"

    def __init__(
        self,
        log_potentials: Tensor,
        lengths: Tensor | None = None,
        labels: Sequence[str] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        check_scores("log_potentials", log_potentials, ("B", "N", "C", "C", "C"))
        _, words, size, *others = log_potentials.shape
        if size < 1 or others != [size, size]:
            raise ValueError(
                "The log_potentials must have shape [B, N, C, C, C] (next, previous, the one before) with C >= 1, got "
                f"{list(log_potentials.shape)}."
            )
        self.labels = check_inventory("labels", labels, size)
        self.log_potentials = log_potentials
        super().__init__(log_potentials, words, log_potentials.shape[1:], lengths, validate_args)
        self.check_values("log_potentials", log_potentials, self.event_mask)

    @classmethod
    def from_scores(
        cls,
        emissions: Tensor,
        transitions: Tensor | None = None,
        trigrams: Tensor | None = None,
        lengths: Tensor | None = None,
        labels: Sequence[str] | None = None,
        validate_args: bool | None = None,
    ) -> SecondOrderChainCRF:
        """Return a chain from scores of words, of transitions and of trigrams; each may be differentiated.

        Args:
            emissions: [B, N, C]; cell [b, n, i] scores label i at word n.
            transitions: [C, C]; cell [j, i] scores label j after label i. None means 0.
            trigrams: [C, C, C]; cell [k, j, i] scores label k after label j after label i. None means 0.
            lengths, labels, validate_args: as in the constructor.

        >>> import structkd, torch
        >>> structkd.SecondOrderChainCRF.from_scores(torch.zeros(1, 4, 2)).count.tolist()
        [16.0]
        """
        check_scores("emissions", emissions, ("B", "N", "C"))
        words, size = emissions.shape[1:]
        potentials = emissions[..., None, None].expand(-1, -1, -1, size, size)
        position = torch.arange(words, device=emissions.device).view(-1, 1, 1, 1)
        for name, scores, first in (("transitions", transitions, 1), ("trigrams", trigrams, 2)):
            if scores is None:
                continue
            check_scores(name, scores, ("C",) * (first + 1))
            if set(scores.shape) != {size}:
                raise ValueError(f"The {name} must have {first + 1} axes of {size}, got {list(scores.shape)}.")
            scores = scores.unsqueeze(-1) if first == 1 else scores
            potentials = potentials + torch.where(position < first, 0.0, scores)
        return cls(potentials, lengths, labels, validate_args)

    def event_mask(self) -> Tensor:
        size = self.event_shape[-1]
        first = torch.zeros(size, dtype=torch.bool, device=self.lengths.device)
        first[0] = True
        position = torch.arange(self.words, device=first.device).view(-1, 1, 1, 1)
        read = ((position > 0) | first.view(-1, 1)) & ((position > 1) | first)
        return self.word_mask[:, :, None, None, None] & read

    def parts(self) -> Parts:
        scores = self.log_potentials.to(working_precision(self.log_potentials))
        return (torch.where(self.event_mask(), scores, 0.0),)

    def inside(self, semiring: Log, parts: Parts, lengths: Tensor) -> Tensor:
        scores = parts[0]
        # Before the second word there is no label before the previous one; it counts as label 0.
        others = scores.new_full((*scores.shape[:1], scores.shape[2], scores.shape[2] - 1), NEG_INF)
        forward = semiring.lift(torch.cat([scores[:, 0, :, 0, :1], others], -1))  # [..., label, label before]
        for n in range(1, scores.shape[1]):
            reached = semiring.sum(forward.unsqueeze(-3) + scores[:, n])
            forward = torch.where((n < lengths).view(-1, 1, 1), reached, forward)
        return semiring.sum(semiring.sum(forward))

    def _cells(self, labels: Tensor) -> Tensor:
        """Return the flat index of every word's trigram, LongTensor [B, N]."""
        size = self.event_shape[-1]
        labels = labels.clamp(0, size - 1)
        before = torch.nn.functional.pad(labels, (2, 0))
        return (labels * size + before[:, 1:-1]) * size + before[:, :-2]

    def parts_of_structure(self, structure: Tensor) -> Parts:
        inside = self.word_mask.to(working_precision(self.log_potentials))
        event = torch.zeros(*structure.shape, self.event_shape[-1] ** 3, dtype=inside.dtype, device=inside.device)
        event.scatter_(-1, self._cells(structure).unsqueeze(-1), inside.unsqueeze(-1))
        return (event.view(*self.batch_shape, *self.event_shape),)

    def structure_of_parts(self, parts: Parts) -> Tensor:
        return parts[0].sum((3, 4)).argmax(-1).masked_fill(~self.word_mask, NOWHERE)

    def parts_of_event(self, marginals: Tensor) -> Parts:
        return (self._in_sentence(marginals).to(working_precision(marginals)),)

    def placeholder_event(self) -> Tensor:
        event = torch.zeros(self.event_shape, dtype=torch.bool, device=self.lengths.device)
        event[:, 0, 0, 0] = True
        return event

    def faults_of_event(self, event: Tensor, as_gold: bool = False) -> Faults:
        cells, missing, several = choices_of_event(event, self.word_mask, 1)
        labels = cells[..., 2]
        before = torch.nn.functional.pad(labels, (2, 0))
        differ = (cells[..., 3] != before[:, 1:-1]) | (cells[..., 4] != before[:, :-2])
        return {NOT_ONE_STRUCTURE: several | missing.any(1) | (differ & self.word_mask).any(1)}

    def read_structure(self, structure: Any) -> tuple[Tensor, Faults]:
        return check_labels(structure, self.word_mask, self.event_shape[-1]), {}

    def constrained(self, parts: Parts, structure: Tensor) -> Parts:
        known = (structure != UNLABELLED) & self.word_mask
        index = torch.arange(self.event_shape[-1], device=structure.device)
        others = known.unsqueeze(-1) & (structure.unsqueeze(-1) != index)
        return (parts[0].masked_fill(others[..., None, None], NEG_INF),)

    def measured_from(self, structure: Parts, parts: Parts) -> Parts:
        chosen = torch.where(structure[0] > 0, parts[0].detach(), 0.0).sum((2, 3, 4), keepdim=True)
        return (parts[0] - chosen,)

    def label_marginals(self) -> Tensor:
        """Return P(label) for every word, [B, N, C], in working precision; 0 in the padding."""
        return self.expected_parts()[0].sum((3, 4))

    def alone(self) -> StructuredDistribution:
        return self.posterior()

    def words_alone(self, scores: Tensor | None = None) -> MaxEnt:
        if scores is None:
            shape = *self.batch_shape, *self.event_shape[:2]
            scores = torch.zeros(1, dtype=self.dtype, device=self.lengths.device).expand(shape)
        return MaxEnt(scores, self.lengths, self.labels, validate_args=False)

    def posterior(self) -> MaxEnt:
        return self.words_alone(logarithm(self.label_marginals()).to(self.dtype))
