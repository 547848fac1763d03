"""The structural KD loss of every case against the definition, by enumeration."""

from __future__ import annotations

import math

import pytest
import torch
from families import DENSE, FACTORED, MAXENT, Family, agrees, lengths_tensor, seeded
from oracles import Enumeration, cross_entropy, mixture
from pairs import (
    ARC_PAIRS,
    BIO,
    BIOES,
    LONG,
    PAIRS,
    REPRESENTATIVE,
    SAME,
    TEMPERED,
    TO_MAXENT,
    TO_TAGS,
    TYPES,
    Pair,
)

import structkd
from structkd import structural_kd_loss

every_pair = pytest.mark.parametrize("pair", PAIRS, ids=repr)
representative = pytest.mark.parametrize("pair", REPRESENTATIVE, ids=repr)
tempered_pairs = pytest.mark.parametrize(("pair", "temperature"), TEMPERED, ids=repr)
temperatures = pytest.mark.parametrize("temperature", [1.0, 2.5])


@pytest.mark.every_path
@pytest.mark.parametrize(
    ("pair", "dtype", "temperature"),
    [
        *((pair, torch.float64, 2.5) for pair in PAIRS),
        *((pair, torch.float32, 1.0) for pair in REPRESENTATIVE),
    ],
    ids=str,
)
def test_loss(pair: Pair, dtype: torch.dtype, temperature: float) -> None:
    teacher, student = pair.scores(1, dtype)
    loss = structural_kd_loss(*pair.build(teacher, student), temperature=temperature, reduction="none")
    assert loss.shape == (len(pair.lengths),)
    assert loss.dtype == dtype
    assert agrees(loss, pair.loss(teacher, student, temperature))


@tempered_pairs
def test_loss_with_impossible_cells_and_noise_in_the_padding(pair: Pair, temperature: float) -> None:
    teacher, student = pair.scores(2)
    teacher = pair.masked_teacher(teacher, 3)
    if pair.teacher is pair.student:  # the same cells impossible on both sides: nothing is lost
        student = {
            name: tensor.masked_fill(teacher[name].isneginf(), -math.inf) if tensor.is_floating_point() else tensor
            for name, tensor in student.items()
        }
    expected = pair.loss(teacher, student, temperature)
    assert all(math.isfinite(value) for value in expected)
    noise = (math.nan, math.inf) if temperature == 1.0 else (math.inf, math.nan)
    built = pair.build(
        pair.teacher.poisoned(teacher, pair.lengths, noise[0]), pair.student.poisoned(student, pair.lengths, noise[1])
    )
    assert agrees(structural_kd_loss(*built, temperature=temperature, reduction="none"), expected)


@every_pair
def test_a_student_that_forbids_what_the_teacher_allows(pair: Pair) -> None:
    """The loss is +inf for those sentences and right for the others, and no gradient is NaN."""
    teacher, student = pair.scores(4)
    student, _ = pair.student.masked(student, pair.lengths, seeded(5))
    expected = pair.loss(teacher, student)
    assert math.inf in expected
    learning = pair.student.with_grad(student)
    loss = structural_kd_loss(*pair.build(teacher, learning), reduction="none")
    assert agrees(loss, expected)
    loss.sum().backward()
    for name in pair.student.floats(learning):
        assert not learning[name].grad.isnan().any()


@every_pair
def test_a_student_may_forbid_what_the_teacher_never_builds(pair: Pair) -> None:
    """Cells of the student that no structure of the teacher uses: forbidden or not, the loss is finite and right."""
    teacher, student = pair.scores(24)
    teacher = pair.masked_teacher(teacher, 25, rate=0.5)
    targets = pair.targets(teacher, pair.student.enumerate(student, pair.lengths))
    used = pair.student.gradients(student, [target.expectation(pair.student.cells) for target in targets])
    student = {
        name: tensor.masked_fill(used[name] == 0, -math.inf) if name in pair.student.maskable else tensor
        for name, tensor in student.items()
    }
    expected = pair.loss(teacher, student)
    assert all(math.isfinite(value) for value in expected)
    learning = pair.student.with_grad(student)
    loss = structural_kd_loss(*pair.build(teacher, learning), reduction="none")
    assert agrees(loss, expected)
    loss.sum().backward()
    gradients = pair.gradients(teacher, student)
    for name in pair.student.floats(learning):
        assert agrees(learning[name].grad, gradients[name])


@pytest.mark.every_path
@tempered_pairs
def test_projection(pair: Pair, temperature: float) -> None:
    teacher, student = pair.scores(6)
    built = pair.build(teacher, student)
    targets = structkd.project(*built, temperature=temperature)
    assert targets.shape == built[1].marginals.shape
    assert agrees(targets, pair.projected(teacher, student, temperature))
    assert (targets[built[1].marginals == 0] == 0).all()
    assert not targets.requires_grad


@representative
@temperatures
def test_a_teacher_already_projected(pair: Pair, temperature: float) -> None:
    if isinstance(pair.student, type(FACTORED)) and 1 in pair.lengths:
        pair = Pair(pair.teacher, pair.student, LONG)
    teacher, student = pair.scores(7)
    built = pair.build(teacher, student)
    targets = structkd.project(*built, temperature=temperature)
    loss = structural_kd_loss(targets, built[1], temperature=temperature, reduction="none")
    assert agrees(loss, pair.loss(teacher, student, temperature))


@pytest.mark.parametrize("pair", SAME, ids=repr)
@temperatures
def test_distilling_a_distribution_into_itself_costs_its_entropy(pair: Pair, temperature: float) -> None:
    teacher, _ = pair.scores(8)
    learning = pair.student.with_grad(teacher)
    student = pair.build_student(learning)
    loss = structural_kd_loss(student, student, temperature=temperature, reduction="none")
    entropies = [e.entropy for e in pair.teacher.enumerate(teacher, pair.lengths, temperature)]
    assert agrees(loss, [temperature**2 * value for value in entropies])
    loss.sum().backward()
    for name in pair.student.floats(learning):
        assert agrees(learning[name].grad, torch.zeros_like(learning[name]))


@pytest.mark.above_kernels
@representative
def test_reductions(pair: Pair) -> None:
    teacher, student = pair.build(*pair.scores(9))
    each = structural_kd_loss(teacher, student, temperature=2.0, reduction="none")
    total = each.sum()

    def loss(**options: object) -> torch.Tensor:
        return structural_kd_loss(teacher, student, temperature=2.0, **options)

    assert agrees(loss(reduction="sum"), total)
    assert agrees(loss(), total / len(pair.lengths))
    assert agrees(loss(reduction="batchmean"), total / len(pair.lengths))
    assert agrees(loss(reduction="token"), total / sum(pair.lengths))
    for count in (7, torch.tensor(7), 7.0):
        assert agrees(loss(num_items=count), total / 7)
        assert agrees(loss(reduction="token", num_items=count), total / 7)
    assert loss().shape == ()


@pytest.mark.above_kernels
@representative
def test_module(pair: Pair) -> None:
    teacher, student = pair.build(*pair.scores(10))
    module = structkd.StructuralKDLoss(temperature=2.5, reduction="token")
    assert isinstance(module, torch.nn.Module)
    assert agrees(module(teacher, student), structural_kd_loss(teacher, student, temperature=2.5, reduction="token"))
    assert agrees(
        module(teacher, student, num_items=9),
        structural_kd_loss(teacher, student, temperature=2.5, reduction="token", num_items=9),
    )
    assert agrees(structkd.StructuralKDLoss()(teacher, student), structural_kd_loss(teacher, student))


DTYPES = [
    (torch.float32, torch.float64, torch.float64),
    (torch.float64, torch.float32, torch.float32),
    (torch.float32, torch.float16, torch.float32),
    (torch.bfloat16, torch.bfloat16, torch.float32),
]


@pytest.mark.parametrize(
    ("pair", "teacher_dtype", "student_dtype", "loss_dtype"),
    # Every pair with two of them, every neighbour with the others; factored chains, where dtypes matter most, with all.
    [
        (pair, *dtypes)
        for number, pair in enumerate(REPRESENTATIVE)
        for dtypes in (DTYPES if pair.student is FACTORED and pair.teacher is FACTORED else DTYPES[number % 2 :: 2])
    ],
    ids=str,
)
def test_the_dtype_of_the_loss(
    pair: Pair, teacher_dtype: torch.dtype, student_dtype: torch.dtype, loss_dtype: torch.dtype
) -> None:
    """The student's, float32 for half precision, and exact to that for the scores as given."""
    teacher, student = pair.scores(11)
    teacher, student = pair.teacher.to(teacher, teacher_dtype), pair.student.to(student, student_dtype)
    learning = pair.student.with_grad(student)
    loss = structural_kd_loss(*pair.build(teacher, learning), reduction="none")
    assert loss.dtype == loss_dtype
    assert agrees(loss, pair.loss(teacher, student), torch.float32)
    loss.sum().backward()
    expected = pair.gradients(teacher, student)
    for name in pair.student.floats(learning):
        assert learning[name].grad.dtype == student_dtype
        assert agrees(
            learning[name].grad, expected[name], student_dtype if loss_dtype == torch.float32 else torch.float32
        )


@representative
def test_autocast_changes_nothing(pair: Pair) -> None:
    built = pair.build(*pair.scores(12, torch.float32))
    outside = structural_kd_loss(*built, temperature=2.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = structural_kd_loss(*built, temperature=2.0)
    assert inside.dtype == torch.float32
    assert torch.allclose(inside, outside, rtol=1e-6)


def dense_chain_one_word() -> tuple[object, object]:
    teacher = DENSE.build(DENSE.scores(seeded(13), 2, 3), lengths_tensor([1, 3]))
    return teacher, FACTORED.build(FACTORED.scores(seeded(14), 2, 3), lengths_tensor([1, 3]))


def test_a_dense_chain_says_too_little_of_one_word_sentences() -> None:
    teacher, student = dense_chain_one_word()
    with pytest.raises(ValueError, match=r"(?i)one-word|one word|length 1"):
        structural_kd_loss(teacher, student)
    weighted = structkd.Mixture([teacher, student], weights=[0.5, 0.5])
    with pytest.raises(ValueError, match=r"(?i)one-word|one word|length 1"):
        structural_kd_loss(weighted, student)


def test_a_bigram_tensor_says_too_little_of_one_word_sentences() -> None:
    _, student = dense_chain_one_word()
    with pytest.raises(ValueError, match=r"(?i)one-word|one word|length 1"):
        structural_kd_loss(structkd.project(student, student), student)


def test_a_dense_student_of_one_word_is_uniform_whatever_the_teacher() -> None:
    for family in (FACTORED, MAXENT, DENSE):
        lengths = lengths_tensor([1, 3])
        teacher = family.build(family.scores(seeded(15), 2, 3), lengths)
        student = DENSE.build(DENSE.scores(seeded(16), 2, 3), lengths)
        loss = structural_kd_loss(teacher, student, temperature=2.0, reduction="none")
        assert float(loss[0]) == pytest.approx(4 * math.log(3))


@temperatures
def test_a_batch_of_one_word_sentences(temperature: float) -> None:
    for teacher, student in ((FACTORED, FACTORED), (FACTORED, MAXENT), (MAXENT, FACTORED)):
        pair = Pair(teacher, student, (1, 1))
        pair.width = 1
        scores = pair.scores(17)
        loss = structural_kd_loss(*pair.build(*scores), temperature=temperature, reduction="none")
        assert agrees(loss, pair.loss(*scores, temperature))


# ---------------------------------------------------------------------------------------------------------- mixtures
MIXED = [
    (FACTORED, FACTORED, FACTORED),
    (FACTORED, MAXENT, FACTORED),
    (MAXENT, FACTORED, MAXENT),
    *((pair.teacher, pair.teacher, pair.student) for pair in REPRESENTATIVE if pair.lengths == pair.student.ragged),
]


WEIGHTS: list[tuple[list[float] | None, float]] = [([0.3, 0.7], 2.5), (None, 1.0), ([1.0, 0.0], 2.5)]


@pytest.mark.parametrize(
    ("first", "second", "student", "weights", "temperature"),
    # The first with all weights, the others with one of them in turn.
    [
        (*mixed, *weights)
        for number, mixed in enumerate(MIXED)
        for weights in (WEIGHTS if number == 0 else WEIGHTS[number % 3 :][:1])
    ],
    ids=str,
)
def test_mixture(
    first: Family, second: Family, student: Family, weights: list[float] | None, temperature: float
) -> None:
    """The loss to the weighted average of the components' distributions, each at its own temperature."""
    one, two = Pair(first, student), Pair(second, student)
    (a, scores), (b, _) = one.scores(18), two.scores(19)
    enumerations = student.enumerate(scores, one.lengths, temperature)
    shares = weights or [0.5, 0.5]
    targets = [
        mixture([x, y], shares)
        for x, y in zip(
            one.targets(a, enumerations, temperature), two.targets(b, enumerations, temperature), strict=True
        )
    ]
    expected = [temperature**2 * cross_entropy(p, q) for p, q in zip(targets, enumerations, strict=True)]
    teacher = structkd.Mixture([one.build_teacher(a), two.build_teacher(b)], weights=weights)
    built = one.build_student(scores)
    assert agrees(structural_kd_loss(teacher, built, temperature=temperature, reduction="none"), expected)
    projected = structkd.project(teacher, built, temperature=temperature)
    assert agrees(projected, student.events(targets, one.width))


def test_mixture_of_dense_and_factored_chains() -> None:
    pair = Pair(FACTORED, FACTORED, LONG)
    other = Pair(DENSE, FACTORED, LONG)
    (a, scores), (b, _) = pair.scores(20), other.scores(21)
    losses = torch.tensor([pair.loss(a, scores), other.loss(b, scores)], dtype=torch.float64)
    teacher = structkd.Mixture([pair.build_teacher(a), other.build_teacher(b)], weights=torch.tensor([0.25, 0.75]))
    loss = structural_kd_loss(teacher, pair.build_student(scores), reduction="none")
    assert agrees(loss, 0.25 * losses[0] + 0.75 * losses[1])


# --------------------------------------------------------------------------------------------- temperature_mode local
def sharpened(rows: list[list[float]], temperature: float) -> list[list[float]]:
    powered = [[value ** (1 / temperature) for value in row] for row in rows]
    return [[value / sum(row) for value in row] for row in powered]


def local_loss(pair: Pair, teacher: dict, student: dict, temperature: float) -> list[float]:
    """Marginals at T = 1 to the power 1/T, renormalised word by word, against the student's softmax at T."""
    losses = []
    ones = pair.student.enumerate(student, pair.lengths)
    targets = pair.targets(teacher, ones)
    enumerations = pair.student.enumerate(student, pair.lengths, temperature)
    for n, target, q in zip(pair.lengths, targets, enumerations, strict=True):
        p_cells, q_cells = target.expectation(pair.student.event_cells), q.expectation(pair.student.event_cells)
        # A word's cells are those it can choose from: its labels, or the heads of its column.
        by_word = (lambda c: c[0]) if isinstance(pair.student, type(MAXENT)) else (lambda c: c[1])
        total = 0.0
        for word in range(n):
            cells = sorted(c for c in q_cells if by_word(c) == word)
            sharp = sharpened([[p_cells.get(c, 0.0) for c in cells]], temperature)[0]
            total -= sum(s * math.log(q_cells[c]) for s, c in zip(sharp, cells, strict=True) if s > 0)
        losses.append(temperature**2 * total)
    return losses


LOCAL = [*TO_MAXENT, *TO_TAGS, *(pair for pair in ARC_PAIRS if pair.student.name == "head-selection")]


@pytest.mark.parametrize("pair", LOCAL, ids=repr)
def test_local_temperature(pair: Pair) -> None:
    temperature = 2.5
    teacher, student = pair.scores(22)
    loss = structural_kd_loss(
        *pair.build(teacher, student), temperature=temperature, temperature_mode="local", reduction="none"
    )
    assert agrees(loss, local_loss(pair, teacher, student, temperature))


LOCAL_REFUSED = [
    pair for pair in REPRESENTATIVE if "head-selection" not in pair.student.name and pair.student.name != "maxent"
]


@pytest.mark.parametrize("pair", LOCAL_REFUSED, ids=repr)
def test_local_temperature_is_refused_where_the_student_does_not_factorise(pair: Pair) -> None:
    with pytest.raises(ValueError, match="local"):
        structural_kd_loss(*pair.build(*pair.scores(23)), temperature=2.0, temperature_mode="local")


# -------------------------------------------------------------------------------------------------- case 4 by example
def test_span_tags_by_hand() -> None:
    """One word, one type: P(S) = P(B) = sigmoid(score)."""
    scores = torch.tensor([[[[1.3]]]], dtype=torch.float64)
    teacher = structkd.SpanCRF(scores, types=["X"])
    p = torch.sigmoid(scores.flatten()[0])
    bio = structkd.MaxEnt(torch.zeros(1, 1, 3, dtype=torch.float64), labels=["O", "B-X", "I-X"])
    assert agrees(structkd.project(teacher, bio), torch.stack([1 - p, p, 0 * p])[None, None])
    bioes = structkd.MaxEnt(torch.zeros(1, 1, 5, dtype=torch.float64), labels=["O", "B-X", "I-X", "E-X", "S-X"])
    assert agrees(structkd.project(teacher, bioes), torch.stack([1 - p, 0 * p, 0 * p, 0 * p, p])[None, None])


@pytest.mark.parametrize("missing", ["I-PER", "O", "B-LOC"])
def test_a_missing_tag_is_named(missing: str) -> None:
    labels = [tag for tag in BIO if tag != missing]
    teacher = structkd.SpanCRF(torch.zeros(1, 3, 3, 2), types=TYPES)
    student = structkd.MaxEnt(torch.zeros(1, 3, len(labels)), labels=labels)
    with pytest.raises(ValueError, match=missing):
        structural_kd_loss(teacher, student)


def test_span_teachers_need_types_and_labels() -> None:
    spans, tags = torch.zeros(1, 3, 3, 2), torch.zeros(1, 3, len(BIOES))
    with pytest.raises(ValueError, match="types"):
        structural_kd_loss(structkd.SpanCRF(spans), structkd.MaxEnt(tags, labels=BIOES))
    with pytest.raises(ValueError, match="labels"):
        structural_kd_loss(structkd.SpanCRF(spans, types=TYPES), structkd.MaxEnt(tags))


def test_the_oracle_is_the_definition() -> None:
    """Cross entropy of the same structures under both sides, restricted to what both can build."""
    p = Enumeration({(0,): 0.0, (1,): 0.0, (2,): 5.0}).restricted({(0,), (1,)})
    assert cross_entropy(p, Enumeration({(0,): 0.0, (1,): math.log(3)})) == pytest.approx(
        -0.5 * math.log(0.25) - 0.5 * math.log(0.75)
    )
