"""Which implementation of a dynamic programme runs: compiled, on a GPU, torch in probability space, or in log space.

`auto`, the default, takes

- on the CPU compiled kernels where they are installed (structkd[fast]) and have the programme, else torch,
- on a GPU, for chains, the Triton kernel where triton can be imported and the labels fit, else the log-depth scan where
  they are few, else torch; torch for everything else.

The others are for tests, and for whoever wants to compare: `with using("log"): ...`, or the environment variable
STRUCTKD_KERNELS. "triton" and "scan" are about chains; other programmes then run by torch.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

PATHS = ("auto", "compiled", "triton", "scan", "torch", "log")

#: More labels than these are left to a loop over words on a GPU: the scan's work is cubic in them.
SCAN_LABELS = 32

_path: ContextVar[str | None] = ContextVar("structkd_kernels", default=None)


def path() -> str:
    """The path in force in this context."""
    chosen = _path.get() or os.environ.get("STRUCTKD_KERNELS") or "auto"
    if chosen not in PATHS:
        raise ValueError(f"STRUCTKD_KERNELS must be one of {', '.join(PATHS)}, got {chosen!r}")
    return chosen


class using:
    """Run a block of this thread by one path.

    "compiled" and "triton" raise ImportError where those kernels cannot be had, "triton" also ValueError where they
    cannot run on the tensors; "log" leaves probability space aside.
    """

    def __init__(self, chosen: str) -> None:
        if chosen not in PATHS:
            raise ValueError(f"the path of kernels must be one of {', '.join(PATHS)}, got {chosen!r}")
        self._chosen = chosen

    def __enter__(self) -> None:
        self._token = _path.set(self._chosen)

    def __exit__(self, *exception: object) -> None:
        _path.reset(self._token)


def log_space() -> bool:
    """Whether probability space is to be left aside."""
    return path() == "log"


def compiled_for(recursion: str, *tensors: Tensor | None) -> ModuleType | None:
    """The module of compiled kernels for a recursion, if it is to run on these tensors and can."""
    chosen = path()
    if chosen not in ("auto", "compiled"):
        return None
    for tensor in tensors:
        if tensor is not None and (tensor.device.type != "cpu" or tensor.dtype not in (torch.float32, torch.float64)):
            return None
    from .compiled import runtime

    if runtime.available():
        return import_module(f".compiled.{recursion}", __package__)
    if chosen == "compiled":
        raise ImportError("the compiled kernels are not available: pip install structkd[fast]")
    return None


def chain_kernels(scores: Tensor, precision: torch.dtype) -> ModuleType | None:
    """The module with `factored` and `dense` programmes for chains that is to run on these scores, their labels on the
    last axis, for results in this precision; None for torch's loop over words.
    """
    chosen, labels = path(), scores.shape[-1]
    if chosen == "scan":
        from . import scan

        return scan
    if chosen == "triton" or (chosen == "auto" and scores.is_cuda):
        kernels = _triton_chain(required=chosen == "triton")
        if kernels is not None and kernels.runs_on(scores) and kernels.fits(labels, precision):
            return kernels
        if chosen == "triton":
            assert kernels is not None
            if not kernels.runs_on(scores):
                raise ValueError(
                    f"the Triton kernels run on CUDA tensors, got scores on {scores.device}; set TRITON_INTERPRET=1 "
                    "before triton is imported to run them in its interpreter"
                )
            raise ValueError(
                f"the Triton kernels hold chains of {kernels.LARGEST[torch.float32]} labels in float32 and "
                f"{kernels.LARGEST[torch.float64]} in float64, got {labels} in {precision}; leave the choice to 'auto'"
            )
        if labels <= SCAN_LABELS:
            from . import scan

            return scan
    return None


def _triton_chain(required: bool) -> ModuleType | None:
    try:
        from . import triton_chain
    except ImportError as error:
        if required:
            raise ImportError(
                "the Triton kernels are not available: torch's CUDA builds for Linux bring triton along, elsewhere "
                f"pip install triton ({error})"
            ) from error
        return None
    return triton_chain
