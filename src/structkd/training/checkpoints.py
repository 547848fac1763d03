"""Checkpoints that are complete, or are not used.

A training that resumes from half a checkpoint fails, or worse, continues differently: transformers takes the newest
folder whatever it contains, and does without an optimizer or random state that is missing. Therefore a checkpoint is
written into a folder of another name, gets a manifest with the size and sha256 of every file, and is flushed to the
disk before it gets its own name. A checkpoint that does not match its manifest is removed.
"""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path
from typing import Any

from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME

from structkd.files import MANIFEST, move, read_json, read_manifest, write_manifest

__all__ = ["last_complete_checkpoint", "seal"]

log = logging.getLogger(__name__)

_NAME = re.compile("checkpoint-[0-9]{1,18}")
#: The name of a folder in which a checkpoint is being written begins so.
SAVING = ".saving-"


def checkpoint_name(step: int) -> str:
    """Return the name of the folder of the checkpoint after ``step`` optimizer steps."""
    return f"checkpoint-{step}"


def random_state_name(process: int, processes: int) -> str:
    """Return transformers' name of the file with the state of one process's random generators."""
    return "rng_state.pth" if processes == 1 else f"rng_state_{process}.pth"


def seal(written: Path, checkpoint: Path, processes: int = 1) -> None:
    """Turn a folder into a checkpoint: write its manifest, flush it to the disk, and rename it.

    Args:
        written: the folder with all its files, on the same file system.
        checkpoint: its path from now on; an older checkpoint there is replaced.
        processes: how many take part in the training; only as many can continue it.
    """
    write_manifest(written, processes=processes)
    move(written, checkpoint)


def last_complete_checkpoint(folder: Path, processes: int = 1) -> Path | None:
    """Return the newest checkpoint from which a training continues as if it had never stopped.

    All its files are as they were written, and so are those of the checkpoint with the best model so far, since the
    training may end with that one. Newer checkpoints are removed, each with a warning.

    Args:
        folder: of the checkpoints of one training; it may be missing.
        processes: how many are going to continue.

    Returns:
        None if there is no such checkpoint.

    Raises:
        ValueError: another number of processes wrote it; this number would see other batches.
    """
    for unfinished in folder.glob(f"{SAVING}*"):
        log.warning("%s was unfinished when the training stopped; it is removed.", unfinished)
        shutil.rmtree(unfinished, ignore_errors=True)
    # Other folders, such as a copy that a user made, are left alone.
    candidates = {int(path.name[11:]): path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name)}
    for step in sorted(candidates, reverse=True):
        checkpoint = candidates[step]
        try:
            manifest = _verified(checkpoint)
            state = read_json(checkpoint / TRAINER_STATE_NAME)
            best = state.get("best_global_step", -1)
            if not isinstance(best, int | None) or best == -1:
                raise ValueError(f"{checkpoint / TRAINER_STATE_NAME} does not say which step was the best.")
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
                f"{processes}. Start as many as before, or remove {folder} to begin again."
            )
        return checkpoint
    return None


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint of a folder, whose files are not compared with its manifest; None if it has none."""
    candidates = {int(path.name[11:]): path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name)}
    return candidates[max(candidates)] if candidates else None


def _verified(checkpoint: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint whose files all match it.

    Raises:
        FileNotFoundError: the checkpoint or its manifest is missing.
        ValueError: a file is missing or is not as it was written.
    """
    manifest = read_manifest(checkpoint)
    processes = manifest.get("processes")
    if not isinstance(processes, int):
        raise ValueError(f"{checkpoint / MANIFEST} does not say how many processes wrote it. Remove {checkpoint}.")
    # If one is missing, transformers silently continues with a new optimizer, learning rate or random state.
    needed = [OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME]
    for name in (*needed, *(random_state_name(process, processes) for process in range(processes))):
        if name not in manifest["files"]:
            raise ValueError(f"{checkpoint} was saved without {name}. Remove it.")
    return manifest
