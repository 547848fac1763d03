"""``structkd targets``: run the teachers over the student's text once, and keep their scores for all trainings."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from structkd.training import ScoreStore
from structkd.training.processes import is_main_process, wait_for_everyone

from .distil import quiet
from .plan import plan
from .training_folder import Training, ensure

__all__ = ["store_scores"]

log = logging.getLogger(__name__)


def store_scores(
    config: Mapping[str, Any], output: Path, command: str = "", overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Train the teachers of a run if need be, and write the store that its students will be trained from.

    Args:
        config, output, command, overrides: as in :func:`~structkd.runs.distil.distil`; ``store.part=k/n`` writes
            the k-th of n shares, for n machines with one work folder.

    Returns:
        For every teacher its store's folder, whether it is complete, sentences, bytes and error.

    Raises:
        ValueError: for a malformed share, or a run whose methods need no store.
    """
    part = _part(config["store"]["part"])
    quiet()
    # Connects the processes before transformers does, which lets none of them wait for more than half an hour.
    wait_for_everyone()
    planned = plan(config, output)
    if not any(way == "store" for way, _ in planned.scores):
        raise ValueError("No method of this run reads a store: set kd.targets=store.")
    work_dir = Path(config["work_dir"]).absolute()
    result: dict[str, Any] = {}
    say = print if is_main_process() else log.debug
    stores: list[tuple[Training, tuple[Path | None, ScoreStore | None]]] = []
    for (way, name), scores in planned.scores.items():
        if way == "store":
            teachers = planned.teachers if name is None else [planned.own_teachers[name]]
            for teacher in teachers:
                ensure(teacher, work_dir)
            stores += zip(teachers, scores.stores(part), strict=True)
    for teacher, (folder, store) in stores:
        if folder is None:
            say(f"{teacher.name}: looks its scores up, and needs no store")
            continue
        if store is None:
            say(f"{teacher.name}: share {part[0] + 1} of {part[1]} is written, others are missing\n  {folder}")
            result[teacher.name] = {"folder": str(folder), "complete": False}
            continue
        size = sum(file.bytes for file in store.manifest.files.values())
        divergence = store.manifest.divergence
        lost = "exact"
        if divergence.max > 0:
            lost = (
                f"rounding costs KL(exact || stored) {divergence.mean:.2g} nats a sentence on average, "
                f"{divergence.max:.2g} at most"
            )
        each = f"{size / len(store):,.0f} bytes a sentence"
        say(f"{teacher.name}: {len(store):,} sentences, {size / 1e6:.1f} MB, {each}; {lost}\n  {folder}")
        result[teacher.name] = {
            "folder": str(folder),
            "complete": True,
            "sentences": len(store),
            "bytes": size,
            "divergence": divergence.plain(),
        }
    return result


def _part(text: str) -> tuple[int, int]:
    """Parse a share: "2/4" becomes (1, 4)."""
    number, _, count = str(text).partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise ValueError(f"store.part={text}: Expected k/n with 1 <= k <= n, such as 2/4, the second of four shares.")
    return int(number) - 1, int(count)
