"""The compiled kernels against log-space programmes differentiated by autograd, and the promises they make."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import structkd
from structkd.distributions.kernels import chain
from structkd.distributions.kernels.arithmetic import NEG_INF
from structkd.distributions.kernels.compiled.edmonds import edmonds
from structkd.distributions.kernels.engines import using
from structkd.distributions.semirings import Log

pytest.importorskip("numba")
import structkd.distributions.kernels.compiled.arborescence
import structkd.distributions.kernels.compiled.chain
import structkd.distributions.kernels.compiled.eisner
import structkd.distributions.kernels.compiled.head_labels
import structkd.distributions.kernels.compiled.matrix_tree
import structkd.distributions.kernels.compiled.spans
from structkd.distributions.kernels import compiled

# All sizes of a vector's remainder, and one, two, three and more vectors
SIZES = (1, 2, 5, 8, 9, 17, 24, 33)
CASES = [(dtype, temperature) for dtype in (torch.float32, torch.float64) for temperature in (1.0, 2.5)]
in_precision_and_temperature = pytest.mark.parametrize(("dtype", "temperature"), CASES, ids=lambda x: str(x))
LENGTHS = torch.tensor([5, 1, 7, 2, 7, 3, 1, 6, 4])
BATCH, WORDS = len(LENGTHS), 8

Chain = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


@pytest.fixture(autouse=True)
def kernels() -> None:
    """These tests call the kernels themselves: no path is to be chosen."""


def inside(lengths: Tensor, words: int) -> Tensor:
    return torch.arange(words) < lengths.unsqueeze(1)


def spoiled(scores: Tensor, mask: Tensor) -> Tensor:
    """NaN, which nothing may read, wherever the mask is False."""
    return scores.masked_fill(~mask, float("nan"))


def close(got: Tensor, wanted: Tensor, dtype: torch.dtype = torch.float64) -> bool:
    tolerance = 1e-9 if dtype == torch.float64 else 1e-6
    return torch.allclose(got.double(), wanted.double(), rtol=tolerance, atol=tolerance)


def judged(distribution: Any, temperature: float = 1.0) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """log Z, tempered part scores and part marginals: the log-space programme differentiated by autograd."""
    parts = tuple(part / temperature for part in distribution.parts())
    if getattr(distribution, "factored", False):
        # transitions for every sentence, so that their marginals are, too
        parts = parts[0], parts[1].expand(len(parts[0]), -1, -1)
    leaves = tuple(part.detach().requires_grad_() for part in parts)
    value = distribution.inside(Log(), leaves, distribution.lengths)
    marginals = torch.autograd.grad(value.sum(), leaves, materialize_grads=True)
    return distribution.inside(Log(), parts, distribution.lengths), parts, marginals


def general(teacher: Any, student: Any, temperature: float, *scores: Tensor | None) -> tuple[Tensor, list[Tensor]]:
    """The loss [B] by its definition and the gradient of its sum by autograd."""
    _, _, target = judged(teacher, temperature)
    loss, parts, _ = judged(student, temperature)
    for wanted, part in zip(target, parts, strict=True):
        loss = loss - torch.where(wanted > 0, wanted * part.masked_fill(wanted == 0, 0.0), 0.0).flatten(1).sum(1)
    loss = loss * temperature**2
    return loss.detach(), list(torch.autograd.grad(loss.sum(), [s for s in scores if s is not None]))


def factored(size: int, dtype: torch.dtype, ends: bool = True, scale: float = 1.0) -> Chain:
    emissions = scale * torch.randn(BATCH, WORDS, size, dtype=dtype)
    transitions = scale * torch.randn(size, size, dtype=dtype)
    if not ends:
        return emissions, transitions, None, None
    return emissions, transitions, torch.randn(size, dtype=dtype), torch.randn(size, dtype=dtype)


def as_distribution(scores: Chain, lengths: Tensor = LENGTHS) -> Any:
    return structkd.LinearChainCRF.from_scores(*scores, lengths=lengths, validate_args=False)


def leaves(scores: Chain) -> Chain:
    return tuple(None if s is None else s.double().requires_grad_() for s in scores)  # type: ignore[return-value]


def check_factored(teacher: Chain, student: Chain, temperature: float, lengths: Tensor = LENGTHS) -> None:
    mask = inside(lengths, teacher[0].shape[1]).unsqueeze(-1)
    ours = compiled.chain.factored_kd(
        (spoiled(teacher[0], mask), *teacher[1:]), (spoiled(student[0], mask), *student[1:]), lengths, temperature
    )
    expected = leaves(student)
    loss, gradients = general(
        as_distribution(leaves(teacher), lengths), as_distribution(expected, lengths), temperature, *expected
    )
    assert ours[2]
    assert close(ours[0], loss)
    for got, wanted, scores in zip((g for g in ours[1] if g is not None), gradients, student, strict=False):
        assert scores is not None
        assert got.dtype == scores.dtype
        assert close(got, wanted, scores.dtype)
    assert [g is None for g in ours[1]] == [s is None for s in student]


@pytest.mark.parametrize("size", SIZES)
@in_precision_and_temperature
def test_factored_chains(size: int, dtype: torch.dtype, temperature: float) -> None:
    check_factored(factored(size, dtype), factored(size, dtype), temperature)


def test_factored_chains_of_mixed_make() -> None:
    """Precisions mix, start and end may be missing on either side."""
    check_factored(factored(5, torch.float64), factored(5, torch.float32, ends=False), 1.5)
    check_factored(factored(5, torch.float32, ends=False), factored(5, torch.float64), 1.5)
    emissions, transitions, start, _ = factored(5, torch.float32)
    check_factored((emissions, transitions.double(), None, start), (emissions, transitions.double(), start, None), 1.5)


@in_precision_and_temperature
def test_factored_chains_with_impossible_labels(dtype: torch.dtype, temperature: float) -> None:
    size = 9
    teacher, student = factored(size, dtype, scale=3), factored(size, dtype, scale=3)
    forbidden = torch.rand(size, size) < 0.3
    forbidden[:, 0] = False
    here = torch.rand(BATCH, WORDS, size) < 0.3
    here[..., 0] = False
    for emissions, transitions, start, _ in (teacher, student):
        assert start is not None
        transitions.masked_fill_(forbidden, NEG_INF)
        emissions.masked_fill_(here, NEG_INF)
        start[3] = NEG_INF
    # the teacher excludes more than the student
    teacher[1][1, 2] = NEG_INF
    teacher[0][0, 1, 0] = NEG_INF
    teacher[0][0, 1, 1], student[0][0, 1, 1] = 1.0, 1.0
    check_factored(teacher, student, temperature)


def dense(size: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(BATCH, WORDS - 1, size, size, dtype=dtype)


@pytest.mark.parametrize("size", SIZES)
@in_precision_and_temperature
def test_dense_chains(size: int, dtype: torch.dtype, temperature: float) -> None:
    teacher, student = dense(size, dtype), dense(size, dtype)
    mask = inside(LENGTHS - 1, WORDS - 1)[:, :, None, None]
    impossible = torch.rand(teacher.shape) < 0.2
    impossible[..., 0, :] = False
    for scores in (teacher, student):
        scores.masked_fill_(impossible, NEG_INF)
    got, gradient, ok = compiled.chain.dense_kd(spoiled(teacher, mask), spoiled(student, mask), LENGTHS, temperature)
    leaf = student.double().requires_grad_()
    build = structkd.LinearChainCRF
    loss, (wanted,) = general(build(teacher.double(), LENGTHS), build(leaf, LENGTHS), temperature, leaf)
    assert ok
    assert close(got, loss)
    assert gradient.dtype == dtype
    assert close(gradient, wanted, dtype)


def test_dense_chains_of_single_words() -> None:
    scores = torch.empty(2, 0, 5, 5)
    loss, gradient, ok = compiled.chain.dense_kd(scores, scores, torch.tensor([1, 1]), 2.0)
    assert ok
    assert gradient.shape == scores.shape
    assert close(loss, torch.full((2,), 4.0).double() * torch.tensor(5.0).double().log())


def arcs(dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(BATCH, WORDS, WORDS, dtype=dtype)


TREES = [
    (structkd.DependencyCRF, compiled.eisner.kd, compiled.eisner.expectations),
    (structkd.NonProjectiveDependencyCRF, compiled.matrix_tree.kd, compiled.matrix_tree.expectations),
]
of_both_kinds = pytest.mark.parametrize(("build", "kernel", "expectations"), TREES, ids=["projective", "all"])


@of_both_kinds
@pytest.mark.parametrize("multiroot", [False, True], ids=["single-root", "multi-root"])
@in_precision_and_temperature
def test_trees(
    build: Any, kernel: Any, expectations: Any, multiroot: bool, dtype: torch.dtype, temperature: float
) -> None:
    teacher, student = arcs(dtype, 3), arcs(dtype, 3)
    mask = inside(LENGTHS, WORDS)
    impossible = torch.rand(teacher.shape) < 0.2
    # a tree that stays possible: every word's head is the one before
    impossible &= torch.ones(WORDS, WORDS).triu(1).tril(1) == 0
    impossible[:, 0, 0] = False
    for scores in (teacher, student):
        scores.masked_fill_(impossible, NEG_INF)
    mask = mask.unsqueeze(2) & mask.unsqueeze(1)
    got, gradient, ok = kernel(spoiled(teacher, mask), spoiled(student, mask), LENGTHS, multiroot, temperature)
    leaf = student.double().requires_grad_()
    loss, (wanted,) = general(
        build(teacher.double(), LENGTHS, multiroot), build(leaf, LENGTHS, multiroot), temperature, leaf
    )
    assert ok
    assert close(got, loss)
    assert gradient.dtype == dtype
    assert close(gradient, wanted, dtype)


@pytest.mark.parametrize("multiroot", [False, True], ids=["single-root", "multi-root"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0])
def test_long_trees_are_rescaled(multiroot: bool, scale: float) -> None:
    """Weights of whole sentences, exp(-5) a word, leave float64 beyond a hundred words; a constant brings them back."""
    lengths = torch.tensor([150, 3, 110])
    scores = scale * torch.randn(3, 150, 150, dtype=torch.float64)
    value, marginals, safe = compiled.eisner.expectations(scores, lengths, multiroot)
    wanted, _, (probabilities,) = judged(structkd.DependencyCRF(scores, lengths, multiroot))
    assert safe.all()
    assert close(value, wanted)
    assert close(marginals, probabilities)


def test_label_expectations() -> None:
    mask = inside(LENGTHS, WORDS).unsqueeze(-1)
    for size in SIZES:
        unary, transitions, _, _ = factored(size, torch.float64, ends=False)
        value, labels, counts, safe = compiled.chain.factored_expectations(spoiled(unary, mask), transitions, LENGTHS)
        wanted = chain.log_space_expectations(unary, transitions.expand(BATCH, size, size), LENGTHS, per_bigram=False)
        assert safe.all()
        assert all(close(got, w) for got, w in zip((value, labels, counts), wanted, strict=True))
        assert not labels.masked_fill(mask, 0.0).any()


def test_bigram_expectations() -> None:
    mask = inside(LENGTHS - 1, WORDS - 1)[:, :, None, None]
    for size in SIZES:
        potentials = dense(size, torch.float64)
        value, labels, bigrams, safe = compiled.chain.dense_expectations(spoiled(potentials, mask), LENGTHS)
        nothing = potentials.new_zeros(BATCH, WORDS, size)
        wanted = chain.log_space_expectations(nothing, potentials, LENGTHS, per_bigram=True)
        assert safe.all()
        assert all(close(got, w) for got, w in zip((value, labels, bigrams), wanted, strict=True))
        assert not bigrams.masked_fill(mask, 0.0).any()


@of_both_kinds
def test_arc_expectations(build: Any, kernel: Any, expectations: Any) -> None:
    mask = inside(LENGTHS, WORDS)
    mask = mask.unsqueeze(2) & mask.unsqueeze(1)
    for multiroot in (False, True):
        scores = arcs(torch.float64)
        value, marginals, safe = expectations(spoiled(scores, mask), LENGTHS, multiroot)
        wanted, _, (probabilities,) = judged(build(scores, LENGTHS, multiroot))
        assert safe.all()
        assert close(value, wanted)
        assert close(marginals, probabilities)


@pytest.mark.parametrize("types", [1, 4, 9])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_span_expectations(types: int, scale: float) -> None:
    scores = scale * torch.randn(BATCH, WORDS, WORDS, types, dtype=torch.float64)
    scores[torch.rand(scores.shape) < 0.2] = NEG_INF
    scores[0, 1] = NEG_INF
    distribution = structkd.SpanCRF(scores, LENGTHS)
    value, _, (marginals, outside) = judged(distribution)
    got = compiled.spans.expectations(spoiled(scores, distribution.event_mask()), LENGTHS)
    assert got[3].all()
    assert close(got[0], value)
    assert close(got[1], marginals)
    # autograd counts the words beyond a sentence, too
    assert close(got[2], outside.masked_fill(~inside(LENGTHS, WORDS), 0.0))


def test_refusals() -> None:
    """Empty spaces, infinite losses, NaN and +inf inside a sentence are all left to the general way."""
    lengths = torch.tensor([4, 3])

    def one(scores: Tensor, cell: tuple[int, ...], value: float) -> Tensor:
        scores = scores.clone()
        scores[cell] = value
        return scores

    for value in (float("nan"), float("inf")):
        emissions, transitions = torch.randn(2, 4, 3), torch.randn(3, 3)
        for cell in ((0, 0, 0), (1, 2, 1), (0, 3, 2)):
            bad: Chain = (one(emissions, cell, value), transitions, None, None)
            good: Chain = (emissions, transitions, None, None)
            assert not compiled.chain.factored_kd(bad, good, lengths)[2]
            assert not compiled.chain.factored_kd(good, bad, lengths)[2]
            assert not compiled.chain.factored_expectations(bad[0].double(), transitions.double(), lengths)[3].all()
        bad = (emissions, one(transitions, (1, 1), value), None, None)
        assert not compiled.chain.factored_kd(bad, good, lengths)[2]
        assert not compiled.chain.factored_kd(good, bad, lengths)[2]
        for shape, kernel, expectations in (
            ((2, 3, 3, 3), compiled.chain.dense_kd, compiled.chain.dense_expectations),
            ((2, 4, 4), compiled.eisner.kd, compiled.eisner.expectations),
            ((2, 4, 4), compiled.matrix_tree.kd, compiled.matrix_tree.expectations),
        ):
            scores = torch.randn(shape)
            for cell in ((0, 0), (1, 1), (0, 2)):
                wrong = one(scores, (*cell, *[0] * (len(shape) - 2)), value)
                assert not kernel(wrong, scores, lengths)[2]  # type: ignore[operator]
                assert not kernel(scores, wrong, lengths)[2]  # type: ignore[operator]
                assert not expectations(wrong.double(), lengths)[-1].all()  # type: ignore[operator]

        labels, named = torch.randn(2, 4, 5), torch.randint(4, (2, 4, 5))
        for cell in ((0, 0, 0), (1, 2, 1)):
            assert compiled.head_labels.log_arcs(one(labels, cell, value), named, lengths) is None
        assert compiled.head_labels.log_arcs(one(labels, (1, 3, 0), value), named, lengths) is not None
    assert compiled.head_labels.log_arcs(one(labels, (0, 1), NEG_INF), named, lengths) is None

    # a word without labels, a word without heads
    for cell in ((0, 0), (1, 2)):
        bad = (one(emissions, cell, NEG_INF), transitions, None, None)
        assert not compiled.chain.factored_kd(bad, good, lengths)[2]
        assert not compiled.chain.factored_kd(good, bad, lengths)[2]
        potentials = torch.randn(2, 3, 3, 3)
        blocked = one(potentials, (cell[0], min(cell[1], 1)), NEG_INF)
        assert not compiled.chain.dense_kd(blocked, potentials, lengths)[2]
        assert not compiled.chain.dense_kd(potentials, blocked, lengths)[2]
        trees = torch.randn(2, 4, 4)
        headless = trees.clone()
        headless[cell[0], :, cell[1]] = NEG_INF
        for _, kernel, expectations in TREES:
            assert not kernel(headless, trees, lengths)[2]  # type: ignore[operator]
            assert not kernel(trees, headless, lengths)[2]  # type: ignore[operator]
            safe = expectations(headless.double(), lengths)[2]  # type: ignore[operator]
            assert safe.tolist() == [cell[0] != 0, cell[0] != 1]

    # mass where the student has none: an infinite loss
    for infinite in (one(emissions, (1, 1, 1), NEG_INF), transitions), (emissions, one(transitions, (2, 0), NEG_INF)):
        assert not compiled.chain.factored_kd(good, (*infinite, None, None), lengths)[2]
    assert not compiled.chain.dense_kd(potentials, one(potentials, (0, 2, 1, 1), NEG_INF), lengths)[2]
    for _, kernel, _ in TREES:
        assert not kernel(trees, one(trees, (0, 2, 1), NEG_INF), lengths)[2]  # type: ignore[operator]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("words", [6, 60, 500])
def test_extreme_scores_are_right_or_refused(words: int, seed: int) -> None:
    """Scores of +-300, two fifths of the transitions impossible: float64 log space is the judge."""
    torch.manual_seed(seed)
    size, lengths = 7, torch.tensor([words, words // 2, 3])
    unary = 600 * torch.rand(3, words, size, dtype=torch.float64) - 300
    transitions = 600 * torch.rand(size, size, dtype=torch.float64) - 300
    transitions[(torch.rand(size, size) < 0.4) & ~torch.eye(size, dtype=torch.bool)] = NEG_INF
    *got, safe = compiled.chain.factored_expectations(unary, transitions, lengths)
    wanted = chain.log_space_expectations(unary, transitions.expand(3, size, size), lengths, per_bigram=False)
    assert all(close(g[safe], w[safe]) for g, w in zip(got, wanted, strict=True))
    *got, ok = compiled.chain.factored_kd((unary, transitions, None, None), (unary, transitions, None, None), lengths)
    assert ok <= bool(safe.all())

    potentials = transitions + unary[:, 1:].unsqueeze(-1)
    *got, safe = compiled.chain.dense_expectations(potentials, lengths)
    wanted = chain.log_space_expectations(torch.zeros_like(unary), potentials, lengths, per_bigram=True)
    assert all(close(g[safe], w[safe]) for g, w in zip(got, wanted, strict=True))


def test_an_underflow_that_no_single_step_shows() -> None:
    """The path that is best at last falls below 1e-308 and is lost, and no later step alone is improbable.

    Label 0's path loses exp(-400) at each of two steps, after which label 1 loses as much at each of four.
    """
    scores = torch.full((1, 6, 2, 2), NEG_INF, dtype=torch.float64)
    scores[0, :, 0, 0] = torch.tensor([-400.0, -400.0, 0.0, 0.0, 0.0, 0.0])
    scores[0, :, 1, 1] = torch.tensor([0.0, 0.0, -400.0, -400.0, -400.0, -400.0])
    lengths = torch.tensor([7])
    for reverse in (False, True):
        potentials = scores.flip(1) if reverse else scores
        value, _, marginals, safe = compiled.chain.dense_expectations(potentials, lengths)
        assert not safe.any() or (
            close(value, torch.tensor([-800.0])) and close(marginals[..., 0, 0].sum(), torch.tensor(6.0))
        )
        assert not compiled.chain.dense_kd(potentials, potentials, lengths)[2]
    unary = torch.zeros(1, 7, 2, dtype=torch.float64)
    unary[0, 1:, 0], unary[0, 1:, 1] = scores[0, :, 0, 0], scores[0, :, 1, 1]
    transitions = torch.tensor([[0.0, NEG_INF], [NEG_INF, 0.0]], dtype=torch.float64)
    for reverse in (False, True):
        emissions = unary.flip(1) if reverse else unary
        assert not compiled.chain.factored_expectations(emissions, transitions, lengths)[3].any()
        pair: Chain = (emissions, transitions, None, None)
        assert not compiled.chain.factored_kd(pair, pair, lengths)[2]


@of_both_kinds
def test_extreme_trees_are_right_or_refused(build: Any, kernel: Any, expectations: Any) -> None:
    for scale in (30.0, 300.0):
        scores = scale * torch.randn(24, 12, 12, dtype=torch.float64)
        scores[(torch.rand(scores.shape) < 0.4) & ~torch.eye(12, dtype=torch.bool)] = NEG_INF
        lengths = torch.randint(1, 13, (24,))
        for multiroot in (False, True):
            value, marginals, safe = expectations(scores, lengths, multiroot)
            wanted, _, (probabilities,) = judged(build(scores, lengths, multiroot))
            assert close(value[safe], wanted[safe])
            assert close(marginals[safe], probabilities[safe])


@pytest.mark.parametrize("multiroot", [False, True], ids=["single-root", "multi-root"])
def test_words_that_prefer_each_other_cost_no_digits(multiroot: bool) -> None:
    """Where a determinant cancels, elimination without a subtraction is exact, unmasked sentences of any scores."""
    for words, scale in ((3, 10.0), (9, 30.0), (17, 100.0), (40, 100.0)):
        scores = scale * torch.randn(4, words, words, dtype=torch.float64)
        lengths = torch.tensor([words, 1, words - 1, 2])
        value, marginals, safe = compiled.matrix_tree.expectations(scores, lengths, multiroot)
        wanted, _, (probabilities,) = judged(structkd.NonProjectiveDependencyCRF(scores, lengths, multiroot))
        assert safe.all()
        assert torch.allclose(value, wanted, rtol=1e-13, atol=1e-13)
        assert torch.allclose(marginals, probabilities, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("reluctant_root", [False, True])
def test_the_search_for_an_arborescence_gives_the_same_compiled(reluctant_root: bool) -> None:
    """The same source, so the same heads: cycles within cycles, ties, impossible arcs, sentences without a tree."""
    generator = np.random.default_rng(0)
    without = 0
    for seed in range(200):
        words = 1 + seed % 13 if seed else 150
        scores = generator.normal(size=(words, words)) if seed % 3 else generator.integers(-2, 3, (words, words)) / 1.0
        scores += 2.0 * (np.arange(words)[:, None] // 3 == np.arange(words) // 3)
        scores[generator.random((words, words)) < (0.0, 0.5, 0.8)[seed % 3]] = -np.inf
        heads = compiled.arborescence.edmonds(scores, reluctant_root)
        assert heads.tolist() == edmonds(scores, reluctant_root).tolist()
        without += heads[0] < 0
    assert 0 < without < 200


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled.runtime, "_WORTHWHILE", 1)
    pair = factored(9, torch.float32), factored(9, torch.float32)
    bigrams = dense(9, torch.float32), dense(9, torch.float32)
    trees = arcs(torch.float32), arcs(torch.float32)
    spans = torch.randn(BATCH, WORDS, WORDS, 3, dtype=torch.float64)
    named = torch.randint(-1, WORDS, (BATCH, WORDS, WORDS))

    def everything() -> list[Tensor]:
        results: list[Any] = [
            *compiled.chain.factored_kd(*pair, LENGTHS, 2.0),
            *compiled.chain.dense_kd(*bigrams, LENGTHS, 2.0),
        ]
        results += [*compiled.eisner.kd(*trees, LENGTHS, True, 2.0), *compiled.spans.expectations(spans, LENGTHS)]
        results += compiled.chain.factored_expectations(pair[0][0].double(), pair[0][1].double(), LENGTHS)
        results += compiled.chain.dense_expectations(bigrams[0].double(), LENGTHS)
        results += compiled.eisner.expectations(trees[0].double(), LENGTHS)
        results += [*compiled.matrix_tree.kd(*trees, LENGTHS, True, 2.0)]
        results += compiled.matrix_tree.expectations(trees[0].double(), LENGTHS)
        heads = compiled.eisner.best_trees(trees[0], LENGTHS)
        results += [heads, compiled.head_labels.log_arcs(trees[0], named, LENGTHS)]
        results += [
            compiled.head_labels.relations_of_arcs(trees[0], named, named[0, 0].clamp_min(0), heads, LENGTHS, WORDS)
        ]
        flat = [x for result in results for x in (result if isinstance(result, tuple) else (result,))]
        return [x if isinstance(x, Tensor) else torch.tensor(x) for x in flat]

    alone = everything()
    for count in (2, 3):
        with threads(count):
            together = everything()
            assert torch.get_num_threads() == count
        for one, other in zip(alone, together, strict=True):
            assert torch.allclose(one.double(), other.double(), rtol=1e-12, atol=1e-12)
    # sentences are computed alone: only sums over them depend on how they are dealt out
    assert torch.equal(alone[0], together[0])


def test_inputs_are_left_alone_and_views_understood() -> None:
    emissions = torch.randn(7, 3, 5).transpose(0, 1)[:, ::2]
    transitions = torch.randn(5, 5).T.requires_grad_()
    copies = emissions.clone(), transitions.detach().clone()
    lengths = torch.tensor([4, 2, 9, 1, 9, 3])[::2].clamp_max(4)
    student: Chain = (emissions, transitions, None, None)
    got = compiled.chain.factored_kd(student, student, lengths)
    again = compiled.chain.factored_kd(student, (emissions.contiguous(), copies[1], None, None), lengths.contiguous())
    assert torch.equal(got[0], again[0])
    assert torch.equal(emissions, copies[0])
    assert torch.equal(transitions, copies[1])
    assert transitions.requires_grad
    with torch.inference_mode():
        assert torch.equal(compiled.chain.factored_kd(student, student, lengths)[0], got[0])


def run(program: str) -> str:
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_numba_is_not_imported_before_it_is_needed() -> None:
    run(
        "import sys, structkd\n"
        "from structkd.distributions.kernels.compiled import runtime\n"
        "assert 'numba' not in sys.modules\n"
        "assert runtime.available() and 'numba' in sys.modules"
    )


def test_without_numba_they_are_not_available_and_say_so_once() -> None:
    output = run(
        "import sys, logging\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "sys.modules['numba'] = None\n"
        "from structkd.distributions.kernels.compiled import runtime\n"
        "assert not runtime.available() and not runtime.available()"
    )
    assert output.count("Compiled kernels are off") == 1


@pytest.mark.parametrize("installed", ["0.60.9", "0.69.0rc1", "1.0"])
def test_an_untested_numba_is_left_alone(
    installed: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled.runtime, "_usable", None)
    monkeypatch.setattr(compiled.runtime, "version", lambda name: installed)
    scores = torch.randn(2, 3, 4, 4)
    with using("auto"):
        torch_alone = structkd.LinearChainCRF(scores).marginals
    assert not compiled.runtime.available()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"numba {installed} was not tested" in caplog.text
    with using("torch"):
        assert torch.equal(structkd.LinearChainCRF(scores).marginals, torch_alone)


def test_the_requirement_names_the_numba_versions_that_were_tested() -> None:
    setup = ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg", encoding="utf-8")
    first, beyond = (".".join(map(str, bound)) for bound in compiled.runtime.TESTED)
    assert f"numba>={first},<{beyond}" in setup["options.extras_require"]["fast"].splitlines()


def test_a_kernel_that_does_not_compile_ends_the_use_of_all() -> None:
    output = run(
        "import logging, torch\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "from structkd.distributions.kernels.compiled import chain, lanes, runtime\n"
        "assert runtime.available()\n"
        "chain._dense_kd = lanes.kernel(lambda *arguments: arguments.nonsense)\n"
        "scores, lengths = torch.randn(2, 3, 4, 4), torch.full((2,), 4)\n"
        "assert not chain.dense_kd(scores, scores, lengths)[2]\n"
        "assert not runtime.available()\n"
        "assert not chain.dense_expectations(scores.double(), lengths)[3].any()"
    )
    assert output.count("Compiled kernels are off") == 1


@pytest.mark.processes
def test_a_forked_process_starts_its_own_threads() -> None:
    run(
        "import os, torch\n"
        "from structkd.distributions.kernels.compiled import chain, runtime\n"
        "runtime._WORTHWHILE = 1\n"
        "torch.set_num_threads(2)\n"
        "scores, lengths = torch.randn(8, 3, 4, 4), torch.full((8,), 4)\n"
        "wanted = chain.dense_kd(scores, scores, lengths)[0]\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os._exit(not torch.equal(chain.dense_kd(scores, scores, lengths)[0], wanted))\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0"
    )


@pytest.mark.parametrize("size", [3, 17])
def test_float32_gradients_are_as_good_as_rounding(size: int) -> None:
    """Twenty times closer to float64 than log space in float32 comes."""
    teacher, student = factored(size, torch.float32, False, 3.0), factored(size, torch.float32, False, 3.0)
    _, gradients, ok = compiled.chain.factored_kd(teacher, student, LENGTHS)
    exact = leaves(student)
    _, (wanted, *_) = general(as_distribution(leaves(teacher)), as_distribution(exact), 1.0, *exact)
    assert ok
    assert float((gradients[0] - wanted).abs().max()) < 1e-7
