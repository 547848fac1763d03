"""The compiled search for the best tree of one sentence. Its source, `edmonds`, also runs uncompiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import edmonds as plain
from .lanes import kernel
from .runtime import call

_edmonds = kernel(plain.edmonds)


def edmonds(scores: NDArray[np.float64], reluctant_root: bool) -> NDArray[np.int64]:
    """Find the best tree by the compiled `edmonds.edmonds`, or by the uncompiled one if it does not compile."""
    heads = call(_edmonds, np.ascontiguousarray(scores, np.float64), reluctant_root)
    return plain.edmonds(scores, reluctant_root) if heads is None else heads
