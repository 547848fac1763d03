"""Flipped bits, cut, emptied, zeroed, exchanged and missing files of every kind, each met by what reads that kind.

A try is good if the reader refuses the file with a message that names a path, or returns the same as for the sound
file. The folder is put back as it was after every try.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cases import Case, Outcome
from interrupted import TINY, prepared
from processes import run

import structkd
from structkd.export.annotate import load as load_exported
from structkd.files import sealed
from structkd.records import RunFolder, StoreManifest, TrainingFolder
from structkd.reporting import read_runs
from structkd.runs.sealing import finished_run, finished_training
from structkd.training import ScoreStore, ScoreWriter, WrittenScores
from structkd.training.checkpoints import last_complete_checkpoint

__all__ = ["cases"]

#: Errors that a reader may raise: with a message of its own.
_PLAIN = (ValueError, TypeError, FileNotFoundError, NotImplementedError)
_LONGEST = 10_000


@dataclass(frozen=True)
class Kind:
    """A kind of folder.

    Attributes:
        name: in the table.
        folder: one of them, whose files are damaged.
        use: reads the folder as the library does and returns what is used of it; None if it notices damage and goes
            on without the folder.
        left_out: files that may be edited, or that another file of the same folder stands for.
    """

    name: str
    folder: Path
    use: Callable[[], Any]
    left_out: tuple[str, ...] = ()


def _fingerprint(tensors: Any) -> dict[str, int]:
    return {name: zlib.crc32(value.contiguous().numpy().tobytes()) for name, value in tensors.items()}


def kinds(place: Path) -> list[Kind]:
    """Return every kind of folder, each made ready."""
    base = place / "damaged"
    if not base.exists():
        shutil.copytree(prepared(place), base, symlinks=True)
    work = base / "structkd-runs"
    (teacher,), (student,) = work.glob("teacher-*"), work.glob("student-*")
    (folder,), (store,) = work.glob("runs/*"), work.glob("targets-*")
    exported, written, checkpoints = base / "exported", base / "written", base / "checkpoints"
    if not exported.exists():
        ended = run(("export", str(student), str(exported)), base, place / "damaged.log")
        if ended.status:
            raise RuntimeError(ended.printed)
    if not written.exists():
        with ScoreWriter(written, "chain", ["O", "B-X"], shared={"transitions": torch.eye(2)}) as writer:
            for number in range(3):
                writer.add(["a", "b"][: 1 + number % 2], emissions=torch.randn(1 + number % 2, 2))
    if not checkpoints.exists():
        _checkpoints(place, checkpoints)
    model = structkd.load(teacher)
    about = StoreManifest.read(store / "manifest.json").fingerprint

    def of_store() -> Any:
        opened = ScoreStore.open(store, model, fingerprint=about)
        return [_fingerprint(shard) for shard in opened.shards], _fingerprint(opened.shared), opened.manifest.plain()

    def of_written() -> Any:
        opened = WrittenScores.open(written)
        scores = [_fingerprint(shard) for shard in opened.shards]
        return scores, _fingerprint(opened.shared), opened.manifest.plain(), opened.sentences

    def of_model() -> Any:
        loaded = structkd.load(student / "model")
        # Without structkd.json it is a model of the version before: it has the same weights, and no facts for a card.
        return _fingerprint(loaded.state_dict()), loaded.annotate([["Ana", "runs"]], scores=True)

    def of_report() -> Any:
        runs = read_runs([folder])
        return None if runs.damaged else [(each.metrics.plain(), each.record) for each in runs.finished]

    def of_checkpoints() -> Any:
        # Damaged ones are removed, so they are read from a copy.
        copy = checkpoints.with_name("checkpoints-read")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(checkpoints, copy)
        found = last_complete_checkpoint(copy)
        return None if found is None or found.name != "checkpoint-2" else found.name

    unlisted = ("README.md", "structkd.json")
    return [
        Kind("finished training", student, lambda: finished_training(TrainingFolder(student)), ("README.md",)),
        Kind("finished run", folder, lambda: finished_run(RunFolder(folder)), (".hydra", "structkd.log", ".finished")),
        Kind("report", folder, of_report, (".hydra", "structkd.log", ".finished", "manifest.json")),
        Kind("checkpoint", checkpoints / "checkpoint-2", of_checkpoints),
        Kind("store", store, of_store, ("scores-00000-of-00001.json", "shared.json")),
        Kind("written store", written, of_written, ("scores-00000.json", "shared.json")),
        Kind("saved model", student / "model", of_model, unlisted[:1]),
        Kind(
            "exported model",
            exported,
            lambda: load_exported(exported).annotate([["Ana", "runs"]], scores=True),
            ("README.md", "annotate.py", "manifest.json"),
        ),
    ]


def _checkpoints(place: Path, target: Path) -> None:
    """Keep the checkpoints of a training that was stopped in its last moments."""
    from processes import Fault

    folder = place / "stopped"
    for at in range(1, 1000, 5):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        run(TINY, folder, place / "stopped.log", Fault("kill", at))
        found = list(folder.rglob("checkpoints/checkpoint-2/manifest.json"))
        if found:
            shutil.copytree(found[0].parents[1], target)
            return
    raise RuntimeError("No kill left two checkpoints.")


def damages(content: bytes, draw: random.Random, flips: int) -> Iterator[tuple[str, bytes | None]]:
    """Yield damaged forms of a file by name; None for a missing one."""
    yield "missing", None
    if content:
        yield "emptied", b""
        yield "zeroed", bytes(len(content))
        yield "longer", content + b"\0"
        for _ in range(max(1, flips // 4)):
            cut = draw.randrange(len(content))
            yield f"cut to {cut}", content[:cut]
        for _ in range(flips):
            bit = draw.randrange(8 * len(content))
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            yield f"bit {bit} flipped", bytes(flipped)
    try:
        plain = json.loads(content)
    except ValueError:
        return
    if isinstance(plain, dict):
        for key in plain:
            lacking = {name: value for name, value in plain.items() if name != key}
            again = sealed(lacking) if "seal" in plain and key != "seal" else lacking
            yield f"without {key}", json.dumps(again, indent=1).encode()


def cases(place: Path, size: float) -> Iterator[Case]:
    """Yield a case for every file of every kind of folder; ``size`` scales the number of flipped bits."""
    for kind in kinds(place):
        for path in sorted(each for each in kind.folder.rglob("*") if each.is_file() and not each.is_symlink()):
            name = str(path.relative_to(kind.folder))
            if not any(part in kind.left_out for part in Path(name).parts):
                yield Case(
                    f"damage: {kind.name}",
                    name,
                    lambda kind=kind, path=path, name=name: _tries(kind, path, name, max(2, round(40 * size))),
                )


def _tries(kind: Kind, path: Path, name: str, flips: int) -> Iterator[Outcome]:
    logging.disable(logging.CRITICAL)
    sound, content = kind.use(), path.read_bytes()
    if sound is None:
        raise RuntimeError(f"The {kind.name} is not sound to begin with.")
    try:
        for damage, damaged in damages(content, random.Random(name), flips):
            path.unlink(missing_ok=True) if damaged is None else path.write_bytes(damaged)
            yield _met(kind, sound, f"{name} {damage}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    finally:
        path.write_bytes(content)
        logging.disable(logging.NOTSET)


def _met(kind: Kind, sound: Any, what: str) -> Outcome:
    try:
        found = kind.use()
    except _PLAIN as error:
        if type(error).__module__ not in ("builtins", "structkd") and not type(error).__module__.startswith("structkd"):
            return Outcome("unclear", f"{what}: {type(error).__module__}.{type(error).__name__}: {error}"[:800])
        if isinstance(error, UnicodeError) or len(str(error)) > _LONGEST:
            return Outcome("unclear", f"{what}: {error!r}"[:800])
        return Outcome("noticed")
    except Exception as error:  # everything else is what this part looks for
        return Outcome("unclear", f"{what}: {error!r}"[:800])
    return Outcome("noticed") if found is None or found == sound else Outcome("silent", what)
