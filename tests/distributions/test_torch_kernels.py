"""Torch's kernels for losses, in pieces, against log space; and what they must not vouch for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

import structkd
from structkd.distributions.kernels import chain, matrix_tree
from structkd.distributions.kernels.engines import using
from structkd.distributions.transition_counts import TransitionCounts

LENGTHS = torch.tensor([23, 1, 8, 23, 9, 17, 2, 16])
BATCH, WORDS, SIZE = len(LENGTHS), 23, 5


@pytest.fixture(autouse=True)
def kernels() -> None:
    """These tests say themselves which path is to be taken."""


def spoiled(scores: Tensor, inside: Tensor) -> Tensor:
    """NaN, which nothing may read, in the padding."""
    return scores.masked_fill(~inside.view(*inside.shape, *[1] * (scores.dim() - 2)), float("nan"))


def by_log_space(teacher: Distribution, student: Distribution, temperature: float) -> Tensor:
    with using("log"):
        return structkd.structural_kd_loss(teacher, student, temperature, reduction="none")


@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("cells", [1, 1 << 20], ids=["piecewise", "whole"])
def test_factored_chains(monkeypatch: pytest.MonkeyPatch, cells: int, temperature: float, ragged: bool) -> None:
    monkeypatch.setattr(chain, "_CELLS", cells)
    lengths = LENGTHS if ragged else torch.full((BATCH,), WORDS)
    inside = torch.arange(WORDS) < lengths.unsqueeze(1)
    shapes = ((BATCH, WORDS, SIZE), (SIZE, SIZE), (SIZE,), (SIZE,))
    teacher, student = (tuple(3 * torch.randn(s, dtype=torch.float64) for s in shapes) for _ in range(2))
    leaves = tuple(s.clone().requires_grad_() for s in student)
    build = structkd.LinearChainCRF.from_scores
    wanted = by_log_space(build(*teacher, lengths=lengths), build(*leaves, lengths=lengths), temperature)
    gradients = torch.autograd.grad(wanted.sum(), leaves)
    sides = ((spoiled(s[0], inside), *s[1:]) for s in (teacher, student))
    loss, got, ok = chain._factored_kd_in_probability_space(*sides, lengths, temperature)
    assert ok
    assert torch.allclose(loss, wanted, rtol=1e-12, atol=1e-12)
    for ours, exact in zip(got, gradients, strict=True):
        assert torch.allclose(ours, exact, rtol=0.0, atol=1e-11)


@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("cells", [1, 1000, 1 << 20], ids=["wordwise", "piecewise", "whole"])
def test_dense_chains(monkeypatch: pytest.MonkeyPatch, cells: int, temperature: float, ragged: bool) -> None:
    monkeypatch.setattr(chain, "_CACHED_CELLS", cells)
    lengths = LENGTHS if ragged else torch.full((BATCH,), WORDS)
    inside = torch.arange(WORDS - 1) < lengths.unsqueeze(1) - 1
    teacher, student = (3 * torch.randn(BATCH, WORDS - 1, SIZE, SIZE, dtype=torch.float64) for _ in range(2))
    leaf = student.clone().requires_grad_()
    build = structkd.LinearChainCRF
    wanted = by_log_space(build(teacher, lengths), build(leaf, lengths), temperature)
    (gradient,) = torch.autograd.grad(wanted.sum(), leaf)
    loss, got, ok = chain._dense_kd_in_probability_space(
        spoiled(teacher, inside), spoiled(student, inside), lengths, temperature
    )
    assert ok
    assert torch.allclose(loss, wanted, rtol=1e-12, atol=1e-12)
    assert torch.allclose(got, gradient, rtol=0.0, atol=1e-11)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("words", [6, 60, 500])
@pytest.mark.parametrize("masked", [False, True])
def test_extreme_scores_are_right_or_refused(words: int, masked: bool, seed: int) -> None:
    torch.manual_seed(seed)
    lengths = torch.tensor([words, words // 2, 3])
    emissions, other = (600 * torch.rand(3, words, SIZE, dtype=torch.float64) - 300 for _ in range(2))
    transitions = 600 * torch.rand(SIZE, SIZE, dtype=torch.float64) - 300
    if masked:
        transitions[(torch.rand(SIZE, SIZE) < 0.4) & ~torch.eye(SIZE, dtype=torch.bool)] = float("-inf")
    build = structkd.LinearChainCRF.from_scores
    sides = [build(scores, transitions, lengths=lengths) for scores in (emissions, other)]
    wanted = by_log_space(sides[0], sides[1], 1.0)
    loss, _, ok = chain._factored_kd_in_probability_space(sides[0].scores, sides[1].scores, lengths, 1.0)
    assert not ok or torch.allclose(loss, wanted, rtol=1e-12)
    loss, _, ok = chain._dense_kd_in_probability_space(sides[0].log_potentials, sides[1].log_potentials, lengths, 1.0)
    assert not ok or torch.allclose(loss[lengths > 1], wanted[lengths > 1], rtol=1e-12)


def test_an_underflow_that_no_single_step_shows() -> None:
    """The path that is best at last is lost on the way: neither kernel may vouch for what is left."""
    unary = torch.zeros(1, 7, 2, dtype=torch.float64)
    unary[0, 1:, 0] = torch.tensor([-400.0, -400.0, 0.0, 0.0, 0.0, 0.0])
    unary[0, 1:, 1] = torch.tensor([0.0, 0.0, -400.0, -400.0, -400.0, -400.0])
    for transitions in (torch.tensor([[0.0, -1e9], [-1e9, 0.0]]), torch.eye(2).log()):
        for emissions in (unary, unary.flip(1)):
            scores = emissions, transitions.double(), None, None
            lengths = torch.tensor([7])
            assert not chain._factored_kd_in_probability_space(scores, scores, lengths, 1.0)[2]
            potentials = structkd.LinearChainCRF.from_scores(*scores, lengths=lengths).log_potentials
            assert not chain._dense_kd_in_probability_space(potentials, potentials, lengths)[2]


@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("multiroot", [True, False])
@pytest.mark.parametrize("cells", [1, 1000, 1 << 20], ids=["by-sentence", "piecewise", "whole"])
def test_trees(monkeypatch: pytest.MonkeyPatch, cells: int, multiroot: bool, temperature: float, ragged: bool) -> None:
    monkeypatch.setattr(matrix_tree, "_CELLS", cells)
    lengths = LENGTHS if ragged else torch.full((BATCH,), WORDS)
    inside = torch.arange(WORDS) < lengths.unsqueeze(1)
    padding = ~(inside.unsqueeze(1) & inside.unsqueeze(2))
    teacher, student = (torch.randn(BATCH, WORDS, WORDS, dtype=torch.float64) for _ in range(2))
    leaf = student.clone().requires_grad_()
    sides = (structkd.NonProjectiveDependencyCRF(scores, lengths, multiroot) for scores in (teacher, leaf))
    wanted = by_log_space(*sides, temperature)
    (gradient,) = torch.autograd.grad(wanted.sum(), leaf)
    spoilt = (scores.masked_fill(padding, float("nan")) for scores in (teacher, student))
    found = matrix_tree._kd_by_determinant(*spoilt, lengths, multiroot, temperature)
    assert found is not None
    assert torch.allclose(found[0], wanted, rtol=1e-11, atol=1e-11)
    assert torch.allclose(found[1], gradient, rtol=0.0, atol=1e-11)


def test_trees_that_no_determinant_tells() -> None:
    """Words that prefer each other to the root cancel; an impossible arc must be exactly so."""
    lengths = torch.tensor([4, 4])
    scores = torch.zeros(2, 4, 4, dtype=torch.float64)
    mutual = scores.clone()
    mutual[1, 0, 1] = mutual[1, 1, 0] = 40.0
    assert matrix_tree._kd_by_determinant(mutual, mutual, lengths, False, 1.0) is None
    impossible = scores.clone()
    impossible[0, 2, 3] = float("-inf")
    assert matrix_tree._kd_by_determinant(scores, impossible, lengths, False, 1.0) is None
    assert matrix_tree._kd_by_determinant(impossible, impossible, lengths, False, 1.0) is None
    assert matrix_tree._kd_by_determinant(scores, scores, lengths, False, 1.0) is not None


@pytest.mark.parametrize(
    ("root", "by_all", "certified"), [(1e-2, True, True), (2e-3, False, True), (1e-4, False, False)]
)
def test_trees_are_certified_by_either_bound(root: float, by_all: bool, certified: bool) -> None:
    """Words of which every one is a root with this probability: the inverse grows as the chance falls."""
    words = 20
    scores = 0.1 * torch.randn(2, words, words, dtype=torch.float64)
    scores.diagonal(0, 1, 2).add_(torch.logit(torch.tensor(root)) + torch.tensor(words - 1).log())
    heads = scores.softmax(1)
    likeliest = heads.amax(1)
    _, marginals, columns = matrix_tree._by_determinant(heads, multiroot=True)
    assert (columns is None) == by_all
    assert matrix_tree._certified(columns, likeliest).tolist() == [certified] * 2
    lengths = torch.tensor([words, words])
    assert (matrix_tree._kd_by_determinant(scores, scores, lengths, True, 1.0) is not None) == certified
    if certified:
        with using("log"):
            exact = structkd.NonProjectiveDependencyCRF(scores, multiroot=True).marginals
        assert torch.allclose(marginals, exact, rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("per_bigram", [True, False])
def test_log_space_takes_turns(monkeypatch: pytest.MonkeyPatch, per_bigram: bool) -> None:
    unary = torch.randn(BATCH, WORDS, SIZE, dtype=torch.float64)
    pairwise = torch.randn(BATCH, WORDS - 1, SIZE, SIZE, dtype=torch.float64)
    pairwise = pairwise if per_bigram else pairwise[:, 0]
    whole = chain.log_space_expectations(unary, pairwise, LENGTHS, per_bigram)
    monkeypatch.setattr(chain, "_CACHED_CELLS", 1)
    for piecewise, wanted in zip(
        chain.log_space_expectations(unary, pairwise, LENGTHS, per_bigram), whole, strict=True
    ):
        assert torch.equal(piecewise, wanted)


def test_counts_given_as_they_are() -> None:
    counts, other = torch.rand(BATCH, SIZE, SIZE), torch.rand(BATCH, SIZE, SIZE)
    scores, weights = torch.randn(SIZE, SIZE), torch.rand(BATCH)
    gap = TransitionCounts.from_dense(counts) - TransitionCounts.from_dense(other)
    assert torch.allclose(gap.dense(), counts - other)
    assert torch.allclose(gap.inner(scores), ((counts - other) * scores).sum((1, 2)), atol=1e-5)
    assert torch.allclose(gap.weighted_sum(weights), torch.tensordot(weights, counts - other, 1), atol=1e-5)
    items = torch.tensor([1, 4])
    some = TransitionCounts.from_dense(counts).replaced(items, other[items])
    assert torch.allclose(some.dense(), counts.index_copy(0, items, other[items]))
