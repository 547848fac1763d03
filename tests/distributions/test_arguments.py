"""What a constructor refuses, and when."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch_struct
from families import FAMILIES, SPANS, Family, lengths_tensor, seeded
from torch.distributions import Distribution

import structkd

every_family = pytest.mark.parametrize("family", FAMILIES, ids=repr)


@pytest.fixture
def default_validation() -> Iterator[Callable[[bool], None]]:
    yield Distribution.set_default_validate_args
    Distribution.set_default_validate_args(True)


def values(family: Family, seed: int = 1) -> dict[str, Any]:
    return family.scores(seeded(seed), len(family.lengths), max(family.lengths) + 1)


@every_family
@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_nan_and_plus_infinity_inside_a_sentence(family: Family, value: float) -> None:
    scores = values(family)
    for name in family.floats(scores):
        item = next(i for i, n in enumerate(family.lengths) if n == max(family.lengths))
        tensor = scores[name].clone()
        if name in ("siblings", "grandparents"):
            tensor[item, 0, 1, 2] = value
        else:
            cell = next(c for c in sorted(family.live(family.lengths[item])) if c[0] == name)
            tensor[family.place(cell, item)[1]] = value
        bad = scores | {name: tensor}
        with pytest.raises(ValueError, match=r"(?i)nan|inf|finite"):
            family.build(bad, lengths_tensor(family.lengths))
        with pytest.raises(ValueError, match=r"(?i)nan|inf|finite"):
            family.build(bad, lengths_tensor(family.lengths), validate_args=True)
        family.build(bad, lengths_tensor(family.lengths), validate_args=False)


@every_family
def test_the_default_of_torch_distributions_is_respected(
    family: Family, default_validation: Callable[[bool], None]
) -> None:
    scores = values(family)
    name = family.floats(scores)[0]
    bad = scores | {name: torch.full_like(scores[name], math.nan)}
    default_validation(False)
    family.build(bad, lengths_tensor(family.lengths))
    with pytest.raises(ValueError, match=r"(?i)nan|inf|finite"):
        family.build(bad, lengths_tensor(family.lengths), validate_args=True)
    default_validation(True)
    with pytest.raises(ValueError, match=r"(?i)nan|inf|finite"):
        family.build(bad, lengths_tensor(family.lengths))


@every_family
@pytest.mark.parametrize("validate_args", [None, False])
def test_lengths(family: Family, validate_args: bool | None) -> None:
    """Always checked, validate_args or not."""
    scores, good = values(family), list(family.lengths)
    width = max(good) + 1
    for wrong in ([0, *good[1:]], [-1, *good[1:]], [width + 1, *good[1:]], good[1:], [*good, 1]):
        with pytest.raises(ValueError, match=r"(?i)length"):
            family.build(scores, lengths_tensor(wrong), validate_args=validate_args)
    with pytest.raises(ValueError, match=r"(?i)length"):
        family.build(scores, lengths_tensor(good)[:, None], validate_args=validate_args)
    for wrong in (0.5, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"lengths must be whole numbers, and batch item 0 has"):
            family.build(scores, torch.tensor([wrong, *good[1:]]), validate_args=validate_args)
    with pytest.raises(TypeError, match=r"(?i)length"):
        family.build(scores, torch.tensor(good) > 1, validate_args=validate_args)
    for mask in (torch.ones(len(good), width, dtype=torch.bool), torch.ones(len(good), width)):
        with pytest.raises(ValueError, match=r"mask\.sum\(1\)"):
            family.build(scores, mask, validate_args=validate_args)


@every_family
@pytest.mark.parametrize("validate_args", [None, False])
def test_shapes(family: Family, validate_args: bool | None) -> None:
    """One axis too few, and one too many, in every tensor."""
    scores = values(family)
    for name, tensor in scores.items():
        for wrong in (tensor[0], tensor[..., None, None]):
            with pytest.raises(ValueError, match=r"(?i)shape|dim|expected"):
                family.build(scores | {name: wrong}, validate_args=validate_args)


@every_family
@pytest.mark.parametrize("validate_args", [None, False])
def test_things_that_are_no_tensor(family: Family, validate_args: bool | None) -> None:
    scores = values(family)
    for name, tensor in scores.items():
        with pytest.raises(TypeError):
            family.build(scores | {name: tensor.tolist()}, validate_args=validate_args)


@pytest.mark.parametrize("validate_args", [None, False])
@pytest.mark.parametrize(
    "build",
    [
        lambda v: structkd.LinearChainCRF(torch.zeros(2, 3, 4, 5), validate_args=v),
        lambda v: structkd.LinearChainCRF.from_scores(torch.zeros(2, 3, 4), torch.zeros(4, 5), validate_args=v),
        lambda v: structkd.LinearChainCRF.from_scores(torch.zeros(2, 3, 4), torch.zeros(5, 5), validate_args=v),
        lambda v: structkd.LinearChainCRF.from_scores(
            torch.zeros(2, 3, 4), torch.zeros(4, 4), start=torch.zeros(5), validate_args=v
        ),
        lambda v: structkd.LinearChainCRF.from_scores(
            torch.zeros(2, 3, 4), torch.zeros(4, 4), end=torch.zeros(2, 4), validate_args=v
        ),
        lambda v: structkd.DependencyCRF(torch.zeros(2, 3, 4), validate_args=v),
        lambda v: structkd.NonProjectiveDependencyCRF(torch.zeros(2, 3, 4), validate_args=v),
        lambda v: structkd.HeadSelection(torch.zeros(2, 3, 4), validate_args=v),
        lambda v: structkd.MeanFieldDependency(torch.zeros(2, 3, 4), None, None, validate_args=v),
        lambda v: structkd.HeadLabeling(torch.zeros(2, 3, 4), torch.zeros(2, 3, 5, dtype=torch.long), validate_args=v),
        lambda v: structkd.HeadLabeling(
            torch.zeros(2, 3, 4),
            torch.zeros(2, 3, 4, dtype=torch.long),
            relations=torch.zeros(3, dtype=torch.long),
            validate_args=v,
        ),
        lambda v: structkd.SpanCRF(torch.zeros(2, 3, 4, 1), validate_args=v),
    ],
    ids=[
        *("chain", "transitions", "transitions-of-other-labels", "start", "end", "projective", "nonprojective"),
        *("head-selection", "mean-field", "heads", "relations", "spans"),
    ],
)
def test_shapes_that_do_not_fit_together(build: Callable[[bool | None], Any], validate_args: bool | None) -> None:
    with pytest.raises(ValueError, match=r"\d"):
        build(validate_args)


def test_heads_that_are_no_integers() -> None:
    with pytest.raises((TypeError, ValueError), match="heads"):
        structkd.HeadLabeling(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3))


@pytest.mark.parametrize("validate_args", [None, False])
@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda v: structkd.MaxEnt(torch.zeros(1, 2, 3), labels=["O", "B-X"], validate_args=v), "labels"),
        (lambda v: structkd.LinearChainCRF(torch.zeros(1, 2, 3, 3), labels=["O", "B-X"], validate_args=v), "labels"),
        (
            lambda v: structkd.LinearChainCRF.from_scores(
                torch.zeros(1, 2, 3), torch.zeros(3, 3), labels=["O", "B-X"], validate_args=v
            ),
            "labels",
        ),
        (lambda v: structkd.SpanCRF(torch.zeros(1, 2, 2, 3), types=["X"], validate_args=v), "types"),
    ],
    ids=["maxent", "chain", "factored", "spans"],
)
def test_inventories_of_the_wrong_size(
    build: Callable[[bool | None], Any], names: str, validate_args: bool | None
) -> None:
    with pytest.raises(ValueError, match=names):
        build(validate_args)


def emptied(family: Family) -> tuple[dict[str, Any], int]:
    """Scores under which one word of one sentence can be nothing at all."""
    scores, item = values(family, 2), len(family.lengths) - 1
    word = family.lengths[item] - 1
    name = family.maskable[0]
    tensor = scores[name].clone()
    if name == "emissions" or family.name in ("maxent", "head-labeling", "chain-second-order"):
        tensor[item, word] = -math.inf
    elif family.name == "chain-dense":
        tensor[item, word - 1] = -math.inf
    else:
        tensor[item, :, word] = -math.inf
    return scores | {name: tensor}, item


@every_family
@pytest.mark.parametrize("quantity", ["partition", "marginals"])
def test_an_empty_space_is_found_when_it_is_read(family: Family, quantity: str) -> None:
    if family is SPANS:
        pytest.skip("the segmentation without spans is always possible")
    scores, item = emptied(family)
    distribution = family.build(scores, lengths_tensor(family.lengths))
    with pytest.raises(ValueError, match=rf"\b{item}\b"):
        getattr(distribution, quantity)


def test_a_chain_with_no_path() -> None:
    """Each position allows something, but no sequence joins them."""
    potentials = torch.full((2, 2, 2, 2), 0.0)
    potentials[1] = -math.inf
    potentials[1, 0, 1, 0] = 0.0  # 0 then 1
    potentials[1, 1, 0, 0] = 0.0  # then 0 from 0
    with pytest.raises(ValueError, match=r"\b1\b"):
        _ = structkd.LinearChainCRF(potentials).partition
    with pytest.raises(ValueError, match=r"\b1\b"):
        _ = structkd.LinearChainCRF(potentials).marginals
    assert structkd.LinearChainCRF(potentials, lengths=lengths_tensor([3, 2])).partition.isfinite().all()


def test_an_empty_factored_chain() -> None:
    emissions = torch.zeros(2, 3, 2)
    for broken in ({"start": torch.full((2,), -math.inf)}, {"end": torch.full((2,), -math.inf)}):
        chain = structkd.LinearChainCRF.from_scores(emissions, torch.zeros(2, 2), **broken)
        with pytest.raises(ValueError, match=r"\b0\b"):
            _ = chain.partition
    forbidden = structkd.LinearChainCRF.from_scores(
        emissions, torch.full((2, 2), -math.inf), lengths=lengths_tensor([1, 3])
    )
    with pytest.raises(ValueError, match=r"\b1\b"):
        _ = forbidden.marginals


def test_a_label_that_points_nowhere_keeps_a_space_from_being_empty() -> None:
    logits = torch.tensor([[[-math.inf, 0.0]]])
    student = structkd.HeadLabeling(logits, torch.tensor([[[0, -1]]]))
    assert student.marginals.tolist() == [[[0.0, 1.0]]]


def test_a_message_says_what_was_given() -> None:
    with pytest.raises(ValueError, match=r"7"):
        structkd.MaxEnt(torch.zeros(2, 3, 4), lengths=lengths_tensor([7, 3]))
    with pytest.raises(ValueError, match=r"4.*5|5.*4"):
        structkd.LinearChainCRF(torch.zeros(2, 3, 4, 5))


@every_family
def test_whole_numbers_of_words_in_any_form(family: Family) -> None:
    scores, lengths = values(family), list(family.lengths)
    expected = family.build(scores, lengths_tensor(lengths))
    forms = [torch.tensor(lengths, dtype=dtype) for dtype in (torch.float32, torch.float64, torch.uint8, torch.int16)]
    for form in (*forms, np.array(lengths, dtype=np.float32), [float(n) for n in lengths], tuple(lengths)):
        built = family.build(scores, form)
        assert built.lengths.dtype == torch.long
        assert built.lengths.tolist() == lengths
        assert torch.equal(built.partition, expected.partition)


FOREIGN = [
    (torch_struct.LinearChainCRF, structkd.LinearChainCRF, (2, 4, 3, 3)),
    (torch_struct.NonProjectiveDependencyCRF, structkd.NonProjectiveDependencyCRF, (2, 5, 5)),
    (torch_struct.DependencyCRF, structkd.DependencyCRF, (2, 5, 5)),
]


@pytest.mark.parametrize(("foreign", "ours", "shape"), FOREIGN, ids=[row[1].__name__ for row in FOREIGN])
def test_torch_structs_objects_on_one_side(foreign: Any, ours: Any, shape: tuple[int, ...]) -> None:
    """Built with float lengths, as many do; KL by torch.distributions in both orders."""
    generator = seeded(3)
    scores, others = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    theirs = foreign(scores.clone(), torch.tensor([5.0, 3.0]))
    multiroot = {} if ours is structkd.LinearChainCRF else {"multiroot": ours is structkd.DependencyCRF}
    same, other = (ours(x, torch.tensor([5, 3]), **multiroot) for x in (scores, others))
    expected = same.kl(other)
    for p, q in ((theirs, other), (same, other)):
        torch.testing.assert_close(torch.distributions.kl_divergence(p, q), expected)
    reverse = torch.distributions.kl_divergence(other, theirs)
    torch.testing.assert_close(reverse, other.kl(same))
    learning = ours(others.requires_grad_(), torch.tensor([5, 3]), **multiroot)
    loss = structkd.structural_kd_loss(theirs, learning)
    torch.testing.assert_close(loss, structkd.structural_kd_loss(same, learning))


def test_the_order_of_torch_structs_arguments_is_refused() -> None:
    scores = torch.zeros(1, 3, 3)
    for kind in (structkd.DependencyCRF, structkd.NonProjectiveDependencyCRF):
        with pytest.raises(TypeError, match="multiroot must be True or False, got dict"):
            kind(scores, None, {}, True)
        with pytest.raises(TypeError, match="multiroot must be True or False, got NoneType"):
            kind(scores, None, None)
        with pytest.raises(TypeError, match="args"):
            kind(scores, args={})
        assert kind(scores, None, np.bool_(True)).multiroot is True
    for build in (lambda: structkd.HeadSelection(scores, None, {}), lambda: structkd.MaxEnt(scores, None, None, {})):
        with pytest.raises(TypeError, match="validate_args must be True, False or None, got dict"):
            build()
    with pytest.raises(TypeError, match="labels must be a list"):
        structkd.LinearChainCRF(torch.zeros(1, 3, 2, 2), None, {})
    with pytest.raises(TypeError, match=r"keyword: labels=\[...\]"):
        structkd.MaxEnt(torch.zeros(1, 3, 2), ["O", "B"])
    emissions, transitions = torch.zeros(2, 3, 2), torch.zeros(2, 2)
    for place in (1, 2):
        with pytest.raises(TypeError, match=r"int64 of shape \[2\]. Numbers of words are a keyword: lengths="):
            structkd.LinearChainCRF.from_scores(emissions, transitions, *[None] * (place - 1), torch.tensor([3, 2]))
    with pytest.raises(ValueError, match=r"use LinearChainCRF\.from_scores"):
        structkd.LinearChainCRF(emissions, transitions)


@pytest.mark.above_kernels
def test_numbered_inventories() -> None:
    """id2label of a configuration of transformers, and of its file."""
    scores = torch.zeros(1, 1, 3)
    for labels in ({1: "B-X", 0: "O", 2: "I-X"}, {"2": "I-X", "0": "O", "1": "B-X"}):
        assert structkd.MaxEnt(scores, labels=labels).labels == ["O", "B-X", "I-X"]  # type: ignore[arg-type]
        teacher = structkd.retag(structkd.MaxEnt(torch.zeros(1, 1, 2), labels=["O", "I-X"]), labels)
        assert teacher.labels == ["O", "B-X", "I-X"]
        gold = torch.zeros(1, 1, 1, dtype=torch.long)
        assert structkd.Empirical.from_labels(gold, labels=labels).labels == ["O", "B-X", "I-X"]
    for labels in ({0: "O", 2: "B-X", 3: "I-X"}, {"O": 0, "B-X": 1, "I-X": 2}):
        with pytest.raises(ValueError, match=r"0\.\.2 to strings such as config.id2label, got the keys"):
            structkd.MaxEnt(scores, labels=labels)  # type: ignore[arg-type]


@every_family
@pytest.mark.parametrize("validate_args", [None, False])
def test_tensors_without_values(family: Family, validate_args: bool | None) -> None:
    scores = {name: tensor.to("meta") for name, tensor in values(family).items()}
    with pytest.raises(ValueError, match="meta device"):
        family.build(scores, validate_args=validate_args)


@pytest.mark.above_kernels
def test_numbers_of_other_kinds() -> None:
    """numpy's numbers and tensors with one number, wherever a number is asked for."""
    teacher = structkd.LinearChainCRF.from_scores(torch.randn(2, 3, 4), torch.randn(4, 4))
    student = structkd.MaxEnt(torch.randn(2, 3, 4, requires_grad=True))
    expected = structkd.structural_kd_loss(teacher, student, 2.0)
    for two in (2, np.float32(2), np.float64(2), np.int8(2), np.array(2.0), torch.tensor(2.0), torch.tensor(2)):
        assert structkd.structural_kd_loss(teacher, student, two) == expected
        assert structkd.StructuralKDLoss(temperature=two)(teacher, student) == expected
        assert torch.equal(teacher.tempered(two).partition, teacher.tempered(2.0).partition)
        assert torch.equal(structkd.project(teacher, student, two), structkd.project(teacher, student, 2.0))
        assert structkd.structural_kd_loss(teacher, student, 2.0, num_items=two) == expected
        assert structkd.supervised_loss(student, teacher.decode(), num_items=two).isfinite()
    for two in (2, np.int64(2), np.uint8(2), torch.tensor(2), np.array(2)):
        assert torch.equal(teacher.topk(two), teacher.topk(2))
        assert torch.equal(teacher.kmax(two), teacher.kmax(2))
        assert teacher.sample(two).shape[0] == 2
        assert teacher.sample((two,)).shape[0] == 2
        assert structkd.topk_kd_loss(teacher, student, k=two) == structkd.topk_kd_loss(teacher, student, k=2)
        assert structkd.project(teacher, student, samples=two).shape == (2, 3, 4)
        assert structkd.MeanFieldDependency(torch.zeros(1, 2, 2), iterations=two).iterations == 2
    for half in (np.float32(0.5), torch.tensor(0.5), np.array(0.5)):
        assert structkd.Mixture([teacher, teacher], [half, half]).weights == [0.5, 0.5]
        assert structkd.KDObjective(None, interpolation=half).interpolation(0.3) == 0.5
        assert structkd.LinearAnnealing(half, half)(0.7) == 0.5


def test_what_is_no_number() -> None:
    teacher = student = structkd.MaxEnt(torch.zeros(2, 3, 4))
    for wrong in (True, "2", None, [2.0], torch.ones(2), np.ones(1), torch.tensor(True), np.bool_(True), 2j):
        with pytest.raises(TypeError, match="temperature must be a number"):
            structkd.structural_kd_loss(teacher, student, wrong)
        with pytest.raises(TypeError, match="temperature must be a number"):
            teacher.tempered(wrong)
        with pytest.raises(TypeError, match="k must be an int"):
            teacher.topk(wrong)
    with pytest.raises(TypeError, match=r"temperature is not differentiated.*Give a number, such as float"):
        structkd.structural_kd_loss(teacher, student, torch.tensor(2.0, requires_grad=True))
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature must be positive and finite"):
            teacher.tempered(wrong)
    with pytest.raises(TypeError, match="k must be an int, got float"):
        teacher.topk(2.0)
    with pytest.raises(TypeError, match="num_items must be a number"):
        structkd.structural_kd_loss(teacher, student, num_items="3")
    with pytest.raises(TypeError, match="num_items must be a number"):
        structkd.structural_kd_loss(teacher, student, num_items=True)
