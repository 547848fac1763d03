"""Two processes at once on the same files: both end well, and the files are those of one."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

from cases import Case, Outcome, digests
from interrupted import COMMANDS, Command, _begin
from processes import begin, finish, run

__all__ = ["cases"]

#: Seconds by which the second begins later.
_LATER = (0.0, 0.2, 1.0, 3.0)


def cases(place: Path, size: float) -> Iterator[Case]:
    """Yield a case for every pair of commands that begin alike, and every delay; ``size`` scales the delays."""
    pairs = [
        pair
        for pair in itertools.combinations_with_replacement(COMMANDS, 2)
        if pair[0].needs == pair[1].needs and pair[0].name != "predict"
    ]
    for first, second in pairs:
        for later in _LATER[: max(1, round(len(_LATER) * size))]:
            yield Case(
                "two at once",
                f"{first.name} | {second.name}, {later} s later",
                lambda first=first, second=second, later=later: iter([_tried(first, second, later, place)]),
            )


def _tried(first: Command, second: Command, later: float, place: Path) -> Outcome:
    folder = place / "together"
    reference = place / "together-reference"
    names = (*first.results, *second.results)
    _begin(first, place, reference)
    for command in dict.fromkeys((first, second)):
        arguments = _begin(command, place, place / "unused") if command.needs else command.arguments
        ended = run(arguments, reference, place / "together.log")
        if ended.status:
            raise RuntimeError(f"{command.name} alone failed: {ended.printed[-2000:]}")
    arguments = [_begin(first, place, folder)]
    arguments.append(_begin(second, place, place / "unused") if second.needs else second.arguments)
    logs = [place / f"together-{number}.log" for number in range(2)]
    started = [begin(arguments[0], folder, logs[0])]
    time.sleep(later)
    started.append(begin(arguments[1], folder, logs[1]))
    for process, log in zip(started, logs, strict=True):
        ended = finish(process, log)
        if ended.status:
            return Outcome("hung" if ended.status == -14 else "manual", ended.printed[-1500:])
    return Outcome("mended") if digests(folder, names) == digests(reference, names) else Outcome("lost", "other files")
