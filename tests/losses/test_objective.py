"""The interpolation of distillation and supervision, and its schedules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families import MAXENT, agrees, lengths_tensor, seeded
from torch import Tensor

import structkd

KD = torch.tensor([1.0, 2.0, 3.0])
SUPERVISED = torch.tensor([10.0, 20.0, 30.0])


def kd(teacher: object, student: object, reduction: str = "none") -> Tensor:
    assert reduction == "none"
    return KD


def supervised(student: object, gold: object, reduction: str = "none") -> Tensor:
    assert reduction == "none"
    return SUPERVISED


def student() -> structkd.MaxEnt:
    return MAXENT.build(MAXENT.scores(seeded(0), 3, 4), lengths_tensor([3, 1, 2]))


GOLD = torch.zeros(3, 4, dtype=torch.long)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_interpolation(weight: float) -> None:
    objective = structkd.KDObjective(kd, supervised, weight)
    expected = (weight * KD + (1 - weight) * SUPERVISED).sum()
    assert agrees(objective(student(), student(), GOLD), expected / 3)
    assert agrees(objective(student(), student(), GOLD, num_items=5), expected / 5)


def test_unlabelled_sentences_are_distilled_only() -> None:
    objective = structkd.KDObjective(kd, supervised, 0.5)
    labelled = torch.tensor([True, False, True])
    loss = objective(student(), student(), GOLD, labelled=labelled)
    assert agrees(loss, (0.5 * KD.sum() + 0.5 * (10.0 + 30.0)) / 3)
    for same in ([True, False, True], np.array([True, False, True]), torch.tensor([1, 0, 1])):
        assert objective(student(), student(), GOLD, labelled=same) == loss
    with pytest.raises(ValueError, match=r"`labelled` must have shape \[3\].*got \[1\]\.$"):
        objective(student(), student(), GOLD, labelled=torch.tensor([True]))


def test_annealing() -> None:
    schedule = structkd.LinearAnnealing(start=1.0, end=0.0)
    assert [schedule(progress) for progress in (0.0, 0.25, 1.0)] == pytest.approx([1.0, 0.75, 0.0])
    assert structkd.LinearAnnealing()(0.5) == pytest.approx(0.5)
    assert structkd.LinearAnnealing(start=1.0, end=0.5)(0.5) == pytest.approx(0.75)
    assert structkd.ConstantInterpolation(0.3)(0.9) == pytest.approx(0.3)
    objective = structkd.KDObjective(kd, supervised, schedule)
    for progress in (0.0, 0.4, 1.0):
        expected = ((1 - progress) * KD + progress * SUPERVISED).sum() / 3
        assert agrees(objective(student(), student(), GOLD, progress=progress), expected)


@pytest.mark.parametrize(("rate", "epochs"), [(0.5, 300), (1.0, 300), (1.5, 300), (1.5, 50), (0.5, 200)])
def test_the_published_schedule_reaches_0_and_stays_there(rate: float, epochs: int) -> None:
    schedule = structkd.LinearAnnealing(1.0, 1 - rate * epochs / 100)
    for epoch in range(epochs + 1):
        assert schedule(epoch / epochs) == pytest.approx(max(0.0, 1 - rate * epoch / 100))


@pytest.mark.parametrize("end", [1.5, float("-inf"), float("nan")])
def test_ends_that_are_no_share(end: float) -> None:
    with pytest.raises(ValueError, match=f"must be finite and at most 1, got end={end}"):
        structkd.LinearAnnealing(1.0, end)


def test_the_real_parts() -> None:
    teacher, pupil = student(), MAXENT.build(MAXENT.scores(seeded(1), 3, 4), lengths_tensor([3, 1, 2]))
    objective = structkd.KDObjective(structkd.structural_kd_loss, structkd.supervised_loss, 0.4)
    distilled = structkd.structural_kd_loss(teacher, pupil, reduction="none")
    taught = structkd.supervised_loss(pupil, GOLD, reduction="none")
    assert agrees(objective(teacher, pupil, GOLD), (0.4 * distilled + 0.6 * taught).mean())


def test_without_distillation() -> None:
    objective = structkd.KDObjective(None, supervised, 0.7)
    assert agrees(objective(None, student(), GOLD), SUPERVISED.mean())


@pytest.mark.parametrize("weight", [-0.1, 1.1])
def test_weights_outside_the_unit_interval(weight: float) -> None:
    with pytest.raises(ValueError, match=str(weight)):
        structkd.KDObjective(kd, supervised, weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((structkd.StructuralKDLoss,), r"kd is the class StructuralKDLoss.*structkd.StructuralKDLoss\(\)"),
        ((None, structkd.StructuralKDLoss), "supervised is the class"),
        ((None, None, structkd.LinearAnnealing), "interpolation is the class LinearAnnealing"),
        (("structural",), "kd must be callable, got str"),
    ],
)
def test_classes_are_no_objectives(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        structkd.KDObjective(*arguments)  # type: ignore[arg-type]
