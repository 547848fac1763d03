"""Pairs of teacher and student beyond those of the paper: loss and projection against enumeration."""

from __future__ import annotations

import math

import pytest
import torch
from families import agrees
from pairs import CELLS, Pair

from structkd import project, structural_kd_loss

cells = pytest.mark.parametrize("pair", CELLS, ids=repr)


@cells
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_loss_and_projection(pair: Pair, temperature: float) -> None:
    teacher, student = pair.scores(1)
    learning = pair.student.with_grad(student)
    built = pair.build(teacher, learning)
    loss = structural_kd_loss(*built, temperature=temperature, reduction="none")
    assert agrees(loss, pair.loss(teacher, student, temperature))
    targets = project(*built, temperature=temperature)
    assert agrees(targets, pair.projected(teacher, student, temperature))
    assert not targets.requires_grad
    loss.sum().backward()
    for name, expected in pair.gradients(teacher, student, temperature).items():
        assert agrees(learning[name].grad, expected)


@cells
def test_impossible_cells_and_noise_in_the_padding(pair: Pair) -> None:
    teacher, student = pair.scores(2)
    teacher = pair.masked_teacher(teacher, 3)
    expected = pair.loss(teacher, student)
    assert all(math.isfinite(value) for value in expected)
    for value in (math.nan, math.inf):
        built = pair.build(
            pair.teacher.poisoned(teacher, pair.lengths, value), pair.student.poisoned(student, pair.lengths, value)
        )
        assert agrees(structural_kd_loss(*built, reduction="none"), expected)
        targets = project(*built)
        assert agrees(targets, pair.projected(teacher, student))
        assert (targets[torch.as_tensor(built[1].marginals == 0)] == 0).all()


@cells
def test_single_precision(pair: Pair) -> None:
    teacher, student = pair.scores(4, torch.float32)
    loss = structural_kd_loss(*pair.build(teacher, student), reduction="none")
    assert loss.dtype == torch.float32
    assert agrees(loss, pair.loss(teacher, student))
