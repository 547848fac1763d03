"""Pairs: unknown ones, a user's own, the most specific one, and the sampling estimate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_struct
from families import (
    DENSE,
    FACTORED,
    HEADS,
    MAXENT,
    MEAN_FIELD,
    PROJECTIVE,
    SPANS,
    agrees,
    lengths_tensor,
    random,
    seeded,
)
from torch import Tensor
from torch.distributions import Distribution

import structkd
from structkd import project, register_projection, structural_kd_loss


class Bag(Distribution):
    """A user's teacher: the same unnormalised weights of labels for every word, sampled as tag events."""

    arg_constraints: dict = {}  # noqa: RUF012  (torch's own form)

    def __init__(self, probabilities: Tensor) -> None:
        self.probabilities = probabilities
        super().__init__(probabilities.shape[:1], probabilities.shape[1:], validate_args=False)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        labels = torch.distributions.Categorical(self.probabilities).sample(sample_shape)
        return torch.nn.functional.one_hot(labels, self.probabilities.shape[-1]).to(self.probabilities.dtype)


class RegisteredBag(Bag):
    pass


@register_projection(RegisteredBag, structkd.MaxEnt)
def _bag_to_maxent(teacher: RegisteredBag, student: structkd.MaxEnt) -> Tensor:
    return teacher.probabilities


def test_a_users_teacher() -> None:
    probabilities = random(seeded(1), 2, 3, 4).softmax(-1)
    logits = random(seeded(2), 2, 3, 4).requires_grad_()
    student = structkd.MaxEnt(logits)
    teacher = RegisteredBag(probabilities)
    assert agrees(project(teacher, student), probabilities)
    loss = structural_kd_loss(teacher, student, reduction="none")
    assert agrees(loss, -(probabilities * logits.log_softmax(-1)).sum((1, 2)))
    loss.sum().backward()
    assert agrees(logits.grad, logits.detach().softmax(-1) - probabilities)


def test_the_decorator_returns_the_function() -> None:
    assert callable(_bag_to_maxent)
    probabilities = torch.ones(1, 1, 1)
    assert _bag_to_maxent(RegisteredBag(probabilities), structkd.MaxEnt(torch.zeros(1, 1, 1))) is probabilities


def test_the_most_specific_pair_wins() -> None:
    class Particular(structkd.MaxEnt):
        pass

    class MoreParticular(Particular):
        pass

    class Unrelated(structkd.MaxEnt):
        pass

    @register_projection(Particular, structkd.MaxEnt)
    def _particular(teacher: Particular, student: structkd.MaxEnt) -> Tensor:
        return torch.full_like(student.marginals, 0.25)

    logits = random(seeded(3), 1, 2, 4)
    student = structkd.MaxEnt(torch.zeros(1, 2, 4, dtype=torch.float64))
    for kind, expected in (
        (structkd.MaxEnt, logits.softmax(-1)),
        (Unrelated, logits.softmax(-1)),
        (Particular, torch.full_like(logits, 0.25)),
        (MoreParticular, torch.full_like(logits, 0.25)),
    ):
        assert agrees(project(kind(logits), student), expected)


def test_subclasses_of_both_sides_use_the_pair_of_their_parents() -> None:
    class Chain(structkd.LinearChainCRF):
        pass

    class Words(structkd.MaxEnt):
        pass

    potentials = DENSE.scores(seeded(4), 2, 4)["scores"]
    logits = torch.zeros(2, 4, 3, dtype=torch.float64)
    expected = project(structkd.LinearChainCRF(potentials), structkd.MaxEnt(logits))
    assert agrees(project(Chain(potentials), Words(logits)), expected)


UNKNOWN = [(MAXENT, PROJECTIVE), (PROJECTIVE, MAXENT), (SPANS, HEADS), (DENSE, HEADS)]


@pytest.mark.parametrize(("teacher", "student"), UNKNOWN, ids=repr)
@pytest.mark.parametrize("function", [project, structural_kd_loss], ids=["project", "loss"])
def test_an_unknown_pair(teacher: Any, student: Any, function: Any) -> None:
    """Names both classes, lists what is registered and says how to add a pair."""
    built = teacher.build(teacher.scores(seeded(5), 1, 3)), student.build(student.scores(seeded(6), 1, 3))
    with pytest.raises(NotImplementedError) as refused:
        function(*built)
    message = str(refused.value)
    assert type(built[0]).__name__ in message
    assert type(built[1]).__name__ in message
    assert "register_projection" in message
    assert "HeadSelection" in message
    assert "HeadLabeling" in message


def test_a_users_unknown_class_is_named() -> None:
    with pytest.raises(NotImplementedError, match=r"Bag.*MaxEnt"):
        project(Bag(torch.ones(1, 2, 3) / 3), structkd.MaxEnt(torch.zeros(1, 2, 3)))


@pytest.mark.parametrize("teacher", [HEADS, MEAN_FIELD], ids=repr)
def test_mean_field_is_a_teacher_only(teacher: Any) -> None:
    student = MEAN_FIELD.build(MEAN_FIELD.scores(seeded(7), 1, 3))
    with pytest.raises(NotImplementedError, match="MeanFieldDependency"):
        structural_kd_loss(teacher.build(teacher.scores(seeded(8), 1, 3)), student)


def test_a_mixture_is_a_teacher_only() -> None:
    words = MAXENT.build(MAXENT.scores(seeded(9), 1, 3))
    with pytest.raises(NotImplementedError, match="Mixture"):
        structural_kd_loss(words, structkd.Mixture([words, words]))


def test_samples_estimate_a_pair_without_an_exact_projection() -> None:
    """The estimate is an average of the teacher's samples: unbiased, with the standard error of a mean."""
    probabilities = random(seeded(10), 2, 3, 4).softmax(-1)
    teacher, student = Bag(probabilities), structkd.MaxEnt(torch.zeros(2, 3, 4, dtype=torch.float64))
    draws = 4000
    estimate = project(teacher, student, samples=draws)
    assert estimate.shape == probabilities.shape
    error = (probabilities * (1 - probabilities) / draws).sqrt()
    assert ((estimate - probabilities).abs() < 5 * error).all()
    assert ((estimate * draws) - (estimate * draws).round()).abs().max() < 1e-6


def test_few_samples_are_unbiased() -> None:
    probabilities = random(seeded(11), 1, 2, 3).softmax(-1)
    teacher, student = Bag(probabilities), structkd.MaxEnt(torch.zeros(1, 2, 3, dtype=torch.float64))
    mean = torch.stack([project(teacher, student, samples=2) for _ in range(1500)]).mean(0)
    assert ((mean - probabilities).abs() < 5 * (probabilities * (1 - probabilities) / 3000).sqrt()).all()


def test_an_estimate_serves_as_a_projected_teacher() -> None:
    probabilities = random(seeded(12), 1, 2, 3).softmax(-1)
    logits = random(seeded(13), 1, 2, 3)
    student = structkd.MaxEnt(logits)
    targets = project(Bag(probabilities), student, samples=50)
    assert agrees(structural_kd_loss(targets, student), -(targets * logits.log_softmax(-1)).sum())


def test_padding_of_an_estimate_is_zero() -> None:
    teacher = Bag(random(seeded(14), 2, 3, 4).softmax(-1))
    student = structkd.MaxEnt(torch.zeros(2, 3, 4, dtype=torch.float64), lengths=lengths_tensor([3, 1]))
    assert not project(teacher, student, samples=5)[1, 1:].any()


@pytest.mark.parametrize("samples", [0, -1])
def test_the_number_of_samples_is_positive(samples: int) -> None:
    teacher, student = Bag(torch.ones(1, 2, 3) / 3), structkd.MaxEnt(torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match=str(samples)):
        project(teacher, student, samples=samples)


def test_independent_words_as_a_bigram_tensor() -> None:
    """Case 3: P(prev) P(next), a product of the teacher's label marginals."""
    lengths = lengths_tensor([4, 2, 3])
    teacher = MAXENT.build(MAXENT.scores(seeded(15), 3, 4), lengths)
    for family in (DENSE, FACTORED):
        targets = project(teacher, family.build(family.scores(seeded(16), 3, 4), lengths))
        p = teacher.marginals
        assert agrees(targets, p[:, 1:, :, None] * p[:, :-1, None, :])


def test_targets_are_marginals_of_a_real_distribution_at_every_temperature() -> None:
    for temperature in (0.5, 1.0, 4.0):
        scores, lengths = DENSE.scores(seeded(17), 2, 4), lengths_tensor([4, 3])
        teacher, student = DENSE.build(scores, lengths), DENSE.build(DENSE.scores(seeded(18), 2, 4), lengths)
        assert agrees(
            project(teacher, student, temperature=temperature),
            DENSE.marginals(scores, (4, 3), 4, temperature),
        )


def test_a_users_pair_wins_where_teacher_and_student_could_run_together() -> None:
    """Losses take the projection that `project` takes, for subclasses of ours and of torch-struct's classes alike."""

    class Ours(structkd.LinearChainCRF):
        pass

    class Theirs(torch_struct.LinearChainCRF):
        arg_constraints: dict = {}  # noqa: RUF012  (torch's own form)

    fixed = torch.full((2, 3, 2, 2), 0.25, dtype=torch.float64)
    for kind in (Ours, Theirs):
        register_projection(kind, structkd.LinearChainCRF)(lambda teacher, student: fixed)
        scores = random(seeded(5), 2, 3, 2, 2)
        teacher, student = kind(scores), structkd.LinearChainCRF(random(seeded(6), 2, 3, 2, 2))
        assert agrees(project(teacher, student), fixed)
        expected = student.partition - (fixed * student.log_potentials).sum((1, 2, 3))
        assert agrees(structural_kd_loss(teacher, student, reduction="none"), expected)
