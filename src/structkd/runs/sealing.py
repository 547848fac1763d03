"""Finished trainings and runs: sealed by a manifest when they end, and compared with it whenever they are used.

A folder that differs from its manifest is moved aside and its work is done again: the same inputs give the same bytes.
Of a run the files are moved and not the folder, in which the log of the command that found the difference lies.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from structkd.files import (
    MANIFEST,
    aside_of,
    make_folder,
    read_json,
    read_manifest,
    set_aside,
    unsealed,
    write_manifest,
)
from structkd.records import RunFolder, RunMetrics, StoreManifest, TrainingFolder, TrainingMetrics

__all__ = [
    "finished_run",
    "finished_training",
    "is_sound",
    "mend_run",
    "mend_store",
    "mend_training",
    "seal_run",
    "seal_training",
]

log = logging.getLogger(__name__)

_AGAIN = "It is made again."


def seal_training(folder: TrainingFolder, metrics: TrainingMetrics) -> None:
    """Finish a training: flush its files, and write its manifest and its metrics."""
    _seal(folder.path, folder.sealed, folder.metrics, metrics.written())
    metrics.write(folder.metrics)


def seal_run(folder: RunFolder, metrics: RunMetrics) -> None:
    """Finish a run: flush its files, and write its manifest and its metrics."""
    _seal(folder.path, folder.sealed, folder.metrics, metrics.written())
    metrics.write(folder.metrics)


def finished_training(folder: TrainingFolder) -> TrainingMetrics | None:
    """Return the metrics of a training whose files are as they were written; None if it is not finished.

    Raises:
        ValueError, FileNotFoundError: a file is missing or has changed, or the version before finished the training.
    """
    if not folder.metrics.exists():
        return None
    read_manifest(folder.path, _AGAIN)
    if folder.model.is_dir():  # the description of the model changes with every run, and has a seal of its own
        description = folder.model / "structkd.json"
        unsealed(read_json(description, _AGAIN), description, _AGAIN)
    return TrainingMetrics.read(folder.metrics)


def finished_run(folder: RunFolder) -> RunMetrics | None:
    """Return the results of a run whose files are as they were written; None if it is not finished.

    Raises:
        ValueError, FileNotFoundError: a file is missing or has changed, or the version before finished the run.
    """
    if not folder.metrics.exists():
        return None
    read_manifest(folder.path, _AGAIN)
    return RunMetrics.read(folder.metrics)


def is_sound(run: RunMetrics, work_dir: Path) -> bool:
    """Return whether the trainings of a run are as they were written; those that were removed count as such."""
    try:
        for result in run.results:
            folder = TrainingFolder(work_dir / result.folder)
            if folder.path.is_dir() and finished_training(folder) is None:
                return False
    except (ValueError, OSError):
        return False
    return True


def mend_training(folder: TrainingFolder) -> TrainingMetrics | None:
    """Return the metrics of a training; one that is damaged is moved aside, and the answer is None.

    The caller holds the lock of the folder.
    """
    try:
        return finished_training(folder)
    except (ValueError, FileNotFoundError) as error:
        _raise_if_unreadable(error)
        aside = set_aside(folder.path)
        log.warning("%s is not as it was written: %s The folder is kept as %s.", folder.path.name, error, aside)
        return None


def mend_run(folder: RunFolder) -> RunMetrics | None:
    """Return the results of a run; files of one that is damaged are moved aside, and the answer is None."""
    try:
        return finished_run(folder)
    except (ValueError, FileNotFoundError) as error:
        _raise_if_unreadable(error)
        aside = aside_of(folder.path)
        make_folder(aside)
        # Without its metrics the run is unfinished, whatever happens next.
        for name in (folder.metrics.name, MANIFEST, folder.results.name, folder.run.name, "predictions"):
            if os.path.lexists(folder.path / name):
                os.replace(folder.path / name, aside / name)
        log.warning("%s is not as it was written: %s Its files are kept in %s.", folder.path.name, error, aside)
        return None


def mend_store(folder: Path) -> None:
    """Move the manifest of a store aside if it is damaged; writing the store again keeps its complete shards.

    The caller holds the lock of the folder, whose name is a digest of all that the manifest depends on.
    """
    path = folder / MANIFEST
    try:
        StoreManifest.find(path)
    except ValueError as error:
        _raise_if_unreadable(error)
        log.warning(
            "%s is damaged (%s) It is kept as %s, and the store is completed again.", path, error, set_aside(path)
        )


def _raise_if_unreadable(error: Exception) -> None:
    """Raise an error of the system, such as a missing permission: it does not say that the content has changed."""
    if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, IsADirectoryError):
        raise error.__cause__


def _seal(folder: Path, files: list[Path], last: Path, content: bytes) -> None:
    names = [path.relative_to(folder).as_posix() for path in files]
    write_manifest(folder, names, {last.name: content})
