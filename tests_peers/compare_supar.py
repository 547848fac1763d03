"""supar's chains, projective and non-projective trees beside ours, on random scores in float64."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import structkd
from structkd.integrations import from_supar


def structs() -> Any:
    """Import supar.structs without supar's parsers, which need packages that structures do not."""
    spec = importlib.util.find_spec("supar")
    assert spec is not None
    assert spec.origin is not None
    for name in ("supar", "supar.utils"):
        package = types.ModuleType(name)
        package.__path__ = [str(Path(spec.origin).parent.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    return importlib.import_module("supar.structs")


supar = structs()
SEEDS = range(25)
LENGTHS = torch.tensor([6, 1, 4, 3])


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-8) -> None:
    torch.testing.assert_close(ours, theirs.double(), rtol=tolerance, atol=tolerance)


def gradients(leaf: Tensor, *partitions: Tensor) -> list[Tensor]:
    return [torch.autograd.grad(partition.sum(), leaf, retain_graph=True)[0] for partition in partitions]


@pytest.mark.parametrize("seed", SEEDS)
def test_chains(seed: int) -> None:
    torch.manual_seed(seed)
    labels = 4
    emissions = torch.randn(4, 6, labels, dtype=torch.float64, requires_grad=True)
    transitions = torch.randn(labels + 1, labels + 1, dtype=torch.float64)  # [previous, next], the last: start and end
    ours = structkd.LinearChainCRF.from_scores(
        emissions, transitions[:-1, :-1].T, transitions[-1, :-1], transitions[:-1, -1], lengths=LENGTHS
    )
    theirs = supar.LinearChainCRF(emissions, transitions, LENGTHS)
    close(ours.partition, theirs.log_partition)
    close(*gradients(emissions, ours.partition, theirs.log_partition))
    close(ours.entropy, theirs.entropy)
    inside = torch.arange(6) < LENGTHS.unsqueeze(1)
    assert ours.decode()[inside].tolist() == theirs.argmax[inside].tolist()
    tags = torch.randint(labels, (4, 6))
    close(ours.log_prob(tags), theirs.log_prob(tags))


def with_root(arcs: Tensor) -> Tensor:
    """Scores [B, head, dependent] with roots on the diagonal as supar's [B, 1 + dependent, 1 + head], 0 the root."""
    batch, n, _ = arcs.shape
    scores = arcs.new_zeros(batch, n + 1, n + 1)
    scores[:, 1:, 1:] = arcs.transpose(1, 2)
    scores[:, 1:, 0] = arcs.diagonal(dim1=1, dim2=2)
    scores[:, 1:, 1:].diagonal(dim1=1, dim2=2).fill_(-1e32)
    return scores


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("multiroot", [False, True], ids=["single", "multi"])
@pytest.mark.parametrize("projective", [False, True], ids=["nonprojective", "projective"])
def test_trees(seed: int, multiroot: bool, projective: bool) -> None:
    torch.manual_seed(seed)
    arcs = torch.randn(4, 6, 6, dtype=torch.float64, requires_grad=True)
    kind = structkd.DependencyCRF if projective else structkd.NonProjectiveDependencyCRF
    ours = kind(arcs, LENGTHS, multiroot)
    theirs = (supar.DependencyCRF if projective else supar.MatrixTree)(with_root(arcs), LENGTHS, multiroot)
    tolerance = 1e-8 if projective else 1e-4  # its determinant is rounded to float32
    close(ours.partition, theirs.log_partition, tolerance)
    of_ours, of_theirs = gradients(arcs, ours.partition, theirs.log_partition)
    close(of_ours, of_theirs, tolerance)
    close(ours.marginals, of_theirs, tolerance)
    heads = theirs.argmax[:, 1:]
    for row, found, n in zip(ours.decode().tolist(), heads.tolist(), LENGTHS.tolist(), strict=True):
        assert [0 if head == word else head + 1 for word, head in enumerate(row[:n])] == found[:n]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_adaptor_reads_supars_scores(seed: int) -> None:
    """supar's own scores, [dependent, head] with the root first: the same trees, and its parser's likelihood."""
    torch.manual_seed(seed)
    s_arc = torch.randn(4, 7, 7, dtype=torch.float64)
    s_arc.diagonal(dim1=1, dim2=2).fill_(-1e32)
    mask = torch.arange(6) < LENGTHS.unsqueeze(1)
    parser = from_supar(s_arc, mask=mask)
    ours = structkd.DependencyCRF(parser.log_potentials, LENGTHS, multiroot=True)
    theirs = supar.DependencyCRF(s_arc.clone(), LENGTHS, multiroot=True)  # it lets its scores require a gradient
    close(ours.partition, theirs.log_partition)
    found = ours.decode()
    found = torch.where(found == torch.arange(6), 0, found + 1)
    assert found[mask].tolist() == theirs.argmax[:, 1:][mask].tolist()
    # BiaffineDependencyParser.loss: a softmax over heads, of the words of the mask
    s_arc[:, :, 1:] = s_arc[:, :, 1:].masked_fill(~mask.unsqueeze(1), -1e32)
    loss = torch.nn.functional.cross_entropy(s_arc[:, 1:][mask], found[mask], reduction="sum")
    close(parser.log_prob(ours.decode()).sum(), -loss)
