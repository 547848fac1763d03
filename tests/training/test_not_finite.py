"""NaN and infinity stop a training before a step, an evaluation, a checkpoint or a result uses them."""

import json
import logging
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from test_distillation_trainer import ANNOTATION, distilling, tagger, text

from structkd import ConstantInterpolation, KDObjective, supervised_loss
from structkd.training import fit, training_text
from structkd.training.checkpoints import last_complete_checkpoint

SETTINGS = {"report_to": "none", "per_device_train_batch_size": 8, "logging_steps": 1, "learning_rate": 0.05}


class Spoilt:
    """The supervised loss, with NaN or infinity at one call."""

    def __init__(self, call: int, kind: str) -> None:
        self.call, self.kind, self.calls = call, kind, 0

    def __call__(self, *given, **options):
        loss = supervised_loss(*given, **options)
        self.calls += 1
        if self.calls != self.call:
            return loss
        if self.kind == "gradient":  # 0 + a root whose slope at 0 is infinite
            return loss + (loss - loss).sqrt()
        return loss * float(self.kind)


def training(folder: Path, objective, select: str = "last", **settings):
    train: Dataset = training_text(ANNOTATION, text(24, 1))
    model = tagger("maxent", locked_dropout=0.0, word_dropout=0.0)
    options = SETTINGS | {"max_steps": 6, "eval_steps": 2} | settings
    result = fit(
        model,
        train,
        text(6, 3),
        objective=KDObjective(None, objective, ConstantInterpolation(0.0)),
        settings=options,
        folder=folder / "checkpoints",
        seed=5,
        select=select,
        description="student none",
        log=folder / "metrics.jsonl",
    )
    return result, model


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Trainings that never stopped, by the way of selection."""
    folder = tmp_path_factory.mktemp("whole")
    return {select: training(folder / select, supervised_loss, select) for select in ("best", "last")}


@pytest.mark.parametrize(
    ("kind", "step", "select"),
    [("inf", 1, "last"), ("nan", 4, "best"), ("gradient", 4, "last"), ("gradient", 6, "best"), ("nan", 6, "last")],
)
def test_a_training_stops_and_goes_on_from_a_good_checkpoint(
    kind: str, step: int, select: str, whole, tmp_path: Path
) -> None:
    """At the first step, at one of a checkpoint, and at the last."""
    with pytest.raises(ValueError, match=r"^student none stops at step") as stopped:
        training(tmp_path, Spoilt(step, kind), select)
    message = str(stopped.value)
    assert f"stops at step {step} of 6: the {'norm of the gradient' if kind == 'gradient' else 'loss'} is " in message
    assert "Sentences of the step: 's1-" in message
    assert "and the same command continues from there. Try a lower learning_rate (0.05 now)" in message
    last = (step - 1) // 2 * 2
    kept = last_complete_checkpoint(tmp_path / "checkpoints")
    if last:
        assert kept is not None
        assert f"The last good checkpoint is {kept}." in message
    else:
        assert kept is None
        assert "No checkpoint was saved before." in message
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    # with the cause gone the result is that of a training that never stopped
    again, model = training(tmp_path, supervised_loss, select)
    assert again.resumed_from == (last or None)
    result, other = whole[select]
    assert again.history == result.history
    for one, same in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, same)


def test_weights_that_overflow_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"stops at step \d of 6: (weights are NaN|the model's|the loss|the norm)"):
        training(tmp_path, supervised_loss, optim="sgd", learning_rate=1e38, max_grad_norm=0.0)
    assert last_complete_checkpoint(tmp_path / "checkpoints") is None


@pytest.mark.parametrize("moment", ["evaluate", "_save_checkpoint"])
def test_neither_evaluated_nor_saved(moment: str, tmp_path: Path) -> None:
    trainer = distilling(tmp_path, count=4)
    trainer.model.emission.weight.data[0, 0] = float("nan")
    arguments_of = {"evaluate": (), "_save_checkpoint": (trainer.model, None)}
    with pytest.raises(ValueError, match=r"weights are NaN or infinite before .*: emission\.weight\. Sentences"):
        getattr(trainer, moment)(*arguments_of[moment])
    assert not list(tmp_path.glob("checkpoint-*"))


def test_scores_of_a_teacher_are_named(tmp_path: Path) -> None:
    trainer = distilling(tmp_path, count=4)
    for shard in trainer.teacher.shards:
        shard["emissions"][:] = float("nan")
    with pytest.raises(ValueError, match=r"The training stops at step 1 of 2: the teacher's scores are not finite \("):
        trainer.train()


def test_a_loss_that_explodes_is_mentioned_once(tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        training(tmp_path, supervised_loss, learning_rate=1e6)
    (said,) = [record.getMessage() for record in caplog.records if "diverges" in record.getMessage()]
    assert said.startswith("student none: the loss is ")
    assert "lower learning_rate (1e+06 now)" in said
