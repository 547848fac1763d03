"""Baselines of the literature, where they meet the definition."""

from __future__ import annotations

import math

import pytest
import torch
from families import DENSE, FACTORED, MAXENT, agrees, lengths_tensor, seeded
from oracles import Enumeration, cross_entropy
from pairs import LONG, Pair

import structkd

FUNCTIONS = ["token_kd_loss", "posterior_kd_loss", "emission_kd_loss"]
CHAIN = Pair(FACTORED, FACTORED)


@pytest.mark.parametrize("pair", [Pair(FACTORED, FACTORED), Pair(DENSE, DENSE, LONG), Pair(MAXENT, FACTORED)], ids=repr)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_topk(pair: Pair, weighted: bool, k: int) -> None:
    """The teacher's k best structures, equally weighted or by their renormalised probabilities, as targets."""
    teacher, student = pair.scores(1)
    expected = []
    for p, q in zip(
        pair.teacher.enumerate(teacher, pair.lengths), pair.student.enumerate(student, pair.lengths), strict=True
    ):
        best = p.ranked()[:k]
        kept = Enumeration({y: p.scores[y] if weighted else 0.0 for y in best})
        expected.append(cross_entropy(kept, q))
    built = pair.build(teacher, student)
    assert agrees(structkd.topk_kd_loss(*built, k=k, weighted=weighted, reduction="none"), expected)


def test_weighted_topk_of_everything_is_structural_kd() -> None:
    teacher, student = CHAIN.scores(2)
    built = CHAIN.build(teacher, student)
    everything = structkd.topk_kd_loss(*built, k=3 ** max(CHAIN.lengths), weighted=True, reduction="none")
    assert agrees(everything, CHAIN.loss(teacher, student))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_posterior_kd_compares_label_marginals(temperature: float) -> None:
    teacher, student = CHAIN.scores(3)
    expected = []
    for n, p, q in zip(
        CHAIN.lengths,
        FACTORED.enumerate(teacher, CHAIN.lengths, temperature),
        FACTORED.enumerate(student, CHAIN.lengths, temperature),
        strict=True,
    ):
        of_p, of_q = (e.expectation(lambda y: list(enumerate(y))) for e in (p, q))
        expected.append(-(temperature**2) * sum(of_p[d, c] * math.log(of_q[d, c]) for d in range(n) for c in range(3)))
    built = CHAIN.build(teacher, student)
    assert agrees(structkd.posterior_kd_loss(*built, temperature=temperature, reduction="none"), expected)


@pytest.mark.parametrize("name", ["token_kd_loss", "posterior_kd_loss"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_independent_words_leave_nothing_to_choose(name: str, temperature: float) -> None:
    pair = Pair(MAXENT, MAXENT)
    teacher, student = pair.scores(4)
    loss = getattr(structkd, name)(*pair.build(teacher, student), temperature=temperature, reduction="none")
    assert agrees(loss, pair.loss(teacher, student, temperature))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signature(name: str) -> None:
    """The same arguments as the structural loss; finite, differentiable in the student only."""
    function = getattr(structkd, name)
    teacher, student = CHAIN.scores(5)
    watched, learning = FACTORED.with_grad(teacher), FACTORED.with_grad(student)
    built = CHAIN.build(watched, learning)
    each = function(*built, temperature=2.0, reduction="none")
    assert each.shape == (len(CHAIN.lengths),)
    assert each.isfinite().all()
    assert agrees(function(*built, temperature=2.0), each.mean())
    assert agrees(function(*built, temperature=2.0, reduction="sum"), each.sum())
    assert agrees(function(*built, temperature=2.0, reduction="token"), each.sum() / sum(CHAIN.lengths))
    assert agrees(function(*built, temperature=2.0, num_items=3), each.sum() / 3)
    each.sum().backward()
    assert all(tensor.grad is None for tensor in watched.values())
    assert learning["emissions"].grad.isfinite().all()


def test_supervised_loss_is_the_negative_log_likelihood() -> None:
    for family in (FACTORED, MAXENT):
        lengths = family.ragged
        scores = family.scores(seeded(6), len(lengths), max(lengths) + 1)
        enumerations = family.enumerate(scores, lengths)
        gold = [e.ranked()[len(e.scores) // 2] for e in enumerations]
        padded = torch.full((len(lengths), max(lengths) + 1), -100)
        for item, row in enumerate(gold):
            padded[item, : len(row)] = torch.tensor(row)
        student = family.build(scores, lengths_tensor(lengths))
        expected = torch.tensor([-e.log_prob(y) for e, y in zip(enumerations, gold, strict=True)], dtype=torch.float64)
        assert agrees(structkd.supervised_loss(student, padded, reduction="none"), expected)
        assert agrees(structkd.supervised_loss(student, padded), expected.mean())
        assert agrees(structkd.supervised_loss(student, padded, num_items=4), expected.sum() / 4)
