"""Gradients of the structural KD loss: finite differences, the closed form, and who receives none."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from families import BARE, DENSE, FACTORED, MAXENT, agrees, lengths_tensor, random, seeded
from pairs import CHAINS, FROM_MAXENT, REPRESENTATIVE, TEMPERED, Pair
from torch import Tensor
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import structkd
from structkd import structural_kd_loss

representative = pytest.mark.parametrize("pair", REPRESENTATIVE, ids=repr)
#: The pairs, at one temperature and the other in turn.
in_turn = pytest.mark.parametrize(
    ("pair", "temperature"), [(pair, (2.5, 1.0)[number % 2]) for number, pair in enumerate(REPRESENTATIVE)], ids=repr
)


@pytest.mark.every_path
@pytest.mark.parametrize(("pair", "temperature"), TEMPERED, ids=repr)
def test_closed_form(pair: Pair, temperature: float) -> None:
    """dL/ds = T (P_s - P_t) for every score: for factored chains emissions, transitions, start and end."""
    teacher, student = pair.scores(1)
    learning = pair.student.with_grad(student)
    built = pair.build(teacher, learning)
    structural_kd_loss(*built, temperature=temperature, reduction="sum").backward()
    expected = pair.gradients(teacher, student, temperature)
    for name in pair.student.floats(learning):
        assert agrees(learning[name].grad, expected[name]), name
    if pair.student.score_is_event and temperature == 1.0:
        difference = built[1].marginals - structkd.project(*built)
        assert agrees(learning["scores"].grad, difference)


@in_turn
def test_finite_differences(pair: Pair, temperature: float) -> None:
    pair = Pair(pair.teacher, pair.student, pair.lengths[:2], pair.convert, pair.teacher_options, pair.student_options)
    teacher, student = pair.scores(2)
    built, learning = pair.build_teacher(teacher), pair.student.with_grad(student)
    names = pair.student.floats(learning)

    def loss(*tensors: Tensor) -> Tensor:
        changed = learning | dict(zip(names, tensors, strict=True))
        return structural_kd_loss(built, pair.build_student(changed), temperature=temperature, reduction="none")

    assert gradcheck(loss, tuple(learning[name] for name in names), fast_mode=True)


@representative
def test_noise_in_the_padding_and_impossible_cells_give_clean_gradients(pair: Pair) -> None:
    teacher, student = pair.scores(3)
    teacher = pair.masked_teacher(teacher, 4)
    expected = pair.gradients(teacher, student)
    learning = pair.student.with_grad(pair.student.poisoned(student, pair.lengths, math.nan))
    built = pair.build(pair.teacher.poisoned(teacher, pair.lengths, math.inf), learning)
    structural_kd_loss(*built, reduction="sum").backward()
    for name in pair.student.floats(learning):
        assert agrees(learning[name].grad, expected[name]), name


@representative
def test_every_reduction_scales_the_gradient(pair: Pair) -> None:
    teacher, student = pair.scores(5)
    expected = pair.gradients(teacher, student)
    for options, divisor in (
        ({"reduction": "batchmean"}, len(pair.lengths)),
        ({"reduction": "token"}, sum(pair.lengths)),
        ({"num_items": 5}, 5),
    ):
        learning = pair.student.with_grad(student)
        structural_kd_loss(*pair.build(teacher, learning), **options).backward()
        for name in pair.student.floats(learning):
            assert agrees(learning[name].grad, expected[name] / divisor)


@representative
def test_each_sentence_has_its_own_gradient(pair: Pair) -> None:
    """Weights on the unreduced losses reach the right sentence."""
    teacher, student = pair.scores(6)
    weights = torch.arange(1.0, len(pair.lengths) + 1, dtype=torch.float64)
    expected = pair.gradients(teacher, student)
    learning = pair.student.with_grad(student)
    loss = structural_kd_loss(*pair.build(teacher, learning), reduction="none")
    (loss * weights).sum().backward()
    for name in pair.student.batched:
        if name in pair.student.floats(learning):
            shaped = weights.reshape(-1, *[1] * (learning[name].dim() - 1))
            assert agrees(learning[name].grad, expected[name] * shaped)


@representative
def test_the_teacher_never_receives_a_gradient(pair: Pair) -> None:
    teacher, student = pair.scores(7)
    watched, learning = pair.teacher.with_grad(teacher), pair.student.with_grad(student)
    built = pair.build(watched, learning)
    _ = built[0].partition, built[0].marginals
    structural_kd_loss(*built, temperature=2.0).backward()
    for name in pair.teacher.floats(watched):
        assert watched[name].grad is None
    frozen = pair.build_student(student)
    assert not structural_kd_loss(built[0], frozen).requires_grad
    assert not structkd.project(built[0], frozen).requires_grad


def test_a_projected_teacher_never_receives_a_gradient() -> None:
    logits = random(seeded(8), 1, 3, 3).requires_grad_()
    targets = logits.softmax(-1)
    student = random(seeded(9), 1, 3, 3).requires_grad_()
    structural_kd_loss(targets, structkd.MaxEnt(student)).backward()
    assert logits.grad is None
    assert student.grad is not None


@in_turn
def test_a_graph_that_is_kept_can_be_asked_again(pair: Pair, temperature: float) -> None:
    """Gradients are given away; the second time they are made anew, and neither call changes what the other got."""
    teacher, student = pair.scores(12)
    learning = pair.student.with_grad(student)
    inputs = [learning[name] for name in pair.student.floats(learning)]
    loss = structural_kd_loss(*pair.build(teacher, learning), temperature=temperature, reduction="none")
    weights = torch.linspace(-1.0, 2.0, len(loss), dtype=loss.dtype)
    first = torch.autograd.grad(loss, inputs, weights, retain_graph=True)
    copies = [gradient.clone() for gradient in first]
    second = torch.autograd.grad(loss, inputs, 2.0 * weights, retain_graph=True)
    third = torch.autograd.grad(loss, inputs, torch.ones_like(weights), retain_graph=True)
    expected = pair.gradients(teacher, student, temperature)
    for name, a, b, c, copy in zip(pair.student.floats(learning), first, second, third, copies, strict=True):
        assert torch.equal(a, copy)
        assert torch.allclose(b, 2.0 * a, rtol=1e-9, atol=1e-9)
        assert agrees(c, expected[name])


@representative
def test_a_graph_is_not_asked_again_about_other_scores(pair: Pair) -> None:
    teacher, student = pair.scores(13)
    learning = pair.student.with_grad(student)
    inputs = [learning[name] for name in pair.student.floats(learning)]
    loss = structural_kd_loss(*pair.build(teacher, learning))
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    with torch.no_grad():
        for scores in inputs:
            scores.mul_(2.0)
    try:
        second = torch.autograd.grad(loss, inputs)
    except RuntimeError as error:
        refusal = str(error)
    else:
        refusal = "" if all(map(torch.equal, first, second)) else "none, but other gradients"
    assert refusal == "" or "modified by an inplace operation" in refusal


@representative
def test_a_second_derivative_is_right_or_refused(pair: Pair) -> None:
    """Never silently wrong: the Hessian-vector product agrees with finite differences of the gradient."""
    pair = Pair(pair.teacher, pair.student, pair.lengths[:2], pair.convert, pair.teacher_options, pair.student_options)
    teacher, student = pair.scores(10)
    built = pair.build_teacher(teacher)
    names = pair.student.floats(student)
    direction = {name: random(seeded(11), *student[name].shape) for name in names}

    def gradient(scores: dict[str, Tensor], create_graph: bool = False) -> tuple[list[Tensor], list[Tensor]]:
        learning = pair.student.with_grad(scores)
        inputs = [learning[name] for name in names]
        loss = structural_kd_loss(built, pair.build_student(learning), reduction="sum")
        return inputs, list(torch.autograd.grad(loss, inputs, create_graph=create_graph))

    try:
        inputs, first = gradient(student, create_graph=True)
        total = sum((g * direction[name]).sum() for g, name in zip(first, names, strict=True))
        # A term that is differentiable whatever the gradient is: a detached gradient would slip through here.
        total = total + sum(tensor.sum() for tensor in inputs)
        second = torch.autograd.grad(total, inputs)
    except RuntimeError:
        return
    step = 1e-5
    ahead = gradient({name: t + step * direction[name] if name in names else t for name, t in student.items()})[1]
    behind = gradient({name: t - step * direction[name] if name in names else t for name, t in student.items()})[1]
    for value, plus, minus in zip(second, ahead, behind, strict=True):
        assert torch.allclose(value - 1, (plus - minus) / (2 * step), atol=1e-6)


@pytest.mark.parametrize(
    ("pair", "mode"),
    [
        *((pair, torch.inference_mode) for pair in REPRESENTATIVE),
        *((pair, torch.no_grad) for pair in REPRESENTATIVE[::3]),
    ],
)
def test_a_teacher_made_without_gradients(pair: Pair, mode: Any) -> None:
    """The usual teacher: scores, distribution and all read under no_grad or inference_mode."""
    teacher, student = pair.scores(12)
    expected_loss, expected = pair.loss(teacher, student), pair.gradients(teacher, student)
    with mode():
        built = pair.build_teacher(pair.teacher.map(teacher, lambda tensor: tensor * 1.0))
        _ = built.partition, built.marginals, built.entropy
    learning = pair.student.with_grad(student)
    distribution = pair.build_student(learning)
    with mode():
        inside = structural_kd_loss(built, distribution, reduction="none")
        targets = structkd.project(built, distribution)
        _ = distribution.partition, distribution.marginals
    assert agrees(inside, expected_loss)
    assert not inside.requires_grad
    loss = structural_kd_loss(built, distribution, reduction="none")
    assert agrees(loss, expected_loss)
    loss.sum().backward()
    for name in pair.student.floats(learning):
        assert agrees(learning[name].grad, expected[name])
    if 1 not in pair.lengths or pair.student not in (FACTORED, BARE):
        assert agrees(structural_kd_loss(targets, distribution, reduction="none"), expected_loss)


class Largest(TorchDispatchMode):
    """Records the largest number of elements that any operation's result occupies."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // leaf.element_size())
        return result


@pytest.mark.parametrize(
    "pair",
    [pair for pair in (*CHAINS, *FROM_MAXENT, Pair(FACTORED, MAXENT)) if DENSE not in (pair.teacher, pair.student)],
    ids=repr,
)
def test_the_factored_form_never_builds_the_bigram_tensor(pair: Pair) -> None:
    batch, n, c = 3, 24, 24
    generator = seeded(13)

    def tensors(family: Any) -> dict[str, Tensor]:
        if family is MAXENT:
            return {"scores": random(generator, batch, n, c)}
        scores = {"emissions": random(generator, batch, n, c), "transitions": random(generator, c, c)}
        if family.ends:
            scores |= {"start": random(generator, c), "end": random(generator, c)}
        return scores

    lengths = lengths_tensor([n, 1, 9])
    teacher, learning = tensors(pair.teacher), pair.student.with_grad(tensors(pair.student))
    with Largest() as largest:
        built = pair.teacher.build(teacher, lengths), pair.student.build(learning, lengths)
        structural_kd_loss(*built, temperature=2.0).backward()
        structural_kd_loss(structkd.Mixture([built[0], built[0]]), built[1], temperature=2.0).backward()
        _ = built[1].partition, built[1].entropy, built[1].decode()
    assert largest.elements < batch * (n - 1) * c * c
    assert all(learning[name].grad is not None for name in learning)
