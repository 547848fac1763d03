"""Times of functions that take turns, and peak memory of fresh processes."""

from __future__ import annotations

import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Name = TypeVar("Name", bound=Hashable)

#: A turn lasts about this long, so that the clocks see more than one call of what is fast, and that what the turn
#: before left in caches and page tables counts for little.
TURN_SECONDS = 0.05


@dataclass
class Times:
    """Milliseconds a call, one figure per round.

    Attributes:
        calls: calls in a turn; the figure of a round is their mean.
        cpu: processor time of this process, all its threads.
        wall: time that passed.
    """

    calls: int
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    @property
    def median_cpu(self) -> float:
        return statistics.median(self.cpu)

    @property
    def median_wall(self) -> float:
        return statistics.median(self.wall)

    def as_json(self) -> dict[str, Any]:
        """Medians and everything they are medians of."""
        return {
            "cpu_ms": self.median_cpu,
            "wall_ms": self.median_wall,
            "calls_per_round": self.calls,
            "cpu_ms_by_round": self.cpu,
            "wall_ms_by_round": self.wall,
        }


def interleaved(functions: Mapping[Name, Callable[[], Any]], rounds: int, seconds: float) -> dict[Name, Times]:
    """Time functions in turns: what disturbs the machine for a while disturbs them all.

    Args:
        functions: by name. Each is called beforehand, so that nothing is compiled or allocated for the first time.
        rounds: turns of each function, in an order drawn anew every round.
        seconds: stop after this long, but not before the third round.
    """
    times = {}
    for name, function in functions.items():
        function()
        begun = time.perf_counter()
        function()
        times[name] = Times(calls=max(1, min(50, int(TURN_SECONDS / (time.perf_counter() - begun)))))
    order = list(functions)
    shuffle = random.Random(0).shuffle
    begun = time.perf_counter()
    for done in range(rounds):
        if done >= 3 and time.perf_counter() - begun > seconds:
            break
        shuffle(order)
        for name in order:
            function, measured = functions[name], times[name]
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(measured.calls):
                function()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            measured.cpu.append(1e3 * cpu / measured.calls)
            measured.wall.append(1e3 * wall / measured.calls)
    return times


def exponent(sizes: list[int], milliseconds: list[float]) -> float:
    """The slope of log time over log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(milliseconds), 1)[0])


def peak_memory() -> int:
    """The most bytes this process has held in memory.

    The kernel's own mark for this program where there is one: the figure of getrusage is inherited from the process
    that started this one, however large that was.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak() -> None:
    """Begin anew from what is held now, where the kernel allows it; importing may have taken more for a moment."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_of_fresh_process(arguments: list[str], seconds: float = 45.0) -> int | str:
    """Run this Python with some arguments; the last line it writes is its peak memory in bytes.

    Returns that, or in words why there is none: no more memory, or not done after so many seconds.
    """
    try:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"not done in {seconds:g} s"
    # torch says "can't allocate memory", Python MemoryError; -9 is the system's way
    if done.returncode == -9 or (
        done.returncode != 0 and ("allocate memory" in done.stderr or "MemoryError" in done.stderr)
    ):
        return "out of memory"
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return int(done.stdout.split()[-1])
