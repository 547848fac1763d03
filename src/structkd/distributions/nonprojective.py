"""Non-projective dependency trees by the matrix-tree theorem (Koo et al., 2007; Smith and Smith, 2007)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch_struct
from torch import Tensor

from .base import Parts, adopts
from .kernels import matrix_tree
from .kernels.arborescence import k_best_arborescences, maximum_arborescences
from .kernels.arithmetic import NEG_INF, logsumexp
from .semirings import Log
from .trees import TreeDistribution, check_multiroot


class NonProjectiveDependencyCRF(TreeDistribution, torch_struct.NonProjectiveDependencyCRF):
    """A distribution over all dependency trees, crossing arcs included, factored over arcs.

    Args:
        log_potentials: [B, N, N]; cell [b, h, d] scores the arc from head h to dependent d, root arcs on the diagonal.
            Labelled: [B, N, N, L].
        lengths: LongTensor [B], words per sentence, 1..N; None means N for all.
        multiroot: allow several words to depend on the root.
        validate_args: check values (NaN, +inf); None means torch.distributions' default.

    log Z is the matrix-tree determinant; where a floating-point determinant would cancel it is computed without a
    subtraction (see `kernels.matrix_tree`). `decode()` gives the maximum spanning arborescence (Chu and Liu, 1965;
    Edmonds, 1967) as heads [B, N], root = own index. Costs O(N^3) time in N parallel steps; a sample, N times that.
    Raises TypeError or ValueError for a wrong kind, shape, length or value.

    Example:
        >>> import torch
        >>> trees = NonProjectiveDependencyCRF(torch.zeros(1, 3, 3))
        >>> trees.partition.exp().round().tolist()  # trees of three words with one root
        [9.0]
        >>> scores = torch.tensor([[[2.0, 3.0, 0.0], [0.0, 1.0, 3.0], [0.0, 0.0, 0.0]]])
        >>> NonProjectiveDependencyCRF(scores).decode().tolist()
        [[0, 0, 1]]
    """

    _recursion = matrix_tree

    def __init__(
        self,
        log_potentials: Tensor,
        lengths: Tensor | None = None,
        multiroot: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        self.multiroot = check_multiroot(multiroot)
        self._initialise(log_potentials, lengths, validate_args)

    def inside(self, semiring: Log, parts: Parts, lengths: Tensor) -> Tensor:
        # Only log Z has a recursion here: elimination divides, so other semirings have none.
        arcs = logsumexp(parts[0]) if self.labelled else parts[0]
        return matrix_tree.log_matrix_tree(arcs, lengths, self.multiroot)

    def _best_heads(self, arcs: Tensor) -> Tensor:
        return maximum_arborescences(arcs, self.lengths, single_root=not self.multiroot)

    def _solve(self, semiring: Any, parts: Parts, lengths: Tensor) -> tuple[Tensor, list[Parts]]:
        scores = parts[0] if self.labelled else parts[0].unsqueeze(-1)
        values = scores.new_full((semiring.k, scores.shape[0]), NEG_INF)
        events = scores.new_zeros(semiring.k, *scores.shape)
        tables = scores.cpu().numpy().astype(np.float64)
        for item, length in enumerate(lengths.tolist()):
            best = k_best_arborescences(tables[item, :length, :length], semiring.k, single_root=not self.multiroot)
            for rank, (value, heads, relations) in enumerate(best):
                values[rank, item] = value
                events[rank, item, heads, range(length), relations] = 1.0
        return values, [(event if self.labelled else event.squeeze(-1),) for event in events]

    def _sampled_parts(self, parts: Parts, lengths: Tensor) -> Parts:
        """Word by word, from the marginals given the heads already drawn: exact, and never a random walk that could
        circle for as long as two words prefer each other (Wilson, 1996).
        """
        scores = parts[0] if self.labelled else parts[0].unsqueeze(-1)
        words = scores.shape[1]
        arcs = logsumexp(scores)
        chosen = torch.zeros_like(arcs)
        for word in range(words):
            marginals = matrix_tree.expectations(arcs, lengths, self.multiroot)[1]
            here = (word < lengths).unsqueeze(-1)
            column = torch.where(here, marginals[:, :, word], torch.ones_like(marginals[:, :, word]))
            head = torch.multinomial(column, 1)
            keep = torch.zeros_like(column).scatter_(1, head, 1.0)
            chosen[:, :, word] = keep * here
            arcs = arcs.clone()
            arcs[:, :, word] = torch.where((keep == 0) & here, NEG_INF, arcs[:, :, word])
        if not self.labelled:
            return (chosen,)
        noise = torch.empty_like(scores).exponential_().clamp_min_(torch.finfo(scores.dtype).tiny).log_().neg_()
        relation = (scores + noise).argmax(-1, keepdim=True)
        return (torch.zeros_like(scores).scatter_(-1, relation, 1.0) * chosen.unsqueeze(-1),)


@adopts(torch_struct.NonProjectiveDependencyCRF, NonProjectiveDependencyCRF)
def _adopt(trees: torch_struct.NonProjectiveDependencyCRF) -> NonProjectiveDependencyCRF:
    return NonProjectiveDependencyCRF(trees.log_potentials, trees.lengths, trees.multiroot)
