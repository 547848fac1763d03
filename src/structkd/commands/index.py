"""An index of the folders of trainings, which are named by hashes: index.md in the working folder."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from structkd.files import read_json, write_text
from structkd.records import RunFolder, RunMetrics

__all__ = ["write_index"]

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
        write_text(work_dir / "index.md", _HEAD + "".join(f"{row}\n" for row in _rows(runs)))


def _rows(runs: Path) -> list[str]:
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
    return [
        "| " + " | ".join((f"`{folder}`", *cells[folder], ", ".join(users[folder]))) + " |" for folder in sorted(cells)
    ]
