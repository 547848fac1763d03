"""A pytest plugin that gives numpy and hypothesis the forms that torch-struct's tests, of 2022, use."""

from typing import Any

import hypothesis.extra.numpy
import numpy as np

vars(np)["float"] = float
_arrays = hypothesis.extra.numpy.arrays


def arrays(dtype: Any, shape: Any, elements: Any = None, **options: Any) -> Any:
    """As hypothesis has it, with elements by position."""
    return _arrays(dtype, shape, elements=elements, **options)


hypothesis.extra.numpy.arrays = arrays
