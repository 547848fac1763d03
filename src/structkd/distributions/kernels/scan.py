"""Forward-backward for linear chains in O(log N) batched matrix products rather than N small ones, for GPUs.

A word's step is a matrix [C, C] of weights, and what lies between two words is the product of the steps between them.
An up-sweep multiplies neighbours, then neighbours of those; a down-sweep hands the messages at both ends of a product
to its halves: O(N C^3) work in 2 log2(N) products, O(B N C^2) memory also for chains that share their transitions, so
this is for label sets that are small.

Everything is divided by what it sums to as it goes, and what underflow may have taken is bounded on the way, level by
level: where the bound is no longer far below rounding, `safe` is False and the caller takes its way in log space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..semirings import NEG_INF, working_precision
from .counts import TransitionCounts


def factored(
    unary: Tensor, transitions: Tensor, lengths: Tensor, precision: torch.dtype | None = None
) -> tuple[Tensor, Tensor, list[TransitionCounts], Tensor]:
    """log Z [G, B], label marginals [G, B, N, C], transition counts (G times), safe [G, B].

    Arguments as of `chain.factored_expectations`; the dtype of `unary` is that of all arithmetic.
    """
    groups, batch, words, _ = unary.shape
    inside = torch.arange(words, device=unary.device) < lengths.unsqueeze(1)
    shift = _finite(unary.amax(-1, keepdim=True))
    emitted = (unary - shift).exp_()
    largest = _finite(transitions.amax((1, 2)))
    moved = (transitions - largest.view(-1, 1, 1)).exp_()
    steps = emitted[:, :, 1:, :, None] * moved[:, None, None]
    messages = _Messages(steps.flatten(0, 1), emitted[:, :, 0].flatten(0, 1), inside[:, 1:].repeat(groups, 1))

    def by_group(flat: Tensor) -> Tensor:
        return flat.unflatten(0, (groups, batch))

    labels = by_group(messages.labels).masked_fill(~inside.unsqueeze(-1), 0.0)
    following = by_group(messages.backward[:, 1:] / messages.joint) * emitted[:, :, 1:]
    following = following.masked_fill(~inside[:, 1:].unsqueeze(-1), 0.0)
    preceding = by_group(messages.forward[:, :-1])
    counts = [TransitionCounts((following[g], preceding[g], moved[g])) for g in range(groups)]
    shifts = shift.squeeze(-1).masked_fill(~inside, 0.0).sum(2) + (lengths - 1) * largest.unsqueeze(1)
    return by_group(messages.log_total) + shifts, labels, counts, by_group(messages.safe)


def dense(
    sides: Sequence[Tensor], lengths: Tensor, temperature: float = 1.0, precision: torch.dtype | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log Z [G, B], label marginals [G, B, N, C], bigram marginals [G, B, N-1, C, C], safe [G, B].

    Arguments as of `chain.dense_expectations`; arithmetic is in float64 where the device has it.
    """
    groups, (batch, bigrams, size, _) = len(sides), sides[0].shape
    inside = torch.arange(bigrams + 1, device=lengths.device) < lengths.unsqueeze(1)
    inner = inside[:, 1:]
    scores = torch.stack([side.to(working_precision(side)) for side in sides])
    scores = scores.masked_fill_(~inner[:, :, None, None], 0.0)
    shift = _finite(scores.amax((3, 4)))
    steps = scores.sub_(shift[..., None, None]).div_(temperature).exp_().flatten(0, 1)
    first = steps.new_full((groups * batch, size), 1.0 / size)
    messages = _Messages(steps, first, inner.repeat(groups, 1))
    bigram_marginals = steps * (messages.backward[:, 1:] / messages.joint).unsqueeze(-1)
    bigram_marginals.mul_(messages.forward[:, :-1].unsqueeze(-2))
    bigram_marginals.masked_fill_(~inner.repeat(groups, 1)[..., None, None], 0.0)
    labels = messages.labels.unflatten(0, (groups, batch)).masked_fill(~inside.unsqueeze(-1), 0.0)
    shifts = (shift / temperature).masked_fill(~inner, 0.0).sum(2) + math.log(size)
    return (
        messages.log_total.unflatten(0, (groups, batch)) + shifts,
        labels,
        bigram_marginals.unflatten(0, (groups, batch)),
        messages.safe.unflatten(0, (groups, batch)),
    )


class _Messages:
    """Forward and backward messages of R chains.

    Args:
        steps: [R, M, C, C] weights of labels (next, previous), at most 1. first: [R, C] weights of the first word's.
        inner: BoolTensor [R, M], which steps are in the sentence; the others are replaced, in place.

    Attributes:
        forward, backward: [R, M+1, C], non-negative, summing to 1; up to a factor per word, the total weight of what
            comes before a label (itself included) and of what follows it.
        joint: [R, M, 1], sum over j, i of backward[m+1, j] steps[m, j, i] forward[m, i].
        labels: [R, M+1, C] marginals; meaningless beyond the sentence.
        log_total: [R], log of the total weight. safe: BoolTensor [R], whether underflow took nothing that matters.
    """

    def __init__(self, steps: Tensor, first: Tensor, inner: Tensor) -> None:
        rows, count, size = len(steps), steps.shape[1], first.shape[-1]
        self._tiny = torch.finfo(steps.dtype).tiny
        # beyond the sentence: every label after every label, which hands a total on and all labels back alike
        steps.masked_fill_(~inner[..., None, None], 1.0 / size)

        total = first.sum(-1, keepdim=True)
        start = self._divided(first, total)
        # largest entry by which an entry may be too small
        slack = (size * self._tiny / total).clamp_(max=1.0)
        ending = torch.full_like(start, 1.0 / size)
        self.log_total = total.squeeze(-1).log()
        if count == 0:
            self.forward, self.backward = start.unsqueeze(1), ending.unsqueeze(1)
            self.joint = start.new_ones(rows, 0, 1)
            error = slack
        else:
            before, after, error_before, error_after = self._sweep(steps, start, ending, slack)
            reached = (steps @ before.unsqueeze(-1)).squeeze(-1)
            norm = reached.sum(-1, keepdim=True)
            self.log_total = self.log_total + norm.squeeze(-1).log().masked_fill(~inner, 0.0).sum(1)
            self.forward = torch.cat([start.unsqueeze(1), self._divided(reached, norm)], 1)
            returned = steps[:, 0].transpose(1, 2) @ after[:, 0].unsqueeze(-1)
            self.backward = torch.cat([self._divided(returned, returned.sum(1, True)).transpose(1, 2), after], 1)
            self.joint = (after * reached).sum(-1, keepdim=True)
            # a step lets at most every label on, and loses at most every product and every weight
            error = size * (error_before + error_after + 2 * self._tiny) / self.joint.squeeze(-1)
        product = self.forward * self.backward
        self.labels = self._divided(product, product.sum(-1, keepdim=True))
        # NaN, where no structure is possible, is not safe
        self.safe = (error <= torch.finfo(steps.dtype).eps / 8).all(1)

    def _sweep(
        self, steps: Tensor, start: Tensor, ending: Tensor, slack: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Messages [R, M, C] before and after every step, and bounds [R, M] of what each lacks (all entries together).

        A matrix has entries of at most 1; each lacks at most its error, a number per matrix.
        """
        size = start.shape[-1]
        levels, errors = [steps], [torch.full_like(steps[:, :, 0, 0], 2 * self._tiny)]
        while levels[-1].shape[1] > 1:
            level, error = levels[-1], errors[-1]
            pairs = level.shape[1] // 2 * 2
            product = level[:, 1:pairs:2] @ level[:, 0:pairs:2]
            lacking = size * (error[:, 1:pairs:2] + error[:, 0:pairs:2] + self._tiny)
            largest = product.flatten(2).amax(2)
            lacking = lacking / largest + self._tiny
            product = self._divided(product, largest[..., None, None])
            # one without a neighbour goes up as it is
            levels.append(torch.cat([product, level[:, pairs:]], 1))
            errors.append(torch.cat([lacking, error[:, pairs:]], 1))

        before, after = start.unsqueeze(1), ending.unsqueeze(1)
        error_before, error_after = slack, torch.zeros_like(slack)
        for level, error in zip(levels[-2::-1], errors[-2::-1], strict=True):
            half = level.shape[1] // 2
            pairs = 2 * half
            crossed, lacking = self._applied(
                level[:, 0:pairs:2], error[:, 0:pairs:2], before[:, :half], error_before[:, :half]
            )
            before = torch.cat([torch.stack([before[:, :half], crossed], 2).flatten(1, 2), before[:, half:]], 1)
            error_before = torch.cat(
                [torch.stack([error_before[:, :half], lacking], 2).flatten(1, 2), error_before[:, half:]], 1
            )
            crossed, lacking = self._applied(
                level[:, 1:pairs:2].transpose(2, 3), error[:, 1:pairs:2], after[:, :half], error_after[:, :half]
            )
            after = torch.cat([torch.stack([crossed, after[:, :half]], 2).flatten(1, 2), after[:, half:]], 1)
            error_after = torch.cat(
                [torch.stack([lacking, error_after[:, :half]], 2).flatten(1, 2), error_after[:, half:]], 1
            )
        return before, after, error_before, error_after

    def _applied(
        self, matrices: Tensor, error: Tensor, vectors: Tensor, error_of_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Matrices times messages, summing to 1, and what the result lacks."""
        size = vectors.shape[-1]
        product = (matrices @ vectors.unsqueeze(-1)).squeeze(-1)
        total = product.sum(-1, keepdim=True)
        lacking = size * (error + error_of_vectors + size * self._tiny) / total.squeeze(-1) + size * self._tiny
        return self._divided(product, total), lacking

    def _divided(self, weights: Tensor, total: Tensor) -> Tensor:
        """Zeros where everything is impossible."""
        return weights / total.clamp_min(self._tiny)


def _finite(shift: Tensor) -> Tensor:
    """A shift to subtract: 0 where everything is impossible."""
    return shift.masked_fill(shift == NEG_INF, 0.0)
