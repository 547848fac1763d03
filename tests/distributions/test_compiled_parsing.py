"""The compiled kernels for students that label words and for mean field, against torch by every size of a vector."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from families import random, seeded
from torch import Tensor

import structkd
from structkd.distributions.kernels import engines, head_labels
from structkd.distributions.kernels.arithmetic import NEG_INF
from structkd.distributions.kernels.engines import using

pytest.importorskip("numba")
import structkd.distributions.kernels.compiled.relations
from structkd.distributions.kernels import compiled

LENGTHS = torch.tensor([5, 1, 7, 2, 7, 3])
BATCH, WORDS = len(LENGTHS), 8
# Remainders of a vector, and one, two, three and more vectors
SIZES = (1, 2, 7, 8, 9, 16, 17, 33)


@pytest.fixture(autouse=True)
def kernels() -> None:
    """These tests choose the paths themselves."""


def padding(*axes: int) -> Tensor:
    """BoolTensor [B, N, ...], True where one of the given axes lies beyond the sentence."""
    outside = torch.arange(WORDS) >= LENGTHS.unsqueeze(1)
    mask = torch.zeros(BATCH, *[WORDS] * max(axes), dtype=torch.bool)
    for axis in axes:
        mask |= outside.view(BATCH, *[WORDS if n == axis else 1 for n in range(1, max(axes) + 1)])
    return mask


# -- labels of words --------------------------------------------------------------------------------------------------


def labels(size: int, relations: int, per_word: bool, kind: torch.dtype = torch.long) -> tuple[Tensor, Tensor]:
    """Heads [B, N, K], some of them of no word or shared, and relations."""
    generator = seeded(size)
    heads = torch.randint(-1, WORDS + 1, (BATCH, WORDS, size), generator=generator).to(kind)
    shape = heads.shape if per_word else (size,)
    return heads, torch.randint(relations, shape, generator=generator)


def distilled(
    path: str, scores: Tensor, logits: Tensor, heads: Tensor, relations: Tensor | None, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The loss [B] and its gradient."""
    leaf = logits.clone().requires_grad_()
    teacher = structkd.HeadSelection(scores, LENGTHS)
    with using(path):
        student = structkd.HeadLabeling(leaf, heads, relations, LENGTHS)
        loss = structkd.structural_kd_loss(teacher, student, temperature, reduction="none")
    loss.sum().backward()
    assert leaf.grad is not None
    return loss.detach(), leaf.grad


def same(got: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor], tolerance: float = 1e-11) -> bool:
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in zip(got, wanted, strict=True))


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel refuses would be done again in torch, and no test would notice."""

    original = head_labels.masses

    def only_where_chosen(*arguments: Any) -> Any:
        assert engines.path() != "compiled", "the compiled kernel refused"
        return original(*arguments)

    monkeypatch.setattr(head_labels, "masses", only_where_chosen)


@pytest.mark.usefixtures("without_torch")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("relations", [0, *SIZES], ids=lambda count: f"relations-{count}")
def test_labels_of_every_size(size: int, relations: int) -> None:
    generator = seeded(100 * size + relations)
    shape = (BATCH, WORDS, WORDS) if relations == 0 else (BATCH, WORDS, WORDS, relations)
    scores = 3 * random(generator, *shape)
    scores[padding(1, 2)] = math.nan
    logits = 3 * random(generator, BATCH, WORDS, size)
    logits[padding(1)] = math.nan
    heads, named = labels(size, max(relations, 1), per_word=size % 2 == 0)
    temperature = 1.0 if size < 9 else 2.5
    given = scores, logits, heads, named, temperature
    assert same(distilled("compiled", *given), distilled("torch", *given))


@pytest.mark.usefixtures("without_torch")
@pytest.mark.parametrize("kind", [torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float32), (torch.float64, torch.float32)], ids=str)
def test_labels_of_every_kind(kind: torch.dtype, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    generator = seeded(3)
    scores = random(generator, BATCH, WORDS, WORDS, 5, dtype=dtypes[0])
    logits = random(generator, BATCH, WORDS, 33, dtype=dtypes[1])
    heads, relations = labels(33, 5, False, kind)
    got = distilled("compiled", scores, logits, heads, relations)
    assert got[0].dtype == got[1].dtype == dtypes[1]
    exact = distilled("torch", scores.double(), logits.double(), heads.long(), relations)
    assert same((got[0].double(), got[1].double()), exact, 2e-6)


@pytest.mark.usefixtures("without_torch")
def test_gradients_in_float32_are_as_good_as_rounding() -> None:
    generator = seeded(4)
    scores = 3 * random(generator, BATCH, WORDS, WORDS, 17, dtype=torch.float32)
    logits = 3 * random(generator, BATCH, WORDS, 33, dtype=torch.float32)
    heads, relations = labels(33, 17, False)
    got = distilled("compiled", scores, logits, heads, relations)[1]
    exact = distilled("torch", scores.double(), logits.double(), heads, relations)[1]
    assert float((got - exact).abs().max()) < 1e-7


@pytest.mark.usefixtures("without_torch")
@pytest.mark.parametrize("scale", [300.0, 3000.0])
def test_large_scores_and_impossible_cells(scale: float) -> None:
    """Arcs, relations and labels that are impossible, and probabilities that underflow."""
    generator = seeded(5)
    scores = scale * random(generator, BATCH, WORDS, WORDS, 5)
    scores[torch.rand(scores.shape, generator=generator) < 0.3] = NEG_INF
    scores[torch.rand(scores.shape[:3], generator=generator) < 0.3] = NEG_INF
    scores.diagonal(dim1=1, dim2=2)[:, 0] = 0.0  # something has to be possible
    logits = scale * random(generator, BATCH, WORDS, 33)
    heads, relations = labels(33, 5, False)
    logits[heads < 0] = NEG_INF  # nothing that the teacher wants
    assert same(
        distilled("compiled", scores, logits, heads, relations), distilled("torch", scores, logits, heads, relations)
    )


def test_what_the_kernel_refuses_is_done_in_torch() -> None:
    """A student that excludes what the teacher wants, one without a label, a relation that the teacher lacks."""
    scores, logits = random(seeded(6), BATCH, WORDS, WORDS, 3), random(seeded(7), BATCH, WORDS, 9)
    heads, relations = labels(9, 3, False)
    heads[:, :, 0] = 0
    excluded = logits.clone()
    excluded[2, 1, 0] = NEG_INF
    loss = distilled("compiled", scores, excluded, heads, relations)[0]
    assert loss[2] == math.inf
    assert loss[torch.arange(BATCH) != 2].isfinite().all()
    excluded[2, 1] = NEG_INF
    with pytest.raises(ValueError, match=r"no possible structure for batch item\(s\) \[2\]"):
        distilled("compiled", scores, excluded, heads, relations)
    relations[0] = 3
    with pytest.raises(
        ValueError, match=r"The student's relations must lie in 0..2, .*, got 3\. Number the student's relations"
    ):
        distilled("compiled", scores, logits, heads, relations)


def test_the_gradient_is_that_of_numbers_the_caller_cannot_validate() -> None:
    """NaN among the scores comes back as NaN where nothing is checked."""
    scores, logits = random(seeded(8), BATCH, WORDS, WORDS, 3), random(seeded(9), BATCH, WORDS, 9)
    heads, relations = labels(9, 3, False)
    heads[:, :, 0] = 0
    scores[3, 0, 0, 1] = math.nan
    teacher = structkd.HeadSelection(scores, LENGTHS, validate_args=False)
    student = structkd.HeadLabeling(logits, heads, relations, LENGTHS)
    for path in ("compiled", "torch"):
        with using(path):
            loss = structkd.structural_kd_loss(teacher, student, reduction="none")
        assert loss[3].isnan()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_normalisers_of_relations(size: int, temperature: float, dtype: torch.dtype) -> None:
    scores = 30 * random(seeded(size), 3, 4, 4, size, dtype=dtype)
    scores[0, 1, 2] = NEG_INF
    scores[1, ..., 0] = NEG_INF
    scores[2, 0, 0, -1] = math.nan
    scores[2, 0, 1, -1] = math.inf
    got = compiled.relations.normalisers(scores, temperature)
    assert got is not None
    expected = (scores.double() / temperature).logsumexp(-1)
    assert torch.allclose(got, expected, rtol=1e-13, atol=1e-13, equal_nan=True) or not expected.isfinite().all()
    clean = expected.isfinite() | (expected == NEG_INF)
    assert torch.allclose(got[clean], expected[clean], rtol=1e-13, atol=1e-13)
    assert not (got[~clean] < math.inf).any()


# -- mean field -------------------------------------------------------------------------------------------------------


def field(path: str, iterations: int, *scores: Any, relations: Tensor | None = None) -> Tensor:
    with using(path):
        teacher = structkd.MeanFieldDependency.from_factors(*scores, LENGTHS, iterations, relations=relations)
        return teacher.tempered(1.5).log_potentials


@pytest.mark.parametrize("ranks", [(1, 1), (3, 5), (8, 8), (9, 17), (16, 4), (5, None), (None, 9), (None, 1)], ids=str)
@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_mean_field_of_every_rank(ranks: tuple[int | None, int | None], iterations: int) -> None:
    generator = seeded(11)
    arcs = random(generator, BATCH, WORDS, WORDS)
    arcs[torch.rand(arcs.shape, generator=generator) < 0.2] = NEG_INF
    arcs[4, :, 1] = NEG_INF  # a word without a head
    arcs[padding(1, 2)] = math.nan
    triples = [
        None if rank is None else tuple(random(generator, BATCH, WORDS, rank) for _ in range(3)) for rank in ranks
    ]
    for triple in triples:
        for factor in triple or ():
            factor[padding(1)] = math.nan
    assert torch.allclose(
        field("compiled", iterations, arcs, *triples),
        field("torch", iterations, arcs, *triples),
        rtol=1e-11,
        atol=1e-11,
    )


def test_mean_field_of_long_sentences() -> None:
    """More than the widest block of vectors, one factor for two roles, float32."""
    generator, words = seeded(12), 41
    lengths = torch.tensor([41, 17, 1, 24])
    arcs = random(generator, 4, words, words, dtype=torch.float32)
    first, second = (random(generator, 4, words, 12, dtype=torch.float32) for _ in range(2))
    results = []
    for path in ("compiled", "torch"):
        with using(path):
            build = structkd.MeanFieldDependency.from_factors
            results.append(build(arcs, (first, second, second), (second, first, second), lengths).marginals)
    assert results[0].dtype == torch.float32
    assert torch.allclose(*results, rtol=1e-6, atol=1e-7)


# -- threads ----------------------------------------------------------------------------------------------------------


def test_threads_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled.runtime, "_WORTHWHILE", 1)
    generator = seeded(13)
    scores, logits = random(generator, BATCH, WORDS, WORDS, 5), random(generator, BATCH, WORDS, 33)
    heads, relations = labels(33, 5, False)
    triple = tuple(random(generator, BATCH, WORDS, 3) for _ in range(3))

    def everything() -> list[Tensor]:
        normalisers = compiled.relations.normalisers(scores)
        assert normalisers is not None
        loss = distilled("compiled", scores, logits, heads, relations)
        return [*loss, normalisers, field("compiled", 2, scores[..., 0], triple, triple)]

    alone = everything()
    try:
        for count in (2, 3):
            torch.set_num_threads(count)
            together = everything()
            assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    finally:
        torch.set_num_threads(1)
