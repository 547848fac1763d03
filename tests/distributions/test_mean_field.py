"""The mean-field posterior against the plain loops of its definition."""

from __future__ import annotations

import math

import pytest
import torch
from families import MEAN_FIELD, agrees, lengths_tensor, random, seeded
from oracles import mean_field

import structkd


@pytest.mark.parametrize("siblings", [True, False], ids=["siblings", "no-siblings"])
@pytest.mark.parametrize("grandparents", [True, False], ids=["grandparents", "no-grandparents"])
@pytest.mark.parametrize("iterations", [1, 2, 3, 6])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_posterior(siblings: bool, grandparents: bool, iterations: int, dtype: torch.dtype) -> None:
    lengths, n = (5, 1, 6, 2, 3), 7
    generator = seeded(1)
    arcs = random(generator, 5, n, n, dtype=dtype)
    sib = random(generator, 5, n, n, n, dtype=dtype) if siblings else None
    grand = random(generator, 5, n, n, n, dtype=dtype) if grandparents else None
    posterior = structkd.MeanFieldDependency(arcs, sib, grand, lengths_tensor(lengths), iterations).marginals
    for item, size in enumerate(lengths):
        log_q = mean_field(
            arcs[item].tolist(),
            None if sib is None else sib[item].tolist(),
            None if grand is None else grand[item].tolist(),
            size,
            iterations,
        )
        assert agrees(posterior[item, :size, :size], torch.tensor(log_q, dtype=torch.float64).exp())
        assert not posterior[item, size:].any()
        assert not posterior[item, :, size:].any()


def test_three_iterations_are_the_default() -> None:
    scores = MEAN_FIELD.scores(seeded(2), 2, 4)
    implicit = structkd.MeanFieldDependency(scores["arcs"], scores["siblings"], scores["grandparents"])
    assert agrees(implicit.marginals, MEAN_FIELD.marginals(scores, (4, 4), 4))


def test_without_second_order_scores_it_is_head_selection() -> None:
    arcs = random(seeded(3), 2, 4, 4)
    assert agrees(structkd.MeanFieldDependency(arcs, None, None).marginals, arcs.softmax(1))


def test_cells_with_a_repeated_index_are_ignored() -> None:
    n = 4
    scores = MEAN_FIELD.scores(seeded(4), 1, n)
    noisy = dict(scores)
    i = torch.arange(n)
    h, d, c = i[:, None, None], i[None, :, None], i[None, None, :]
    repeated = (h == d) | (d == c) | (h == c)
    for name in ("siblings", "grandparents"):
        noisy[name] = scores[name].masked_fill(repeated, 1e6)
    assert agrees(MEAN_FIELD.build(noisy).marginals, MEAN_FIELD.build(scores).marginals)


def test_the_posterior_is_the_distribution() -> None:
    """Entropy and log_prob are those of independent heads under the posterior."""
    scores = MEAN_FIELD.scores(seeded(5), 2, 3)
    distribution = MEAN_FIELD.build(scores)
    posterior = distribution.marginals
    assert agrees(distribution.entropy, -(posterior * posterior.log()).sum((1, 2)))
    event = torch.zeros(2, 3, 3, dtype=torch.float64)
    event[:, 1, :] = 1.0
    assert agrees(distribution.log_prob(event), posterior[:, 1].log().sum(1))
    assert distribution.decode().tolist() == posterior.argmax(1).tolist()


def test_an_impossible_arc_stays_impossible() -> None:
    scores = MEAN_FIELD.scores(seeded(6), 1, 3)
    scores["arcs"][0, 0, 1] = -math.inf
    posterior = MEAN_FIELD.build(scores).marginals
    assert posterior[0, 0, 1] == 0
    assert agrees(posterior, MEAN_FIELD.marginals(scores, [3], 3))


@pytest.mark.parametrize("name", ["siblings", "grandparents"])
def test_second_order_scores_of_the_wrong_shape(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        structkd.MeanFieldDependency(
            torch.zeros(2, 3, 3), **{"siblings": None, "grandparents": None, name: torch.zeros(2, 3, 3)}
        )


def test_second_order_scores_that_are_no_tensor() -> None:
    with pytest.raises(TypeError):
        structkd.MeanFieldDependency(torch.zeros(1, 2, 2), [[0.0]], None)
