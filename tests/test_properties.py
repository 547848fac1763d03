"""Properties that hold for any scores, found or refuted by hypothesis."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from families import FAMILIES, HEADS, MAXENT, MEAN_FIELD, TREES, Family, agrees, lengths_tensor, seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import PAIRS, REPRESENTATIVE, SAME, Pair

import structkd
from structkd import structural_kd_loss

every_family = pytest.mark.parametrize("family", FAMILIES, ids=repr)
representative = pytest.mark.parametrize("pair", REPRESENTATIVE, ids=repr)
seeds = st.integers(0, 2**31)
scales = st.sampled_from([0.0, 0.1, 1.0, 10.0, 100.0])
temperatures = st.sampled_from([0.3, 1.0, 2.5, 10.0])


@st.composite
def ragged(draw: Any, family: Family, longest: int = 7) -> tuple[list[int], int]:
    """Lengths of a batch and its width; longer than enumeration reaches."""
    lengths = draw(st.lists(st.integers(1, longest), min_size=1, max_size=4))
    return lengths, max(max(lengths) + draw(st.integers(0, 2)), 2)


def drawn(family: Family, seed: int, scale: float, batch: int, width: int) -> dict:
    return family.map(family.scores(seeded(seed), batch, width), lambda tensor: tensor * scale)


@every_family
@given(data=st.data(), seed=seeds, scale=scales)
def test_padding_changes_nothing(family: Family, data: Any, seed: int, scale: float) -> None:
    lengths, width = data.draw(ragged(family))
    wide = drawn(family, seed, scale, len(lengths), width + 2)
    small = family.scores(seeded(0), len(lengths), width)
    narrow = {
        name: tensor[tuple(slice(size) for size in small[name].shape)] if name in family.batched else tensor
        for name, tensor in wide.items()
    }
    one, two = (family.build(scores, lengths_tensor(lengths)) for scores in (narrow, wide))
    assert agrees(one.partition, two.partition)
    assert agrees(one.marginals, two.marginals[tuple(slice(size) for size in one.marginals.shape)])
    assert agrees(one.marginals.sum(), two.marginals.sum())
    assert agrees(one.entropy, two.entropy)


@every_family
@given(data=st.data(), seed=seeds, scale=scales)
def test_permuting_the_batch_permutes_the_result(family: Family, data: Any, seed: int, scale: float) -> None:
    lengths, width = data.draw(ragged(family))
    order = torch.tensor(data.draw(st.permutations(range(len(lengths)))))
    scores = drawn(family, seed, scale, len(lengths), width)
    one = family.build(scores, lengths_tensor(lengths))
    two = family.build(family.permuted(scores, order), lengths_tensor(lengths)[order])
    assert agrees(one.partition[order], two.partition)
    assert agrees(one.marginals[order], two.marginals)


@every_family
@given(data=st.data(), seed=seeds, constant=st.floats(-500, 500))
def test_a_constant_added_to_potentials_changes_nothing(family: Family, data: Any, seed: int, constant: float) -> None:
    if not family.shiftable:
        pytest.skip("structures differ in their number of parts")
    lengths, width = data.draw(ragged(family))
    scores = drawn(family, seed, 1.0, len(lengths), width)
    one = family.build(scores, lengths_tensor(lengths))
    two = family.build(family.shifted(scores, constant), lengths_tensor(lengths))
    assert torch.allclose(one.marginals, two.marginals, atol=1e-8)


@every_family
@given(data=st.data(), seed=seeds, scale=scales)
def test_marginals_are_probabilities_and_entropy_is_not_negative(
    family: Family, data: Any, seed: int, scale: float
) -> None:
    lengths, width = data.draw(ragged(family))
    distribution = family.build(drawn(family, seed, scale, len(lengths), width), lengths_tensor(lengths))
    assert (distribution.marginals >= -1e-9).all()
    assert (distribution.marginals <= 1 + 1e-9).all()
    assert (distribution.entropy >= -1e-7).all()
    best = distribution.log_prob(distribution.argmax)
    informative = torch.tensor([n > 1 or family.one_word_events for n in lengths])
    assert (best[informative] >= distribution.log_prob(distribution.sample((3,)))[:, informative] - 1e-7).all()


@every_family
@given(data=st.data(), seed=seeds)
def test_entropy_kl_and_cross_entropy_add_up(family: Family, data: Any, seed: int) -> None:
    lengths, width = data.draw(ragged(family))
    scores = drawn(family, seed, 1.0, len(lengths), width)
    other = family.map(scores, lambda tensor: tensor * -0.5 + tensor.flip(0))
    p, q = (family.build(s, lengths_tensor(lengths)) for s in (scores, other))
    assert agrees(p.cross_entropy(q), p.entropy + p.kl(q))
    assert (p.kl(q) >= -1e-8).all()
    assert agrees(p.cross_entropy(p), p.entropy)


@pytest.mark.parametrize("pair", SAME, ids=repr)
@given(data=st.data(), seed=seeds, scale=scales, temperature=temperatures)
def test_kd_of_a_distribution_to_itself_is_its_entropy(
    pair: Pair, data: Any, seed: int, scale: float, temperature: float
) -> None:
    family = pair.student
    lengths, width = data.draw(ragged(family))
    scores = drawn(family, seed, scale, len(lengths), width)
    p = pair_build(pair, scores, lengths, teacher=True)
    cooled = pair_build(pair, family.map(scores, lambda tensor: tensor / temperature), lengths, teacher=True)
    loss = structural_kd_loss(p, p, temperature=temperature, reduction="none")
    assert torch.allclose(loss, temperature**2 * cooled.entropy, rtol=1e-6, atol=1e-6)


def pair_build(pair: Pair, scores: dict, lengths: list[int], teacher: bool) -> Any:
    family, options = (pair.teacher, pair.teacher_options) if teacher else (pair.student, pair.student_options)
    return family.build(scores, lengths_tensor(lengths), **options)


def is_within(pair: Pair) -> bool:
    """Whether every teacher structure is a student structure of its own, one to one."""
    if pair.convert is not None:
        return True
    return all(set(pair.teacher.structures(n)) <= set(pair.student.structures(n)) for n in range(1, 4))


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if is_within(pair)], ids=repr)
@settings(max_examples=5)
@given(seed=seeds, scale=scales, temperature=temperatures)
def test_the_loss_is_never_below_the_teachers_entropy(pair: Pair, seed: int, scale: float, temperature: float) -> None:
    """And the difference is KL, which is zero only for equal distributions."""
    lengths = [n for n in (3, 1, 5, 2) if n > 1 or 1 in pair.lengths]
    teacher, student = (drawn(f, seed + i, scale, len(lengths), 6) for i, f in enumerate((pair.teacher, pair.student)))
    p, q = pair_build(pair, teacher, lengths, True), pair_build(pair, student, lengths, False)
    cooled = pair_build(pair, pair.teacher.map(teacher, lambda tensor: tensor / temperature), lengths, True)
    loss = structural_kd_loss(p, q, temperature=temperature, reduction="none")
    assert (loss >= temperature**2 * cooled.entropy - 1e-6).all()


@representative
@settings(max_examples=5)
@given(seed=seeds, weight=st.floats(0, 1), temperature=temperatures)
def test_the_loss_is_linear_in_a_mixture(pair: Pair, seed: int, weight: float, temperature: float) -> None:
    (a, scores), (b, _) = pair.scores(seed), pair.scores(seed + 1)
    student, one, two = pair.build_student(scores), pair.build_teacher(a), pair.build_teacher(b)
    both = structkd.Mixture([one, two], weights=[weight, 1 - weight])
    first, second, mixed = (
        structural_kd_loss(t, student, temperature=temperature, reduction="none") for t in (one, two, both)
    )
    assert agrees(mixed, weight * first + (1 - weight) * second)


@representative
@settings(max_examples=5)
@given(seed=seeds, order_seed=seeds, temperature=temperatures)
def test_permuting_the_batch_permutes_the_loss(pair: Pair, seed: int, order_seed: int, temperature: float) -> None:
    order = torch.randperm(len(pair.lengths), generator=seeded(order_seed))
    teacher, student = pair.scores(seed)
    loss = structural_kd_loss(*pair.build(teacher, student), temperature=temperature, reduction="none")
    lengths = lengths_tensor(pair.lengths)[order]
    built = (
        pair.teacher.build(pair.teacher.permuted(teacher, order), lengths, **pair.teacher_options),
        pair.student.build(pair.student.permuted(student, order), lengths, **pair.student_options),
    )
    assert agrees(structural_kd_loss(*built, temperature=temperature, reduction="none"), loss[order])


@representative
@settings(max_examples=5)
@given(seed=seeds, value=st.sampled_from([math.nan, math.inf, -math.inf, 1e20]), temperature=temperatures)
def test_padding_does_not_change_the_loss(pair: Pair, seed: int, value: float, temperature: float) -> None:
    teacher, student = pair.scores(seed)
    clean = structural_kd_loss(*pair.build(teacher, student), temperature=temperature, reduction="none")
    dirty = pair.build(
        pair.teacher.poisoned(teacher, pair.lengths, value), pair.student.poisoned(student, pair.lengths, value)
    )
    assert agrees(structural_kd_loss(*dirty, temperature=temperature, reduction="none"), clean)


@representative
@settings(max_examples=5)
@given(seed=seeds, constant=st.floats(-50, 50), temperature=temperatures)
def test_a_constant_added_to_either_side_does_not_change_the_loss(
    pair: Pair, seed: int, constant: float, temperature: float
) -> None:
    teacher, student = pair.scores(seed)
    loss = structural_kd_loss(*pair.build(teacher, student), temperature=temperature, reduction="none")
    shifted = pair.build(pair.teacher.shifted(teacher, constant), pair.student.shifted(student, -constant))
    assert agrees(structural_kd_loss(*shifted, temperature=temperature, reduction="none"), loss)


@settings(max_examples=8)
@given(seed=seeds, scale=scales)
def test_the_samples_of_trees_are_trees(seed: int, scale: float) -> None:
    for family in TREES:
        n = 5
        distribution = family.build(drawn(family, seed, scale, 1, n))
        for event in [*distribution.sample((4,)), *distribution.topk(3), distribution.argmax]:
            assert family.structure_of(event[0], n) is not None


def test_a_gradient_step_gets_closer_to_the_teacher() -> None:
    for teacher, student in ((MEAN_FIELD, HEADS), (MAXENT, MAXENT), (HEADS, TREES[0]), (TREES[2], TREES[1])):
        pair = Pair(teacher, student, (3, 2))
        a, scores = pair.scores(3)
        built, learning = pair.build_teacher(a), pair.student.with_grad(scores)
        before = structural_kd_loss(built, pair.build_student(learning))
        before.backward()
        moved = {"scores": (learning["scores"] - 0.1 * learning["scores"].grad).detach()}
        assert structural_kd_loss(built, pair.build_student(moved)) < before
