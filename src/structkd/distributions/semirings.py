"""Semirings over log scores: one recursion computes log Z, marginals, best structures and samples.

A recursion written with `sum` and `times` gives log Z under `Log`, the best score under `Max` and the k best scores
under `KBest(k)`. Its derivative is the marginals, the best structure or the k best structures, and under `Sample` an
exact sample (Goodman, 1999; Eisner, 2016).

"Impossible" is -inf here, and derivatives of first and second order are finite there. (torch-struct uses -1e5 or -1e9,
which the scores of a long sentence can reach.)

Elements are tensors. `KBest(k)` puts its k values on a leading axis, so recursions index from the right.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .kernels.arithmetic import NEG_INF, logsumexp


class Log:
    """(logsumexp, +): the value is log Z, its gradient the marginals."""

    def lift(self, x: Tensor) -> Tensor:
        """Return a tensor of log scores as elements of the semiring."""
        return x

    def times(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply elements, with broadcasting."""
        return a + b

    def sum(self, x: Tensor) -> Tensor:
        """Sum over the last axis."""
        return logsumexp(x)

    def prod(self, x: Tensor) -> Tensor:
        """Multiply over the last axis."""
        return x.sum(-1)

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Sum the products of two tensors over the last axis."""
        return self.sum(self.times(a, b))


class Max(Log):
    """(max, +): the value is the best score, its gradient one best structure (ties go to one of them)."""

    def sum(self, x: Tensor) -> Tensor:
        # .max(dim) sends its gradient to one maximizer, whereas amax would split it between ties.
        return x.max(-1).values


class _SampledChoice(torch.autograd.Function):
    """Forward: logsumexp. Backward: the incoming gradient goes to one entry, drawn with probability softmax(x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.logsumexp(x, -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        # Gumbel-max needs no normalization, so a row of -inf (whose gradient is 0) is harmless.
        noise = torch.empty_like(x).exponential_().clamp_min_(torch.finfo(x.dtype).tiny).log_().neg_()
        choice = (x + noise).argmax(-1, keepdim=True)
        return torch.zeros_like(x).scatter_(-1, choice, grads[0].unsqueeze(-1))


class Sample(Log):
    """(logsumexp, +) whose gradient is one exact sample: forward filtering, backward sampling."""

    def sum(self, x: Tensor) -> Tensor:
        return _SampledChoice.apply(x)


class KBest(Log):
    """(k-max, +): elements hold their k best values in falling order on a leading axis, filled up with -inf."""

    def __init__(self, k: int) -> None:
        self.k = k

    def lift(self, x: Tensor) -> Tensor:
        rest = x.new_full((self.k - 1, *x.shape), NEG_INF)
        return torch.cat([x.unsqueeze(0), rest])

    def times(self, a: Tensor, b: Tensor) -> Tensor:
        pairs = a.unsqueeze(1) + b.unsqueeze(0)
        return pairs.flatten(0, 1).topk(self.k, dim=0).values

    def sum(self, x: Tensor) -> Tensor:
        return x.movedim(0, -1).flatten(-2).topk(self.k, dim=-1).values.movedim(-1, 0)

    def prod(self, x: Tensor) -> Tensor:
        product = x[..., 0]
        for n in range(1, x.shape[-1]):
            product = self.times(product, x[..., n])
        return product
