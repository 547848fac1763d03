"""Several processes training one model, as ``torchrun`` and ``accelerate launch`` start them.

Everything here does nothing, and imports nothing, if there is one process only.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import os
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from accelerate import PartialState

__all__ = ["broadcast", "is_main_process", "process_count", "wait_for_everyone"]

Value = TypeVar("Value")

#: Seconds after which a process that cannot end its connections ends without them.
_END_SECONDS = 60.0


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
    """Return the main process's value in all processes; it may be any object that can be pickled."""
    if process_count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    _state()
    values = [value]
    broadcast_object_list(values, from_process=0)
    return values[0]


def _state() -> PartialState:
    """The processes, connected at the first call: by gloo, or by NCCL if there are GPUs."""
    import torch
    import torch.distributed.nn  # its functions keep the group that exists when it is imported, see _disconnect
    from accelerate import PartialState

    atexit.unregister(_disconnect)
    atexit.register(_disconnect)
    # The others may have to wait while the main process trains a teacher alone, or for one that trains elsewhere;
    # torchrun ends them all if one of them fails.
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=7))


def _disconnect() -> None:
    """End gloo's threads while the interpreter still exists, whoever still holds a wrapped model; never wait for ever.

    gloo's threads may abort the process if they outlive the interpreter. The group must die in
    ``destroy_process_group``, which releases the global interpreter lock. If a ``DistributedDataParallel`` object
    still holds the group then, the group dies with that object, under the lock that gloo's threads need to end. Such
    an object often lives until the interpreter ends: in the traceback of an error, or in a global name.
    """
    import torch
    from torch.nn.parallel import DistributedDataParallel

    if torch.distributed.is_initialized():
        gc.collect()  # a Trainer refers to itself
        for wrapper in gc.get_objects():
            if issubclass(type(wrapper), DistributedDataParallel):
                for holder in ("logger", "reducer", "process_group"):
                    wrapper.__dict__.pop(holder, None)
        # After an error in one process, gloo waits for a collective operation that the other processes never join. The
        # watchdog is a thread in C: it needs no lock, prints all stacks to stderr and ends the process with status 1.
        faulthandler.dump_traceback_later(_END_SECONDS, exit=True, file=2)
        torch.distributed.destroy_process_group()
        faulthandler.cancel_dump_traceback_later()
