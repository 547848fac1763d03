"""Projective dependency trees (Eisner, 1996, 2000)."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
import torch_struct
from torch import Tensor

from .kernels.dispatch import compiled_for
from .semirings import NEG_INF, Log
from .structure import Parts, adopts
from .trees import TreeDistribution


class DependencyCRF(TreeDistribution, torch_struct.DependencyCRF):
    """A distribution over projective dependency trees, factored over arcs.

    Args:
        log_potentials: [B, N, N]; cell [b, h, d] scores the arc from head h to dependent d, root arcs on the diagonal.
            Labelled: [B, N, N, L].
        lengths: LongTensor [B], words per sentence, 1..N; None means N for all.
        multiroot: allow several words to depend on the root (torch-struct's default is True, ours False).
        validate_args: check values (NaN, +inf); None means torch.distributions' default.

    `marginals` have the shape of the scores, `decode()` gives heads [B, N], root = own index.
    Costs O(N^3) time in O(N) parallel steps (Eisner, 2000).
    Raises TypeError or ValueError for a wrong kind, shape, length or value.
    """

    projective = True

    def __init__(
        self,
        log_potentials: Tensor,
        lengths: Tensor | None = None,
        multiroot: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        # torch-struct's constructor would set `multiroot` on a class that all its objects share
        self.struct = torch_struct.DepTree
        self.multiroot = bool(multiroot)
        self._initialise(log_potentials, lengths, validate_args)

    def _with_scores(self, *scores: Tensor | None) -> DependencyCRF:
        return DependencyCRF(scores[0], self.lengths, self.multiroot, validate_args=False)  # type: ignore[arg-type]

    def _inside(self, semiring: Log, parts: Parts, lengths: Tensor) -> Tensor:
        arcs = semiring.lift(parts[0])
        if self.labelled:
            arcs = semiring.sum(arcs)
        return eisner(semiring, arcs, lengths, self.multiroot)

    def _compiled_kd(self, compiled: ModuleType) -> Any:
        return compiled.projective_kd

    def _programme(self, arcs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        compiled = compiled_for(arcs)
        if compiled is not None:
            value, marginals, safe = compiled.projective_expectations(arcs, lengths, self.multiroot)
            if safe.all():
                return value, marginals
        with torch.enable_grad():
            leaf = arcs.detach().requires_grad_()
            value = eisner(Log(), leaf, lengths, self.multiroot)
            (marginals,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), marginals


def eisner(semiring: Log, arcs: Tensor, lengths: Tensor, multiroot: bool) -> Tensor:
    """Semiring sum over projective trees, [B], of arc elements [..., B, N, N], roots on the diagonal.

    Spans (i, j) are kept twice, by where they start and by where they end, with the width j - i on the last axis,
    so that every sum over split points is one dot product of two slices. The root is attached last: its children's
    complete spans tile the sentence, and each tiling is one derivation.
    """
    words = arcs.shape[-1]
    one = semiring.lift(arcs.new_zeros(arcs.shape[-3], words))
    zero = torch.full_like(one, NEG_INF)
    unit = one.unsqueeze(-1)
    # complete spans headed by their left word, and by their right word; last axis: width 0, 1, ...
    right_by_start, right_by_end, left_by_start, left_by_end = unit, unit, unit, unit
    # incomplete spans (an arc between the two ends); last axis: width 1, 2, ...
    arc_right_by_start = arc_left_by_end = one.unsqueeze(-1)[..., :0]

    for width in range(1, words):
        count = words - width
        pad = zero[..., :width]
        inner = semiring.dot(right_by_start[..., :count, :], left_by_end[..., width:, :].flip(-1))
        arc_right = semiring.times(inner, arcs.diagonal(width, -2, -1))
        arc_left = semiring.times(inner, arcs.diagonal(-width, -2, -1))
        arc_right_by_start = _widen(arc_right_by_start, torch.cat([arc_right, pad], -1))
        arc_left_by_end = _widen(arc_left_by_end, torch.cat([pad, arc_left], -1))
        right = semiring.dot(arc_right_by_start[..., :count, :], right_by_end[..., width:, :].flip(-1))
        left = semiring.dot(left_by_start[..., :count, :], arc_left_by_end[..., width:, :].flip(-1))
        right_by_start = _widen(right_by_start, torch.cat([right, pad], -1))
        right_by_end = _widen(right_by_end, torch.cat([pad, right], -1))
        left_by_start = _widen(left_by_start, torch.cat([left, pad], -1))
        left_by_end = _widen(left_by_end, torch.cat([pad, left], -1))

    roots = arcs.diagonal(0, -2, -1)
    if multiroot:
        # prefix[e]: the first e words hang from the root; rooted[r]: they do up to r's left edge, and r is a child
        prefix = unit[..., 0, :]
        rooted = prefix[..., :0]
        for end in range(words):
            child = semiring.dot(prefix, left_by_end[..., end, : end + 1].flip(-1))
            rooted = _widen(rooted, semiring.times(child, roots[..., end]))
            prefix = _widen(prefix, semiring.dot(rooted, right_by_end[..., end, : end + 1].flip(-1)))
        return _pick(prefix, lengths)
    last = lengths - 1
    left_of_root = left_by_end.diagonal(0, -2, -1)
    position = torch.arange(words, device=arcs.device)
    reach = last.unsqueeze(-1) - position
    ending_last = last.view(-1, 1, 1).expand(*right_by_end.shape[:-2], 1, words)
    right_of_root = torch.take_along_dim(right_by_end, ending_last, -2).squeeze(-2)
    right_of_root = torch.take_along_dim(right_of_root, reach.clamp_min(0).expand(right_of_root.shape), -1)
    right_of_root = right_of_root.masked_fill(reach < 0, NEG_INF)
    return semiring.dot(semiring.times(left_of_root, roots), right_of_root)


def _widen(chart: Tensor, column: Tensor) -> Tensor:
    return torch.cat([chart, column.unsqueeze(-1)], -1)


def _pick(chart: Tensor, index: Tensor) -> Tensor:
    """chart [..., B, M] at index [B] of its last axis."""
    return torch.take_along_dim(chart, index.unsqueeze(-1).expand(*chart.shape[:-1], 1), -1).squeeze(-1)


@adopts(torch_struct.DependencyCRF, DependencyCRF)
def _adopt(trees: torch_struct.DependencyCRF) -> DependencyCRF:
    # torch-struct keeps the root mode on the class its objects share, so this is the mode of the last object built
    multiroot = getattr(trees, "multiroot", getattr(trees.struct, "multiroot", True))
    return DependencyCRF(trees.log_potentials, trees.lengths, multiroot)
