"""What is particular to chains: the factored form, one-word sentences, torch-struct's layout."""

from __future__ import annotations

import math

import pytest
import torch
import torch_struct
from families import BARE, DENSE, FACTORED, Chain, FactoredChain, agrees, lengths_tensor, seeded

import structkd

LENGTHS = (3, 1, 4, 2)
both_forms = pytest.mark.parametrize("family", [FACTORED, BARE], ids=repr)


@both_forms
def test_log_potentials_of_the_factored_form(family: FactoredChain) -> None:
    """Unary scores are folded in, the first word's at n = 0: a dense chain of them is the same distribution."""
    lengths = (3, 4, 2)
    scores = family.scores(seeded(1), 3, 4)
    factored = family.build(scores, lengths_tensor(lengths))
    assert factored.log_potentials.shape == (3, 3, 3, 3)
    dense = structkd.LinearChainCRF(factored.log_potentials, lengths=lengths_tensor(lengths))
    theirs = torch_struct.LinearChainCRF(factored.log_potentials.clone(), lengths=lengths_tensor(lengths))
    assert agrees(dense.partition, [e.partition for e in family.enumerate(scores, lengths)])
    assert agrees(dense.marginals, factored.marginals)
    assert agrees(theirs.partition, dense.partition)
    assert agrees(theirs.marginals, dense.marginals)


@both_forms
@pytest.mark.parametrize("batch", [1, 2, 3], ids=lambda batch: f"batch{batch}")  # 3 is also the number of labels
@pytest.mark.parametrize("width", [1, 2, 4], ids=lambda width: f"width{width}")
def test_a_batch_of_one_word_sentences(family: FactoredChain, batch: int, width: int) -> None:
    scores, lengths = family.scores(seeded(2), batch, width), [1] * batch
    enumerations = family.enumerate(scores, lengths)
    event = (width - 1, 3, 3)
    for chain in (family.build(scores, lengths_tensor(lengths)), *([family.build(scores)] if width == 1 else [])):
        assert agrees(chain.partition, [e.partition for e in enumerations])
        assert agrees(chain.entropy, [e.entropy for e in enumerations])
        assert chain.event_shape == event
        assert chain.decode()[:, 0].tolist() == [e.ranked()[0][0] for e in enumerations]
        for events, leading in (
            (chain.marginals, (batch,)),
            (chain.argmax, (batch,)),
            (chain.topk(2), (2, batch)),
            (chain.sample((4,)), (4, batch)),
        ):
            assert events.shape == (*leading, *event)
            assert not events.any()


def test_a_dense_one_word_sentence_is_uniform() -> None:
    chain = DENSE.build(DENSE.scores(seeded(3), 2, 3), lengths_tensor([1, 3]))
    assert float(chain.partition[0]) == pytest.approx(math.log(3))
    assert float(chain.entropy[0]) == pytest.approx(math.log(3))
    assert not chain.marginals[0].any()


def test_cells_are_next_by_previous() -> None:
    """A transition 0 -> 1 is cell [1, 0]."""
    emissions = torch.zeros(1, 2, 3)
    transitions = torch.zeros(3, 3)
    transitions[1, 0] = 50.0
    chain = structkd.LinearChainCRF.from_scores(emissions, transitions)
    assert chain.decode().tolist() == [[0, 1]]
    assert chain.marginals[0, 0, 1, 0] > 0.99
    assert structkd.LinearChainCRF(transitions.expand(1, 1, 3, 3)).decode().tolist() == [[0, 1]]


def test_start_and_end_score_the_first_and_the_last_word_of_each_sentence() -> None:
    start, end = torch.tensor([0.0, 9.0, 0.0]), torch.tensor([0.0, 0.0, 7.0])
    chain = structkd.LinearChainCRF.from_scores(
        torch.tensor([0.5, 0.0, 0.0]).expand(2, 4, 3),
        torch.zeros(3, 3),
        start=start,
        end=end,
        lengths=lengths_tensor([4, 2]),
    )
    assert chain.decode().tolist() == [[1, 0, 0, 2], [1, 2, -1, -1]]


def test_labels_are_kept() -> None:
    chain = structkd.LinearChainCRF.from_scores(torch.zeros(1, 2, 2), torch.zeros(2, 2), labels=["O", "B-PER"])
    assert list(chain.labels) == ["O", "B-PER"]
    assert list(structkd.LinearChainCRF(torch.zeros(1, 1, 2, 2), labels=["O", "B-PER"]).labels) == ["O", "B-PER"]


@pytest.mark.parametrize("lengths", [(2, 1), (2, 3), (1, 1)], ids=str)
def test_no_length_has_to_fill_the_batch(lengths: tuple[int, int]) -> None:
    scores = DENSE.scores(seeded(4), 2, 6)
    chain = DENSE.build(scores, lengths_tensor(lengths))
    assert agrees(chain.partition, [e.partition for e in DENSE.enumerate(scores, lengths)])


def test_log_prob_of_a_one_word_sentence_through_supervision() -> None:
    """Events of one-word chains say nothing about the label; the supervised loss scores it."""
    scores = FACTORED.scores(seeded(5), 4, 5)
    chain = FACTORED.build(scores, lengths_tensor(LENGTHS))
    enumerations = FACTORED.enumerate(scores, LENGTHS)
    gold = [list(e.ranked()[min(1, len(e.scores) - 1)]) for e in enumerations]
    padded = torch.tensor([row + [-100] * (5 - len(row)) for row in gold])
    expected = [-e.log_prob(tuple(row)) for e, row in zip(enumerations, gold, strict=True)]
    assert agrees(structkd.supervised_loss(chain, padded, reduction="none"), expected)


@pytest.mark.parametrize("family", [DENSE, FACTORED, BARE], ids=repr)
@pytest.mark.parametrize(
    ("scale", "rate", "seeds"),
    # Every scale and every rate with every seed, but not all three.
    [
        (scale, rate, [0, 1, 25, 103, 106, 108][(row + column) % 3 :: 3])
        for row, scale in enumerate([30.0, 400.0, 3000.0])
        for column, rate in enumerate([0.0, 0.35, 0.5])
    ],
)
def test_garden_paths(family: Chain, scale: float, rate: float, seeds: list[int], kernels: str) -> None:
    """What looks best from the left may be impossible, or hopeless, in the end; nothing is lost on the way."""
    n = 6
    interpreted = kernels == "triton"  # it takes its time
    for seed in seeds[:1] if interpreted else seeds:
        scores = family.map(family.scores(seeded(seed), 1, n), lambda tensor: (tensor * scale).round())
        if rate:
            scores, _ = family.masked(scores, [n], seeded(seed + 50), rate)
        enumeration = family.enumerate(scores, [n])[0]
        learning = family.with_grad(scores)
        for chain in [family.build(learning), *([] if interpreted else [family.build(scores)])]:
            assert agrees(chain.partition, [enumeration.partition])
            assert agrees(chain.marginals, family.events([enumeration], n))
            assert agrees(chain.entropy, [enumeration.entropy], torch.float32)
            loss = structkd.structural_kd_loss(chain, chain)
            assert float(loss.detach()) == pytest.approx(enumeration.entropy, abs=1e-6)
            if loss.requires_grad:
                loss.backward()
        for name in family.floats(learning):
            assert agrees(learning[name].grad, torch.zeros_like(learning[name]))


@pytest.mark.parametrize("gap", [100.0, 400.0, 800.0, 1e5])
def test_the_only_way_through_is_the_least_likely_at_every_word(gap: float) -> None:
    """Label 1 is worse by `gap` at every word, and only label 1 may come last."""
    n = 6
    emissions = torch.zeros(2, n, 2, dtype=torch.float64)
    emissions[:, :, 1] = -gap
    emissions[0, -1, 0] = -math.inf
    transitions = torch.tensor([[0.0, 0.0], [-math.inf, 0.0]], dtype=torch.float64)  # no way from label 0 to label 1
    chain = structkd.LinearChainCRF.from_scores(emissions, transitions)
    assert chain.decode()[0].tolist() == [1] * n
    assert float(chain.partition[0]) == pytest.approx(-gap * n, rel=1e-12)
    assert chain.marginals[0, :, 1, 1].tolist() == pytest.approx([1.0] * (n - 1), abs=1e-12)
    assert float(chain.entropy[0]) == pytest.approx(0.0, abs=1e-6)
    dense = structkd.LinearChainCRF(chain.log_potentials)
    assert agrees(dense.marginals, chain.marginals)
    assert agrees(dense.partition, chain.partition)
    student = structkd.MaxEnt(torch.zeros(2, n, 2, dtype=torch.float64))
    assert agrees(structkd.project(chain, student)[0], torch.tensor([[0.0, 1.0]]).expand(n, 2))
