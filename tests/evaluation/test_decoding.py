"""Constrained Viterbi against enumeration."""

import itertools

import pytest
import torch

from structkd.evaluation.decoding import viterbi


def enumerate_best(emissions, length, transitions, start, end, legal):
    count = emissions.shape[-1]
    best, best_score = None, -float("inf")
    for path in itertools.product(range(count), repeat=length):
        if legal is not None:
            allowed = legal[0][path[0]] and legal[2][path[-1]]
            allowed = allowed and all(legal[1][b, a] for a, b in itertools.pairwise(path))
            if not allowed:
                continue
        score = sum(float(emissions[n, label]) for n, label in enumerate(path))
        if transitions is not None:
            score += float(start[path[0]] + end[path[-1]])
            score += sum(float(transitions[b, a]) for a, b in itertools.pairwise(path))
        if score > best_score:
            best, best_score = path, score
    return best


@pytest.mark.parametrize("head", ["crf", "maxent"])
@pytest.mark.parametrize("constrained", [True, False])
def test_equals_enumeration_on_ragged_batches(head: str, constrained: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        batch, words, count = 5, 5, 4
        emissions = torch.randn(batch, words, count, generator=generator)
        lengths = torch.tensor([1, 2, 3, 4, 5])[torch.randperm(5, generator=generator)]
        for item, length in enumerate(lengths):
            emissions[item, length:] = torch.nan
        scores = (None, None, None)
        if head == "crf":
            scores = (
                torch.randn(count, count, generator=generator),
                torch.randn(count, generator=generator),
                torch.randn(count, generator=generator),
            )
        legal = None
        if constrained:
            legal = tuple(
                torch.rand(shape, generator=generator) < 0.6 for shape in ((count,), (count, count), (count,))
            )
            # Label 0 plays O: with it there is always a legal sequence.
            legal[0][0] = legal[1][0, 0] = legal[2][0] = True
        decoded = viterbi(emissions, lengths, *scores, legal=legal)
        for item, length in enumerate(lengths.tolist()):
            wanted = enumerate_best(emissions[item], length, *scores, legal)
            assert tuple(decoded[item, :length].tolist()) == wanted
            assert (decoded[item, length:] == -1).all()


def test_without_a_legal_sequence_the_sentence_is_named() -> None:
    legal = (torch.tensor([True, False]), torch.tensor([[False, False], [True, True]]), torch.tensor([False, True]))
    emissions = torch.zeros(2, 2, 2)
    assert viterbi(emissions, torch.tensor([2, 2]), legal=legal).tolist() == [[0, 1], [0, 1]]
    with pytest.raises(ValueError, match=r"batch items \[1\]"):
        viterbi(emissions, torch.tensor([2, 1]), legal=legal)


def test_half_precision_is_decoded_in_single() -> None:
    emissions = torch.tensor([[[0.0, 1.0], [3.0, 0.0]]], dtype=torch.bfloat16)
    assert viterbi(emissions, torch.tensor([2])).tolist() == [[1, 0]]
