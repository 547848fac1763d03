"""Differences of large numbers: taken in working precision, rounded once, and right for scores of any size."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from fractions import Fraction

import pytest
import torch
from families import DENSE, FAMILIES, SPANS, Family, agrees, lengths_tensor, seeded
from torch import Tensor

from structkd import StructuredDistribution, structural_kd_loss
from structkd.distributions.checks import TooLargeError

every_family = pytest.mark.parametrize("family", FAMILIES, ids=repr)
SIZES = [1e4, 1e8, 1e37]


def compact(family: Family, structures: list, width: int):
    rows = [family.decoded(y, width) for y in structures]
    return rows if family is SPANS else torch.tensor(rows)


@every_family
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_large_scores(family: Family, size: float) -> None:
    """The best structure has log P near 0, every other one the difference of its score to the best, near enough."""
    if not family.partition_is_sum:
        pytest.skip("the posterior's scores are no sums of those given")
    lengths, width = family.lengths, max(family.lengths) + 1
    scores = family.map(family.scores(seeded(11), len(lengths), width), lambda tensor: (tensor * size).float().double())
    enumerations = family.enumerate(scores, lengths)
    distribution = family.build(family.to(scores, torch.float32), lengths_tensor(lengths))
    many = [n > 1 or (family is not DENSE and family.one_word_events) for n in lengths]  # the labels of one word tie
    certain = torch.zeros(len(lengths))
    one_word = [n > 1 or family.one_word_events for n in lengths]
    assert agrees(distribution.log_prob(distribution.argmax)[one_word], certain[one_word])
    assert agrees(distribution.entropy[many], certain[many])
    assert agrees(distribution.kl(distribution), certain)
    for pick in (1, -1):
        structures = [sorted(e.scores)[pick % len(e.scores)] for e in enumerations]
        expected = [e.scores[y] - max(e.scores.values()) for e, y in zip(enumerations, structures, strict=True)]
        found = distribution.log_prob(torch.stack([family.event(y, width) for y in structures]))
        wanted = torch.tensor(expected, dtype=torch.float64).float()
        assert torch.allclose(found[one_word], wanted[one_word], rtol=1e-5, atol=1e-3)
        if getattr(family, "relations", None) is None:
            found = distribution.log_prob(compact(family, structures, width))
            assert torch.allclose(found[many], wanted[many], rtol=1e-5, atol=1e-3)


@every_family
@pytest.mark.parametrize("size", [1e3, 1e10, 1e20, 3e38], ids=str)
def test_a_loss_is_right_or_refused(family: Family, size: float) -> None:
    """Scores of -size, 0 and size, by which many structures tie: the loss to itself is the entropy."""
    if not family.partition_is_sum or not family.student:
        pytest.skip("it is no student, or the posterior's scores are no sums of those given")
    lengths, width = (3, 2), 3
    drawn = family.scores(seeded(13), len(lengths), width)
    scores = family.map(drawn, lambda tensor: (tensor.round().clamp(-1, 1) * size).float().double())
    distribution = family.build(family.to(scores, torch.float32), lengths_tensor(lengths))
    wanted = [entropy_of(e.scores.values()) for e in family.enumerate(scores, lengths)]
    with contextlib.suppress(*([TooLargeError] * (size > 1e9))):
        found = structural_kd_loss(distribution, distribution, reduction="none").tolist()
        assert found == pytest.approx(wanted, abs=1e-3)
    with contextlib.suppress(*([TooLargeError] * (size > 1e9))):
        assert distribution.entropy.tolist() == pytest.approx(wanted, abs=1e-3)


@every_family
@pytest.mark.parametrize("size", [1e8, 1e20], ids=str)
def test_large_scores_beside_small_ones(family: Family, size: float) -> None:
    """Large scores cancel each other in some structures, and small ones decide: sums of fractions say how."""
    if not family.partition_is_sum:
        pytest.skip("the posterior's scores are no sums of those given")
    lengths, width = (3, 2), 3
    table = torch.tensor([0.0, size, -size, 2 * size, 1.0, -0.5], dtype=torch.float64)
    refused = 0
    for seed in range(3):
        draw = seeded(seed)
        scores = family.map(
            family.scores(draw, len(lengths), width),
            lambda tensor, draw=draw: table[torch.randint(0, len(table), tensor.shape, generator=draw)],
        )
        distribution = family.build(scores, lengths_tensor(lengths))
        wanted = []
        for item, enumeration in enumerate(family.enumerate(scores, lengths)):
            cells = [[(name, item, *cell) for name, cell in family.cells(y)] for y in enumeration.scores]
            sums = [sum(Fraction(score_of(family, scores, *cell)) for cell in each) for each in cells]
            wanted.append(entropy_of(float(each - max(sums)) for each in sums))
        for ask in (entropy, loss_to_itself) if family.student else (entropy,):
            try:
                assert ask(distribution).tolist() == pytest.approx(wanted, abs=1e-4)
            except TooLargeError:
                refused += 1
    assert size > 1e8 or family.name.startswith("nonprojective") or not refused


def entropy(distribution: StructuredDistribution) -> Tensor:
    return distribution.entropy


def loss_to_itself(distribution: StructuredDistribution) -> Tensor:
    return structural_kd_loss(distribution, distribution, reduction="none")


def score_of(family: Family, scores: dict[str, Tensor], name: str, item: int, *cell: int) -> float:
    return scores[name][(item, *cell) if name in family.batched else cell].item()


def entropy_of(scores: Iterable[float]) -> float:
    values = list(scores)
    weights = [math.exp(max(-700.0, value - max(values))) for value in values]
    shares = [weight / sum(weights) for weight in weights]
    return -sum(share * math.log(share) for share in shares if share)


@every_family
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_one_rounding(family: Family, dtype: torch.dtype) -> None:
    """The values of the same scores in float64, rounded; no probability above 1, no divergence below 0."""
    lengths, width = family.lengths, max(family.lengths) + 1
    scores = family.scores(seeded(12), len(lengths), width)
    scores = family.map(scores, lambda tensor: (tensor * 10).to(dtype))
    near = family.map(scores, lambda tensor: (tensor * 1.02).to(dtype))
    low, other = (family.build(s, lengths_tensor(lengths)) for s in (scores, near))
    high, exact = (family.build(family.to(s, torch.float64), lengths_tensor(lengths)) for s in (scores, near))
    gold = compact(family, [sorted(e.scores)[0] for e in family.enumerate(scores, lengths)], width)
    pairs: list[tuple[Tensor, Tensor]] = [
        (low.log_prob(gold), high.log_prob(gold)),
        (low.entropy, high.entropy),
        (low.kl(other), high.kl(exact)),
        (low.cross_entropy(other), high.cross_entropy(exact)),
    ]
    for value, wanted in pairs:
        assert value.dtype == dtype
        assert torch.equal(value, wanted.to(dtype))
    assert (low.log_prob(gold) <= 0).all()
    assert (low.kl(other) >= 0).all()
