"""Head selection: every word picks its head alone (Zhang et al., 2017; Dozat and Manning, 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from .arcs import ArcDistribution
from .base import Parts
from .kernels.arithmetic import NEG_INF
from .kernels.relations import over_relations
from .wordwise import WordwiseDistribution


class HeadChoice(ArcDistribution, WordwiseDistribution):
    """Base of the distributions in which every word picks its head alone; structures need not be trees."""

    def posterior(self) -> HeadChoice:
        return self

    def choices(self, part: Tensor, lengths: Tensor, impossible: float = NEG_INF) -> Tensor:
        heads = torch.arange(part.shape[1], device=part.device) < lengths.unsqueeze(1)
        heads = heads.view(*heads.shape, *[1] * (part.dim() - 2))
        return part.masked_fill(~heads, impossible).transpose(1, 2).flatten(2)

    def arrange(self, choices: Tensor) -> Tensor:
        return choices.unflatten(2, (self.words, *self.event_shape[2:])).transpose(1, 2)

    def expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        if torch.is_grad_enabled() and parts[0].requires_grad:
            return super().expectations(parts)
        # given the head, relations are independent of it all: one softmax less over [B, N, N * L]
        arcs, relations = over_relations(parts[0]) if self.labelled else (parts[0], None)
        padding = ~self.word_mask if self.ragged else None
        if padding is not None:
            arcs = arcs.masked_fill(padding.unsqueeze(2), NEG_INF)
        best = arcs.amax(1)
        self._require_possible(best, (arcs,))
        heads = arcs.softmax(1)
        # a word's normaliser is its best score less the logarithm of that head's probability
        value = best.sub_(heads.amax(1).log_())
        if padding is not None:
            value.masked_fill_(padding, 0.0)
            heads.masked_fill_(padding.unsqueeze(1), 0.0)
        return value.sum(1), (heads if relations is None else relations.mul_(heads.unsqueeze(-1)),)


class HeadSelection(HeadChoice):
    """A distribution in which words pick heads (and relations) independently.

    P(h | d) is the softmax over h of log_potentials[h, d].

    Args:
        log_potentials: [B, N, N]; cell [b, h, d] scores head h for dependent d, the diagonal the root. Labelled:
            [B, N, N, L].
        lengths: LongTensor [B], words per sentence, 1..N; None means N for all.
        validate_args: check values (NaN, +inf); None means torch.distributions' default.

    `marginals` have the shape of the scores, `decode()` gives heads [B, N], which need not form a tree. Costs O(N^2).
    Raises TypeError or ValueError for a wrong kind, shape, length or value.

    Example:
        >>> import torch
        >>> heads = HeadSelection(torch.tensor([[[0.0, 2.0], [1.0, 0.0]]]))
        >>> heads.decode().tolist()  # a cycle: words choose independently
        [[1, 0]]
        >>> heads.marginals.sum(1).round().tolist()
        [[1.0, 1.0]]
    """

    def __init__(
        self, log_potentials: Tensor, lengths: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        self._initialise(log_potentials, lengths, validate_args)

    def alone(self) -> HeadSelection:
        return self
