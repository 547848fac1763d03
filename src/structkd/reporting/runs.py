"""The runs found below some folders: finished ones with their results, failed and unfinished ones.

:mod:`structkd.records` describes the folders and files.
"""

from __future__ import annotations

import gzip
import json
import shlex
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from structkd.files import MANIFEST, is_set_aside, read_json, read_manifest
from structkd.harmless import is_file_name, printable, printable_data
from structkd.records import Failure, Result, RunFolder, RunMetrics, RunRecord, RunTiming, TrainingFolder

__all__ = ["Attempt", "Model", "Run", "Runs", "read_runs"]

_Kept = TypeVar("_Kept", RunRecord, Failure)


@dataclass(frozen=True)
class Run:
    """A finished run: a teacher and students by several methods, of one seed.

    Attributes:
        folder: of the run.
        metrics: its results.
        record: how they were made; None if the run does not say.
    """

    folder: Path
    metrics: RunMetrics
    record: RunRecord | None

    @property
    def config(self) -> Path:
        """The configuration in full, as Hydra composed it."""
        return RunFolder(self.folder).config

    @property
    def teacher_seeds(self) -> tuple[int, ...]:
        """The seeds of the run's teachers."""
        return tuple(each.seed for each in self.metrics.results if each.role == "teacher" and not each.of_methods)

    @property
    def finished(self) -> str:
        """When, in ISO format; sorts by time."""
        return "" if self.record is None else self.record.finished

    @property
    def command(self) -> str:
        """The command that makes this run alone."""
        return "structkd" if self.record is None else self.record.command_alone


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes:
        run: one of those it took part in.
        result: its part in the results of that run.
    """

    run: Run
    result: Result
    _counts: dict[str, NDArray[np.int64] | None] = field(default_factory=dict, repr=False, compare=False)

    def metric(self, split: str, name: str) -> float | None:
        """Return a metric on dev or test, 0 to 1; None if the model does not have it."""
        return self.result.metrics(split).get(name)

    @property
    def kl_per_word(self) -> float | None:
        """Exact KL(teacher || student) on the development text, in nats per word."""
        return None if self.result.divergence is None else self.result.divergence.kl_per_word

    @property
    def targets_dev(self) -> float | None:
        """The main metric of its method's targets on dev, decoded by the student's decoder, 0 to 1."""
        return self.result.targets_dev

    @property
    def transition_kl(self) -> float | None:
        """KL(marginals || softmaxed emissions) of a CRF teacher, in nats per word."""
        return self.result.transition_kl

    @property
    def teacher_seeds(self) -> tuple[int, ...]:
        """The seeds of the teachers of its run."""
        return self.run.teacher_seeds

    @property
    def words_per_second(self) -> float | None:
        """Speed of decoding on one core."""
        return None if self._timing is None else self._timing.words_per_second

    @property
    def seconds(self) -> float | None:
        """How long it was trained."""
        return None if self._timing is None else self._timing.seconds

    @property
    def predictions(self) -> Path:
        """Every test sentence with its gold and predicted annotation."""
        return RunFolder(self.run.folder).predictions(self.result.method)

    @property
    def folder(self) -> Path | None:
        """The folder of the trained model, by the link in its run's folder if there is one; None if it is gone."""
        linked = RunFolder(self.run.folder).models / self.result.method
        if linked.is_dir() or self.run.record is None:
            return linked if linked.is_dir() else None
        # The path is relative to the run's folder; records of before have an absolute one.
        folder = TrainingFolder(self.run.folder / self.run.record.work_dir / self.result.folder).model
        return folder if folder.is_dir() else None

    @property
    def usage(self) -> str:
        """The command that annotates text with the model; empty if the model is gone."""
        return "" if self.folder is None else shlex.join(["structkd", "predict", str(self.folder)])

    def counts(self, metric: str) -> NDArray[np.int64] | None:
        """Return the counts of every test sentence for a metric: correct, predicted and gold, [sentences, 3].

        Returns:
            None if the predictions were not kept.
        """
        if metric not in self._counts:
            self._counts[metric] = _counts(self.predictions, metric)
        return self._counts[metric]

    @property
    def _timing(self) -> RunTiming | None:
        return None if self.run.record is None else self.run.record.results.get(self.result.method)


@dataclass(frozen=True)
class Attempt:
    """A run without results: it failed, was interrupted, is still going on, or its files are damaged.

    Attributes:
        folder: of the run.
        failure: why it failed; None if it did not.
        damage: which file is not as it was written, and what to do; empty if none is known.
    """

    folder: Path
    failure: Failure | None
    damage: str = ""

    @property
    def title(self) -> str:
        """The overrides, or else the folder's name."""
        return " ".join(self.failure.overrides) if self.failure and self.failure.overrides else self.folder.name

    @property
    def message(self) -> str:
        """The class of the error and its message, or the damage; empty if nothing is known."""
        if self.damage:
            return self.damage
        return f"{self.failure.error}: {self.failure.message}" if self.failure else ""


@dataclass(frozen=True)
class Runs:
    """All runs below some folders."""

    finished: Sequence[Run]
    failed: Sequence[Attempt]
    unfinished: Sequence[Attempt]
    damaged: Sequence[Attempt] = ()


def read_runs(folders: Iterable[str | Path]) -> Runs:
    """Find all runs below some folders, in the order of their paths; a run that is found twice counts once.

    The files of a finished run are compared with its manifest. Runs with a file that has changed, that cannot be read,
    or that another version wrote are among the damaged ones.

    Raises:
        FileNotFoundError: a folder does not exist, or no run is finished.
        ValueError: no run is finished, and some are damaged.
    """
    roots = [Path(folder) for folder in folders]
    found: dict[Path, Path] = {}
    for root in roots:
        if not root.is_dir():
            raise FileNotFoundError(f"There is no folder {root}. Give the folders of runs, such as structkd-runs.")
        for name in ("metrics.json", "failed.json", ".hydra"):
            for path in sorted(root.rglob(name)):
                if not is_set_aside(path.relative_to(root)):
                    found.setdefault(path.parent.resolve(), path.parent)
    finished, failed, unfinished, damaged = [], [], [], []
    for folder in (found[key] for key in sorted(found)):
        run, failure = None, None
        try:
            run = _finished(folder)
            failure = _record(Failure, RunFolder(folder).failure)
        except (ValueError, OSError) as error:
            damaged.append(Attempt(folder, None, printable(str(error))))
            if run is None:
                continue
        if run is not None:
            finished.append(run)
        if failure is not None:
            failed.append(Attempt(folder, failure))
        elif run is None and RunFolder(folder).hydra.is_dir():
            unfinished.append(Attempt(folder, None))
    if not finished:
        others = [f"{len(damaged)} damaged"] * bool(damaged)
        others += [f"{len(failed)} failed"] * bool(failed) + [f"{len(unfinished)} unfinished"] * bool(unfinished)
        first = _first(damaged + failed) or str((failed + unfinished or [Attempt(Path(), None)])[0].folder)
        kind = ValueError if damaged else FileNotFoundError
        raise kind(
            f"There is no finished run below {', '.join(map(str, roots))}: no folder has a metrics.json with results"
            + (f" ({' and '.join(others)}: {first})." if others else ".")
        )
    return Runs(finished, failed, unfinished, damaged)


def _first(attempts: Sequence[Attempt]) -> str:
    """Return the first message in one line, if there is one."""
    return next((f"{attempt.message} in {attempt.folder}" for attempt in attempts if attempt.message), "")


def _finished(folder: Path) -> Run | None:
    paths = RunFolder(folder)
    if not paths.metrics.is_file():
        return None
    content = printable_data(read_json(paths.metrics, RunMetrics.REMEDY))
    if "results" not in content and not paths.run.exists() and not paths.hydra.is_dir():
        return None  # the metrics of a single training: the runs that it took part in have them
    if (folder / MANIFEST).exists():
        read_manifest(folder, "Give the command of the run again.")
    else:  # of the version before
        for path in sorted(paths.predictions("*").parent.glob("*.jsonl.gz")):
            _check_predictions(path)
    metrics = RunMetrics.of(content, paths.metrics)
    for result in metrics.results:
        if not is_file_name(result.method):
            raise ValueError(
                f"{paths.metrics}: A method has the name {result.method[:100]!r}, which cannot be that of a file. "
                f"{RunMetrics.REMEDY}"
            )
    return Run(folder, metrics, _record(RunRecord, paths.run))


def _record(kind: type[_Kept], path: Path) -> _Kept | None:
    """Return the record in a file, None if there is none; control characters in its texts are escaped."""
    return kind.of(printable_data(read_json(path, kind.REMEDY)), path) if path.exists() else None


def _check_predictions(path: Path) -> None:
    """Refuse predictions that cannot be read to their end."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                for counted in json.loads(line).get("counts", {}).values():
                    if len([int(number) for number in counted]) != 3:
                        raise ValueError(f"expected three counts, got {counted!r:.80}")
    except (OSError, EOFError, zlib.error, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error!r:.200}). Give the command of the run again.") from error


def _counts(path: Path, metric: str) -> NDArray[np.int64] | None:
    if not path.is_file():
        return None
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        counts = [json.loads(line).get("counts", {}).get(metric) for line in lines]
    return None if not counts or None in counts else np.array(counts, dtype=np.int64)
