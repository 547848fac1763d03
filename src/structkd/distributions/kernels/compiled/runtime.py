"""Check whether the compiled kernels work on this machine, and launch a kernel over the sentences of a batch.

numba is imported and compiles at the first use. Large batches are divided among as many threads as torch may use. The
thread settings of torch and numba stay unchanged.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

_logger = logging.getLogger(__name__)

#: The numba versions to use, from the first to before the second; setup.cfg has the same bounds. Others are refused
#: because the vector type uses numba's internals. Development runs with 0.68; 0.66 passed 126 of the kernels' tests.
TESTED = ((0, 66), (0, 69))
INSTALL = "pip install 'structkd[fast]'"

#: The least work, in nanoseconds, for which it pays to wake a thread.
_WORTHWHILE = 200_000

Ranges = list[tuple[int, int]]

_lock = threading.RLock()
_usable: bool | None = None
_executor: ThreadPoolExecutor | None = None


def _forget_threads() -> None:
    """Reset the pool and the lock after a fork: the parent's threads, which may hold the lock, do not exist here."""
    global _executor, _lock
    _executor, _lock = None, threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def available() -> bool:
    """Return whether numba is installed and compiles. The first call checks it; a failure is logged once and final."""
    global _usable
    if _usable is None:
        with _lock:
            if _usable is None:
                _usable = _works()
    return _usable


def _works() -> bool:
    try:
        # Look the version up before importing numba, because an untested version may fail in any way.
        installed = version("numba")
        first, beyond = (".".join(map(str, bound)) for bound in TESTED)
        if not TESTED[0] <= tuple(map(int, re.findall(r"\d+", installed)[:2])) < TESTED[1]:
            _off(f"numba {installed} was not tested with them; {INSTALL} installs one in {first} <= version < {beyond}")
            return False
        from .lanes import probe

        numbers = np.linspace(-9.0, 0.0, 8)
        expected = np.exp(numbers)
        probe(numbers)
        if not np.allclose(numbers, expected, rtol=1e-13, atol=0.0):
            raise ArithmeticError(f"exp gives {numbers}, not {expected}")
    except ModuleNotFoundError as error:
        _off(f"{error}; {INSTALL} installs them", logging.INFO)
        return False
    except Exception as error:
        _off(f"{type(error).__name__}: {error}")
        return False
    return True


def _off(reason: str, level: int = logging.WARNING) -> None:
    _logger.log(level, "Compiled kernels are off and torch computes instead: %s.", reason)


def ranges(count: int, cost: float, least: int = 1, pieces: int = 1) -> Ranges:
    """Divide sentences 0..count - 1 into ranges for as many threads as the work justifies.

    Args:
        count: number of sentences.
        cost: nanoseconds that all sentences take together.
        least: the length of every range but the last is a multiple of this number.
        pieces: number of ranges for each thread.

    Returns:
        Pairs of the first sentence and the one after the last.
    """
    threads = min(torch.get_num_threads(), int(cost / _WORTHWHILE), -(-count // least))
    if threads <= 1:
        return [(0, count)]
    size = -(-count // (threads * pieces * least)) * least
    return [(first, min(first + size, count)) for first in range(0, count, size)]


def call(kernel: Any, *arguments: Any) -> Any:
    """Call a function decorated by `lanes.kernel`, which compiles at its first call.

    Returns:
        The kernel's result; None if it does not compile, which switches all compiled kernels off.
    """
    global _usable
    if not available():
        return None
    try:
        return kernel(*arguments)
    except Exception as error:
        _usable = False
        _off(f"{kernel.__module__.rpartition('.')[2]}.{kernel.__name__}: {type(error).__name__}: {error}")
        return None


def launch(
    kernel: Any, over: Ranges, arguments: Sequence[Any], outputs: Sequence[Tensor], by_range: np.ndarray | None = None
) -> bool:
    """Call kernel(*arguments, first, last, *outputs) for every range of sentences.

    The first range runs in this thread and the others run in a pool of threads.

    Args:
        kernel: a function decorated by `lanes.kernel`.
        over: ranges of sentences, from `ranges`.
        arguments: arrays or numbers.
        outputs: tensors that the kernel writes to.
        by_range: an array with one row for each range, which is passed as one more output.

    Returns:
        Whether every call returned True.
    """
    global _executor
    written = [x.numpy() for x in outputs]

    def work(number: int) -> Any:
        return call(kernel, *arguments, *over[number], *written, *(() if by_range is None else (by_range[number],)))

    if len(over) == 1:
        return bool(work(0))
    with _lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(max(1, torch.get_num_threads() - 1), thread_name_prefix="structkd")
        executor = _executor
    others = [executor.submit(work, number) for number in range(1, len(over))]
    results = [work(0)]
    return all(results + [other.result() for other in others])


def common_dtype(*tensors: Tensor | None) -> torch.dtype:
    """Return float64 if one of the tensors has it, else float32."""
    return torch.float64 if any(t is not None and t.dtype == torch.float64 for t in tensors) else torch.float32


def array(tensor: Tensor | None, dtype: torch.dtype = torch.float64) -> np.ndarray:
    """Return a tensor as a contiguous array, which shares its memory if possible; an empty array for None."""
    if tensor is None:
        return np.empty(0, np.float64 if dtype == torch.float64 else np.float32)
    # For small tensors, a conversion that changes nothing takes as long as the kernel.
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.dtype != dtype:
        tensor = tensor.to(dtype)
    return tensor.contiguous().numpy()
