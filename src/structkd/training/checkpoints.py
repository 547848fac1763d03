"""Checkpoints that are whole or do not count.

A training that resumes from half a checkpoint fails, or worse, goes on differently: transformers takes the newest
folder whatever is in it, and does without an optimizer or random state that is missing. So a checkpoint is written into
a folder of another name, gets a manifest with the size and sha256 of every file, is flushed to the disk, and only then
gets its own name. What does not match its manifest is not used again.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME

from structkd.training.whole_files import flush, sha256

__all__ = ["last_complete_checkpoint", "seal"]

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
#: Begin of the name of a folder in which a checkpoint is being written.
SAVING = ".saving-"


def checkpoint_name(step: int) -> str:
    """The folder of the checkpoint after ``step`` optimizer steps."""
    return f"checkpoint-{step}"


def random_state_name(process: int, processes: int) -> str:
    """The file with the state of the random generators of one process; transformers names it so."""
    return "rng_state.pth" if processes == 1 else f"rng_state_{process}.pth"


def seal(written: Path, checkpoint: Path, processes: int = 1) -> None:
    """Make the files in ``written`` the checkpoint of this name: manifest, flush, rename.

    Args:
        written: the folder with all its files, on the same file system.
        checkpoint: what it is to be called; an older one of that name is replaced.
        processes: how many take part in the training; only they can continue it.
    """
    files = {}
    for path in sorted(path for path in written.rglob("*") if path.is_file()):
        files[path.relative_to(written).as_posix()] = {"size": path.stat().st_size, "sha256": sha256(path)}
        flush(path)
    manifest = {"format": 1, "processes": processes, "files": files}
    (written / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    for path in (written / MANIFEST, *(path for path in written.rglob("*") if path.is_dir()), written):
        flush(path)
    shutil.rmtree(checkpoint, ignore_errors=True)
    os.replace(written, checkpoint)
    flush(checkpoint.parent)


def last_complete_checkpoint(folder: Path, processes: int = 1) -> Path | None:
    """The newest checkpoint from which a training continues as if it had never stopped; newer ones are removed.

    Its files are those it was saved with, bit by bit, and so are those of the checkpoint with the best model so far,
    which the training may end with. Every checkpoint that is passed over is reported in one line.

    Args:
        folder: of the checkpoints of one training; may be missing.
        processes: how many are going to continue.

    Raises:
        ValueError: if another number of processes wrote it: they would see other batches.
    """
    for remains in folder.glob(f"{SAVING}*"):
        log.warning("%s was being saved when the training stopped; it is removed.", remains)
        shutil.rmtree(remains, ignore_errors=True)
    candidates = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*")}
    for step in sorted(candidates, reverse=True):
        checkpoint = candidates[step]
        try:
            manifest = _verified(checkpoint)
            best = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))["best_global_step"]
            if best is not None and best != step:
                try:
                    _verified(folder / checkpoint_name(best))
                except _Damaged as error:
                    raise _Damaged(f"the best model so far, {checkpoint_name(best)}, cannot be used: {error}") from None
        except _Damaged as error:
            log.warning("%s is removed and not continued from: %s.", checkpoint, error)
            shutil.rmtree(checkpoint, ignore_errors=True)
            continue
        if manifest["processes"] != processes:
            raise ValueError(
                f"{checkpoint} was written by {manifest['processes']} processes and cannot be continued by "
                f"{processes}: start as many as before, or remove {folder} to begin anew."
            )
        return checkpoint
    return None


class _Damaged(Exception):
    """Why a checkpoint cannot be used."""


def _verified(checkpoint: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose files all match it."""
    if not checkpoint.is_dir():
        raise _Damaged("it is missing")
    try:
        manifest: dict[str, Any] = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        files, processes = manifest["files"], manifest["processes"]
    except FileNotFoundError:
        raise _Damaged(f"it has no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _Damaged(f"its {MANIFEST} cannot be read ({error!r})") from None
    # Without these transformers would go on with an optimizer, learning rate or random state that begins anew.
    needed = [OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME]
    for name in (*needed, *(random_state_name(process, processes) for process in range(processes))):
        if name not in files:
            raise _Damaged(f"it was saved without {name}")
    for name, expected in files.items():
        path = checkpoint / name
        if not path.is_file():
            raise _Damaged(f"{name} is missing")
        if (size := path.stat().st_size) != expected["size"]:
            raise _Damaged(f"{name} has {size} bytes, was saved with {expected['size']}")
        if sha256(path) != expected["sha256"]:
            raise _Damaged(f"{name} has changed since it was saved (sha256)")
    return manifest
