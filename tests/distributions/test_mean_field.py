"""The mean-field posterior against the plain loops of its definition."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from families import MEAN_FIELD, agrees, lengths_tensor, random, seeded
from oracles import log_sum_exp, mean_field
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import structkd

temperatures = pytest.mark.parametrize("temperature", [1.0, 2.5])


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


# -- relations --------------------------------------------------------------------------------------------------------

LENGTHS, WIDTH, RELATIONS = (4, 1, 3, 2), 5, 3


def labelled_scores(seed: int) -> dict[str, Tensor]:
    generator = seeded(seed)
    batch = len(LENGTHS)
    second = {name: random(generator, batch, WIDTH, WIDTH, WIDTH) for name in ("siblings", "grandparents")}
    arcs = {"arcs": random(generator, batch, WIDTH, WIDTH)}
    return arcs | second | {"relations": random(generator, batch, WIDTH, WIDTH, RELATIONS)}


def labelled_posterior(scores: dict[str, Tensor], temperature: float = 1.0) -> Tensor:
    """Q(h | d) P(l | h, d) by plain loops, [B, N, N, L]; an arc without a possible relation is impossible."""
    expected = torch.zeros(len(LENGTHS), WIDTH, WIDTH, RELATIONS, dtype=torch.float64)
    tables = {name: tensor.tolist() for name, tensor in scores.items()}
    for item, size in enumerate(LENGTHS):
        arcs, relations = tables["arcs"][item], tables["relations"][item]
        totals = [[log_sum_exp(score / temperature for score in cell) for cell in row] for row in relations]
        arcs = [
            [score if total > -math.inf else -math.inf for score, total in zip(*rows, strict=True)]
            for rows in zip(arcs, totals, strict=True)
        ]
        log_q = mean_field(arcs, tables["siblings"][item], tables["grandparents"][item], size, 3, temperature)
        for h in range(size):
            for d in range(size):
                for label, score in enumerate(relations[h][d]):
                    if score > -math.inf:
                        log_p = log_q[h][d] + score / temperature - totals[h][d]
                        expected[item, h, d, label] = math.exp(log_p)
    return expected


def labelled(scores: dict[str, Tensor], **options: Any) -> structkd.MeanFieldDependency:
    return structkd.MeanFieldDependency(**scores, lengths=lengths_tensor(LENGTHS), **options)


@temperatures
def test_posterior_of_heads_and_relations(temperature: float) -> None:
    scores = labelled_scores(7)
    teacher = labelled(scores)
    assert teacher.labelled
    assert teacher.marginals.shape == (len(LENGTHS), WIDTH, WIDTH, RELATIONS)
    expected = labelled_posterior(scores, temperature)
    tempered = teacher.tempered(temperature)
    assert agrees(tempered.marginals, expected)
    possible = expected[expected > 0]
    assert agrees(tempered.entropy.sum(), -(possible * possible.log()).sum())


def test_relations_do_not_touch_the_heads() -> None:
    scores = labelled_scores(8)
    teacher = labelled(scores)
    heads = labelled({name: tensor for name, tensor in scores.items() if name != "relations"})
    assert agrees(teacher.marginals.sum(-1), heads.marginals)
    shifted = scores | {"relations": scores["relations"] + random(seeded(9), len(LENGTHS), WIDTH, WIDTH, 1)}
    assert agrees(labelled(shifted).marginals, teacher.marginals)


def test_an_arc_without_a_possible_relation_is_impossible() -> None:
    scores = labelled_scores(10)
    scores["relations"][0, 1, 0] = -math.inf
    scores["relations"][2, :, 1, 0] = -math.inf
    scores["relations"].requires_grad_()
    marginals = labelled(scores).marginals
    assert agrees(marginals, labelled_posterior({name: tensor.detach() for name, tensor in scores.items()}))
    (marginals**2).sum().backward()
    assert not scores["relations"].grad.isnan().any()


@temperatures
def test_relations_reach_a_student_that_labels_heads(temperature: float) -> None:
    """Every (head, relation) has one label: targets are the posterior, reordered."""
    scores = labelled_scores(11)
    heads = torch.arange(WIDTH).repeat_interleave(RELATIONS).expand(len(LENGTHS), WIDTH, -1)
    relations = torch.arange(RELATIONS).repeat(WIDTH)
    student = structkd.HeadLabeling(
        torch.zeros(heads.shape, dtype=torch.float64), heads, relations, lengths_tensor(LENGTHS)
    )
    targets = structkd.project(labelled(scores), student, temperature)
    assert agrees(targets, labelled_posterior(scores, temperature).transpose(1, 2).flatten(2))


def test_values_of_relations_in_the_padding_do_not_matter() -> None:
    scores = labelled_scores(12)
    noisy = {name: tensor.clone() for name, tensor in scores.items()}
    for item, size in enumerate(LENGTHS):
        for tensor in noisy.values():
            tensor[item, size:] = math.nan
            tensor[item, :, size:] = math.inf
    for name in ("siblings", "grandparents"):
        for item, size in enumerate(LENGTHS):
            noisy[name][item, :, :, size:] = math.nan
    assert agrees(labelled(noisy).marginals, labelled(scores).marginals)
    assert not labelled(noisy).log_potentials.isnan().any()


@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 3, 4, 5), (2, 3, 3, 0)])
def test_relations_of_the_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="relations"):
        structkd.MeanFieldDependency(torch.zeros(2, 3, 3), relations=torch.zeros(shape))


# -- factors ----------------------------------------------------------------------------------------------------------


def factors(seed: int, rank: int = 2, batch: int = len(LENGTHS), width: int = WIDTH) -> tuple[Tensor, ...]:
    generator = seeded(seed)
    return tuple(random(generator, batch, width, rank) for _ in range(3))


def multiplied(triple: tuple[Tensor, ...]) -> Tensor:
    return torch.einsum("bhk,bdk,bck->bhdc", *triple)


@temperatures
@pytest.mark.parametrize("with_relations", [True, False], ids=["relations", "no-relations"])
@pytest.mark.parametrize("names", [("siblings",), ("grandparents",), ("siblings", "grandparents"), ()], ids=str)
def test_factors_give_what_their_product_gives(
    names: tuple[str, ...], with_relations: bool, temperature: float
) -> None:
    scores = labelled_scores(13)
    first_order = {name: scores[name] for name in (["arcs", "relations"] if with_relations else ["arcs"])}
    low_rank = {name: factors(14 + number) for number, name in enumerate(names)}
    options = {"lengths": lengths_tensor(LENGTHS), "iterations": 2}
    factored = structkd.MeanFieldDependency.from_factors(**first_order, **low_rank, **options)
    full = structkd.MeanFieldDependency(**first_order, **{n: multiplied(f) for n, f in low_rank.items()}, **options)
    assert isinstance(factored, structkd.MeanFieldDependency)
    assert repr(factored) == repr(full)
    factored, full = factored.tempered(temperature), full.tempered(temperature)
    assert agrees(factored.log_potentials, full.log_potentials)
    assert agrees(factored.marginals, full.marginals)
    assert factored.decode().tolist() == full.decode().tolist()
    for name in names:
        assert agrees(getattr(factored, name), getattr(full, name))
    assert agrees(factored.tempered(1.5).marginals, full.tempered(1.5).marginals)


def test_values_of_factors_in_the_padding_do_not_matter() -> None:
    arcs = labelled_scores(16)["arcs"]
    clean = {"siblings": factors(17), "grandparents": factors(18)}
    noisy = {name: tuple(factor.clone() for factor in triple) for name, triple in clean.items()}
    for triple in noisy.values():
        for factor in triple:
            for item, size in enumerate(LENGTHS):
                factor[item, size:] = math.nan
    build = structkd.MeanFieldDependency.from_factors
    lengths = lengths_tensor(LENGTHS)
    assert agrees(build(arcs, **noisy, lengths=lengths).marginals, build(arcs, **clean, lengths=lengths).marginals)


def test_wrong_factors() -> None:
    build, arcs = structkd.MeanFieldDependency.from_factors, torch.zeros(2, 3, 3)
    good = torch.zeros(2, 3, 4)
    with pytest.raises(TypeError, match="siblings must be three tensors"):
        build(arcs, siblings=(good, good))
    with pytest.raises(ValueError, match=r"Every factor of grandparents must have shape \[2, 3, 4\]"):
        build(arcs, grandparents=(good, good, torch.zeros(2, 3, 5)))
    with pytest.raises(ValueError, match="must be finite"):
        build(arcs, siblings=(good, good, good.fill_(-math.inf)))


class LargestTensor(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    cells = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor):
                self.cells = max(self.cells, value.numel())
        return result


def test_factors_are_never_multiplied_out() -> None:
    n, rank = 30, 4
    leaves = [f.requires_grad_() for seed in (19, 20) for f in factors(seed, rank, batch=2, width=n)]
    arcs = random(seeded(21), 2, n, n).requires_grad_()
    with LargestTensor() as largest:
        posterior = structkd.MeanFieldDependency.from_factors(arcs, tuple(leaves[:3]), tuple(leaves[3:]))
        structkd.supervised_loss(posterior, torch.arange(n).expand(2, -1)).backward()
    assert largest.cells <= 2 * n * max(n, rank)
    assert all(leaf.grad.isfinite().all() and leaf.grad.any() for leaf in (arcs, *leaves))


# -- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_relations", [True, False], ids=["relations", "no-relations"])
@pytest.mark.parametrize("factored", [True, False], ids=["factors", "products"])
def test_the_supervised_loss_trains_through_the_iterations(with_relations: bool, factored: bool) -> None:
    """-log Q(gold), and its gradient by every score, against differences."""
    generator, lengths, n = seeded(22), torch.tensor([3, 2]), 3
    first = {"arcs": random(generator, 2, n, n)}
    gold = torch.nn.functional.one_hot(torch.tensor([[1, 1, 1], [1, 1, 0]]), n).transpose(1, 2).double()
    if with_relations:
        first["relations"] = random(generator, 2, n, n, 2)
        gold = torch.stack([gold, 0 * gold], -1)
    build: Any = structkd.MeanFieldDependency
    second: list[Tensor] = [random(generator, 2, n, n, n) for _ in range(2)]
    if factored:
        build = structkd.MeanFieldDependency.from_factors
        second = [*factors(23, 1, 2, n), *factors(24, 1, 2, n)]

    def posterior(*tensors: Tensor) -> structkd.MeanFieldDependency:
        rest = tensors[len(first) :]
        siblings, grandparents = (rest[:3], rest[3:]) if factored else rest
        options = dict(zip(first, tensors, strict=False)) | {"lengths": lengths, "iterations": 2}
        return build(siblings=siblings, grandparents=grandparents, **options)

    def loss(*tensors: Tensor) -> Tensor:
        return structkd.supervised_loss(posterior(*tensors), gold, reduction="none")

    leaves = [leaf.requires_grad_() for leaf in (*first.values(), *second)]
    assert agrees(loss(*leaves), -posterior(*leaves).log_prob(gold))
    assert torch.autograd.gradcheck(loss, leaves)


@pytest.mark.parametrize("factored", [True, False], ids=["factors", "products"])
def test_marginals_differentiate_twice(factored: bool) -> None:
    generator, n = seeded(25), 3
    arcs, relations = random(generator, 1, n, n), random(generator, 1, n, n, 2)
    second = [*factors(26, 1, 1, n)] if factored else [random(generator, 1, n, n, n)]

    def marginals(arcs: Tensor, relations: Tensor, *siblings: Tensor) -> Tensor:
        build: Any = structkd.MeanFieldDependency.from_factors if factored else structkd.MeanFieldDependency
        given = siblings if factored else siblings[0]
        return build(arcs, given, lengths=torch.tensor([3]), iterations=1, relations=relations).marginals

    leaves = [leaf.requires_grad_() for leaf in (arcs, relations, *second)]
    assert torch.autograd.gradgradcheck(marginals, leaves)
