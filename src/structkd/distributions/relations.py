"""Relations given the arc: their scores, given as a table or by their factors."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class RelationScores(Protocol):
    """Scores of relations given the arc, [B, N, N, L], computed on request from their factors, such as a parser's
    bilinear form.

    Example:
        >>> import structkd
        >>> class Bilinear:
        ...     def __init__(self, heads, dependents):  # each [B, N, L]
        ...         self.heads, self.dependents = heads, dependents
        ...         self.count, self.dtype = heads.shape[-1], heads.dtype
        ...     def everywhere(self):
        ...         return self.heads.unsqueeze(2) * self.dependents.unsqueeze(1)
        ...     def along(self, heads):
        ...         index = heads.unsqueeze(-1).expand(self.dependents.shape)
        ...         return self.heads.gather(1, index) * self.dependents
        >>> relations = Bilinear(torch.ones(1, 3, 4), torch.ones(1, 3, 4))
        >>> isinstance(relations, RelationScores)
        True
        >>> structkd.DependencyCRF(torch.zeros(1, 3, 3)).with_relations(relations).event_shape
        torch.Size([3, 3, 4])
    """

    @property
    def count(self) -> int:
        """The number of relations, L."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the scores."""

    def everywhere(self) -> Tensor:
        """Return the scores of all arcs, [B, N, N, L]; cell [b, h, d, l] for relation l, root arcs on the diagonal."""

    def along(self, heads: Tensor) -> Tensor:
        """Return the scores of one arc per word, [B, N, L]; heads LongTensor [B, N], root = own index."""


class Tabulated:
    """Scores of relations, [B, N, N, L], that are multiplied out already."""

    def __init__(self, scores: Tensor) -> None:
        self.scores, self.count, self.dtype = scores, scores.shape[-1], scores.dtype

    def everywhere(self) -> Tensor:
        return self.scores

    def along(self, heads: Tensor) -> Tensor:
        return along(self.scores, heads)


def along(cells: Tensor, heads: Tensor) -> Tensor:
    """Return those of cells [B, N, N, L] of one arc per word, [B, N, L]; heads LongTensor [B, N], root = own index."""
    return cells.gather(1, heads[:, None, :, None].expand(-1, 1, -1, cells.shape[-1])).squeeze(1)
