"""Figures of a training outside of it: whatever ``report_to`` names."""

import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_distillation_trainer import ANNOTATION, SUPERVISED, arguments, tagger, text

from structkd.training import FitResult, fit, training_text


def train(folder: Path, log: Path | None) -> FitResult:
    return fit(
        tagger("maxent"),
        training_text(ANNOTATION, text(16, 1)),
        text(6, 3),
        objective=SUPERVISED,
        settings={
            "max_steps": 6,
            "eval_steps": 2,
            "logging_steps": 1,
            "learning_rate": 0.3,
            "report_to": "tensorboard",
        },
        folder=folder,
        seed=5,
        log=log,
    )


def test_tensorboard_has_loss_and_dev_figures_before_and_after_resuming(tmp_path: Path) -> None:
    result = train(tmp_path / "checkpoints", tmp_path / "metrics.jsonl")
    # As if it had been interrupted after its fourth step.
    shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-6")
    assert train(tmp_path / "checkpoints", tmp_path / "metrics.jsonl").resumed_from == 4
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "metrics.jsonl", "tensorboard"}
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/learning_rate", "eval/accuracy"} <= set(events.Tags()["scalars"])
    dev = {event.step: event.value for event in events.Scalars("eval/accuracy")}
    assert dev == pytest.approx({entry["step"]: entry["accuracy"] for entry in result.history})
    assert {event.step for event in events.Scalars("train/loss")} == set(range(1, 7))


def test_trackers_that_cannot_be_used_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Unknown tracker report_to='tensorbord'.*tensorboard"):
        arguments(tmp_path, report_to="tensorbord")
    with pytest.raises(ValueError, match=r"report_to='wandb' needs .* pip install wandb"):
        arguments(tmp_path, report_to=["tensorboard", "wandb"])
