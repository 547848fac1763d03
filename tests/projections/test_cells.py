"""Pairs of teacher and student beyond those of the paper: loss, gradient and projection against enumeration."""

from __future__ import annotations

import math

import pytest
import torch
from families import agrees
from pairs import CELLS, Pair

from structkd import (
    MaxEnt,
    SecondOrderChainCRF,
    SpanCRF,
    emission_kd_loss,
    project,
    structural_kd_loss,
    topk_kd_loss,
)
from structkd.distributions.base import class_name
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
        assert found[class_name(built[0]), class_name(built[1])] == "exact"


def test_other_losses_across_tag_schemes() -> None:
    """The k best are read in the teacher's scheme and written in the student's; words alone are converted, too."""
    pair = next(pair for pair in CELLS if pair.name == "factored-BIO->maxent-BIOES")
    teacher, student = pair.build(*pair.scores(5))
    everything = topk_kd_loss(teacher, student, reduction="none", k=27, weighted=True)
    assert agrees(everything, structural_kd_loss(teacher, student, reduction="none"))
    alone = MaxEnt(teacher.emissions, teacher.lengths, teacher.labels)
    loss = emission_kd_loss(teacher, student, 2.0, reduction="none")
    assert agrees(loss, structural_kd_loss(alone, student, 2.0, reduction="none"))


def test_tags_of_spans_are_not_label_trigrams_exactly() -> None:
    """The estimate from samples, with its standard error."""
    teacher = SpanCRF(torch.zeros(1, 2, 2, 1), types=["X"])
    student = SecondOrderChainCRF(torch.zeros(1, 2, 3, 3, 3), labels=["O", "B-X", "I-X"])
    with pytest.raises(NotImplementedError, match="samples=K"):
        project(teacher, student)
    estimate, error = project(teacher, student, samples=2000, standard_error=True)
    exact = torch.zeros(2, 3, 3, 3)  # of 5 sets of spans: none, one word or the other, both, and both as one
    exact[0, :2, 0, 0] = torch.tensor([2 / 5, 3 / 5])
    for second, first in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 1)):
        exact[1, second, first, 0] = 1 / 5
    assert ((estimate[0] - exact).abs() <= 5 * error[0]).all()
