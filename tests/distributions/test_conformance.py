"""One suite, every distribution: each family of the registry against enumeration."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from families import DENSE, FACTORED, FAMILIES, MAXENT, agrees, lengths_tensor
from torch import Tensor

import structkd
from structkd import testing
from structkd.testing import Cell, ConformanceTests, Scores, Structure
from structkd.testing.conformance import Sample

for _family in FAMILIES:
    _name = "Test" + "".join(part.capitalize() for part in _family.name.split("-"))
    globals()[_name] = type(_name, (ConformanceTests,), {"family": _family})


class Rounded(structkd.MaxEnt):
    """A distribution with a bug: its marginals have three digits."""

    @property
    def marginals(self) -> Tensor:
        return super().marginals.mul(1000).round() / 1000


class RoundedFamily(testing.Family):
    """As a file outside this library writes it: the hooks and nothing else."""

    name = "rounded"

    def scores(self, generator: torch.Generator, batch: int, n: int, dtype: torch.dtype = torch.float64) -> Scores:
        return {"scores": torch.randn(batch, n, 3, generator=generator, dtype=torch.float64).to(dtype)}

    def build(self, scores: Scores, lengths: Tensor | None = None, **options: Any) -> Any:
        return Rounded(scores["scores"], lengths=lengths)

    def structures(self, n: int) -> Sequence[Structure]:
        return list(itertools.product(range(3), repeat=n))

    def cells(self, structure: Structure) -> list[Cell]:
        return [("scores", (word, label)) for word, label in enumerate(structure)]

    def event_shape(self, n: int) -> tuple[int, ...]:
        return (n, 3)


@pytest.mark.above_kernels
def test_a_distribution_with_a_bug_does_not_pass() -> None:
    tests = ConformanceTests()
    tests.family = RoundedFamily()
    tests.test_partition()
    with pytest.raises(AssertionError):
        tests.test_marginals()


@pytest.mark.parametrize("other", [torch.float32, torch.float64, torch.float16], ids=str)
def test_mixed_dtypes_promote(other: torch.dtype) -> None:
    for family in FAMILIES:
        sample = Sample(family, 23)
        names = family.floats(sample.scores)
        if len(names) < 2:
            continue
        scores = family.to(sample.scores, torch.float32)
        scores[names[-1]] = scores[names[-1]].to(other)
        distribution = family.build(scores, lengths_tensor(sample.lengths))
        promoted = torch.promote_types(torch.float32, other)
        assert distribution.partition.dtype == promoted
        assert distribution.marginals.dtype == promoted
        expected = family.marginals(scores, sample.lengths, sample.width)
        assert agrees(distribution.marginals, expected, torch.float32)


def test_the_registry_covers_both_forms_of_the_chain() -> None:
    assert {DENSE.name, FACTORED.name, MAXENT.name} <= {family.name for family in FAMILIES}
