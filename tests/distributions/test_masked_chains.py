"""Chains whose scores of -inf leave the sequences of a tag scheme, on every path, against enumeration."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

import structkd
from structkd.data import legal_transitions
from structkd.distributions.kernels import chain

LABELS = ["O", "B-X", "I-X", "E-X", "S-X"]
LENGTHS = torch.tensor([4, 1, 3])
NAMES = ("emissions", "transitions", "start", "end")


def masked_scores(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Scores of a BIOES chain: illegal transitions, starts and ends score -inf, and so do some labels of some words."""
    generator = torch.Generator().manual_seed(seed)
    size = len(LABELS)
    start, transitions, end = legal_transitions(LABELS)
    possible = torch.ones(len(LENGTHS), 4, size, dtype=torch.bool)
    possible[0, 1, 0] = possible[2, 2, 4] = False
    masks = possible, transitions, start, end
    return tuple(
        torch.randn(mask.shape, generator=generator, dtype=torch.float64).masked_fill(~mask, float("-inf")).to(dtype)
        for mask in masks
    )


def enumerated(scores: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
    """The possible sequences of every sentence, [S, n], and their scores, [S], differentiable."""
    emissions, transitions, start, end = scores
    found = []
    for item, length in enumerate(LENGTHS.tolist()):
        every = torch.tensor(list(itertools.product(range(len(LABELS)), repeat=length)))
        total = start[every[:, 0]] + end[every[:, -1]] + emissions[item, torch.arange(length), every].sum(1)
        total = total + transitions[every[:, 1:], every[:, :-1]].sum(1)
        possible = total.detach() > float("-inf")
        found.append((every[possible], total[possible]))
    return found


def leaves(scores: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(score.clone().requires_grad_() for score in scores)


def check(loss: Tensor, expected: Tensor, ours: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> None:
    assert torch.allclose(loss, expected, rtol=1e-8, atol=1e-8)
    gradients = torch.autograd.grad(loss.sum(), ours), torch.autograd.grad(expected.sum(), exact)
    for name, score, got, wanted in zip(NAMES, ours, *gradients, strict=True):
        assert torch.allclose(got, wanted, rtol=0.0, atol=1e-8), name
        assert (got[score == float("-inf")] == 0).all(), name


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distillation(temperature: float, kernels: str) -> None:
    teacher, student = masked_scores(0), masked_scores(1)
    ours, exact = leaves(student), leaves(student)
    build = structkd.LinearChainCRF.from_scores
    loss = structkd.structural_kd_loss(
        build(*teacher, lengths=LENGTHS), build(*ours, lengths=LENGTHS), temperature, reduction="none"
    )
    sides = zip(enumerated(teacher), enumerated(exact), strict=True)
    expected = torch.stack(
        [
            -((theirs / temperature).softmax(0) * (own / temperature).log_softmax(0)).sum() * temperature**2
            for (_, theirs), (_, own) in sides
        ]
    )
    check(loss, expected, ours, exact)


def test_supervision(kernels: str) -> None:
    student = masked_scores(2)
    ours, exact = leaves(student), leaves(student)
    gold = torch.full((3, 4), -100)
    choices = [(1, 2, 3, 4), (4,), (1, 3, 0)]
    for item, labels in enumerate(choices):
        gold[item, : len(labels)] = torch.tensor(labels)
    loss = structkd.supervised_loss(structkd.LinearChainCRF.from_scores(*ours, lengths=LENGTHS), gold, reduction="none")
    expected = torch.stack(
        [
            -scores.log_softmax(0)[(sequences == torch.tensor(labels)).all(1)].squeeze(0)
            for labels, (sequences, scores) in zip(choices, enumerated(exact), strict=True)
        ]
    )
    check(loss, expected, ours, exact)


def test_a_student_that_excludes_what_the_teacher_allows(kernels: str) -> None:
    teacher = tuple(scores.nan_to_num(neginf=0.0) for scores in masked_scores(3))
    build = structkd.LinearChainCRF.from_scores
    student = build(*masked_scores(4), lengths=LENGTHS)
    loss = structkd.structural_kd_loss(build(*teacher, lengths=LENGTHS), student, reduction="none")
    assert loss.tolist() == [float("inf")] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probability_space_vouches_for_masked_chains(dtype: torch.dtype) -> None:
    """Zeros that are exact are no underflow: a masked chain is as fast as any other."""
    sides = masked_scores(5, dtype), masked_scores(6, dtype)
    assert chain._factored_kd_in_probability_space(*sides, LENGTHS, 1.0)[2]
    potentials = [structkd.LinearChainCRF.from_scores(*side, lengths=LENGTHS).log_potentials for side in sides]
    assert chain._dense_kd_in_probability_space(*potentials, LENGTHS)[2]
