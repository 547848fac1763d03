"""Run by test_processes.py: two connected processes end in each way in which a training can end.

Arguments: the ways. Prints a JSON object: the way -> the exit status of each process (None if it had to be killed).
"""

import atexit
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import accelerate  # noqa: F401  (once for all)
import torch
from torch.nn.parallel import DistributedDataParallel

# The file by itself: the rest of structkd.training takes seconds to import.
sys.path.insert(0, str(Path(__file__).parents[2] / "src" / "structkd" / "training"))
import processes

LEFT_OVER = 3
ENDLESS = "by an error before a collective operation is over"
kept: list[Any] = []


def train(way: str, rank: int) -> None:
    model = DistributedDataParallel(torch.nn.Linear(3, 3))
    model(torch.ones(2, 3)).sum().backward()
    if way == "with a wrapper in a global name":
        kept.append(model)
    if way == "by an error in both":
        raise RuntimeError("deliberate")
    if way == ENDLESS:
        if rank == 0:
            torch.distributed.all_reduce(torch.ones(3), async_op=True)
            raise RuntimeError("deliberate")
        time.sleep(600)  # until it is killed, as torchrun kills the others


def nothing_of_gloo_is_left() -> None:
    threads = [task.read_text() for task in Path("/proc/self/task").glob("*/comm")]
    if any("gloo" in thread for thread in threads):
        os._exit(LEFT_OVER)


def child(way: str, rank: int, port: int) -> None:
    atexit.register(nothing_of_gloo_is_left)  # before the connection is made: it is called after the connection ended
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    processes._END_SECONDS = 1.0
    processes.wait_for_everyone()
    train(way, rank)


def main(ways: list[str]) -> None:
    statuses: dict[str, list[int | None]] = {}
    for way in ways:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        started = []
        for rank in (0, 1):
            started.append(os.fork())
            if started[-1] == 0:
                child(way, rank, port)
                return
        statuses[way] = [wait(started[0])]
        if way == ENDLESS:
            os.kill(started[1], signal.SIGKILL)
        statuses[way].append(wait(started[1]))
        import torch._dynamo  # noqa: F401  (the first two wrap a model without; it takes them seconds)
    print(json.dumps(statuses))


def wait(pid: int, seconds: float = 120.0) -> int | None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
