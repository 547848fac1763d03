"""Run folders as they lie on disk: finished ones with their results, failed and unfinished ones with what is known.

<run>/.hydra/config.yaml       what was run, in full
<run>/metrics.json             results, written last
<run>/run.json                 how they were made: command, versions, times
<run>/predictions/*.jsonl.gz   every test sentence, by method
<run>/failed.json              if the last attempt failed
"""

from __future__ import annotations

import gzip
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Attempt", "Model", "Run", "Runs", "read_runs"]

_FORMAT = 2


@dataclass(frozen=True)
class Run:
    """A finished run: a teacher and students by several methods, of one seed.

    Attributes:
        folder: where it lies.
        results: what its ``metrics.json`` says.
        made: what its ``run.json`` says; empty where it has none.
    """

    folder: Path
    results: Mapping[str, Any]
    made: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.results[name]

    @property
    def config(self) -> Path:
        """The configuration in full, as Hydra composed it."""
        return self.folder / ".hydra" / "config.yaml"

    @property
    def finished(self) -> str:
        """When, in ISO format; sorts by time."""
        return str(self.made.get("finished", ""))

    @property
    def command(self) -> str:
        """What does this run alone again: the flags that were typed, and what was overridden."""
        typed = shlex.split(self.made.get("command", ""))
        takes_value = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")
        flags: list[str] = []
        for position, word in enumerate(typed):
            follows = position > 0 and typed[position - 1] in takes_value
            if follows or (word.startswith("-") and word not in ("-m", "--multirun")):
                flags.append(word)
        return shlex.join(["structkd", *flags, *self.made.get("overrides", [])])


@dataclass(frozen=True)
class Model:
    """A trained model, and the run it is taken from.

    Attributes:
        run: one of those it took part in.
        result: what the run says of it.
    """

    run: Run
    result: Mapping[str, Any]
    _counts: dict[str, NDArray[np.int64] | None] = field(default_factory=dict, repr=False, compare=False)

    def __getitem__(self, name: str) -> Any:
        return self.result[name]

    def figure(self, split: str, name: str) -> float | None:
        """A figure on dev or test, 0 to 1; None where there is none."""
        return self.result.get(split, {}).get(name)

    @property
    def kl_per_word(self) -> float | None:
        """Exact KL(teacher || student) on the development text, in nats a word."""
        return (self.result.get("divergence") or {}).get("kl_per_word")

    @property
    def words_per_second(self) -> float | None:
        """Speed of decoding on one core."""
        return self._made.get("words_per_second")

    @property
    def seconds(self) -> float | None:
        """How long it was trained."""
        return self._made.get("seconds")

    @property
    def predictions(self) -> Path:
        """Every test sentence with its gold and predicted annotation."""
        return self.run.folder / "predictions" / f"{self.result['method']}.jsonl.gz"

    def counts(self, figure: str) -> NDArray[np.int64] | None:
        """What every test sentence counts for a figure: correct, predicted and gold, [sentences, 3].

        Returns:
            None where the predictions were not kept.
        """
        if figure not in self._counts:
            self._counts[figure] = _counts(self.predictions, figure)
        return self._counts[figure]

    @property
    def _made(self) -> Mapping[str, Any]:
        return self.run.made.get("results", {}).get(self.result["method"], {})


@dataclass(frozen=True)
class Attempt:
    """A run without results: it failed, or it was interrupted or is still going on.

    Attributes:
        folder: where it lies.
        failure: what its ``failed.json`` says; None where it has none.
    """

    folder: Path
    failure: Mapping[str, Any] | None

    @property
    def title(self) -> str:
        """What was overridden, or else the folder's name."""
        overrides = (self.failure or {}).get("overrides")
        return " ".join(overrides) if overrides else self.folder.name

    @property
    def message(self) -> str:
        """The kind of error and what it says; empty where nothing is known."""
        return ": ".join(str(self.failure[part]) for part in ("error", "message")) if self.failure else ""


@dataclass(frozen=True)
class Runs:
    """All that was found below some folders."""

    finished: Sequence[Run]
    failed: Sequence[Attempt]
    unfinished: Sequence[Attempt]


def read_runs(folders: Iterable[str | Path]) -> Runs:
    """All runs below some folders, in the order of their paths; one that is found twice counts once.

    Raises:
        FileNotFoundError: if a folder does not exist or no run in any is finished.
        ValueError: if a result file cannot be read or was written by an earlier version.
    """
    roots = [Path(folder) for folder in folders]
    found: dict[Path, Path] = {}
    for root in roots:
        if not root.is_dir():
            raise FileNotFoundError(f"No folder {root}: give the folders of runs, such as structkd-runs.")
        for name in ("metrics.json", "failed.json", ".hydra"):
            for path in sorted(root.rglob(name)):
                found.setdefault(path.parent.resolve(), path.parent)
    finished, failed, unfinished = [], [], []
    for folder in (found[key] for key in sorted(found)):
        run = _finished(folder)
        if run is not None:
            finished.append(run)
        if (folder / "failed.json").is_file():
            failed.append(Attempt(folder, _read(folder / "failed.json")))
        elif run is None and (folder / ".hydra").is_dir():
            unfinished.append(Attempt(folder, None))
    if not finished:
        others = [f"{len(failed)} failed"] * bool(failed) + [f"{len(unfinished)} unfinished"] * bool(unfinished)
        raise FileNotFoundError(
            f"No finished run below {', '.join(map(str, roots))}: nothing there has a metrics.json with results"
            + (f" ({' and '.join(others)}: {_first(failed) or (failed + unfinished)[0].folder})." if others else ".")
        )
    return Runs(finished, failed, unfinished)


def _first(failed: Sequence[Attempt]) -> str:
    """The first failure in a line, if there is one."""
    return next((f"{each.message} in {each.folder}" for each in failed), "")


def _finished(folder: Path) -> Run | None:
    path = folder / "metrics.json"
    if not path.is_file():
        return None
    content = _read(path)
    if "results" not in content:
        return None  # a single training's; the runs that it took part in have its figures
    if content.get("format") != _FORMAT:
        raise ValueError(
            f"{path} was written by another version of structkd (format {content.get('format')}, expected {_FORMAT}): "
            "run it again, which takes what is trained from its folder, or remove it."
        )
    made = _read(folder / "run.json") if (folder / "run.json").is_file() else {}
    return Run(folder, content, made)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not a result file ({error}); remove it and run again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a result file: expected an object; remove it and run again.")
    return content


def _counts(path: Path, figure: str) -> NDArray[np.int64] | None:
    if not path.is_file():
        return None
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        counts = [json.loads(line).get("counts", {}).get(figure) for line in lines]
    return None if not counts or None in counts else np.array(counts, dtype=np.int64)
