"""What the distributions over dependency arcs share: layout, masks, encoding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .semirings import working_precision
from .structure import Parts, StructuredDistribution, check_labels, check_lengths, check_scores


class ArcDistribution(StructuredDistribution):
    """Base of the distributions whose parts are arcs: [B, N, N], cell [b, h, d] for head h and dependent d, root arcs
    on the diagonal [b, d, d]; labelled: a last axis of relations.
    """

    #: Trees only, projective ones only, one root only: the space of structures.
    tree = False
    projective = False
    multiroot = True

    def _initialise(self, log_potentials: Tensor, lengths: Any, validate_args: bool | None) -> None:
        check_scores_of_arcs("log_potentials", log_potentials, labelled=True)
        lengths = check_lengths(lengths, log_potentials.shape[0], log_potentials.shape[1], log_potentials.device)
        self.log_potentials = log_potentials
        StructuredDistribution.__init__(
            self, log_potentials.shape[0], log_potentials.shape[1:], log_potentials.dtype, lengths, validate_args
        )
        self._check_values("log_potentials", log_potentials, self._event_mask)

    @property
    def labelled(self) -> bool:
        """Whether arcs carry relations (a last axis)."""
        return len(self.event_shape) == 3

    def _event_mask(self) -> Tensor:
        inside = self.word_mask
        mask = inside.unsqueeze(2) & inside.unsqueeze(1)
        return mask.unsqueeze(-1) if self.labelled else mask

    def _parts(self) -> Parts:
        scores = self.log_potentials.to(working_precision(self.log_potentials))
        return (torch.where(self._event_mask(), scores, 0.0) if self.ragged else scores,)

    def arc_marginals(self) -> Tensor:
        """P(arc), [B, N, N] or [B, N, N, L], in working precision; 0 in the padding."""
        return self.expected_parts()[0]

    def marginals_to_targets(self, marginals: Tensor) -> Parts:
        return (self._in_sentence(marginals).to(working_precision(self.log_potentials)),)

    def _check_comparable(self, other: StructuredDistribution) -> None:
        super()._check_comparable(other)
        if self.multiroot and not getattr(other, "multiroot", True):
            raise ValueError(
                "cross-entropy from a multi-root to a single-root distribution is infinite; condition the first by "
                "building it with multiroot=False, or use structkd.structural_kd_loss, which does"
            )

    def _decode(self, parts: Parts) -> Tensor:
        arcs = parts[0].sum(-1) if self.labelled else parts[0]
        return arcs.argmax(1).masked_fill(~self.word_mask, -1)

    def _encode(self, structure: Tensor) -> Parts:
        if self.labelled:
            raise ValueError("heads [B, N] do not say which relations the arcs bear; give one-hot events [B, N, N, L]")
        check_labels(structure, self.word_mask, self.words, name="heads")
        arcs = torch.nn.functional.one_hot(structure.clamp(0, self.words - 1), self.words).transpose(1, 2)
        return ((arcs * self._event_mask()).to(working_precision(self.log_potentials)),)

    def to_event(self, sequence: Tensor, extra: Any = None, lengths: Tensor | None = None) -> Tensor:
        """Heads [B, N] in torch-struct's numbering (1-based, 0 = root) as arcs, LongTensor [B, N, N].

        0 beyond `lengths` (default: this batch's).
        """
        if lengths is None:
            lengths = self.lengths
        words = sequence.shape[1]
        position = torch.arange(words, device=sequence.device)
        inside = position < lengths.view(-1, 1)
        heads = torch.where(sequence > 0, sequence - 1, position)
        arcs = torch.nn.functional.one_hot(heads.clamp(0, words - 1), words).transpose(1, 2)
        return arcs * (inside.unsqueeze(1) & inside.unsqueeze(2))

    def from_event(self, event: Tensor) -> tuple[Tensor, None]:
        """Arcs [B, N, N] as heads [B, N] in torch-struct's numbering (1-based, 0 = root and padding)."""
        heads = event.argmax(1)
        position = torch.arange(event.shape[1], device=event.device)
        return torch.where((heads == position) | (event.sum(1) == 0), 0, heads + 1), None


def check_scores_of_arcs(name: str, scores: Any, labelled: bool = False) -> Tensor:
    """Refuse what is not a floating-point tensor [B, N, N] (or [B, N, N, L])."""
    if labelled and isinstance(scores, Tensor) and scores.dim() == 4:
        check_scores(name, scores, ("B", "N", "N", "L"))
        if scores.shape[-1] < 1:
            raise ValueError(f"{name} must have at least one relation, got {list(scores.shape)}")
    else:
        check_scores(name, scores, ("B", "N", "N"))
    if scores.shape[1] != scores.shape[2]:
        raise ValueError(f"{name} must have shape [B, N, N], heads by dependents, got {list(scores.shape)}")
    return scores
