"""Arithmetic that all recursions share: -inf, working precision, sums in log space, and the type of a gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: A function from weights, [B] or [], to the weighted sum over sentences of the gradients by `scores`, in their order.
#: Call it once: it may change the tensors that it holds and return them.
Gradient = Callable[[Tensor], tuple[Tensor | None, ...]]

NEG_INF = float("-inf")

# Number of cells that fit into a processor's cache together with intermediate results (512 KiB in float32).
_CACHED_CELLS = 1 << 17


def working_precision(scores: Tensor) -> torch.dtype:
    """Return the dtype that recursions run in: float64 if the device has it.

    >>> import structkd, torch
    >>> structkd.working_precision(torch.zeros(2, dtype=torch.float16))
    torch.float64
    """
    return torch.float32 if scores.device.type == "mps" else torch.float64


def logarithm(probabilities: Tensor) -> Tensor:
    """Return log P; -inf (and derivatives 0) at 0."""
    possible = probabilities > 0
    return torch.where(possible, probabilities.masked_fill(~possible, 1.0).log(), NEG_INF)


def logsumexp(x: Tensor) -> Tensor:
    """Return log sum exp over the last axis; -inf (and derivatives 0) if every entry is -inf.

    torch.logsumexp has the same value but differentiates to NaN there.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return torch.logsumexp(x, -1)
    top = x.detach().amax(-1, keepdim=True)
    top = top.masked_fill(top == NEG_INF, 0.0)
    total = (x - top).exp().sum(-1)
    possible = total > 0
    return torch.where(possible, total.masked_fill(~possible, 1.0).log() + top.squeeze(-1), NEG_INF)


def logaddexp(a: Tensor, b: Tensor) -> Tensor:
    """Return log(exp a + exp b), broadcast; -inf (and derivatives 0) if both are -inf."""
    if not (torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)):
        return torch.logaddexp(a, b)
    top = torch.maximum(a.detach(), b.detach())
    top = top.masked_fill(top == NEG_INF, 0.0)
    total = (a - top).exp() + (b - top).exp()
    possible = total > 0
    return torch.where(possible, total.masked_fill(~possible, 1.0).log() + top, NEG_INF)


def finite(shift: Tensor) -> Tensor:
    """Return a shift that can be subtracted from log scores: 0 instead of -inf, the maximum if all are impossible."""
    return shift.masked_fill(shift == NEG_INF, 0.0)


def padding(lengths: Tensor, words: int) -> Tensor | None:
    """Return the words beyond each sentence, BoolTensor [B, N]; None if there are none."""
    if not lengths.numel() or lengths.amin().item() >= words:
        return None
    return torch.arange(words, device=lengths.device) >= lengths.unsqueeze(1)


def sentences_at_once(cells: Tensor) -> int:
    """Return how many sentences to process at a time, so that arithmetic on their cells [B, ...] stays in the cache."""
    if cells.device.type != "cpu":
        return max(1, len(cells))
    return max(1, _CACHED_CELLS // max(1, cells[:1].numel()))
