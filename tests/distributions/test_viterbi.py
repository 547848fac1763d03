"""The best label sequence, among legal ones if they are given, against enumeration."""

import itertools

import pytest
import torch

import structkd
import structkd.data
from structkd.distributions.kernels import viterbi as module

SIZE = 4


def enumerate_best(score, length, legal):
    """The best sequence of labels, by `score` of a tuple of labels, among those that `legal` allows."""

    start, step, end = (None, None, None) if legal is None else (mask.tolist() for mask in legal)

    def allowed(path):
        return start[path[0]] and end[path[-1]] and all(step[b][a] for a, b in itertools.pairwise(path))

    paths = itertools.product(range(SIZE), repeat=length)
    return max((path for path in paths if legal is None or allowed(path)), key=score)


def drawn(generator, kind, lengths):
    """A distribution of some kind, and for every sentence the score of a label sequence."""
    batch, words = len(lengths), int(lengths.max())
    emissions = torch.randn(batch, words, SIZE, generator=generator)
    for item, length in enumerate(lengths):
        emissions[item, length:] = torch.nan
    emissions[:, :, 1][torch.rand(batch, words, generator=generator) < 0.3] = -torch.inf
    if kind == "maxent":
        step, start, end = torch.zeros(SIZE, SIZE), torch.zeros(SIZE), torch.zeros(SIZE)
        distribution = structkd.MaxEnt(emissions, lengths)
    else:
        step = torch.randn(SIZE, SIZE, generator=generator)
        step[2, 3] = -torch.inf
        start, end = torch.randn(SIZE, generator=generator), torch.randn(SIZE, generator=generator)
        distribution = structkd.LinearChainCRF.from_scores(emissions, step, start, end, lengths)
        if kind == "dense":
            distribution = structkd.LinearChainCRF(distribution.log_potentials, lengths)

    words, moves, first, last = (scores.double().tolist() for scores in (emissions, step, start, end))

    def score(item):
        return lambda path: (
            sum(words[item][n][label] for n, label in enumerate(path))
            + first[path[0]]
            + last[path[-1]]
            + sum(moves[b][a] for a, b in itertools.pairwise(path))
        )

    return distribution, score


@pytest.mark.parametrize("kind", ["factored", "dense", "maxent"])
@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("held", [module._HELD_CELLS, 2 * SIZE**2], ids=["together", "in turns"])
def test_equals_enumeration_on_ragged_batches(kind, constrained, held, monkeypatch) -> None:
    monkeypatch.setattr(module, "_HELD_CELLS", held)
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        lengths = torch.tensor([1, 2, 3, 4, 5])[torch.randperm(5, generator=generator)]
        if kind == "dense":
            lengths[lengths == 1] = 2  # dense potentials have no place for the scores of a single word
        distribution, score = drawn(generator, kind, lengths)
        legal = None
        if constrained:
            shapes = ((SIZE,), (SIZE, SIZE), (SIZE,))
            legal = tuple(torch.rand(shape, generator=generator) < 0.6 for shape in shapes)
            # Label 0 plays O: with it there is always a legal sequence.
            legal[0][0] = legal[1][0, 0] = legal[2][0] = True
        decoded = distribution.decode(legal)
        for item, length in enumerate(lengths.tolist()):
            assert tuple(decoded[item, :length].tolist()) == enumerate_best(score(item), length, legal)
            assert (decoded[item, length:] == -1).all()


def test_the_labels_of_a_scheme_give_a_legal_sequence() -> None:
    labels = structkd.data.tag_inventory(["PER", "ORG"], "BIOES")
    logits = torch.randn(20, 6, len(labels), generator=torch.Generator().manual_seed(1))
    distribution = structkd.MaxEnt(logits, labels=labels)
    legal = structkd.data.legal_transitions(labels)
    violations = [
        sum(structkd.data.find_violation([labels[tag] for tag in tags], "BIOES") is not None for tags in decoded)
        for decoded in (distribution.decode(), distribution.decode(legal))
    ]
    assert violations[0] > 10
    assert violations[1] == 0


def test_without_a_legal_sequence_the_sentence_is_named() -> None:
    legal = (torch.tensor([True, False]), torch.tensor([[False, False], [True, True]]), torch.tensor([False, True]))
    assert structkd.MaxEnt(torch.zeros(2, 2, 2)).decode(legal).tolist() == [[0, 1], [0, 1]]
    with pytest.raises(ValueError, match=r"No legal label sequence is possible for batch item\(s\) \[1\]"):
        structkd.MaxEnt(torch.zeros(2, 2, 2), torch.tensor([2, 1])).decode(legal)
    impossible = torch.tensor([[[0.0, -torch.inf], [-torch.inf, -torch.inf]]])
    with pytest.raises(ValueError, match=r"No label sequence is possible for batch item\(s\) \[0\]"):
        structkd.LinearChainCRF.from_scores(impossible, torch.zeros(2, 2)).decode()


def test_a_sum_of_finite_scores_that_overflows_is_possible() -> None:
    lowest = torch.finfo(torch.float64).min
    emissions = torch.tensor([[[lowest, -torch.inf], [-torch.inf, lowest]]], dtype=torch.float64)
    chain = structkd.LinearChainCRF.from_scores(emissions, emissions.new_zeros(2, 2))
    assert chain.decode().tolist() == [[0, 1]]


@pytest.mark.parametrize(
    "legal",
    [
        (torch.ones(2, dtype=torch.bool), torch.ones(3, 3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)),
        (torch.ones(3), torch.ones(3, 3), torch.ones(3)),
    ],
    ids=["shape", "dtype"],
)
def test_wrong_masks_are_refused(legal) -> None:
    with pytest.raises(ValueError, match=r"shapes \[3\], \[3, 3\] and \[3\].*legal_transitions"):
        structkd.MaxEnt(torch.zeros(1, 2, 3)).decode(legal)


def test_half_precision_is_decoded_in_working_precision() -> None:
    emissions = torch.tensor([[[0.0, 1.0], [3.0, 0.0]]], dtype=torch.bfloat16)
    allowed = (torch.ones(2, dtype=torch.bool), torch.ones(2, 2, dtype=torch.bool), torch.ones(2, dtype=torch.bool))
    for distribution in (structkd.MaxEnt(emissions), structkd.LinearChainCRF.from_scores(emissions, torch.zeros(2, 2))):
        assert distribution.decode().tolist() == distribution.decode(allowed).tolist() == [[1, 0]]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_score_that_is_no_number_is_not_hidden(batch) -> None:
    """Where checks are off, a model that has diverged has sequences without a score, by every path."""
    unary = torch.zeros(batch, 3, 2, dtype=torch.float64)
    unary[0, 1, 0] = torch.nan
    values, labels = module.viterbi(unary, torch.zeros(2, 2), torch.full((batch,), 3))
    assert values.isnan().tolist() == [True] + [False] * (batch - 1)
    assert ((labels >= 0) & (labels < 2)).all()
