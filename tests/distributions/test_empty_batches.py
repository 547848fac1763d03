"""A batch of no sentences: losses of 0 that back-propagate, nothing else."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, Family, seeded
from pairs import REPRESENTATIVE, Pair
from torch import Tensor

import structkd

NONE = torch.zeros(0, dtype=torch.long)
REDUCTIONS = ["none", "sum", "batchmean", "token"]


def learns_nothing(loss: Tensor) -> bool:
    assert loss.requires_grad
    assert not loss.count_nonzero()
    loss.sum().backward()
    return True


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_every_method(family: Family) -> None:
    scores = family.with_grad(family.scores(seeded(0), 0, 4))
    for lengths in (None, [], NONE, torch.tensor([])):
        distribution = family.build(scores, lengths)
        event = family.event_shape(4)
        for name in ("partition", "entropy", "max", "count"):
            assert getattr(distribution, name).shape == (0,)
        for name in ("marginals", "argmax", "mode"):
            assert getattr(distribution, name).shape == (0, *event)
        assert len(distribution.decode()) == 0
        assert distribution.kmax(2).shape == (2, 0)
        assert distribution.topk(2).shape == (2, 0, *event)
        assert distribution.sample((3,)).shape == (3, 0, *event)
        assert distribution.log_prob(distribution.decode()).shape == (0,)
        assert distribution.log_prob(distribution.sample((3, 2))).shape == (3, 2, 0)
        assert distribution.kl(distribution.tempered(2.0)).shape == (0,)


@pytest.mark.parametrize("pair", REPRESENTATIVE, ids=repr)
def test_every_pair(pair: Pair) -> None:
    teacher = pair.teacher.build(pair.teacher.scores(seeded(0), 0, 4), NONE, **pair.teacher_options)
    scores = pair.student.with_grad(pair.student.scores(seeded(1), 0, 4))
    student = pair.student.build(scores, NONE, **pair.student_options)
    several = structkd.Mixture([teacher, teacher])
    for reduction in REDUCTIONS:
        assert learns_nothing(structkd.structural_kd_loss(teacher, student, 2.0, reduction=reduction))
    assert learns_nothing(structkd.structural_kd_loss(teacher, student))
    assert learns_nothing(structkd.structural_kd_loss(several, student, 2.0))
    losses = [structkd.posterior_kd_loss] + [structkd.token_kd_loss] * teacher.over_words
    for loss in losses:
        assert learns_nothing(loss(teacher, student, 2.0))
    for projected in (structkd.project(teacher, student, 2.0), structkd.project(several, student)):
        assert projected.shape == student.marginals.shape
    assert learns_nothing(structkd.topk_kd_loss(teacher, student, k=2))
    assert learns_nothing(structkd.supervised_loss(student, student.decode()))
    objective = structkd.KDObjective(structkd.structural_kd_loss)
    for options in ({}, {"labelled": torch.zeros(0, dtype=torch.bool)}, {"num_items": 4}):
        assert learns_nothing(objective(teacher, student, student.decode(), **options))


@pytest.mark.parametrize("labelled", [False, True])
def test_labels_that_name_heads(labelled: bool) -> None:
    logits = torch.zeros(0, 3, 5, requires_grad=True)
    relations = torch.zeros(5, dtype=torch.long) if labelled else None
    student = structkd.HeadLabeling(logits, torch.zeros(0, 3, 5, dtype=torch.long), relations)
    shape = (0, 3, 3, 2) if labelled else (0, 3, 3)
    for teacher in (
        structkd.HeadSelection(torch.zeros(shape)),
        structkd.DependencyCRF(torch.zeros(shape)),
        structkd.NonProjectiveDependencyCRF(torch.zeros(shape)),
        structkd.NonProjectiveDependencyCRF(torch.zeros(0, 3, 3)).with_relations(torch.zeros(0, 3, 3, 2)),
        structkd.MeanFieldDependency(torch.zeros(0, 3, 3), torch.zeros(0, 3, 3, 3)),
        student,
    ):
        for temperature in (1.0, 2.0):
            assert learns_nothing(structkd.structural_kd_loss(teacher, student, temperature))
            mixture = structkd.Mixture([teacher, teacher])
            assert learns_nothing(structkd.structural_kd_loss(mixture, student, temperature))
        assert structkd.uncovered(teacher, student).shape == (0, 3)
    heads, found = student.decode_trees()
    assert heads.shape == (0, 3)
    assert (found is not None) == labelled
