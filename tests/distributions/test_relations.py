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
        self.scores, self.count, self.dtype, self.asked = scores, scores.shape[-1], scores.dtype, 0

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
def test_a_batch_without_gold_needs_none(kind: Kind) -> None:
    scores = given(17, requires_grad=True)
    ours, table = apart(kind, *scores)
    loss = structkd.KDObjective(None)(None, ours, labelled=torch.zeros(len(LENGTHS), dtype=torch.bool))
    assert loss == 0
    assert not any(gradient.any() for gradient in gradients(loss, scores))
    assert not table.asked


@kinds
def test_expected_events_take_all_arcs(kind: Kind) -> None:
    """What is no structure is no case for the chain rule, and no gold."""
    arcs, relations = given(3)
    ours, table = apart(kind, arcs, relations)
    target = together(kind, *given(4)).marginals
    with pytest.raises(ValueError, match=r"batch item 0 .*structkd.structural_kd_loss\(indicators"):
        structkd.supervised_loss(ours, target)
    wanted = structkd.structural_kd_loss(target, together(kind, arcs, relations), reduction="none")
    assert agrees(structkd.structural_kd_loss(target, ours, reduction="none"), wanted)
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
    assert table.asked <= 2


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
def test_every_graph_is_its_own(kind: Kind) -> None:
    scores = given(11, requires_grad=True)
    ours, _ = apart(kind, *scores)
    for loss in (lambda: ours.partition.sum(), lambda: ours.entropy.sum()):
        first, again = gradients(loss(), scores), gradients(loss(), scores)
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


@kinds
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_nothing_waits(kind: Kind, mode: Callable[[], Any]) -> None:
    """What relations are made of may be trained on before the distribution is read, and is not trained through it."""
    arcs, relations = given(12)
    table = Table(relations.clone().requires_grad_())
    with mode():
        ours = kind(arcs, lengths=lengths_tensor(LENGTHS)).with_relations(table)
    with torch.no_grad():
        table.scores.add_(torch.arange(RELATIONS))
    assert agrees(ours.marginals, together(kind, arcs, relations).marginals)
    assert not ours.partition.requires_grad
    assert table.asked == 1


@kinds
def test_a_tensor_of_relations(kind: Kind) -> None:
    scores, same = given(13, requires_grad=True), given(13, requires_grad=True)
    ours = kind(scores[0], lengths=lengths_tensor(LENGTHS)).with_relations(scores[1])
    assert agrees(ours.marginals, together(kind, *same).marginals)
    for loss in (partial(structkd.supervised_loss, gold=gold()), lambda distribution: distribution.entropy.sum()):
        for got, expected in zip(
            gradients(loss(ours), scores), gradients(loss(together(kind, *same)), same), strict=True
        ):
            assert agrees(got, expected)


@kinds
@pytest.mark.parametrize("requires_grad", [True, False])
def test_precisions_are_promoted(kind: Kind, requires_grad: bool) -> None:
    arcs, relations = given(14)
    for one, other in ((arcs.float(), relations), (arcs, relations.float())):
        if kind is KINDS["mean field"]:  # its factors are in float64
            continue
        ours, _ = apart(kind, one.requires_grad_(requires_grad), other)
        wanted = together(kind, one.detach().double(), other.double())
        assert ours.marginals.dtype == ours.log_potentials.dtype == torch.float64
        torch.testing.assert_close(ours.log_potentials.detach(), wanted.log_potentials, equal_nan=True)
        torch.testing.assert_close(ours.marginals.detach(), wanted.marginals)


@kinds
@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_wrong_values(kind: Kind, value: float, requires_grad: bool) -> None:
    arcs, relations = given(15, requires_grad=requires_grad)
    relations = relations.detach().clone()
    relations[0, 0, 1] = value
    with pytest.raises(ValueError, match=r"relations must be finite or -inf|Every arc needs a possible relation"):
        _ = apart(kind, arcs, relations)[0].arcs_and_relations()[1].scores
    if not math.isinf(value) or value > 0:
        relations[0, 1, 0] = value  # on a gold arc
        with pytest.raises(ValueError, match=r"relations .*must be finite or -inf"):
            structkd.supervised_loss(apart(kind, arcs, relations)[0], gold())


@kinds
def test_wrong_arguments(kind: Kind) -> None:
    arcs, relations = given(16)
    ours, _ = apart(kind, arcs, relations)
    with pytest.raises(ValueError, match="bear relations already"):
        ours.with_relations(Table(relations))
    for wrong, message in (
        (relations[:, :3], r"relations must have shape \[4, 4, 4, 'L >= 1'\], got \[4, 3, 4, 3\]"),
        (Table(relations[:1]), "relations must have shape"),
        (relations[..., :0], "relations must have shape"),
        (relations[..., 0], r"relations must have shape \[B, N, N, L\]"),
    ):
        with pytest.raises(ValueError, match=message):
            kind(arcs, lengths=lengths_tensor(LENGTHS)).with_relations(wrong)
    for wrong in (None, relations.tolist()):
        with pytest.raises(TypeError, match=r"relations must be a tensor \[B, N, N, L\] or structkd.RelationScores"):
            kind(arcs, lengths=lengths_tensor(LENGTHS)).with_relations(wrong)
