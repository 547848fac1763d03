"""Which implementation of a dynamic programme runs: compiled, torch in probability space, or torch in log space.

`auto`, the default, takes compiled kernels where they are installed (structkd[fast]) and the tensors are theirs, and
torch otherwise. The others are for tests, and for whoever wants to compare: `with using("log"): ...`, or the
environment variable STRUCTKD_KERNELS.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType

import torch
from torch import Tensor

PATHS = ("auto", "compiled", "torch", "log")

_path: ContextVar[str | None] = ContextVar("structkd_kernels", default=None)


def path() -> str:
    """The path in force in this context."""
    chosen = _path.get() or os.environ.get("STRUCTKD_KERNELS") or "auto"
    if chosen not in PATHS:
        raise ValueError(f"STRUCTKD_KERNELS must be one of {', '.join(PATHS)}, got {chosen!r}")
    return chosen


@contextmanager
def using(chosen: str) -> Iterator[None]:
    """Run a block of this thread by one path.

    "compiled" raises ImportError where the compiled kernels cannot be had; "log" leaves probability space aside.
    """
    if chosen not in PATHS:
        raise ValueError(f"the path of kernels must be one of {', '.join(PATHS)}, got {chosen!r}")
    token = _path.set(chosen)
    try:
        yield
    finally:
        _path.reset(token)


def log_space() -> bool:
    """Whether probability space is to be left aside."""
    return path() == "log"


def compiled_for(*tensors: Tensor | None) -> ModuleType | None:
    """The module of compiled kernels, if it is to run on these tensors and can."""
    chosen = path()
    if chosen not in ("auto", "compiled"):
        return None
    for tensor in tensors:
        if tensor is not None and (tensor.device.type != "cpu" or tensor.dtype not in (torch.float32, torch.float64)):
            return None
    from . import compiled

    if compiled.available():
        return compiled
    if chosen == "compiled":
        raise ImportError("the compiled kernels are not available: pip install structkd[fast]")
    return None
