"""Relations given apart from arcs, against the same labelled arcs given multiplied out."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from families import agrees, lengths_tensor, random, seeded
from torch import Tensor
from torch.distributions import Distribution

import structkd

LENGTHS, WIDTH, RELATIONS = (4, 1, 3, 2), 4, 3
FACTORS = tuple(random(seeded(20 + n), len(LENGTHS), WIDTH, 2) for n in range(3))

Kind = Callable[..., Any]
KINDS: dict[str, Kind] = {
    "head selection": structkd.HeadSelection,
    "projective": structkd.DependencyCRF,
    "projective, many roots": partial(structkd.DependencyCRF, multiroot=True),
    "non-projective": structkd.NonProjectiveDependencyCRF,
    "non-projective, many roots": partial(structkd.NonProjectiveDependencyCRF, multiroot=True),
    "mean field": partial(structkd.MeanFieldDependency.from_factors, siblings=FACTORS),
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
temperatures = pytest.mark.parametrize("temperature", [1.0, 2.5])


class Table:
    """Scores that are a table after all; says how often all of it was asked for."""

    def __init__(self, scores: Tensor) -> None:
        self.scores, self.asked = scores, 0

    @property
    def count(self) -> int:
        return self.scores.shape[-1]

    def everywhere(self) -> Tensor:
        self.asked += 1
        return self.scores.clone()

    def along(self, heads: Tensor) -> Tensor:
        return self.scores.gather(1, heads[:, None, :, None].expand(-1, 1, -1, self.count)).squeeze(1)


def given(seed: int, requires_grad: bool = False) -> tuple[Tensor, Tensor]:
    """Scores of arcs and of relations, NaN in the padding of both."""
    generator, inside = seeded(seed), torch.arange(WIDTH) < lengths_tensor(LENGTHS).unsqueeze(1)
    padding = ~(inside.unsqueeze(1) & inside.unsqueeze(2))
    arcs = random(generator, len(LENGTHS), WIDTH, WIDTH).masked_fill_(padding, math.nan)
    relations = random(generator, len(LENGTHS), WIDTH, WIDTH, RELATIONS)
    relations.masked_fill_(padding.unsqueeze(-1), math.nan)
    return arcs.requires_grad_(requires_grad), relations.requires_grad_(requires_grad)


def apart(kind: Kind, arcs: Tensor, relations: Tensor) -> tuple[Any, Table]:
    table = Table(relations)
    return kind(arcs, lengths=lengths_tensor(LENGTHS)).with_relations(table), table


def together(kind: Kind, arcs: Tensor, relations: Tensor) -> Any:
    lengths = lengths_tensor(LENGTHS)
    if kind is KINDS["mean field"]:
        return kind(arcs, relations=relations, lengths=lengths)
    return kind(arcs.unsqueeze(-1) + relations.log_softmax(-1), lengths=lengths)


def gold(hidden: bool = False) -> Tensor:
    """Chains of words, the last of which is the root: trees of every kind; True, which nothing may read, elsewhere."""
    events = torch.zeros(len(LENGTHS), WIDTH, WIDTH, RELATIONS, dtype=torch.bool)
    for item, length in enumerate(LENGTHS):
        events[item, length:] = events[item, :, length:] = True
        for word in range(length):
            events[item, min(word + 1, length - 1), word, (item + word) % RELATIONS] = not (hidden and word == 1)
    return events


def gradients(loss: Tensor, scores: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(g.nan_to_num(0.0) for g in torch.autograd.grad(loss, scores))


@kinds
@temperatures
def test_it_is_the_same_distribution(kind: Kind, temperature: float) -> None:
    scores = given(1)
    ours, wanted = apart(kind, *scores)[0].tempered(temperature), together(kind, *scores).tempered(temperature)
    assert isinstance(ours, type(wanted)) or isinstance(wanted, type(ours))
    assert ours.labelled
    assert ours.event_shape == wanted.event_shape
    for name in ("partition", "marginals", "entropy", "max", "argmax"):
        assert agrees(getattr(ours, name), getattr(wanted, name)), name
    assert torch.equal(ours.decode(), wanted.decode())


@pytest.mark.parametrize(
    ("kind", "hidden"),
    [(kind, False) for kind in KINDS.values()] + [(KINDS[name], True) for name in ("head selection", "mean field")],
)
@pytest.mark.parametrize("reduction", ["none", "batchmean", "token"])
def test_gold_trees_need_relations_along_their_arcs_alone(kind: Kind, hidden: bool, reduction: str) -> None:
    events = gold(hidden)
    scores, same = given(2, requires_grad=True), given(2, requires_grad=True)
    ours, table = apart(kind, *scores)
    loss = structkd.supervised_loss(ours, events, reduction=reduction)
    wanted = structkd.supervised_loss(together(kind, *same), events, reduction=reduction)
    assert agrees(loss, wanted)
    weights = torch.arange(1.0, len(LENGTHS) + 1, dtype=torch.float64) if reduction == "none" else torch.tensor(3.0)
    for got, expected in zip(
        gradients((loss * weights).sum(), scores), gradients((wanted * weights).sum(), same), strict=True
    ):
        assert agrees(got, expected)
    assert not table.asked


@kinds
def test_expected_events_take_all_arcs(kind: Kind) -> None:
    """What is no structure is no case for the chain rule."""
    arcs, relations = given(3)
    ours, table = apart(kind, arcs, relations)
    target = together(kind, *given(4)).marginals
    wanted = structkd.supervised_loss(together(kind, arcs, relations), target, reduction="none")
    assert agrees(structkd.supervised_loss(ours, target, reduction="none"), wanted)
    assert table.asked


@kinds
@temperatures
def test_as_a_teacher(kind: Kind, temperature: float) -> None:
    scores = given(5)
    heads = torch.arange(WIDTH).repeat_interleave(RELATIONS).expand(len(LENGTHS), WIDTH, -1)
    logits = random(seeded(6), *heads.shape)
    relations = torch.arange(RELATIONS).repeat(WIDTH)
    student = structkd.HeadLabeling(logits, heads, relations, lengths_tensor(LENGTHS))
    ours, wanted = apart(kind, *scores)[0], together(kind, *scores)
    assert agrees(structkd.project(ours, student, temperature), structkd.project(wanted, student, temperature))
    losses = [structkd.structural_kd_loss(t, student, temperature, reduction="none") for t in (ours, wanted)]
    assert agrees(*losses)


@pytest.mark.parametrize("kind", [kind for name, kind in KINDS.items() if name != "mean field"])
@temperatures
def test_as_a_student(kind: Kind, temperature: float) -> None:
    teacher = together(kind, *given(7))
    scores, same = given(8, requires_grad=True), given(8, requires_grad=True)
    ours, table = apart(kind, *scores)
    loss = structkd.structural_kd_loss(teacher, ours, temperature)
    wanted = structkd.structural_kd_loss(teacher, together(kind, *same), temperature)
    assert agrees(loss, wanted)
    for got, expected in zip(gradients(loss, scores), gradients(wanted, same), strict=True):
        assert agrees(got, expected)
    assert table.asked == 1


@kinds
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_was_looked_at_can_still_be_trained(kind: Kind, mode: Callable[[], Any]) -> None:
    scores = given(9, requires_grad=True)
    ours, _ = apart(kind, *scores)
    with mode():
        before: Distribution = ours.marginals
    got = gradients(ours.partition.sum(), scores)
    assert agrees(ours.marginals, before)
    for gradient, expected in zip(got, gradients(together(kind, *scores).partition.sum(), scores), strict=True):
        assert agrees(gradient, expected)


@kinds
def test_wrong_relations(kind: Kind) -> None:
    arcs, relations = given(10)
    ours, _ = apart(kind, arcs, relations)
    with pytest.raises(ValueError, match="bear relations already"):
        ours.with_relations(Table(relations))
    spoilt, _ = apart(kind, arcs, relations.index_fill(3, torch.tensor(1), math.nan))
    with pytest.raises(ValueError, match=r"relation.* must be finite or -inf"):
        _ = spoilt.marginals
