"""Sums over dependency trees by the fastest engine that certifies them, or else by autograd through log space."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..transition_counts import expected_score
from .arithmetic import NEG_INF, padding, working_precision
from .engines import compiled_for, log_space


def kd(
    recursion: str,
    by_torch: Callable[..., tuple[Tensor, Tensor] | None] | None,
    both: Callable[..., tuple[Tensor, Tensor]],
    teacher: Tensor,
    student: Tensor,
    lengths: Tensor,
    multiroot: bool,
    temperature: float,
) -> tuple[Tensor, Tensor] | None:
    """Compute the structural loss of trees over arcs.

    Args:
        recursion: the module of the compiled kernel.
        by_torch: function of the last five arguments to the loss and its gradient, or to None if it cannot certify
            them; or None, if torch has no such engine.
        both: the function `expectations` of the recursion.
        teacher, student, lengths, multiroot, temperature: as in `eisner.kd`.

    Returns:
        As `eisner.kd`.
    """
    compiled = compiled_for(recursion, teacher, student)
    if compiled is not None:
        loss, gradient, ok = compiled.kd(teacher, student, lengths, multiroot, temperature)
        found = (loss, gradient) if ok else None
    elif by_torch is not None and not log_space():
        found = by_torch(teacher, student, lengths, multiroot, temperature)
    else:
        found = None
    if found is not None:
        return found
    return kd_from_expectations(partial(both, multiroot=multiroot), teacher, student, lengths, temperature)


def expectations(
    recursion: str,
    by_torch: Callable[..., tuple[Tensor, Tensor, Tensor]] | None,
    log_partition: Callable[..., Tensor],
    arcs: Tensor,
    lengths: Tensor,
    multiroot: bool,
) -> tuple[Tensor, Tensor]:
    """Compute log Z [B] and arc marginals [B, N, N], without a graph.

    Args:
        recursion: the module of the compiled kernel.
        by_torch: function of the last three arguments to log Z, marginals, and whether a sentence's are certified,
            BoolTensor [B]; or None, if torch has no such engine.
        log_partition: function of them to log Z in log space, differentiable.
        arcs, lengths, multiroot: as in `eisner.expectations`.
    """
    compiled = compiled_for(recursion, arcs)
    if compiled is not None:
        value, marginals, safe = compiled.expectations(arcs, lengths, multiroot)
    elif by_torch is not None and not log_space():
        value, marginals, safe = by_torch(arcs, lengths, multiroot)
    else:
        return expectations_by_autograd(partial(log_partition, lengths=lengths, multiroot=multiroot), arcs)
    if not safe.all():
        rest = (~safe).nonzero().flatten()
        exact = partial(log_partition, lengths=lengths[rest], multiroot=multiroot)
        value[rest], marginals[rest] = expectations_by_autograd(exact, arcs[rest])
    return value, marginals


def expectations_by_autograd(log_partition: Callable[[Tensor], Tensor], scores: Tensor) -> tuple[Tensor, Tensor]:
    """Compute log Z [B] and the expectations, its derivative by scores [B, ...], by autograd. Leaves no graph."""
    with torch.enable_grad():
        leaf = scores.detach().requires_grad_()
        value = log_partition(leaf)
        (marginals,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), marginals.clamp_min_(0.0)


def kd_from_expectations(
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
