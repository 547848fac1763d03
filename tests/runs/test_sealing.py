"""Finished folders that are damaged are noticed, moved aside and made again, and reports leave them out."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from structkd.files import json_bytes, sealed, sha256
from structkd.records import RunFolder, RunMetrics, Timing, TrainingFolder, TrainingMetrics
from structkd.reporting import read_runs
from structkd.runs.sealing import (
    finished_run,
    finished_training,
    is_sound,
    mend_run,
    mend_training,
    seal_run,
    seal_training,
)

WRITTEN = Path(__file__).parents[1] / "written"


@pytest.fixture
def training(tmp_path: Path) -> TrainingFolder:
    """A finished training."""
    folder = TrainingFolder(tmp_path / "student-0123")
    shutil.copytree(WRITTEN / "student", folder.path)
    metrics = TrainingMetrics.read(folder.metrics)
    folder.metrics.unlink()
    for path in (folder.model / "model.safetensors", folder.predictions("dev"), folder.log):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(path.name.encode())
    (folder.model / "structkd.json").write_bytes(json_bytes(sealed({"format": 1})))
    Timing(seconds=1.0, resumed_from=None).write(folder.timing)
    seal_training(folder, metrics)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished run."""
    folder = RunFolder(tmp_path / "runs" / "seed=0")
    shutil.copytree(WRITTEN / "run", folder.path)
    folder.failure.unlink()
    metrics = RunMetrics.read(folder.metrics)
    folder.metrics.unlink()
    folder.predictions("none").parent.mkdir(exist_ok=True)
    folder.predictions("none").write_bytes(b"packed")
    folder.results.write_text("a table")
    seal_run(folder, metrics)
    return folder


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: list[Callable[[Path], object]] = [flip, lambda path: path.write_bytes(b""), Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_of_a_training_is_checked(damage, training: TrainingFolder, caplog) -> None:
    assert finished_training(training) is not None
    names = sorted(path.relative_to(training.path) for path in training.path.rglob("*") if path.is_file())
    assert len(names) == 8
    for name in names:
        copy = TrainingFolder(training.path.with_name("copy"))
        shutil.copytree(training.path, copy.path)
        damage(copy.path / name)
        if name.name == "metrics.json" and damage is Path.unlink:  # as if it had never been finished
            assert finished_training(copy) is None
            shutil.rmtree(copy.path)
            continue
        with pytest.raises((ValueError, FileNotFoundError), match=rf"{name.name}"):
            finished_training(copy)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert mend_training(copy) is None
        (record,) = caplog.records
        assert str(name) in record.getMessage()
        assert "copy.damaged" in record.getMessage()
        assert not copy.path.exists()
        shutil.rmtree(copy.path.with_name("copy.damaged"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_of_a_run_is_checked(damage, run: RunFolder, caplog, tmp_path: Path) -> None:
    assert finished_run(run) is not None
    names = ("metrics.json", "run.json", "results.md", "manifest.json", "predictions/none.jsonl.gz")
    for name in names:
        copy = RunFolder(tmp_path / "copies" / "seed=0")
        shutil.rmtree(copy.path, ignore_errors=True)
        shutil.copytree(run.path, copy.path)
        (copy.path / "structkd.log").write_text("this command's")
        damage(copy.path / name)
        if damage is Path.unlink and name == "metrics.json":
            assert finished_run(copy) is None
            continue
        both = read_runs([copy.path, run.path])
        assert [each.folder for each in both.finished] == [run.path]
        # the version before wrote no manifest, and its runs are read if their predictions can be
        cause = name if (name, damage) != ("manifest.json", Path.unlink) else "predictions/none.jsonl.gz"
        assert [(each.folder, cause in each.message) for each in both.damaged] == [(copy.path, True)]
        with caplog.at_level(logging.WARNING):
            assert mend_run(copy) is None
        assert [path.name for path in copy.path.iterdir()] == ["structkd.log"]
        assert name in caplog.records[-1].getMessage()
        assert not read_runs([tmp_path / "copies", run.path]).damaged  # a folder that was moved aside is not a run


def test_a_run_is_sound_if_its_trainings_are(run: RunFolder, tmp_path: Path, training: TrainingFolder) -> None:
    metrics = RunMetrics.read(run.metrics)
    assert is_sound(metrics, tmp_path)  # the trainings were removed: the results are still good
    place = TrainingFolder(tmp_path / metrics.results[-1].folder)
    shutil.copytree(training.path, place.path)
    assert is_sound(metrics, tmp_path)
    flip(place.model / "model.safetensors")
    assert not is_sound(metrics, tmp_path)


def test_a_training_of_the_version_before_is_done_again(training: TrainingFolder, caplog) -> None:
    (training.path / "manifest.json").unlink()
    assert mend_training(training) is None
    assert (training.path.with_name("student-0123.damaged") / "metrics.json").exists()


def test_a_file_that_cannot_be_read_is_not_a_damaged_one(training: TrainingFolder, monkeypatch) -> None:
    """An error of the system says nothing about the content, so nothing is moved."""
    read = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == "manifest.json":
            raise OSError(5, "Input/output error", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(OSError, match="Input/output error"):
        mend_training(training)
    assert training.metrics.exists()


def test_a_file_is_hashed_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.write_bytes(b"a")
    first = sha256(path)
    flip(path)
    assert sha256(path) != first


def test_names_outside_of_the_folder_are_refused(training: TrainingFolder) -> None:
    path = training.path / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in ("../other", "/etc/passwd", "a/../../b", "", "a/./b"):
        manifest["files"] = {name: {"size": 1, "sha256": ""}}
        path.write_bytes(json_bytes(sealed(manifest)))
        with pytest.raises(ValueError, match="is not a file below"):
            finished_training(training)
