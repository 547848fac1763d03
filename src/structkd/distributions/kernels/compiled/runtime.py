"""Whether the compiled kernels work here, and how one is launched over the sentences of a batch.

numba is imported, and compiles, at the first use. Sentences are spread over as many threads as torch may use, if there
is enough to do; neither torch's nor numba's thread settings are touched.
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

#: The numba versions that the kernels were tested with, from the first to before the second: the vector type uses
#: numba's internals. setup.cfg has the same bounds.
TESTED = ((0, 61), (0, 69))
INSTALL = "pip install 'structkd[fast]'"

#: What a thread must have to do, in nanoseconds, to be worth waking.
_WORTHWHILE = 200_000

Ranges = list[tuple[int, int]]

_lock = threading.RLock()
_usable: bool | None = None
_executor: ThreadPoolExecutor | None = None


def _forget_threads() -> None:
    """A forked process has none of its parent's threads, nor whoever held its locks."""
    global _executor, _lock
    _executor, _lock = None, threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def available() -> bool:
    """Return whether numba is there and compiles. The first call finds out; a failure is logged, once, and final."""
    global _usable
    if _usable is None:
        with _lock:
            if _usable is None:
                _usable = _works()
    return _usable


def _works() -> bool:
    try:
        # looked up, not imported: an untested version may fail in any way
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
    """Divide sentences 0..count - 1 among the threads worth using.

    Args:
        count: number of sentences.
        cost: nanoseconds that they take altogether.
        least: the ranges, the last one aside, are multiples of this many sentences.
        pieces: ranges for each thread.
    """
    threads = min(torch.get_num_threads(), int(cost / _WORTHWHILE), -(-count // least))
    if threads <= 1:
        return [(0, count)]
    size = -(-count // (threads * pieces * least)) * least
    return [(first, min(first + size, count)) for first in range(0, count, size)]


def call(kernel: Any, *arguments: Any) -> Any:
    """Return kernel(*arguments), a function made by `lanes.kernel`, which compiles at its first call.

    None if it does not compile, which ends the use of all kernels.
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
    kernel: Any, over: Ranges, arguments: Sequence[Any], outputs: Sequence[Any], own: np.ndarray | None = None
) -> bool:
    """Call kernel(*arguments, first, last, *outputs) for every range, the first in this thread and others in a pool.

    Args:
        kernel: see `call`.
        over: ranges of sentences.
        arguments, outputs: tensors, arrays or numbers; the kernel writes to the outputs.
        own: one more output for each range, a row of this array, which ranges do not share.

    Returns whether every call returned True.
    """
    global _executor
    given = [x.numpy() if isinstance(x, Tensor) else x for x in arguments]
    written = [x.numpy() if isinstance(x, Tensor) else x for x in outputs]

    def work(number: int) -> Any:
        return call(kernel, *given, *over[number], *written, *(() if own is None else (own[number],)))

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
    """Return the numbers of a tensor in a contiguous array, the tensor's own if possible; an empty one for None."""
    if tensor is None:
        return np.empty(0, np.float64 if dtype == torch.float64 else np.float32)
    return tensor.detach().to(dtype).contiguous().numpy()
