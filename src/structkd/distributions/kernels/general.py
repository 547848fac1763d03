"""Expectations by autograd, and a structural loss from expectations: the fallback if no faster engine certifies one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..transition_counts import expected_score
from .arithmetic import NEG_INF, padding, working_precision


def expectations(log_partition: Callable[[Tensor], Tensor], scores: Tensor) -> tuple[Tensor, Tensor]:
    """Compute log Z [B] and the expectations, its derivative by scores [B, ...], by autograd. Leaves no graph."""
    with torch.enable_grad():
        leaf = scores.detach().requires_grad_()
        value = log_partition(leaf)
        (marginals,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), marginals


def kd(
    both: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    teacher: Tensor,
    student: Tensor,
    lengths: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor] | None:
    """Compute a structural loss from the expectations of both sides, as one batch.

    Args:
        both: function from scores [2 B, ...] and lengths [2 B] to log Z [2 B] and marginals in the scores' shape.
        teacher, student: scores of arcs [B, N, N, ...]; anything may be in the padding.
        lengths: LongTensor [B].
        temperature: T.

    Returns:
        T^2 (log Z_s - <P_t, s_s / T>), [B], and T (P_s - P_t) in the student's shape and dtype; None if a side has no
        structure.
    """
    batch, words = student.shape[:2]
    scores = torch.cat((teacher, student)).to(working_precision(student))
    if temperature != 1:
        scores.div_(temperature)
    beyond = outside(lengths, words)
    if beyond is not None:
        scores.masked_fill_(beyond.repeat(2, 1, 1).view(2 * batch, words, words, *[1] * (scores.dim() - 3)), 0.0)
    value, marginals = both(scores, lengths.repeat(2))
    if not (value > NEG_INF).all():
        return None
    wanted, got = marginals.chunk(2)
    loss = value[batch:] - expected_score(wanted, scores[batch:])
    gap = got.sub_(wanted).to(student.dtype)
    return loss * temperature**2, gap if temperature == 1 else gap.mul_(temperature)


def outside(lengths: Tensor, words: int) -> Tensor | None:
    """Return the cells of the padding, BoolTensor [B, N, N]; None if there are none."""
    beyond = padding(lengths, words)
    return None if beyond is None else beyond.unsqueeze(1) | beyond.unsqueeze(2)
