"""Projective dependency trees (Eisner, 1996, 2000)."""

from __future__ import annotations

import torch_struct
from torch import Tensor

from .base import Parts, adopts
from .kernels import eisner
from .semirings import Log
from .trees import TreeDistribution, check_multiroot


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

    Example:
        >>> import torch
        >>> trees = DependencyCRF(torch.zeros(1, 3, 3))
        >>> trees.count.round().tolist()  # projective trees of three words with one root
        [7.0]
        >>> trees.log_prob(torch.tensor([[0, 0, 1]])).exp().mul(7).round().tolist()
        [1.0]
    """

    _recursion = eisner
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
        self.multiroot = check_multiroot(multiroot)
        self._initialise(log_potentials, lengths, validate_args)

    def inside(self, semiring: Log, parts: Parts, lengths: Tensor) -> Tensor:
        arcs = semiring.lift(parts[0])
        if self.labelled:
            arcs = semiring.sum(arcs)
        return eisner.inside(semiring, arcs, lengths, self.multiroot)

    def _best_heads(self, arcs: Tensor) -> Tensor:
        return eisner.best_trees(arcs, self.lengths, self.multiroot)


@adopts(torch_struct.DependencyCRF, DependencyCRF)
def _adopt(trees: torch_struct.DependencyCRF) -> DependencyCRF:
    # torch-struct keeps the root mode on the class its objects share, so this is the mode of the last object built
    multiroot = getattr(trees, "multiroot", getattr(trees.struct, "multiroot", True))
    return DependencyCRF(trees.log_potentials, trees.lengths, multiroot)
