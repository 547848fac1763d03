"""Layers of other libraries: their own likelihood and best structure, by formulas and by the packages themselves."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from families import agrees, random, seeded
from oracles import head_choices
from torch import Tensor

from structkd import supervised_loss
from structkd.integrations import from_pytorch_crf, from_supar

LENGTHS = (3, 1, 4)
MASK = torch.arange(4) < torch.tensor(LENGTHS).unsqueeze(1)


def layer(batch_first: bool, size: int = 3) -> Any:
    return SimpleNamespace(
        batch_first=batch_first,
        transitions=random(seeded(1), size, size).requires_grad_(),
        start_transitions=random(seeded(2), size),
        end_transitions=random(seeded(3), size),
    )


def path_score(crf: Any, emissions: Tensor, path: tuple[int, ...]) -> float:
    """pytorch-crf's score of a sequence: transitions are [previous, next]."""
    score = float(crf.start_transitions[path[0]] + crf.end_transitions[path[-1]])
    score += sum(float(emissions[n, label]) for n, label in enumerate(path))
    return score + sum(float(crf.transitions[i, j].detach()) for i, j in itertools.pairwise(path))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", [torch.bool, torch.uint8])
def test_pytorch_crf_by_its_formula(batch_first: bool, kind: torch.dtype) -> None:
    crf, emissions = layer(batch_first), random(seeded(4), 3, 4, 3)
    mask = MASK.to(kind)
    given = (emissions, mask) if batch_first else (emissions.transpose(0, 1), mask.T)
    chain = from_pytorch_crf(crf, *given, labels=["O", "B-X", "I-X"])
    assert chain.labels == ["O", "B-X", "I-X"]
    for item, n in enumerate(LENGTHS):
        scores = {path: path_score(crf, emissions[item], path) for path in itertools.product(range(3), repeat=n)}
        log_z = math.log(math.fsum(math.exp(score) for score in scores.values()))
        assert agrees(chain.partition[item], torch.tensor(log_z, dtype=torch.float64))
        best = max(scores, key=scores.__getitem__)
        assert chain.decode()[item, :n].tolist() == list(best)
    gold = torch.tensor([[0, 1, 2, 0], [1, 0, 0, 0], [2, 2, 0, 1]])
    expected = [path_score(crf, emissions[b], tuple(gold[b, :n].tolist())) for b, n in enumerate(LENGTHS)]
    assert agrees(chain.log_prob(gold) + chain.partition, expected)
    supervised_loss(chain, gold).backward()
    assert crf.transitions.grad.any()


def test_pytorch_crf_itself() -> None:
    torchcrf = pytest.importorskip("torchcrf", reason="the package pytorch-crf is not installed")
    for seed, batch_first in enumerate((True, False)):
        torch.manual_seed(seed)
        crf = torchcrf.CRF(5, batch_first=batch_first).double()
        emissions, gold = torch.randn(3, 4, 5).double(), torch.randint(5, (3, 4))
        given = [t if batch_first else t.transpose(0, 1) for t in (emissions, gold, MASK)]
        chain = from_pytorch_crf(crf, given[0], given[2])
        assert agrees(chain.log_prob(gold), crf(given[0], given[1], mask=given[2], reduction="none"))
        found = [row[:n] for row, n in zip(chain.decode().tolist(), LENGTHS, strict=True)]
        assert found == crf.decode(given[0], mask=given[2])


@pytest.mark.parametrize("relations", [None, 2])
def test_supar_by_its_formula(relations: int | None) -> None:
    """Every word's softmax over heads other than itself, [dependent, head] with the root first, and over relations."""
    s_arc = random(seeded(5), 3, 5, 5)
    s_rel = None if relations is None else random(seeded(6), 3, 5, 5, relations)
    parser = from_supar(s_arc, s_rel, MASK)
    marginals = parser.marginals if relations is None else parser.marginals.sum(-1)
    for item, n in enumerate(LENGTHS):
        for d in range(n):
            scores = {h: float(s_arc[item, d + 1, h]) for h in range(n + 1) if h != d + 1}
            total = math.fsum(math.exp(score) for score in scores.values())
            expected = {d if h == 0 else h - 1: math.exp(score) / total for h, score in scores.items()}
            assert agrees(marginals[item, :n, d], [expected[h] for h in range(n)])
            if s_rel is not None:
                for h in range(n):
                    given = s_rel[item, d + 1, 0 if h == d else h + 1].softmax(-1)
                    assert agrees(parser.marginals[item, h, d], expected[h] * given)
        heads = max(head_choices(n), key=lambda y: sum(float(marginals[item, h, d].log()) for d, h in enumerate(y)))
        found = from_supar(s_arc, None, MASK).decode()[item, :n].tolist()
        assert found == list(heads)


def test_supars_numbering_of_heads() -> None:
    """The likelihood of trees is supar's loss: heads from 1, and 0 for the root."""
    s_arc = random(seeded(7), 2, 4, 4)
    s_arc.diagonal(0, 1, 2).fill_(-math.inf)  # supar's softmax has the word itself, too
    heads = torch.tensor([[2, 0, 2], [0, 1, 1]])  # of the words 1 to 3
    loss = torch.nn.functional.cross_entropy(s_arc[:, 1:].flatten(0, 1), heads.flatten(), reduction="sum")
    own = torch.where(heads == 0, torch.arange(3), heads - 1)
    assert agrees(from_supar(s_arc).log_prob(own).sum(), -loss)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: from_pytorch_crf(torch.nn.Linear(1, 1), torch.zeros(1, 2, 3)), TypeError, "start_transitions"),
        (lambda: from_pytorch_crf(layer(True), torch.zeros(2, 3)), ValueError, "emissions"),
        (lambda: from_pytorch_crf(layer(True), torch.zeros(1, 2, 4).double()), ValueError, "transitions"),
        (
            lambda: from_pytorch_crf(layer(True), torch.zeros(1, 3, 3), torch.tensor([[0, 1, 1]])),
            *(ValueError, "padding before a word, at position 0"),
        ),
        (
            lambda: from_pytorch_crf(layer(True), torch.zeros(1, 3, 3), torch.tensor([[1, 0, 1]])),
            *(ValueError, "padding before a word, at position 1"),
        ),
        (
            lambda: from_pytorch_crf(layer(False), torch.zeros(3, 1, 3), torch.ones(1, 3)),
            *(ValueError, r"shape \[1, 3\], got \[3, 1\]"),
        ),
        (lambda: from_supar(torch.zeros(1, 3, 4)), ValueError, "root first"),
        (lambda: from_supar(torch.zeros(1, 3, 3), mask=torch.ones(1, 3)), ValueError, r"mask\[:, 1:\]"),
        (lambda: from_supar(torch.zeros(1, 3, 3), torch.zeros(1, 2, 2, 4)), ValueError, "s_rel"),
    ],
)
def test_refusals(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
