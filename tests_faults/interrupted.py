"""A kill, or an error of the system, at every k-th operation that changes the disk; then the same command again."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cases import Case, Outcome, digests
from processes import Fault, run

__all__ = ["COMMANDS", "Command", "cases", "prepared"]

TINY = (
    *("+debug=tiny", "~kd@baselines.token", "~kd@baselines.none", "student.labelled=5", "student.unlabelled=8"),
    *("teacher.trainer.max_steps=2", "teacher.trainer.eval_steps=1"),
    *("student.trainer.max_steps=2", "student.trainer.eval_steps=1"),
)
#: results.md says how long a training took.
_RESULTS = ("metrics.json", ".safetensors", ".jsonl.gz", "vocabulary.json")


@dataclass(frozen=True)
class Command:
    """A command that writes files.

    Attributes:
        name: in the table.
        arguments: of ``structkd``; STUDENT stands for the folder of a finished student.
        needs: whether it begins in a working folder with finished runs.
        results: ends of the names of files that are the same however often they are made.
    """

    name: str
    arguments: tuple[str, ...]
    needs: bool
    results: tuple[str, ...] = _RESULTS


COMMANDS = (
    Command("training, store and run", TINY, needs=False),
    Command("targets", ("targets", *TINY), needs=False),
    Command("sweep", ("-m", *TINY, "seed=0,1"), needs=False),
    Command("export", ("export", "STUDENT", "exported"), needs=True, results=(".onnx", "tables.json", "annotate.py")),
    Command("report", ("report", "structkd-runs", "--output", "report"), needs=True, results=("results.csv",)),
    Command("predict", ("predict", "STUDENT", "text.txt", "--output", "out.jsonl"), needs=True, results=("out.jsonl",)),
)
#: Of a report's results.csv the paths of runs are part, and those are relative.


def prepared(place: Path) -> Path:
    """Return a folder with a finished run, made once."""
    folder = place / "prepared"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        ended = run(TINY, folder, place / "prepared.log")
        if ended.status:
            raise RuntimeError(f"The run to begin with failed: {ended.printed[-2000:]}")
        (folder / "text.txt").write_text("Ana runs. Ben sees a house.\n" * 20)
        (folder / "done").touch()
    return folder


def _begin(command: Command, place: Path, folder: Path) -> tuple[str, ...]:
    """Make the folder in which a command begins; return its arguments."""
    shutil.rmtree(folder, ignore_errors=True)
    if not command.needs:
        folder.mkdir(parents=True)
        return command.arguments
    shutil.copytree(prepared(place), folder, symlinks=True)
    (student,) = (folder / "structkd-runs").glob("student-*")
    return tuple(str(student.relative_to(folder)) if word == "STUDENT" else word for word in command.arguments)


def cases(place: Path, size: float) -> Iterator[Case]:
    """Yield a case for every fault; ``size`` is the share of them that is tried, 1 for all."""
    for command in COMMANDS:
        folder = place / "interrupted" / command.name.replace(" ", "-")
        reference = folder.with_name(f"{folder.name}-reference")
        arguments = _begin(command, place, reference)
        ended = run(arguments, reference, place / "reference.log")
        if ended.status or not ended.operations:
            raise RuntimeError(f"{command.name} failed without a fault: {ended.printed[-2000:]}")
        wanted = digests(reference, command.results)
        step = max(1, round(1 / size))
        for kind in ("kill", "EIO", "ENOSPC", "EROFS"):
            for at in range(1 + step // 2 if step > 1 else 1, ended.operations + 1, step):
                fault = Fault(kind, at)
                yield Case(
                    f"{kind} in: {command.name}" if kind == "kill" else f"error in: {command.name}",
                    f"{kind} at {at} of {ended.operations}",
                    lambda command=command, folder=folder, fault=fault, wanted=wanted: iter(
                        [_tried(command, place, folder, fault, wanted)]
                    ),
                )
        for bytes_ in range(1_000, 60_000, max(1, round(2_000 / size))):
            fault = Fault("size", bytes_)
            yield Case(
                f"error in: {command.name}",
                f"files of at most {bytes_} bytes",
                lambda command=command, folder=folder, fault=fault, wanted=wanted: iter(
                    [_tried(command, place, folder, fault, wanted)]
                ),
            )


def _tried(command: Command, place: Path, folder: Path, fault: Fault, wanted: dict[str, str]) -> Outcome:
    arguments = _begin(command, place, folder)
    log = place / "interrupted.log"
    first = run(arguments, folder, log, fault)
    if first.status == -14:
        return Outcome("hung", first.printed[-500:])
    if fault.kind != "kill" and first.status != 0 and "Traceback" in first.printed:
        return Outcome("unclear", first.printed[-1500:])
    if first.status == 0 and digests(folder, command.results) != wanted:
        return Outcome("silent", "the command ended with status 0 and other files: " + first.printed[-1000:])
    again = run(arguments, folder, log)
    if again.status == -14:
        return Outcome("hung", again.printed[-500:])
    if again.status:
        return Outcome("manual", again.printed[-1500:])
    found = digests(folder, command.results)
    if found != wanted:
        changed = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        return Outcome("lost", f"other or missing: {changed}")
    left = [str(path.relative_to(folder)) for path in folder.rglob(".*") if _is_leftover(path.name)]
    if left:
        return Outcome("manual", f"left over: {left}")
    return Outcome("mended")


def _is_leftover(name: str) -> bool:
    """Whether a name is that of something unfinished: .saving-3, or .machine-process.name."""
    return bool(re.match(r"\.saving-|\..+-[0-9]+\.", name))
