"""Pairs of teacher and student beyond those of the paper: loss, gradient and projection against enumeration."""

from __future__ import annotations

import math

import pytest
import torch
from families import agrees
from pairs import CELLS, Pair

from structkd import project, structural_kd_loss
from structkd.projections import matrix

pytestmark = pytest.mark.above_kernels


@pytest.mark.parametrize("pair", CELLS, ids=repr)
def test_pair(pair: Pair) -> None:
    """Sentences of several lengths, impossible cells of the teacher, and noise in the padding of both sides."""
    teacher, student = pair.scores(1)
    teacher, temperature = pair.masked_teacher(teacher, 2), 2.5
    learning = pair.student.with_grad(pair.student.poisoned(student, pair.lengths, math.inf))
    built = pair.build(pair.teacher.poisoned(teacher, pair.lengths, math.nan), learning)
    loss = structural_kd_loss(*built, temperature=temperature, reduction="none")
    assert agrees(loss, pair.loss(teacher, student, temperature))
    targets = project(*built, temperature=temperature)
    assert agrees(targets, pair.projected(teacher, student, temperature))
    assert (targets[built[1].marginals == 0] == 0).all()
    assert not targets.requires_grad
    loss.sum().backward()
    for name, expected in pair.gradients(teacher, student, temperature).items():
        assert agrees(learning[name].grad, expected)


@pytest.mark.parametrize("pair", CELLS[::6], ids=repr)
def test_single_precision(pair: Pair) -> None:
    teacher, student = pair.scores(3, torch.float32)
    loss = structural_kd_loss(*pair.build(teacher, student), reduction="none")
    assert loss.dtype == torch.float32
    assert agrees(loss, pair.loss(teacher, student))


def test_the_matrix_names_the_pairs() -> None:
    found = matrix()
    for pair in CELLS:
        built = pair.build(*pair.scores(4))
        assert found[type(built[0]).__name__, type(built[1]).__mro__[0].__name__.removeprefix("_Factored")] == "exact"
