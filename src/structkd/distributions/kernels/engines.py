"""The choice of the engine for a recursion: compiled kernels, a Triton kernel, torch in probability space or log space.

Only the other modules in this folder use this one. The default, `auto`, chooses

- on the CPU, the compiled kernel if numba is installed (structkd[fast]) and the recursion has one, else torch;
- on a GPU, the Triton kernel for chains if triton can be imported and the labels fit, else torch.

You can choose another engine for tests and comparisons by `with using("log"): ...` or by the environment variable
STRUCTKD_KERNELS. The engine "triton" exists for chains only; with it, other recursions run in torch.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from . import compiled
from .compiled import runtime

PATHS = ("auto", "compiled", "triton", "torch", "log")

_path: ContextVar[str | None] = ContextVar("structkd_kernels", default=None)


def path() -> str:
    """Return the name of the engine chosen in this context.

    Raises:
        ValueError: if STRUCTKD_KERNELS does not name an engine.
    """
    chosen = _path.get()
    return _checked(os.environ.get("STRUCTKD_KERNELS") or "auto", "STRUCTKD_KERNELS") if chosen is None else chosen


class using:
    """A context manager that selects the engine for a block of this thread.

    "compiled" and "triton" raise ImportError if those kernels are not available. "triton" also raises ValueError if it
    cannot run on the tensors. "log" avoids probability space.
    """

    def __init__(self, chosen: str) -> None:
        self._chosen = _checked(chosen, "The engine")

    def __enter__(self) -> None:
        self._token = _path.set(self._chosen)

    def __exit__(self, *exception: object) -> None:
        _path.reset(self._token)


def _checked(chosen: str, name: str) -> str:
    if chosen not in PATHS:
        raise ValueError(f"{name} must be one of {', '.join(PATHS)}, got {chosen!r}.")
    return chosen


def log_space() -> bool:
    """Return whether the chosen engine avoids probability space."""
    return path() == "log"


def compiled_for(recursion: str, *tensors: Tensor | None) -> ModuleType | None:
    """Return the module of compiled kernels for a recursion, or None if another engine is to run on these tensors.

    Raises:
        ImportError: if the engine is "compiled" and the kernels are not available.
    """
    chosen = path()
    if chosen not in ("auto", "compiled"):
        return None
    for tensor in tensors:
        if tensor is not None and (not tensor.is_cpu or tensor.dtype not in (torch.float32, torch.float64)):
            return None
    if runtime.available():
        # the attribute exists once the module is imported, and is found ten times as fast
        return getattr(compiled, recursion, None) or import_module(f".compiled.{recursion}", __package__)
    if chosen == "compiled":
        raise ImportError(
            "The compiled kernels are not available: numba is missing, untested or does not compile here. The log has "
            "the reason. Run pip install 'structkd[fast]' to install a tested version."
        )
    return None


def triton_for(scores: Tensor, precision: torch.dtype) -> ModuleType | None:
    """Return the module of the Triton kernels for chains, or None if another engine is to run on these scores.

    Args:
        scores: tensor with the labels on the last axis.
        precision: dtype of the results.

    Raises:
        ImportError: if the engine is "triton" and triton cannot be imported.
        ValueError: if the engine is "triton" and the scores are not on a GPU or have too many labels.
    """
    chosen, labels = path(), scores.shape[-1]
    if chosen != "triton" and not (chosen == "auto" and scores.is_cuda):
        return None
    kernels = _triton_chain(required=chosen == "triton")
    if kernels is not None and kernels.runs_on(scores) and kernels.fits(labels, precision):
        return kernels
    if chosen == "auto":
        return None
    assert kernels is not None
    if not kernels.runs_on(scores):
        raise ValueError(
            f"The Triton kernels run on CUDA tensors, got scores on {scores.device}. To run them on the CPU in "
            "Triton's interpreter, set TRITON_INTERPRET=1 before triton is imported."
        )
    raise ValueError(
        f"The Triton kernels hold chains of {kernels.LARGEST[torch.float32]} labels in float32 and "
        f"{kernels.LARGEST[torch.float64]} in float64, got {labels} in {precision}. Leave the choice to 'auto'."
    )


def _triton_chain(required: bool) -> ModuleType | None:
    try:
        from . import triton_chain
    except ImportError as error:
        if required:
            raise ImportError(
                f"The Triton kernels are not available: {error}. Run pip install triton, or install a CUDA build of "
                "torch for Linux, which includes it."
            ) from error
        return None
    return triton_chain
