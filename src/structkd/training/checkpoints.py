"""Checkpoints that are whole or do not count.

A training that resumes from half a checkpoint fails, or worse, goes on differently: transformers takes the newest
folder whatever is in it, and does without an optimizer or random state that is missing. So a checkpoint is written into
a folder of another name, gets a manifest with the size and sha256 of every file, is flushed to the disk, and only then
gets its own name. What does not match its manifest is not used again.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME

from structkd.files import MANIFEST, move, read_json, read_manifest, write_manifest

__all__ = ["last_complete_checkpoint", "seal"]

log = logging.getLogger(__name__)

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
    write_manifest(written, processes=processes)
    move(written, checkpoint)


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
            best = read_json(checkpoint / TRAINER_STATE_NAME)["best_global_step"]
            if best is not None and best != step:
                try:
                    _verified(folder / checkpoint_name(best))
                except (FileNotFoundError, ValueError) as error:
                    raise ValueError(
                        f"The best model so far, {checkpoint_name(best)}, cannot be used: {error}"
                    ) from None
        except (FileNotFoundError, ValueError) as error:
            log.warning("%s is removed and training does not continue from it: %s", checkpoint, error)
            shutil.rmtree(checkpoint, ignore_errors=True)
            continue
        if manifest["processes"] != processes:
            raise ValueError(
                f"{checkpoint} was written by {manifest['processes']} processes and cannot be continued by "
                f"{processes}: start as many as before, or remove {folder} to begin anew."
            )
        return checkpoint
    return None


def _verified(checkpoint: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint whose files all match it.

    Raises:
        FileNotFoundError: the checkpoint or its manifest is missing.
        ValueError: a file is missing or is not as it was written.
    """
    manifest = read_manifest(checkpoint)
    processes = manifest.get("processes")
    if not isinstance(processes, int):
        raise ValueError(f"{checkpoint / MANIFEST} does not say how many processes trained.")
    # Without these transformers would go on with an optimizer, learning rate or random state that begins anew.
    needed = [OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME]
    for name in (*needed, *(random_state_name(process, processes) for process in range(processes))):
        if name not in manifest["files"]:
            raise ValueError(f"{checkpoint} was saved without {name}.")
    return manifest
