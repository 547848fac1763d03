"""Slices of the suite of faults (make test-faults): power cuts, and readers with mutated inputs."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from structkd import files
from structkd.records import RoundingError, ScoreFile, Timing, TrainingFolder, TrainingMetrics
from structkd.runs.sealing import finished_training, seal_training
from structkd.training.checkpoints import last_complete_checkpoint, seal

sys.path.insert(0, str(Path(__file__).parents[1] / "tests_faults"))

from fuzzed import READERS, _tries
from power import Recorder

WRITTEN = Path(__file__).parent / "written"


def a_file(root: Path, content: str) -> None:
    files.write_json(root / "it.json", {"content": content})


def read_file(root: Path) -> object:
    path = root / "it.json"
    return files.read_json(path)["content"] if path.exists() else None


def a_folder(root: Path, content: str) -> None:
    files.make_folder(root / "of" / "many")
    with files.replacing(root / "of" / "many" / "it") as temporary:
        (temporary / "inner").mkdir(parents=True)
        (temporary / "inner" / "file").write_text(content)
        save_file({"w": torch.full((2,), float(len(content)))}, temporary / "weights")
        files.write_manifest(temporary)


def read_folder(root: Path) -> object:
    folder = root / "of" / "many" / "it"
    if not folder.exists():
        return None
    files.read_manifest(folder)
    return (folder / "inner" / "file").read_text()


def a_training(root: Path, content: str) -> None:
    folder = TrainingFolder(root / "student-1")
    files.make_folder(folder.path)
    folder.log.write_text(content)
    with files.replacing(folder.model) as temporary:
        temporary.mkdir()
        (temporary / "model.safetensors").write_text(content)
        files.write_json(temporary / "structkd.json", files.sealed({"format": 1}))
    files.make_folder(folder.predictions("dev").parent)
    files.write_text(folder.predictions("dev"), content)
    Timing(seconds=1.0, resumed_from=None).write(folder.timing)
    seal_training(folder, TrainingMetrics.read(WRITTEN / "student" / "metrics.json"))


def read_training(root: Path) -> object:
    folder = TrainingFolder(root / "student-1")
    return None if finished_training(folder) is None else folder.log.read_text()


def a_checkpoint(root: Path, content: str) -> None:
    saving = root / ".saving-1" / "checkpoint-1"
    saving.mkdir(parents=True)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (saving / name).write_text(content)
    files.write_json(saving / "trainer_state.json", {"best_global_step": None})
    seal(saving, root / "checkpoint-1")
    saving.parent.rmdir()


def read_checkpoint(root: Path) -> object:
    found = last_complete_checkpoint(root)
    return None if found is None else (found / "optimizer.pt").read_text()


def a_shard(root: Path, content: str) -> None:
    files.write_bytes(root / "scores.safetensors", content.encode())
    digest = files.sha256(root / "scores.safetensors")
    divergence = RoundingError(mean=0.0, max=0.0)
    record = ScoreFile(key="", sentences=1, divergence=divergence, bytes=len(content), sha256=digest)
    record.write(root / "scores.json")


def read_shard(root: Path) -> object:
    if not (root / "scores.json").exists():
        return None
    record = ScoreFile.read(root / "scores.json")
    path = root / "scores.safetensors"
    return None if files.fault(path, record.bytes, record.sha256) else path.read_text()


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (a_file, read_file),
        (a_folder, read_folder),
        (a_training, read_training),
        (a_checkpoint, read_checkpoint),
        (a_shard, read_shard),
    ],
)
@pytest.mark.parametrize("before", [None, "old"])
def test_a_power_cut_leaves_the_old_or_the_new(
    write: Callable, read: Callable, before: str | None, tmp_path: Path
) -> None:
    root, images = tmp_path / "root", tmp_path / "images"
    root.mkdir()
    images.mkdir()
    if before is not None and write is not a_training:  # a finished training is never written again
        write(root, before)
    elif before is not None:
        pytest.skip("a finished training is moved aside before it is made again")
    recorder = Recorder(root, images)
    with recorder.following():
        write(root, "new and longer")
    found = []
    for image in sorted(images.iterdir()):
        # what is unfinished is not mistaken for something: it is as it was, or as it is to be, or not there
        found.append(read(image))
        shutil.rmtree(image)
    allowed = {before, "new and longer"} | ({None} if write in (a_checkpoint, a_shard) else set())
    assert set(found) <= allowed
    assert found[0] == before
    assert found[-1] == "new and longer"
    assert recorder.count > 3


def test_the_recorder_notices_what_is_not_flushed(tmp_path: Path) -> None:
    """Else the tests above could not fail."""
    (root := tmp_path / "root").mkdir()
    (images := tmp_path / "images").mkdir()
    with Recorder(root, images).following():
        (root / "temporary").write_text("content")
        (root / "temporary").rename(root / "it")
    contents = max(images.glob("*-contents"))
    assert (contents / "it").read_text() == ""
    assert not list(images.glob("*-names/it"))


@pytest.mark.parametrize("reader", READERS)
def test_readers_refuse_mutated_files_in_their_own_words(reader: str) -> None:
    bad = [outcome for outcome in _tries(reader, portion=0, count=25) if not outcome.good]
    assert not bad
