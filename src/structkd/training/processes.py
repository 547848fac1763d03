"""Several processes training one model, as ``torchrun`` and ``accelerate launch`` start them.

Everything here does nothing, and imports nothing, where there is one process.
"""

from __future__ import annotations

import atexit
import gc
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from accelerate import PartialState

__all__ = ["broadcast", "is_main_process", "process_count", "wait_for_everyone"]

Value = TypeVar("Value")


def process_count() -> int:
    """How many processes were started together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process is the one that writes files and messages."""
    return int(os.environ.get("RANK", "0")) == 0 or process_count() == 1


def wait_for_everyone() -> None:
    """Return when all processes have got here."""
    if process_count() > 1:
        _state().wait_for_everyone()


def broadcast(value: Value) -> Value:
    """What the main process calls with, in all processes; any object that can be pickled."""
    if process_count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    _state()
    values: list[Any] = [value]
    return broadcast_object_list(values, from_process=0)[0]


def _state() -> PartialState:
    """The processes, connected at the first call: by gloo, or NCCL where there are GPUs."""
    import torch
    from accelerate import PartialState

    atexit.unregister(_disconnect)
    atexit.register(_disconnect)
    # The others may have to wait while the main process trains a teacher alone, or for one that trains elsewhere;
    # torchrun ends them all if one of them fails.
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=7))


def _disconnect() -> None:
    """End gloo's threads while there still is an interpreter for what they hold: else they may abort the process."""
    import torch

    if torch.distributed.is_initialized():
        gc.collect()  # a Trainer refers to itself, and by its model to the threads
        torch.distributed.destroy_process_group()
