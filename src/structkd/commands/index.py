"""An index of the folders of trainings, which are named by hashes: index.md in the working folder."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from structkd.files import read_json, write_text
from structkd.records import RunFolder, RunMetrics, TrainingConfig, TrainingFolder, TrainingMetrics

__all__ = ["lists", "write_index"]

_HEAD = """\
# Trainings

Every folder of a training, the model in it, its figure on the test split in percent, and the runs that use it. The file
is updated whenever a run ends.

| folder | model | scenario | data | seed | test | runs |
|---|---|---|---|---:|---:|---|
"""


def write_index(work_dir: Path, runs: Path) -> None:
    """Write the index of all finished runs.

    Args:
        work_dir: the folder of the trainings.
        runs: the folder of the runs.
    """
    (work_dir / "locks").mkdir(exist_ok=True)
    # Runs of a sweep end at the same time, and the last one to read must be the last one to write.
    with FileLock(work_dir / "locks" / "index.lock"):
        write_text(work_dir / "index.md", _HEAD + "".join(f"{row}\n" for row in _rows(work_dir, runs)))


def lists(work_dir: Path, run: RunFolder) -> bool:
    """Return whether the index names a run."""
    try:
        return f"`{run.path.name}`" in (work_dir / "index.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def _rows(work_dir: Path, runs: Path) -> list[str]:
    cells: dict[str, tuple[str, ...]] = {}
    users: dict[str, list[str]] = {}
    for path in sorted(runs.glob("*/metrics.json")):
        try:
            run = RunMetrics.of(read_json(path), path)
        except (OSError, ValueError):  # a run of another version
            continue
        for result in run.results:
            model = result.method if result.role == "teacher" else f"student, {result.method}"
            figure = f"{run.metric} {100 * result.test[run.metric]:.2f}" if run.metric in result.test else ""
            cells[result.folder] = (model, run.scenario, run.data.name, str(result.seed), figure)
            users.setdefault(result.folder, []).append(f"`{RunFolder(path.parent).path.name}`")
    for path in sorted(work_dir.glob("*-*/metrics.json")):
        if path.parent.name not in cells and (found := _training(path)) is not None:
            cells[path.parent.name], users[path.parent.name] = found, []
    return [
        "| " + " | ".join((f"`{folder}`", *cells[folder], ", ".join(users[folder]))) + " |" for folder in sorted(cells)
    ]


def _training(path: Path) -> tuple[str, ...] | None:
    """Return the cells of a training that no run in the usual folder uses, such as that of hydra.run.dir=NAME."""
    try:
        metrics = TrainingMetrics.of(read_json(path), path)
        config = TrainingConfig.find(TrainingFolder(path.parent).config)
    except (OSError, ValueError):  # of another version
        return None
    if config is None:
        return None
    method = config.settings.method
    model = metrics.role if method is None else f"student, {method.name}"
    data = " -> ".join(corpus[0] for corpus in config.corpora)
    metric = next((name for name in ("f1", "las", "accuracy") if name in metrics.test), None)
    figure = "" if metric is None else f"{metric} {100 * metrics.test[metric]:.2f}"
    return model, "", data, str(config.seed), figure
