"""What is particular to span distributions."""

from __future__ import annotations

import math

import torch
from families import SPANS, Spans, agrees, lengths_tensor, random, seeded

import structkd


def test_no_span_at_all_scores_zero() -> None:
    scores = torch.full((1, 3, 3, 2), -math.inf)
    distribution = structkd.SpanCRF(scores)
    assert distribution.partition.tolist() == [0.0]
    assert distribution.decode() == [[]]
    assert not distribution.marginals.any()


def test_one_word_is_a_softmax_against_no_span() -> None:
    scores = random(seeded(1), 2, 1, 1, 3)
    marginals = structkd.SpanCRF(scores).marginals
    padded = torch.cat([torch.zeros(2, 1, dtype=torch.float64), scores[:, 0, 0]], dim=1)
    assert agrees(marginals[:, 0, 0], padded.softmax(1)[:, 1:])


def test_cells_with_the_end_before_the_start_are_ignored() -> None:
    scores = SPANS.scores(seeded(2), 1, 4)
    noisy = {"scores": scores["scores"].clone()}
    low = torch.ones(4, 4, dtype=torch.bool).tril(-1)
    noisy["scores"][0, low] = math.nan
    assert agrees(SPANS.build(noisy).marginals, SPANS.marginals(scores, [4], 4))


def test_decoded_spans_are_start_end_type() -> None:
    scores = torch.full((2, 4, 4, 2), -5.0)
    scores[0, 0, 1, 1] = scores[0, 3, 3, 0] = 5.0
    scores[1, 0, 0, 0] = scores[1, 0, 2, 1] = 5.0
    decoded = structkd.SpanCRF(scores, lengths=lengths_tensor([4, 2])).decode()
    assert [[tuple(span) for span in spans] for spans in decoded] == [[(0, 1, 1), (3, 3, 0)], [(0, 0, 0)]]
    assert all(isinstance(value, int) for spans in decoded for span in spans for value in span)


def test_types_are_kept() -> None:
    assert list(structkd.SpanCRF(torch.zeros(1, 2, 2, 2), types=["LOC", "PER"]).types) == ["LOC", "PER"]


def test_longer_sentences_against_more_types() -> None:
    family = Spans(types=1)
    scores = family.scores(seeded(3), 2, 7)
    distribution = family.build(scores, lengths_tensor([7, 5]))
    enumerations = family.enumerate(scores, (7, 5))
    assert agrees(distribution.partition, [e.partition for e in enumerations])
    assert agrees(distribution.marginals, family.events(enumerations, 7))
