"""A cache of tensors that depend on a sentence alone, because epochs come back to the same sentences."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor

__all__ = ["TensorCache"]


#: Cells that every tensor counts for beside its own: its key and objects take about a kilobyte.
_OVERHEAD = 256


class TensorCache:
    """Tensors by key. When the cache is full, the least recently used ones are dropped.

    Attributes:
        tensors: the tensors by key, least recently used first.
        cells: the number of cells of all tensors, with an allowance for each.
    """

    def __init__(self) -> None:
        self.tensors: OrderedDict[Hashable, Tensor] = OrderedDict()
        self.cells = 0

    def get(self, key: Hashable, compute: Callable[[], Tensor], limit: int) -> Tensor:
        """Return the tensor of a key, computed if it is missing; above ``limit`` cells others are dropped."""
        value = self.tensors.get(key)
        if value is None:
            value = self.tensors[key] = compute()
            self.cells += value.numel() + _OVERHEAD
            while self.cells > limit and len(self.tensors) > 1:
                self.cells -= self.tensors.popitem(last=False)[1].numel() + _OVERHEAD
        else:
            self.tensors.move_to_end(key)
        return value
