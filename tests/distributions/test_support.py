"""Which structures are possible: random masks, with and without anything left, against enumeration."""

from __future__ import annotations

import math

import pytest
import torch
from families import DENSE, FACTORED, FAMILIES, HEADS, MAXENT, TREES, TREES_LABELLED, Family, agrees, seeded

MASKED = [DENSE, FACTORED, MAXENT, HEADS, *TREES, *TREES_LABELLED]


def thinned(family: Family, seed: int, n: int, rate: float) -> dict[str, torch.Tensor]:
    """Scores with a share of the cells impossible; whatever remains remains."""
    generator = seeded(seed)
    scores = family.scores(generator, 1, n)
    return {
        name: tensor.masked_fill(torch.rand(tensor.shape, generator=generator) < rate, -math.inf)
        for name, tensor in scores.items()
    }


@pytest.mark.parametrize("family", MASKED, ids=repr)
@pytest.mark.parametrize("rate", [0.3, 0.5, 0.7])
def test_sparse_scores(family: Family, rate: float) -> None:
    """Exact where something is possible, a ValueError where nothing is, and never the one for the other."""
    outcomes = set()
    for seed in range(9):
        n = 2 + seed % (2 if "labelled" in family.name else 3)
        scores = thinned(family, seed, n, rate)
        enumeration = family.enumerate(scores, [n])[0]
        distribution = family.build(scores)
        possible = enumeration.partition > -math.inf
        outcomes.add(possible)
        if not possible:
            for quantity in ("partition", "marginals", "argmax"):
                with pytest.raises(ValueError, match=r"\b0\b"):
                    getattr(family.build(scores), quantity)
            continue
        assert agrees(distribution.partition, [enumeration.partition])
        assert agrees(distribution.marginals, family.events([enumeration], n))
        assert agrees(distribution.entropy, [enumeration.entropy])
        best = enumeration.ranked()
        assert agrees(distribution.argmax[0], family.event(best[0], n))
        found = distribution.topk(4)[:, 0]
        for rank, event in enumerate(found):
            expected = family.event(best[rank], n) if rank < len(best) else torch.zeros_like(event)
            assert agrees(event, expected)
        for event in distribution.sample((4,))[:, 0]:
            structure = family.structure_of(event, n)
            assert structure is not None
            assert enumeration.scores[structure] > -math.inf
    assert outcomes, "no mask was tried"


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.maskable == ("scores",) and f.score_is_event], ids=repr)
def test_what_is_in_no_structure_has_probability_exactly_zero(family: Family) -> None:
    """Also cells whose own score is finite: a student may forbid them at no cost."""
    for seed in range(12):
        n = 2 + seed % (2 if "labelled" in family.name else 3)
        scores, _ = family.masked(family.scores(seeded(seed), 1, n), [n], seeded(seed + 100), rate=0.5)
        enumeration = family.enumerate(scores, [n])[0]
        expected = family.events([enumeration], n)
        assert not family.build(scores).marginals[expected == 0].any()


@pytest.mark.parametrize("family", TREES, ids=repr)
@pytest.mark.parametrize("bonus", [0.0, 50.0, 300.0])
def test_samples_where_words_prefer_each_other(family: Family, bonus: float) -> None:
    scores = family.scores(seeded(1), 1, 4)
    scores["scores"][0, 0, 1] += bonus
    scores["scores"][0, 1, 0] += bonus
    draws = 400
    events = family.build(scores).sample((draws,))[:, 0]
    assert all(family.structure_of(event, 4) is not None for event in events)
    marginals = family.marginals(scores, [4], 4)[0]
    assert ((events.mean(0) - marginals).abs() <= 5 * (marginals * (1 - marginals) / draws).sqrt() + 5 / draws).all()
