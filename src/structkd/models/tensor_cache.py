"""A cache of tensors that depend on a sentence alone, because epochs come back to the same sentences."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor

__all__ = ["TensorCache"]


#: Keys that are remembered as asked for once, at most; their hashes take some 10 MB.
_ASKED = 1 << 17

#: Cells that every tensor counts for beside its own: its key and objects take about a kilobyte.
_OVERHEAD = 256


class TensorCache:
    """Tensors by key. When the cache is full, the least recently used ones are dropped.

    Args:
        again: keep a tensor only when it is asked for again, so that a stream of sentences, each of which comes once,
            takes no memory.

    Attributes:
        tensors: the tensors by key, least recently used first.
        cells: the number of cells of all tensors, with an allowance for each.
    """

    def __init__(self, again: bool = False) -> None:
        self._asked: set[int] | None = set() if again else None
        self.tensors: OrderedDict[Hashable, Tensor] = OrderedDict()
        self.cells = 0

    def get(self, key: Hashable, compute: Callable[[], Tensor], limit: int) -> Tensor:
        """Return the tensor of a key, computed if it is missing; above ``limit`` cells others are dropped."""
        value = self.tensors.get(key)
        if value is None:
            value = compute()
            if self._is_new(key):
                return value
            self.tensors[key] = value
            self.cells += value.numel() + _OVERHEAD
            while self.cells > limit and len(self.tensors) > 1:
                self.cells -= self.tensors.popitem(last=False)[1].numel() + _OVERHEAD
        else:
            self.tensors.move_to_end(key)
        return value

    def _is_new(self, key: Hashable) -> bool:
        """Whether a key is asked for the first time, in a cache that keeps what is asked for again."""
        if self._asked is None:
            return False
        digest = hash(key)
        if digest in self._asked:
            self._asked.discard(digest)
            return False
        if len(self._asked) >= _ASKED:
            self._asked.clear()
        self._asked.add(digest)
        return True
