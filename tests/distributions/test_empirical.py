"""Weighted structures: their constructors, weights, and conditioning. Counting itself is compared in test_cells."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from families import agrees, random, seeded

import structkd
from structkd import Empirical, project
from structkd.projections.empirical import buildable

pytestmark = pytest.mark.above_kernels

TAGS = ["O", "B-X", "I-X"]
LABELS = torch.tensor([[[0, 1, 2], [2, 2, 2], [0, 1, 2], [1, 0, 0]], [[1, 9, 9], [0, 9, 9], [-100, -1, 9], [0, 5, 5]]])
WEIGHTS = torch.tensor([[1.0, 2.0, 2.0, 0.0], [1.0, 1.0, 0.0, 2.0]], dtype=torch.float64)
LENGTHS = torch.tensor([3, 1])


def test_equal_structures_add_up_before_the_temperature() -> None:
    teacher = Empirical.from_labels(LABELS, WEIGHTS, LENGTHS)
    assert teacher.decode().tolist() == [[0, 1, 2], [0, -1, -1]]
    shares = [[0.6, 0.4], [0.75, 0.25]]
    assert agrees(teacher.entropy, [-sum(p * math.log(p) for p in row) for row in shares])
    roots = [[p**0.5 / sum(q**0.5 for q in row) for p in row] for row in shares]
    found = teacher.tempered(2.0).weights
    assert agrees(found[:, :2], torch.tensor([roots[0], roots[1][::-1]], dtype=torch.float64))
    assert not found[:, 2:].any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_integers_of_every_kind_and_more_padding_than_the_student(dtype: torch.dtype) -> None:
    labels = LABELS.clamp_min(0).to(dtype)
    for words in (3, 5):
        student = structkd.MaxEnt(torch.zeros(2, words, 3), LENGTHS)
        targets = project(Empirical.from_labels(labels, WEIGHTS, LENGTHS), student)
        assert agrees(targets[0, :3], torch.tensor([[0.6, 0.0, 0.4], [0, 0.6, 0.4], [0, 0, 1]]))
        assert agrees(targets[1, 0], torch.tensor([0.75, 0.25, 0.0]))
        assert not targets[1, 1:].any()


def test_structures_that_the_student_cannot_build_are_left_out() -> None:
    """A cycle, a tree, a tree with three roots, a tree; and of four words a tree whose arcs cross."""
    heads = torch.tensor([[[1, 2, 0, 0], [0, 0, 0, 0], [0, 1, 2, 3], [2, 3, 2, 2]]])
    teacher, scores = Empirical.from_heads(heads), torch.zeros(1, 4, 4)
    for student, expected in (
        (structkd.HeadSelection(scores), [True, True, True, True]),
        (structkd.NonProjectiveDependencyCRF(scores, multiroot=True), [False, True, True, True]),
        (structkd.NonProjectiveDependencyCRF(scores), [False, True, False, True]),
        (structkd.DependencyCRF(scores), [False, True, False, False]),
    ):
        assert buildable(teacher, student).tolist() == [expected]
    only = Empirical.from_heads(heads[:, [0, 3]].repeat(2, 1, 1))
    with pytest.raises(ValueError, match=r"item\(s\) \[0, 1\].*DependencyCRF cannot build"):
        project(only, structkd.DependencyCRF(scores.expand(2, -1, -1)))


def test_overlapping_spans_teach_no_flat_student() -> None:
    nested = [(0, 1, "X"), (1, 1, "X")]
    teacher = Empirical.from_spans([[nested, [(0, 0, 0)]]], [2], ["X"])
    for student, expected in (
        (structkd.SpanCRF(torch.zeros(1, 2, 2, 1), types=["X"]), [[[[1.0], [0.0]], [[0.0], [0.0]]]]),
        (structkd.MaxEnt(torch.zeros(1, 2, 3), labels=TAGS), [[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]]),
    ):
        assert project(teacher, student).tolist() == expected
    with pytest.raises(ValueError, match="no structure left"):
        project(Empirical.from_spans([[nested]], [2], ["X"]), student)


def test_sentences_with_different_numbers_of_span_sets() -> None:
    teacher = Empirical.from_spans([[[], [(0, 0, 0)], []], [[(1, 1, 0)]]], [1, 2], ["X"], [[1, 1, 2], [5]])
    targets = project(teacher, structkd.SpanCRF(torch.zeros(2, 2, 2, 1), torch.tensor([1, 2]), types=["X"]))
    assert targets.nonzero().tolist() == [[0, 0, 0, 0], [1, 1, 1, 0]]
    assert targets[0, 0, 0, 0] == 0.25
    assert teacher.decode() == [[], [(1, 1, 0)]]


@pytest.mark.parametrize("k", [1, 3, 40])
@pytest.mark.parametrize("weighted", [False, True])
def test_topk_is_structural_distillation_from_it(k: int, weighted: bool) -> None:
    lengths = torch.tensor([3, 1])
    teacher = structkd.LinearChainCRF.from_scores(random(seeded(1), 2, 3, 3), random(seeded(2), 3, 3), lengths=lengths)
    student = structkd.MaxEnt(random(seeded(3), 2, 3, 3), lengths)
    best = Empirical.from_topk(teacher, k, weighted)
    for source in (best, Empirical.from_topk(best, k, weighted)):
        loss = structkd.structural_kd_loss(source, student, 2.5, reduction="none")
        assert agrees(structkd.topk_kd_loss(teacher, student, 2.5, reduction="none", k=k, weighted=weighted), loss)


def test_a_mixture_with_annotations() -> None:
    student = structkd.MaxEnt(random(seeded(4), 1, 2, 3), labels=TAGS)
    tagger = structkd.MaxEnt(random(seeded(5), 1, 2, 3), labels=TAGS)
    spans = Empirical.from_spans([[[(0, 1, "X")]]], [2], ["X"])
    targets = project(structkd.Mixture([tagger, spans], [0.25, 0.75]), student)
    assert agrees(targets, 0.25 * tagger.marginals + 0.75 * project(spans, student))


def test_head_labels_share_arcs_and_uncovered_is_the_rest() -> None:
    heads = torch.tensor([[[0, 0], [1, 1], [0, 1]]])
    relations = torch.tensor([[[0, 1], [1, 0], [0, 0]]])
    named = torch.tensor([[[0, 0, 1], [0, -1, 0]]])
    teacher = Empirical.from_heads(heads, relations, torch.tensor([[1, 1, 2]]))
    student = structkd.HeadLabeling(torch.zeros(1, 2, 3), named)
    assert agrees(project(teacher, student), torch.tensor([[[0.375, 0.375, 0.25], [0.5, 0.0, 0.5]]]))
    assert agrees(structkd.uncovered(teacher, student), torch.tensor([[0.0, 0.75]]))
    student = structkd.HeadLabeling(torch.zeros(1, 2, 3), named, torch.tensor([0, 1, 1]))
    assert agrees(project(teacher, student), torch.tensor([[[0.75, 0.0, 0.25], [0.0, 0.0, 1.0]]]))
    assert agrees(structkd.uncovered(teacher, student), torch.tensor([[0.0, 0.75]]))


def test_the_standard_error_of_samples() -> None:
    class Coin(torch.distributions.Distribution):
        arg_constraints: dict = {}  # noqa: RUF012  (torch's own form)

        def sample(self, sample_shape: Any = torch.Size()) -> torch.Tensor:  # noqa: B008
            return torch.randint(2, (*sample_shape, 1, 1), generator=seeded(6))

    student = structkd.MaxEnt(torch.zeros(1, 1, 2, dtype=torch.float64))
    mean, error = project(Coin(torch.Size([1])), student, samples=50, standard_error=True)
    draws = Coin().sample(torch.Size([50])).double()
    assert agrees(mean[0, 0, 1], draws.mean())
    assert agrees(error[0, 0, 1], draws.std() / 50**0.5)
    exact = project(student, student, samples=50, standard_error=True)
    assert agrees(exact[0], student.marginals)
    assert not exact[1].any()
    with pytest.raises(ValueError, match="at least 2"):
        project(Coin(torch.Size([1])), student, samples=1, standard_error=True)


def test_an_empty_batch() -> None:
    teacher = Empirical.from_labels(torch.zeros(0, 2, 3, dtype=torch.long))
    student = structkd.MaxEnt(torch.zeros(0, 3, 4, requires_grad=True))
    loss = structkd.structural_kd_loss(teacher, student, 2.0)
    loss.backward()
    assert loss == 0
    assert teacher.decode().shape == (0, 3)


LABELLED = partial(Empirical.from_labels, LABELS)
ONE = torch.zeros(1, 1, 2, dtype=torch.long)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (partial(LABELLED, WEIGHTS.neg(), LENGTHS), ValueError, "structure 0 of batch item 0 has -1"),
        (partial(LABELLED, WEIGHTS * 0, LENGTHS), ValueError, r"item\(s\) \[0, 1\] are all zero"),
        (partial(LABELLED, WEIGHTS / 0, LENGTHS), ValueError, "finite"),
        (partial(LABELLED, WEIGHTS[:, :2], LENGTHS), ValueError, r"shape \[2, 4\]"),
        (partial(LABELLED, "heavy", LENGTHS), TypeError, "weights"),
        (partial(LABELLED, None, LENGTHS), ValueError, "word 0 of structure 2 of batch item 1 has -100"),
        (partial(LABELLED, WEIGHTS, LENGTHS, ["O", "X"]), ValueError, r"in 0..1.*has 2"),
        (partial(LABELLED, WEIGHTS, torch.tensor([4, 1])), ValueError, "lengths"),
        (partial(Empirical.from_labels, LABELS[0]), ValueError, "unsqueeze"),
        (partial(Empirical.from_labels, LABELS.float()), TypeError, "float32"),
        (partial(Empirical.from_labels, torch.zeros(1, 0, 2, dtype=torch.long)), ValueError, "K = 0"),
        (partial(Empirical.from_heads, ONE + 2), ValueError, r"heads must be in 0..1"),
        (partial(Empirical.from_heads, ONE, ONE - 1), ValueError, "relations must be at least 0"),
        (partial(Empirical.from_heads, ONE, ONE[..., :1]), ValueError, "shape of the heads"),
        (partial(Empirical.from_spans, [[[(0, 2, "X")]]], [2], ["X"]), ValueError, "2 words"),
        (partial(Empirical.from_spans, [[[(0, 1, "Y")]]], [2], ["X"]), ValueError, "'Y'"),
        (partial(Empirical.from_spans, [[[(0, 1)]]], [2], ["X"]), TypeError, "must be .first word, last word, type."),
        (partial(Empirical.from_spans, [[]], [2], ["X"]), ValueError, "one empty set"),
        (partial(Empirical.from_spans, [[[]]], [2], []), ValueError, "at least one"),
        (partial(Empirical.from_spans, [[[]], [[]]], [2], ["X"]), ValueError, "lengths"),
        (
            partial(Empirical.from_topk, structkd.Mixture([structkd.MaxEnt(torch.zeros(1, 1, 2))]), 2),
            NotImplementedError,
            "Mixture",
        ),
    ],
)
def test_refusals(build: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize(
    ("teacher", "student", "error", "message"),
    [
        (Empirical.from_labels(ONE + 3), structkd.MaxEnt(torch.zeros(1, 2, 3)), ValueError, "label 3.*3 labels"),
        (Empirical.from_labels(ONE), structkd.HeadSelection(torch.zeros(1, 2, 2)), NotImplementedError, "from_heads"),
        (Empirical.from_heads(ONE), structkd.MaxEnt(torch.zeros(1, 2, 2)), NotImplementedError, "from_labels"),
        (Empirical.from_heads(ONE), structkd.HeadSelection(torch.zeros(1, 2, 2, 3)), ValueError, "has none"),
        (Empirical.from_heads(ONE, ONE + 3), structkd.HeadSelection(torch.zeros(1, 2, 2, 3)), ValueError, "relation 3"),
        (Empirical.from_labels(ONE), structkd.MaxEnt(torch.zeros(1, 3, 2)), ValueError, "lengths"),
        (Empirical.from_labels(ONE), structkd.MaxEnt(torch.zeros(2, 2, 2)), ValueError, "batch shape"),
        (
            Empirical.from_labels(ONE, labels=["O", "X"]),
            structkd.SpanCRF(torch.zeros(1, 2, 2, 1), types=["X"]),
            *(ValueError, "'X' is not a tag"),
        ),
        (structkd.MaxEnt(torch.zeros(1, 2, 3)), Empirical.from_labels(ONE), NotImplementedError, "Empirical"),
    ],
)
def test_pairs_that_do_not_fit(teacher: Any, student: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        structkd.structural_kd_loss(teacher, student)
