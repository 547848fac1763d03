"""Interrupted trainings end as uninterrupted ones, whatever happened to their checkpoints."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from preloaded import start, wait
from resumable_training import compare
from test_distillation_trainer import ANNOTATION, STRUCTURAL, SUPERVISED, arguments, tagger, text

from structkd.training import DistillationTrainer, FitResult, TeacherScores, fit, training_text
from structkd.training.checkpoints import last_complete_checkpoint, seal

NAMES = ("steps", "patience", "epochs")


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trainings")
    process = start(compare, folder, 3, log=folder / "log.txt")
    wait(process, log=folder / "log.txt")
    assert process.exitcode == 0, (folder / "log.txt").read_text()[-3000:]
    # Some moments are after the end of what was left to do.
    deaths = {name: int((folder / name / "deaths").read_text()) for name in NAMES}
    assert deaths["steps"] >= 2, deaths
    assert min(deaths.values()) >= 1, deaths
    return folder


@pytest.mark.processes
@pytest.mark.parametrize("name", NAMES)
def test_killed_at_random_moments_a_training_ends_the_same(trainings: Path, name: str) -> None:
    whole, killed = trainings / name / "whole", trainings / name / "killed"
    for file in ("model.safetensors", "result.json", "metrics.jsonl"):
        assert (whole / file).read_bytes() == (killed / file).read_bytes(), file
    result = json.loads((whole / "result.json").read_text())
    assert result["steps"] == {"steps": 20, "patience": 16, "epochs": 16}[name]
    assert len(result["history"]) == {"steps": 7, "patience": 4, "epochs": 4}[name]


@pytest.mark.processes
def test_the_log_has_every_entry_once_and_no_times(trainings: Path) -> None:
    lines = (trainings / "steps" / "killed" / "metrics.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    losses = [entry["step"] for entry in entries if "loss" in entry]
    # Every second step is asked for, every third has a checkpoint, the 20th is the last.
    assert losses == [step for step in range(1, 21) if step == 20 or step % 2 == 0 or step % 3 == 0]
    assert [entry["step"] for entry in entries if "eval_accuracy" in entry] == [*range(3, 20, 3), 20]
    for entry in entries:
        figures = {"loss", "grad_norm", "learning_rate"} if "loss" in entry else {"eval_accuracy"}
        assert entry.keys() == {"step", "epoch"} | figures


class TestLastCompleteCheckpoint:
    @staticmethod
    def checkpoint(folder: Path, step: int, best: int | None = None, processes: int = 1, without: str = "") -> Path:
        written = folder / f".saving-{step}"
        written.mkdir(parents=True)
        states = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
        for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", *states):
            (written / name).write_bytes(f"{name} of {step}".encode())
        (written / "trainer_state.json").write_text(json.dumps({"best_global_step": best}))
        if without:
            (written / without).unlink()
        seal(written, folder / f"checkpoint-{step}", processes)
        return folder / f"checkpoint-{step}"

    def test_is_the_newest(self, tmp_path: Path) -> None:
        assert last_complete_checkpoint(tmp_path / "none") is None
        for step in (9, 80, 100):
            self.checkpoint(tmp_path, step)
        assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
        assert len(list(tmp_path.iterdir())) == 3

    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (lambda folder: (folder / "manifest.json").unlink(), "no .*manifest.json"),
            (lambda folder: (folder / "manifest.json").write_text('{"format"'), "manifest.json cannot be read as JSON"),
            (lambda folder: (folder / "optimizer.pt").unlink(), "optimizer.pt is missing"),
            (lambda folder: (folder / "rng_state.pth").unlink(), "rng_state.pth is missing"),
            (lambda folder: (folder / "model.safetensors").write_bytes(b"model"), "5 bytes, it was written with 23"),
            (
                lambda folder: (folder / "model.safetensors").write_bytes(b"nodel.safetensors of 20"),
                r"model.safetensors has the sha256 .*damaged",
            ),
        ],
    )
    def test_passes_over_what_is_damaged(
        self, damage: Callable[[Path], object], reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.checkpoint(tmp_path, 10)
        damaged = self.checkpoint(tmp_path, 20)
        damage(damaged)
        with caplog.at_level(logging.WARNING):
            assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
        (record,) = caplog.records
        assert str(damaged) in record.getMessage()
        assert not damaged.exists()
        assert re.search(reason, record.getMessage())

    @pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"])
    def test_passes_over_what_was_saved_without_a_part(self, name: str, tmp_path: Path) -> None:
        self.checkpoint(tmp_path, 20, without=name)
        assert last_complete_checkpoint(tmp_path) is None

    def test_needs_the_best_model_too(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        for step, best in ((10, 10), (20, 20), (30, 20), (40, 20)):
            self.checkpoint(tmp_path, step, best)
        (tmp_path / "checkpoint-20" / "model.safetensors").unlink()
        with caplog.at_level(logging.WARNING):
            assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-10"]
        assert f"checkpoint-20, cannot be used: {tmp_path}/checkpoint-20/model.safetensors is missing" in caplog.text

    def test_removes_what_was_being_saved(self, tmp_path: Path) -> None:
        self.checkpoint(tmp_path, 10)
        (tmp_path / ".saving-20").mkdir()
        (tmp_path / ".saving-20" / "model.safetensors").write_bytes(b"model")
        assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
        assert not (tmp_path / ".saving-20").exists()

    def test_belongs_to_as_many_processes(self, tmp_path: Path) -> None:
        self.checkpoint(tmp_path, 10, processes=2)
        assert last_complete_checkpoint(tmp_path, processes=2) == tmp_path / "checkpoint-10"
        with pytest.raises(ValueError, match="written by 2 processes and cannot be continued by 1"):
            last_complete_checkpoint(tmp_path)
        assert (tmp_path / "checkpoint-10").exists()


def trained(folder: Path) -> tuple[FitResult, dict[str, torch.Tensor]]:
    train = training_text(ANNOTATION, text(22, 1), text(21, 2, labelled=False))
    model = tagger("maxent", locked_dropout=0.3, word_dropout=0.1)
    result = fit(
        model,
        train,
        text(12, 3),
        objective=STRUCTURAL,
        settings={"max_steps": 16, "eval_steps": 4, "per_device_train_batch_size": 8, "learning_rate": 3.0},
        folder=folder,
        seed=5,
        teacher=TeacherScores.compute(tagger("crf", seed=9), train, progress=False),
    )
    return result, model.state_dict()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FitResult, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("whole") / "checkpoints"
    return folder, *trained(folder)


class TestFit:
    def test_keeps_the_best_and_the_last_checkpoint(self, whole: tuple) -> None:
        folder, result, _ = whole
        assert result.best_step not in (None, 16)
        assert {path.name for path in folder.iterdir()} == {f"checkpoint-{result.best_step}", "checkpoint-16"}
        state = json.loads((folder / "checkpoint-16" / "trainer_state.json").read_text())
        assert (state["best_global_step"], state["best_model_checkpoint"]) == (result.best_step, None)
        for path in folder.rglob("*"):
            assert path.is_dir() or str(folder).encode() not in path.read_bytes(), f"{path} has an absolute path"

    @pytest.mark.parametrize("damaged", ["last", "best", "none"])
    def test_continues_to_the_same_result_whatever_is_left(self, damaged: str, whole: tuple, tmp_path: Path) -> None:
        """In a folder that was moved, too."""
        original, result, weights = whole
        folder = tmp_path / "moved"
        shutil.copytree(original, folder)
        hidden = original.with_name("hidden")
        original.rename(hidden)
        best = result.best_step
        if damaged != "none":
            (folder / f"checkpoint-{16 if damaged == 'last' else best}" / "optimizer.pt").unlink()
        try:
            again, same = trained(folder)
        finally:
            hidden.rename(original)
        assert again.resumed_from == {"last": best, "best": None, "none": 16}[damaged]
        assert (again.history, again.steps, again.best_step, again.best_dev) == (
            *(result.history, result.steps, result.best_step, result.best_dev),
        )
        for name, value in same.items():
            assert torch.equal(value, weights[name]), name


def test_a_trainer_of_its_own_saves_complete_checkpoints_too(tmp_path: Path) -> None:
    train = training_text(ANNOTATION, text(12, 1))
    trainer = DistillationTrainer(tagger("maxent"), arguments(tmp_path), train, text(4, 3), objective=SUPERVISED)
    trainer.train()
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
