"""The speed of trained models: words per CPU second with an interval, time to load, and memory."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from structkd.files import read_json
from structkd.inference.formats import lines_of, reader_of
from structkd.models.loading import check_files, model_folder

__all__ = ["Speed", "benchmark", "check_exported", "checked_folder", "sentences_of"]

_WARM_UP = 5
_RESAMPLES = 2000


@dataclass(frozen=True)
class Speed:
    """The speed of a model in one engine.

    Attributes:
        engine: "torch" or "exported".
        load_seconds: wall time from the start of a process to its first annotation.
        memory: peak of that process at the end, in megabytes.
        words_per_second: for every batch size the mean number of words per CPU second, and the ends of its 95 %
            bootstrap interval over batches.
        batches: that were measured, for every batch size.
    """

    engine: str
    load_seconds: float
    memory: float
    words_per_second: dict[int, tuple[float, float, float]]
    batches: dict[int, int]

    def plain(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return dict(vars(self))


def benchmark(
    folders: Mapping[str, str],
    sentences: Sequence[Sequence[str]],
    *,
    batch_sizes: Sequence[int] = (1, 32),
    batches: int = 50,
    rounds: int = 5,
    threads: int = 1,
    seed: int = 0,
) -> list[Speed]:
    """Measure models, each in a process of its own; they take turns, so that other work disturbs all of them equally.

    Args:
        folders: the folder of a model for every engine, "torch" and "exported".
        sentences: lists of words; batches take them in order, again from the beginning when they end.
        batch_sizes: sentences in a batch; every size is measured by itself.
        batches: least number of batches of every size that count; five more come first.
        rounds: turns of every engine.
        threads: of torch.
        seed: of the bootstrap.

    Returns:
        The speed by engine. CPU seconds of the process count, from lists of words to annotation in plain data.
    """
    if not sentences:
        raise ValueError("There are no sentences to measure with. Give a file that has some.")
    workers = {engine: _Worker(engine, folder, threads) for engine, folder in folders.items()}
    taken: dict[tuple[str, int], list[tuple[int, float]]] = {}
    try:
        for size in batch_sizes:
            endless = itertools.cycle(sentences)
            for worker in workers.values():
                worker.measure([list(itertools.islice(endless, size)) for _ in range(_WARM_UP)])
            each = -(-batches // rounds)
            for _ in range(rounds):
                given = [list(itertools.islice(endless, size)) for _ in range(each)]
                words = [sum(map(len, batch)) for batch in given]
                for engine, worker in workers.items():
                    taken.setdefault((engine, size), []).extend(zip(words, worker.measure(given), strict=True))
    finally:
        for worker in workers.values():
            worker.close()
    generator = np.random.default_rng(seed)
    return [
        Speed(
            engine,
            worker.load_seconds,
            worker.memory,
            {size: _interval(taken[engine, size], generator) for size in batch_sizes},
            {size: len(taken[engine, size]) for size in batch_sizes},
        )
        for engine, worker in workers.items()
    ]


def _interval(pairs: Sequence[tuple[int, float]], generator: np.random.Generator) -> tuple[float, float, float]:
    """Return words per second over all batches, with the ends of the 95 % percentile interval over batches."""
    words, seconds = np.array(pairs, dtype=float).T
    chosen = generator.integers(len(words), size=(_RESAMPLES, len(words)))
    resampled = words[chosen].sum(1) / seconds[chosen].sum(1).clip(min=1e-9)
    low, high = np.quantile(resampled, (0.025, 0.975))
    return float(words.sum() / max(seconds.sum(), 1e-9)), float(low), float(high)


class _Worker:
    """A process that has loaded a model."""

    def __init__(self, engine: str, folder: str, threads: int) -> None:
        self.engine = engine
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        begun = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("timed.py")), engine, folder, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            encoding="utf-8",
            env=environment,
        )
        self.memory = self._answer()["memory"]
        self.load_seconds = time.perf_counter() - begun

    def measure(self, batches: Sequence[Sequence[Sequence[str]]]) -> list[float]:
        """Return the CPU seconds of every batch."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(batches) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.memory = answer["memory"]
        seconds: list[float] = answer["seconds"]
        return seconds

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        self.process.wait()
        self.errors.seek(0)
        last = self.errors.read().strip().splitlines()[-1:] or ["no message"]
        raise ValueError(f"The process that measures {self.engine} ended: {last[0]}")

    def close(self) -> None:
        """End the process."""
        if self.process.poll() is None:
            self.process.communicate()
        self.errors.close()


def checked_folder(name: str) -> str:
    """Return the folder of a trained model, whose files are as they were written; see :func:`structkd.load`."""
    folder = model_folder(name)
    check_files(folder)
    return str(folder)


def check_exported(folder: Path, model: str) -> None:
    """Refuse a folder that holds no exported model, or the export of a model with other labels.

    Args:
        folder: that should hold the export.
        model: the folder of the trained model that it should have been made of.

    Raises:
        ValueError: says which of both it is.
    """
    if not ((folder / "tables.json").is_file() and (folder / "annotate.py").is_file()):
        raise ValueError(f"{folder} is not an exported model. Name a folder that `structkd export MODEL FOLDER` wrote.")
    tables, config = read_json(folder / "tables.json"), read_json(Path(model) / "config.json")
    kind = "relations" if tables.get("task") == "trees" else "labels"
    if list(tables.get(kind, [])) != list(config.get(kind, [])):
        raise ValueError(f"{folder} was exported from another model than {model}: its {kind} are others.")


def sentences_of(
    path: str | None, given: str | None = None, limit: int = 2000, token_column: int | None = None
) -> list[list[str]]:
    """Return the words of at most ``limit`` sentences of a file; without one, those of invented text.

    Args:
        path: a file in one of :data:`~structkd.inference.FORMATS`.
        given: the name of its format; None goes by the suffix.
        limit: the most sentences.
        token_column: the column of the words of a file in columns, from 0; None is the first one.
    """
    return list(itertools.islice(_words_of(path, given, token_column), limit))


def _words_of(path: str | None, given: str | None, token_column: int | None) -> Iterator[list[str]]:
    if path is None:
        from structkd.data import load_toy

        yield from (list(words) for words in load_toy().splits["train"]["tokens"])
        return
    source = reader_of(path, given, token_column)
    yield from (list(item.sentence.words) for item in source.read(path, lines_of(path)) if item.sentence.words)
