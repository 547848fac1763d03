"""What is particular to dependency trees: root modes, hard cases of the matrix-tree theorem, reachability."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch_struct
from families import (
    HEADS,
    NONPROJECTIVE,
    NONPROJECTIVE_MULTI,
    PROJECTIVE,
    PROJECTIVE_MULTI,
    TREES,
    Trees,
    agrees,
    lengths_tensor,
    seeded,
)
from torch import Tensor

import structkd

CLASSES = [structkd.DependencyCRF, structkd.NonProjectiveDependencyCRF]
nonprojective = pytest.mark.parametrize("family", [NONPROJECTIVE, NONPROJECTIVE_MULTI], ids=repr)
every_tree = pytest.mark.parametrize("family", TREES, ids=repr)


@pytest.mark.parametrize("kind", CLASSES)
def test_single_root_is_the_default(kind: type) -> None:
    assert kind(torch.zeros(1, 3, 3)).partition.exp().item() == pytest.approx(
        {"D": 7, "N": 9}[kind.__name__[0]], rel=1e-5
    )


@pytest.mark.parametrize("kind", CLASSES)
def test_objects_with_different_root_modes_read_in_interleaved_order(kind: type) -> None:
    projective = kind is structkd.DependencyCRF
    families = [Trees(projective, multiroot) for multiroot in (False, True, False, True)]
    scores = [family.scores(seeded(i), 2, 4) for i, family in enumerate(families)]
    built = [family.build(s) for family, s in zip(families, scores, strict=True)]
    reads = [
        ("partition", (3, 0, 2, 1)),
        ("marginals", (0, 1, 3, 2)),
        ("entropy", (1, 0, 3, 2)),
        ("argmax", (2, 3, 1, 0)),
    ]
    for name, order in reads:
        for i in order:
            enumerations = families[i].enumerate(scores[i], (4, 4))
            expected = {
                "partition": lambda e: [x.partition for x in e],
                "entropy": lambda e: [x.entropy for x in e],
                "marginals": lambda e, family=families[i]: family.events(e, 4),
                "argmax": lambda e, family=families[i]: torch.stack([family.event(x.ranked()[0], 4) for x in e]),
            }[name](enumerations)
            assert agrees(getattr(built[i], name), expected), (name, i)


def test_root_modes_in_threads() -> None:
    families = TREES * 3
    scores = [family.scores(seeded(i), 1, 4) for i, family in enumerate(families)]

    def read(i: int) -> Tensor:
        return families[i].build(scores[i]).marginals

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(read, range(len(families))))
    for family, tensors, marginals in zip(families, scores, results, strict=True):
        assert agrees(marginals, family.marginals(tensors, [4], 4))


def test_nothing_is_stored_on_classes() -> None:
    struct = torch_struct.deptree.DepTree
    before = dict(vars(struct))
    for family in TREES:
        distribution = family.build(family.scores(seeded(0), 1, 3))
        _ = distribution.partition, distribution.marginals, distribution.entropy, distribution.argmax
    assert dict(vars(struct)) == before


@nonprojective
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("shift", [-800.0, -88.0, -10.0, 88.0, 800.0])
def test_shifted_scores(family: Trees, dtype: torch.dtype, shift: float) -> None:
    """No constant is added to the weights, and none of them over- or underflows."""
    lengths = (4, 1, 3)
    scores = family.shifted(family.scores(seeded(1), 3, 5, dtype), shift)
    enumerations = family.enumerate(scores, lengths)
    distribution = family.build(scores, lengths_tensor(lengths))
    assert agrees(distribution.marginals, family.events(enumerations, 5))
    assert agrees(distribution.partition, [e.partition for e in enumerations])
    assert agrees(distribution.entropy, [e.entropy for e in enumerations], torch.float32)


@every_tree
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("bonus", [20.0, 40.0, 300.0])
def test_words_that_prefer_each_other(family: Trees, dtype: torch.dtype, bonus: float) -> None:
    """Words that are each other's favourite head: the cycles outweigh every tree by e^bonus and more."""
    for pairs in ([(0, 1)], [(0, 1), (2, 3)], [(1, 2)]):
        scores = family.scores(seeded(2), 1, 4, dtype)
        for a, b in pairs:
            scores["scores"][0, a, b] = bonus
            scores["scores"][0, b, a] = bonus
        enumeration = family.enumerate(scores, [4])[0]
        distribution = family.build(scores)
        assert agrees(distribution.marginals, family.events([enumeration], 4))
        assert agrees(distribution.partition, [enumeration.partition])
        assert agrees(distribution.entropy, [enumeration.entropy], torch.float32)
        assert distribution.decode()[0].tolist() == list(enumeration.ranked()[0])


@every_tree
def test_a_cycle_of_three_words(family: Trees) -> None:
    scores = family.scores(seeded(3), 1, 4)
    for head, word in ((0, 1), (1, 2), (2, 0)):
        scores["scores"][0, head, word] = 200.0
    enumeration = family.enumerate(scores, [4])[0]
    distribution = family.build(scores)
    assert agrees(distribution.marginals, family.events([enumeration], 4))
    assert agrees(distribution.partition, [enumeration.partition])


@every_tree
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_scores_of_minus_and_plus_three_hundred(family: Trees, seed: int, dtype: torch.dtype) -> None:
    n = 5
    signs = torch.randint(0, 2, (1, n, n), generator=seeded(seed)) * 2 - 1
    noise = family.scores(seeded(seed + 50), 1, n)["scores"]
    scores = {"scores": (signs * 300 + noise).to(dtype)}
    enumeration = family.enumerate(scores, [n])[0]
    distribution = family.build(scores)
    tolerance = 1e-7 if dtype == torch.float64 else 1e-3
    assert float(distribution.partition) == pytest.approx(enumeration.partition, rel=1e-6)
    assert torch.allclose(distribution.marginals.double(), family.events([enumeration], n), atol=tolerance)
    assert float(distribution.entropy) == pytest.approx(enumeration.entropy, abs=10 * tolerance)


@every_tree
def test_a_billion_against_is_still_possible(family: Trees) -> None:
    """-1e9 on every arc into one word: every tree pays it, so the conditional distribution stays."""
    scores = family.scores(seeded(4), 1, 4)
    before = family.enumerate(scores, [4])[0]
    scores["scores"][0, :, 2] -= 1e9
    distribution = family.build(scores)
    assert torch.allclose(distribution.marginals, family.events([before], 4), atol=1e-5)
    assert float(distribution.partition) == pytest.approx(before.partition - 1e9, rel=1e-9)


@every_tree
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_the_only_tree_costs_a_billion(family: Trees, dtype: torch.dtype) -> None:
    scores = torch.full((1, 3, 3), -math.inf, dtype=dtype)
    scores[0, 1, 1], scores[0, 1, 0], scores[0, 1, 2] = 0.0, -1e9, 1.0
    scores[0, 0, 1] = 5.0  # a cycle with 1 -> 0, and no tree
    distribution = family.build({"scores": scores})
    assert float(distribution.partition) == pytest.approx(-1e9, rel=1e-6)
    assert distribution.marginals[0].tolist() == [[0, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert distribution.decode().tolist() == [[1, 1, 1]]


EMPTY = {
    "a word without a head": [(0, 0), (0, 1), (1, 0)],
    "a cycle and no root": [(0, 1), (1, 0), (1, 2)],
    "a cycle apart from the root": [(0, 0), (1, 2), (2, 1)],
}


@every_tree
@pytest.mark.parametrize("arcs", EMPTY.values(), ids=EMPTY.keys())
@pytest.mark.parametrize("scale", [1.0, -800.0, -1e9], ids=str)
def test_an_empty_space_is_named(family: Trees, arcs: list[tuple[int, int]], scale: float) -> None:
    scores = torch.zeros(4, 3, 3)
    scores[2] = -math.inf
    for head, word in arcs:
        scores[2, head, word] = scale
    for quantity in ("partition", "marginals", "entropy", "argmax"):
        distribution = family.build({"scores": scores})
        with pytest.raises(ValueError, match=r"\b2\b"):
            getattr(distribution, quantity)


@pytest.mark.parametrize("family", [PROJECTIVE, NONPROJECTIVE], ids=repr)
def test_two_forced_roots_leave_a_single_root_space_empty(family: Trees) -> None:
    scores = torch.zeros(3, 3, 3)
    scores[1, 1:, 0] = -math.inf  # words 0 and 1 can only be roots
    scores[1, 0, 1] = scores[1, 2, 1] = -math.inf
    with pytest.raises(ValueError, match=r"\b1\b"):
        _ = family.build({"scores": scores}).partition
    both = Trees(family.projective, True).build({"scores": scores})
    assert both.partition.isfinite().all()


def test_crossing_arcs_leave_a_projective_space_empty() -> None:
    scores = torch.full((1, 4, 4), -math.inf)
    for word, head in enumerate((2, 3, 2, 2)):
        scores[0, head, word] = 0.0
    assert NONPROJECTIVE.build({"scores": scores}).decode().tolist() == [[2, 3, 2, 2]]
    with pytest.raises(ValueError, match=r"\b0\b"):
        _ = PROJECTIVE.build({"scores": scores}).partition


def test_head_selection_is_a_softmax_over_heads() -> None:
    scores = HEADS.scores(seeded(6), 1, 4)["scores"]
    assert agrees(structkd.HeadSelection(scores).marginals, scores.softmax(1))


def test_the_marginals_of_trees_sum_to_one_over_heads() -> None:
    lengths = torch.tensor([7, 4])
    for family in TREES:
        marginals = family.build(family.scores(seeded(7), 2, 8), lengths).marginals
        for item, n in enumerate(lengths.tolist()):
            assert agrees(marginals[item].sum(0)[:n], torch.ones(n))
            roots = marginals[item].diagonal().sum()
            assert family.multiroot or float(roots) == pytest.approx(1.0)


def test_longer_sentences_agree_with_torch_struct() -> None:
    """Beyond enumeration's reach, torch-struct where it is right."""
    scores = PROJECTIVE_MULTI.scores(seeded(8), 2, 12)["scores"]
    ours = structkd.DependencyCRF(scores, multiroot=True)
    marginals = ours.marginals
    theirs = torch_struct.DependencyCRF(scores.clone().requires_grad_(), multiroot=True)
    assert agrees(marginals, theirs.marginals)
    assert agrees(ours.partition, theirs.partition)
