"""What it costs to seal what is finished and to compare it with its manifest whenever it is used."""

from __future__ import annotations

import hashlib
import shutil
import statistics
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

__all__ = ["measure"]

#: Hidden sizes of the BiLSTMs whose loading is measured.
_SIZES = (64, 1024)


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
