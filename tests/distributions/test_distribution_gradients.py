"""Derivatives of partition and marginals: the first is the marginals, the second the covariance of the parts."""

from __future__ import annotations

import math

import pytest
import torch
from families import (
    FAMILIES,
    HEADS,
    NONPROJECTIVE,
    NONPROJECTIVE_MULTI,
    PROJECTIVE,
    PROJECTIVE_MULTI,
    Family,
    agrees,
    lengths_tensor,
    seeded,
)
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

every_family = pytest.mark.parametrize("family", FAMILIES, ids=repr)
SMALL = (3, 1)


@every_family
@pytest.mark.parametrize("quantity", ["partition", "marginals"])
def test_derivatives_against_finite_differences(family: Family, quantity: str) -> None:
    scores = family.with_grad(family.scores(seeded(1), len(SMALL), 4))
    names = family.floats(scores)

    def read(*tensors: Tensor) -> Tensor:
        changed = scores | dict(zip(names, tensors, strict=True))
        return getattr(family.build(changed, lengths_tensor(SMALL)), quantity)

    inputs = tuple(scores[name] for name in names)
    assert gradcheck(read, inputs, fast_mode=True)
    assert gradgradcheck(read, inputs, fast_mode=True)


@every_family
@pytest.mark.parametrize("masked", [False, True], ids=["finite", "impossible"])
def test_the_gradient_of_the_partition_is_the_expected_count_of_every_cell(family: Family, masked: bool) -> None:
    if not family.partition_is_sum:
        pytest.skip("the partition of a mean-field posterior is no sum over its scores")
    scores = family.scores(seeded(2), len(family.lengths), max(family.lengths) + 1)
    if masked:
        scores, _ = family.masked(scores, family.lengths, seeded(3))
    counts = [e.expectation(family.cells) for e in family.enumerate(scores, family.lengths)]
    expected = family.gradients(scores, counts)
    learning = family.with_grad(scores)
    family.build(learning, lengths_tensor(family.lengths)).partition.sum().backward()
    for name in family.floats(scores):
        assert agrees(learning[name].grad, expected[name]), name


@every_family
def test_gradients_of_the_entropy(family: Family) -> None:
    scores = family.with_grad(family.scores(seeded(4), len(SMALL), 4))
    names = family.floats(scores)

    def read(*tensors: Tensor) -> Tensor:
        return family.build(scores | dict(zip(names, tensors, strict=True)), lengths_tensor(SMALL)).entropy

    assert gradcheck(read, tuple(scores[name] for name in names), fast_mode=True)


@every_family
def test_derivatives_with_impossible_cells_and_noise_in_the_padding(family: Family) -> None:
    """No NaN reaches a gradient, first or second order, and cells that are ignored get exactly 0."""
    scores, _ = family.masked(
        family.scores(seeded(5), len(family.lengths), max(family.lengths) + 1), family.lengths, seeded(6)
    )
    clean, dirty = family.with_grad(scores), family.with_grad(family.poisoned(scores, family.lengths, math.nan))
    for tensors in (clean, dirty):
        distribution = family.build(tensors, lengths_tensor(family.lengths))
        weight = torch.randn(distribution.marginals.shape, generator=seeded(7), dtype=torch.float64)
        (distribution.partition.sum() + (distribution.marginals * weight).sum() + distribution.entropy.sum()).backward()
    padding = family.padding(scores, family.lengths)
    for name in family.floats(scores):
        assert clean[name].grad is not None
        assert clean[name].grad.isfinite().all()
        assert agrees(dirty[name].grad, clean[name].grad)
        if name in padding:
            assert (dirty[name].grad[padding[name]] == 0).all()


@pytest.mark.parametrize("family", [HEADS, PROJECTIVE, PROJECTIVE_MULTI, NONPROJECTIVE, NONPROJECTIVE_MULTI], ids=repr)
@pytest.mark.parametrize("bonus", [0.0, 30.0, 300.0])
def test_second_derivatives_are_the_covariance_of_the_arcs(family: Family, bonus: float) -> None:
    """Also where two words prefer each other so much that the cycle they may not form outweighs every tree."""
    n = 4
    scores = family.scores(seeded(8), 1, n)
    scores["scores"][0, 0, 1] += bonus
    scores["scores"][0, 1, 0] += bonus
    enumeration = family.enumerate(scores, [n])[0]
    weight = torch.randn(n, n, generator=seeded(9), dtype=torch.float64)
    mean = enumeration.expectation(family.cells)
    covariance = torch.zeros(n, n, dtype=torch.float64)
    for structure, p in enumeration.probabilities.items():
        cells = family.cells(structure)
        centred = sum(float(weight[index]) for _, index in cells) - sum(
            float(weight[index]) * value for (_, index), value in mean.items()
        )
        for _, index in cells:
            covariance[index] += p * centred
    learning = family.with_grad(scores)
    (family.build(learning).marginals[0] * weight).sum().backward()
    assert torch.allclose(learning["scores"].grad[0], covariance, atol=1e-7)
