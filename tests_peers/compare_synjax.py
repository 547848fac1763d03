"""synjax's chains and spanning trees beside ours, on random scores in float64, without padding."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import synjax
import torch

import structkd

jax.config.update("jax_enable_x64", True)
SEEDS = range(10)


def close(ours: torch.Tensor, theirs: object, tolerance: float = 1e-8) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), np.asarray(theirs), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("seed", SEEDS)
def test_chains(seed: int) -> None:
    torch.manual_seed(seed)
    emissions = torch.randn(3, 5, 4, dtype=torch.float64)
    transitions, start = torch.randn(4, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    ours = structkd.LinearChainCRF.from_scores(emissions, transitions, start)
    # [word, previous, next]; the first word is reached from state 0
    scores = transitions.T + emissions.unsqueeze(2)
    scores[:, 0] = (start + emissions[:, 0]).unsqueeze(1)
    theirs = synjax.LinearChainCRF(jax.numpy.asarray(scores.numpy()))
    close(ours.partition, theirs.log_partition())
    close(ours.entropy, theirs.entropy())
    close(ours.marginals.transpose(2, 3), theirs.marginals()[:, 1:])
    best = np.asarray(theirs.argmax()).sum(2).argmax(-1)
    assert ours.decode().tolist() == best.tolist()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("multiroot", [False, True], ids=["single", "multi"])
@pytest.mark.parametrize("projective", [False, True], ids=["nonprojective", "projective"])
def test_trees(seed: int, multiroot: bool, projective: bool) -> None:
    torch.manual_seed(seed)
    arcs = torch.randn(3, 5, 5, dtype=torch.float64)
    kind = structkd.DependencyCRF if projective else structkd.NonProjectiveDependencyCRF
    ours = kind(arcs, multiroot=multiroot)
    scores = torch.zeros(3, 6, 6, dtype=torch.float64)  # [head, dependent], 0 is the root
    scores[:, 1:, 1:] = arcs
    scores[:, 0, 1:] = arcs.diagonal(dim1=1, dim2=2)
    theirs = synjax.SpanningTreeCRF(
        jax.numpy.asarray(scores.numpy()), directed=True, projective=projective, single_root_edge=not multiroot
    )
    marginals = np.asarray(theirs.marginals())
    expected = marginals[:, 1:, 1:].copy()
    np.einsum("bii->bi", expected)[:] = marginals[:, 0, 1:]
    close(ours.partition, theirs.log_partition(), 1e-5)
    close(ours.marginals, expected, 1e-5)
    close(ours.entropy, theirs.entropy(), 1e-5)
