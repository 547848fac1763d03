"""Expected transition counts, kept as factors, and products of expectations with scores and weights."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from .kernels.arithmetic import NEG_INF

#: (after [B, M, C], before [B, M, C], scale [C, C] or None)
Term = tuple[Tensor, Tensor, Tensor | None]


class TransitionCounts:
    """Expected counts [B, C, C] of label j after label i, as the sum over terms of

        scale[j, i] * sum_m after[b, m, j] * before[b, m, i].

    Forward-backward gives them in this form, with one m a word. A loss needs their product with the student's
    transitions and their weighted sum over the batch, both matrix products, so that it takes O(B N C + C^2) memory.
    """

    def __init__(self, *terms: Term) -> None:
        self.terms = terms

    @classmethod
    def from_dense(cls, counts: Tensor) -> TransitionCounts:
        """Build counts from a tensor [B, C, C]."""
        identity = torch.eye(counts.shape[-1], dtype=counts.dtype, device=counts.device)
        return cls((identity.expand_as(counts), counts, None))

    def replaced(self, items: Tensor, counts: Tensor) -> TransitionCounts:
        """Return counts with those of some sentences, LongTensor [M], rising, replaced by counts [M, C, C]."""
        if len(items) == len(self.terms[0][0]):
            return TransitionCounts.from_dense(counts)
        keep = torch.ones(len(self.terms[0][0]), 1, 1, dtype=torch.bool, device=items.device)
        keep[items] = False
        kept = ((after.where(keep, 0.0), before.where(keep, 0.0), scale) for after, before, scale in self.terms)
        dense = counts.new_zeros(len(keep), *counts.shape[1:])
        dense[items] = counts
        return TransitionCounts(*kept) + TransitionCounts.from_dense(dense)

    def dense(self) -> Tensor:
        """Return the counts as a tensor [B, C, C]."""
        total: Tensor | None = None
        for after, before, scale in self.terms:
            counts = after.transpose(1, 2) @ before
            counts = counts if scale is None else counts * scale
            total = counts if total is None else total + counts
        assert total is not None
        return total

    def inner(self, scores: Tensor) -> Tensor:
        """Return the sum over j, i of counts[b, j, i] * scores[j, i], [B], for finite scores [C, C]."""
        total: Tensor | None = None
        for after, before, scale in self.terms:
            weights = scores if scale is None else scores * scale
            if _is_shared(after):
                product = before.flatten(1) @ (after[0] @ weights).flatten()
            else:
                product = ((after @ weights) * before).sum((1, 2))
            total = product if total is None else total + product
        assert total is not None
        return total

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """Return the sum over b of weights[b] * counts[b], [C, C]; weights [B], or [] for equal weights."""
        total: Tensor | None = None
        for after, before, scale in self.terms:
            if _is_shared(after):
                weighted = after[0].T @ torch.tensordot(weights.expand(len(before)), before, 1)
            else:
                weighted = (after * weights.view(-1, 1, 1)).flatten(0, 1).T @ before.flatten(0, 1)
            weighted = weighted if scale is None else weighted * scale
            total = weighted if total is None else total + weighted
        assert total is not None
        return total

    def __add__(self, other: TransitionCounts) -> TransitionCounts:
        return TransitionCounts(*self.terms, *other.terms)

    def __mul__(self, factor: float | Tensor) -> TransitionCounts:
        """Multiply by a number, or a tensor [B] of one number per sentence."""
        if isinstance(factor, Tensor):
            factor = factor.view(-1, 1, 1)
            return TransitionCounts(*((after * factor, before, scale) for after, before, scale in self.terms))
        return TransitionCounts(
            *(
                ((after[:1] * factor).expand_as(after) if _is_shared(after) else after * factor, before, scale)
                for after, before, scale in self.terms
            )
        )

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> TransitionCounts:
        return self * (1.0 / divisor)

    def __sub__(self, other: TransitionCounts) -> TransitionCounts:
        return self + other * -1.0


P = TypeVar("P", Tensor, TransitionCounts)


def _is_shared(after: Tensor) -> bool:
    """Return whether one tensor stands for every sentence, as in `from_dense`; products then need no copies of it."""
    return after.stride(0) == 0 and len(after) > 0


def expected_score(marginals: Tensor | TransitionCounts, scores: Tensor) -> Tensor:
    """Return sum_u P(u) s(u) for every sentence, [B]; 0 * -inf is 0, and mass on an impossible part gives -inf."""
    if isinstance(marginals, TransitionCounts):
        total = marginals.inner(scores)
    else:
        total = (marginals * scores).flatten(1).sum(1)
    if total.isfinite().all():
        return total
    impossible = scores == NEG_INF
    if isinstance(marginals, TransitionCounts):
        total = marginals.inner(scores.masked_fill(impossible, 0.0))
        if not impossible.any():
            return total
        return total.masked_fill(marginals.inner(impossible.to(scores.dtype)) > 0, NEG_INF)
    if marginals.shape == scores.shape and not impossible.any():
        return (marginals.flatten(1).unsqueeze(1) @ scores.flatten(1).unsqueeze(2)).view(-1)  # no tensor of products
    terms = torch.where(impossible, 0.0, marginals * scores.masked_fill(impossible, 0.0))
    total = terms.flatten(1).sum(1)
    return total.masked_fill((impossible & (marginals > 0)).flatten(1).any(1), NEG_INF)


def weighted_parts(parts: P, weights: Tensor) -> P:
    """Return the expectations of every sentence times its weight; weights [B], or [] for one weight."""
    if isinstance(parts, TransitionCounts):
        return parts * weights
    return parts * weights.view(-1, *[1] * (parts.dim() - 1))


def scale_gradient_(gradient: Tensor, weights: Tensor) -> Tensor:
    """Multiply a gradient [B, ...] in place by weights, [B] or []."""
    if weights.dim() == 0:
        return gradient.mul_(weights)
    return gradient.mul_(weights.to(gradient.dtype).view(-1, *[1] * (gradient.dim() - 1)))
