"""What preparing sentences has worked out before: epochs come back to the same ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor

__all__ = ["Remembered"]


#: Cells that a remembered tensor counts for beside its own: its key and objects take about a kilobyte.
_OVERHEAD = 256


class Remembered:
    """Tensors by what they depend on; the least recently used go first.

    Attributes:
        known: the tensors, least recently used first.
        cells: of all of them, with what goes with each.
    """

    def __init__(self) -> None:
        self.known: OrderedDict[Hashable, Tensor] = OrderedDict()
        self.cells = 0

    def recall(self, key: Hashable, work_out: Callable[[], Tensor], limit: int) -> Tensor:
        """The tensor of this key, worked out if it is not known; beyond ``limit`` cells others go."""
        value = self.known.get(key)
        if value is None:
            value = self.known[key] = work_out()
            self.cells += value.numel() + _OVERHEAD
            while self.cells > limit and len(self.known) > 1:
                self.cells -= self.known.popitem(last=False)[1].numel() + _OVERHEAD
        else:
            self.known.move_to_end(key)
        return value
