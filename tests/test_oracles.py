"""The oracles against counts known from combinatorics."""

from __future__ import annotations

import math

import pytest
from oracles import Enumeration, cross_entropy, head_choices, is_projective, segmentations, span_tags, trees


@pytest.mark.parametrize(
    ("projective", "multiroot", "counts"),
    [
        (False, True, [1, 3, 16, 125, 1296]),  # Cayley: (n+1)^(n-1)
        (False, False, [1, 2, 9, 64, 625]),  # n^(n-1)
        (True, True, [1, 3, 12, 55, 273]),  # ternary trees
        (True, False, [1, 2, 7, 30, 143]),
    ],
)
def test_number_of_trees(projective: bool, multiroot: bool, counts: list[int]) -> None:
    assert [len(trees(n, projective, multiroot)) for n in range(1, 6)] == counts


def test_projectivity_by_example() -> None:
    assert is_projective((1, 1, 1))
    assert not is_projective((2, 1, 1))  # the arc 2 -> 0 passes over the root 1
    assert not is_projective((2, 3, 2, 2))  # the arcs 2 -> 0 and 3 -> 1 cross
    assert len(head_choices(3)) == 27


def test_segmentations_and_their_tags() -> None:
    assert len(segmentations(2, 1)) == 5
    assert len(set(segmentations(4, 2))) == len(segmentations(4, 2))
    spans = ((0, 0, 0), (1, 3, 1))
    assert span_tags(spans, 5, ["X", "Y"], "BIO") == ("B-X", "B-Y", "I-Y", "I-Y", "O")
    assert span_tags(spans, 5, ["X", "Y"], "BIOES") == ("S-X", "B-Y", "I-Y", "E-Y", "O")


def test_cross_entropy_by_hand() -> None:
    p = Enumeration({(0,): math.log(3.0), (1,): 0.0, (2,): -math.inf})
    q = Enumeration({(0,): 0.0, (1,): 0.0})
    assert p.partition == pytest.approx(math.log(4.0))
    assert cross_entropy(p, q) == pytest.approx(math.log(2.0))
    assert p.entropy == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert cross_entropy(q, Enumeration({(0,): 0.0})) == math.inf
