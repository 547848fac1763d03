"""Called by test_processes.py in two connected processes, which end in each way in which a training can end."""

import atexit
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from preloaded import end_with_all_objects
from torch.nn.parallel import DistributedDataParallel

from structkd.training import processes

LEFT_OVER = 3
kept: list[Any] = []


def with_a_wrapper_in_a_global_name(rank: int) -> None:
    kept.append(wrapped())


def by_an_error_in_both(rank: int) -> None:
    wrapper = wrapped()
    raise RuntimeError(f"deliberate, and {wrapper} lives in the traceback")


def by_an_error_before_a_collective_operation_is_over(rank: int) -> None:
    wrapper = wrapped()
    if rank == 0:
        torch.distributed.all_reduce(torch.ones(3), async_op=True)
        raise RuntimeError(f"deliberate, and {wrapper} lives in the traceback")
    time.sleep(600)  # until it is killed


def wrapped() -> DistributedDataParallel:
    model = DistributedDataParallel(torch.nn.Linear(3, 3))
    model(torch.ones(2, 3)).sum().backward()
    return model


def nothing_of_gloo_is_left() -> None:
    threads = [task.read_text() for task in Path("/proc/self/task").glob("*/comm")]
    if any("gloo" in thread for thread in threads):
        os._exit(LEFT_OVER)


def train(way: Callable[[int], None]) -> None:
    atexit.register(nothing_of_gloo_is_left)  # before the connection is made: it is called after the connection ended
    processes._END_SECONDS = 1.0
    processes.wait_for_everyone()
    end_with_all_objects(way, int(os.environ["RANK"]))
