"""What it costs to seal what is finished and to compare it with its manifest whenever it is used.

    python experiments/bench/checking.py [scenario=case1a ...]

Called as a command, it carries out a run of structkd with these overrides, by default one of `make reproduce` in the
quick profile, and prints which share of its time goes into checks: the sha256 of files, manifests, flushes to the disk,
and the search for numbers that are not finite.
"""

from __future__ import annotations

import cProfile
import hashlib
import pstats
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structkd
from structkd import files
from structkd.data import load_toy
from structkd.models import BiLSTMRecipe, TaggerRecipe, structured
from structkd.records import Timing, TrainingFolder, TrainingMetrics
from structkd.runs.sealing import finished_training, seal_training

__all__ = ["measure", "share_of_run"]

#: Hidden sizes of the BiLSTMs whose loading is measured.
_SIZES = (64, 1024)


#: Of one seed of the quick profile.
_QUICK = ("scenario=case1a", "teacher.trainer.eval_steps=200", "student.trainer.eval_steps=200")
#: Modules, and functions of files.py, in which nothing happens but checks.
_MODULES = ("runs/sealing.py", "training/finite.py", "training/checkpoints.py")
_FUNCTIONS = ("sha256", "write_manifest", "read_manifest", "fault", "sealed", "unsealed", "_flush", "forget_digests")


def share_of_run(arguments: list[str]) -> tuple[float, float]:
    """Carry out a run in a new folder; return its seconds, and the seconds of them that go into checks.

    A profiler counts, and slows small functions down: the share of checks, which are many, is rather too high.
    """
    from structkd.commands.main import main

    with tempfile.TemporaryDirectory() as place:
        profile, given = cProfile.Profile(), sys.argv
        sys.argv = ["structkd", *arguments, f"work_dir={place}"]
        begun = time.perf_counter()
        try:
            profile.runcall(main)
        finally:
            sys.argv = given
        seconds = time.perf_counter() - begun
    calls: Any = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    inside = {
        function
        for function in calls
        if function[0].endswith(_MODULES) or (function[0].endswith("structkd/files.py") and function[2] in _FUNCTIONS)
    }
    # Of functions that call each other, the time is that of the calls from elsewhere.
    checks = sum(edge[3] for function in inside for caller, edge in calls[function][4].items() if caller not in inside)
    return seconds, checks


def _median(function: Callable[[], Any], rounds: int) -> float:
    """Return the median of a function's wall-clock milliseconds; hashes that are remembered are forgotten before."""
    times = []
    for _ in range(rounds):
        files.forget_digests()
        begun = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - begun))
    return statistics.median(times)


def measure(rounds: int, quick: bool) -> list[dict[str, Any]]:
    """Return rows: bytes of the weights, loading unchecked, checked and checked first, sealing and checking, in ms."""
    corpus = load_toy()
    text = corpus.splits["train"]
    rows = []
    for size in _SIZES[: 1 if quick else None]:
        with tempfile.TemporaryDirectory() as place:
            recipe = TaggerRecipe(encoder=BiLSTMRecipe(hidden_size=size, layers=2))
            folder = TrainingFolder(Path(place) / "student-0")
            recipe.create(corpus.annotation, text, text).save_pretrained(folder.model)
            check = structured.check_files

            def unchecked(folder: TrainingFolder = folder, check: Any = check) -> None:
                structured.check_files = lambda local: None  # type: ignore[assignment]
                try:
                    structkd.load(folder.model)
                finally:
                    structured.check_files = check

            time.sleep(2.5)  # a file that was just written may change again without a new time stamp
            first = _median(lambda folder=folder: structkd.load(folder.model), 1)  # type: ignore[misc]
            # In turns, so that other work on the machine meets both.
            pairs = [(_median(unchecked, 1), _median(lambda: structkd.load(folder.model), 1)) for _ in range(rounds)]  # noqa: B023
            plain, checked = (statistics.median(times) for times in zip(*pairs, strict=True))
            folder.predictions("dev").parent.mkdir()
            folder.predictions("dev").write_bytes(hashlib.sha256(b"").digest() * 10_000)
            folder.log.write_text("{}\n")
            Timing(seconds=1.0, resumed_from=None).write(folder.timing)
            metrics = TrainingMetrics(
                role="student",
                folder="student-0",
                labelled=1,
                unlabelled=0,
                parameters=1,
                steps=1,
                best_step=1,
                history=[],
                dev={},
                test={},
            )
            sealing = _median(lambda folder=folder, metrics=metrics: seal_training(folder, metrics), rounds)  # type: ignore[misc]
            checking = _median(lambda folder=folder: finished_training(folder), rounds)  # type: ignore[misc]
            weights = folder.weights.stat().st_size
            shutil.rmtree(folder.path)
        rows.append(
            {
                "bytes": weights,
                "unchecked_ms": plain,
                "checked_ms": checked,
                "first_ms": first,
                "seal_ms": sealing,
                "check_ms": checking,
            }
        )
    return rows


if __name__ == "__main__":
    total, spent = share_of_run(sys.argv[1:] or list(_QUICK))
    print(f"{total:.1f} s, of which checks take {spent:.2f} s: {100 * spent / total:.2f} %")
