"""A distribution from outside the package: everything that structkd's own offer, against enumeration."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from families import FACTORED, MAXENT, agrees, lengths_tensor, random, seeded
from oracles import Enumeration, Structure, cross_entropy
from segment_crf import SegmentCRF
from torch import Tensor

import structkd

LENGTHS, WIDTH, TYPES = (2, 1, 3), 4, 3
MOST = TYPES * (TYPES + 1) ** 2  # structures of three words


@functools.cache
def segmentations(n: int, start: int = 0) -> tuple[Structure, ...]:
    """Typed segments from `start` that cover the rest of n words."""
    if start == n:
        return ((),)
    return tuple(
        ((start, end, kind), *rest)
        for end in range(start, n)
        for rest in segmentations(n, end + 1)
        for kind in range(TYPES)
    )


def tags(structure: Structure) -> Structure:
    return tuple(kind for start, end, kind in structure for _ in range(start, end + 1))


class Sample:
    def __init__(self, seed: int, grad: bool = False) -> None:
        self.scores = random(seeded(seed), len(LENGTHS), WIDTH, WIDTH, TYPES).requires_grad_(grad)
        self.crf = SegmentCRF(self.scores, lengths_tensor(LENGTHS))
        self.enumerations = self.enumerate()

    def enumerate(self, temperature: float = 1.0) -> list[Enumeration]:
        table = self.scores.tolist()
        return [
            Enumeration({y: math.fsum(table[b][i][j][k] / temperature for i, j, k in y) for y in segmentations(n)})
            for b, n in enumerate(LENGTHS)
        ]

    def event(self, expected: list[dict[Any, float]]) -> Tensor:
        event = torch.zeros(len(LENGTHS), WIDTH, WIDTH, TYPES, dtype=torch.float64)
        for item, cells in enumerate(expected):
            for cell, value in cells.items():
                event[(item, *cell)] = value
        return event

    @property
    def best(self) -> list[Structure]:
        return [e.ranked()[0] for e in self.enumerations]


def test_what_is_read_of_it() -> None:
    sample = Sample(1)
    crf, enumerations = sample.crf, sample.enumerations
    assert agrees(crf.partition, [e.partition for e in enumerations])
    assert agrees(crf.marginals, sample.event([e.expectation(lambda y: y) for e in enumerations]))
    assert agrees(crf.entropy, [e.entropy for e in enumerations])
    assert agrees(crf.max, [max(e.scores.values()) for e in enumerations])
    assert agrees(crf.count, [len(e.scores) for e in enumerations])
    assert agrees(crf.argmax, sample.event([dict.fromkeys(y, 1.0) for y in sample.best]))
    assert [tuple(y) for y in crf.decode()] == sample.best
    ranked = [e.ranked()[1] for e in enumerations]
    assert agrees(crf.topk(2)[1], sample.event([dict.fromkeys(y, 1.0) for y in ranked]))
    assert agrees(crf.kmax(2)[1], [e.scores[y] for e, y in zip(enumerations, ranked, strict=True)])


def test_samples() -> None:
    sample = Sample(2)
    draws = sample.crf.sample((400,))
    assert torch.allclose(draws.mean(0), sample.crf.marginals, atol=0.12)
    assert (sample.crf.log_prob(draws) > -math.inf).all()


def test_log_probabilities() -> None:
    sample = Sample(3)
    for rank in (0, -1):
        structures = [e.ranked()[rank] for e in sample.enumerations]
        expected = [e.log_prob(y) for e, y in zip(sample.enumerations, structures, strict=True)]
        assert agrees(sample.crf.log_prob([list(y) for y in structures]), expected)
        assert agrees(sample.crf.log_prob(sample.event([dict.fromkeys(y, 1.0) for y in structures])), expected)


def test_what_is_no_structure() -> None:
    crf = SegmentCRF(torch.zeros(1, 3, 3, 2))
    for wrong in ([], [(0, 0, 0)], [(0, 1, 0), (1, 2, 0)], [(0, 2, 0), (1, 1, 1)], [(0, 2, 0), (0, 2, 1)]):
        assert crf.log_prob([wrong]) == -math.inf
        with pytest.raises(ValueError, match="Gold of batch item 0 is not a structure of SegmentCRF"):
            structkd.supervised_loss(crf, [wrong])
    event = crf.argmax
    assert crf.log_prob(event / 2) == -math.inf
    assert crf.log_prob(event) > -math.inf


def test_divergence() -> None:
    p, q = Sample(4), Sample(5)
    expected = [cross_entropy(a, b) - a.entropy for a, b in zip(p.enumerations, q.enumerations, strict=True)]
    assert agrees(p.crf.kl(q.crf), expected)
    assert agrees(torch.distributions.kl_divergence(p.crf, q.crf), expected)


def test_as_a_student() -> None:
    teacher, student = Sample(6), Sample(7, grad=True)
    loss = structkd.structural_kd_loss(teacher.crf, student.crf, reduction="none")
    assert agrees(loss, [cross_entropy(p, q) for p, q in zip(teacher.enumerations, student.enumerations, strict=True)])
    loss.sum().backward()
    assert agrees(student.scores.grad, student.crf.marginals - teacher.crf.marginals)
    gold = structkd.supervised_loss(student.crf, teacher.crf.decode(), reduction="none")
    assert agrees(gold, [-q.log_prob(y) for q, y in zip(student.enumerations, teacher.best, strict=True)])
    labelled = torch.tensor([True, False, True])
    objective = structkd.KDObjective(None)(None, student.crf, teacher.crf.decode(), labelled=labelled)
    assert agrees(objective, gold[labelled].sum() / len(LENGTHS))
    best = structkd.topk_kd_loss(teacher.crf, student.crf, k=1, reduction="none")
    assert agrees(best, gold)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_as_a_teacher_of_words(temperature: float) -> None:
    """By its projection, by posteriors, by its best structures, in a mixture, and by samples."""
    teacher = Sample(8)
    pushed = [e.pushed(tags) for e in teacher.enumerate(temperature)]
    scores = MAXENT.scores(seeded(9), len(LENGTHS), WIDTH)
    student = MAXENT.build(scores, lengths_tensor(LENGTHS))
    own = MAXENT.enumerate(scores, LENGTHS, temperature)
    expected = [temperature**2 * cross_entropy(p, q) for p, q in zip(pushed, own, strict=True)]
    losses: list[Any] = [structkd.structural_kd_loss, structkd.posterior_kd_loss]
    for loss in losses:
        assert agrees(loss(teacher.crf, student, temperature, reduction="none"), expected)
        mixture = structkd.Mixture([teacher.crf, teacher.crf])
        assert agrees(loss(mixture, student, temperature, reduction="none"), expected)
    everything = structkd.topk_kd_loss(
        teacher.crf, student, temperature, reduction="none", k=TYPES * (TYPES + 1) ** 2, weighted=True
    )
    assert agrees(everything, expected)
    drawn = structkd.project(teacher.crf, student, temperature)
    assert agrees(drawn, MAXENT.events(pushed, WIDTH))


def test_as_a_teacher_of_chains() -> None:
    """The pair has no projection: by samples, by the best structures and by words, which have one."""
    teacher = Sample(10)
    scores = FACTORED.with_grad(FACTORED.scores(seeded(11), len(LENGTHS), WIDTH))
    student = FACTORED.build(scores, lengths_tensor(LENGTHS))
    pushed = [e.pushed(tags) for e in teacher.enumerations]
    with pytest.raises(NotImplementedError, match="There is no projection from SegmentCRF to LinearChainCRF"):
        structkd.project(teacher.crf, student)
    drawn = structkd.project(teacher.crf, student, samples=150)
    assert torch.allclose(drawn, FACTORED.events(pushed, WIDTH), atol=0.2)
    best = structkd.topk_kd_loss(teacher.crf, student, k=1, reduction="none")
    own = FACTORED.enumerate(scores, LENGTHS)
    assert agrees(best, [-q.log_prob(tags(y)) for q, y in zip(own, teacher.best, strict=True)])
    value = structkd.posterior_kd_loss(teacher.crf, student)
    value.backward()
    assert value > 0
    with pytest.raises(NotImplementedError, match="SegmentCRF does not factorize over words"):
        structkd.token_kd_loss(teacher.crf, student)


def test_a_class_without_a_hook_cannot_be_made() -> None:
    class Unfinished(SegmentCRF):
        inside = structkd.StructuredDistribution.inside

    with pytest.raises(TypeError, match=r"abstract.*inside"):
        Unfinished(torch.zeros(1, 2, 2, 1))
