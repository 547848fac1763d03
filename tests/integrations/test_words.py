"""Scores of positions as scores of words, and whatever cannot be words."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from families import agrees, random, seeded

import structkd
from structkd.integrations import from_hf, words_of

# [CLS] a ##a b [SEP] pad, and from the left: pad pad [CLS] a ##a [SEP]
IDS = [[None, 0, 0, 1, None, None], [None, None, None, 0, 0, None]]
FIRST = torch.tensor([[0, 1, 0, 1, 0, 0], [0, 0, 0, 1, 0, 0]])
SCORES = random(seeded(1), 2, 6, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("pooling", "where"),
    [
        ("first", {"word_ids": IDS}),
        ("mean", {"word_ids": IDS}),
        ("first", {"labels": torch.where(FIRST == 1, 2, -100)}),
        ("first", {"mask": FIRST.bool()}),
        ("first", {"mask": FIRST}),
    ],
)
def test_packing(pooling: str, where: dict[str, Any], dtype: torch.dtype) -> None:
    """By the definition, word for word; the gradient reaches the pieces that count."""
    scores = SCORES.clone().to(dtype).requires_grad_()
    words, lengths = words_of(scores, pooling=pooling, **where)
    assert lengths.tolist() == [2, 1]
    assert words.dtype == dtype
    pieces = [[[1, 2], [3]], [[3, 4]]]
    weights = torch.zeros(2, 6, dtype=torch.float64)
    for item, sentence in enumerate(pieces):
        for word, positions in enumerate(sentence):
            used = positions if pooling == "mean" else positions[:1]
            expected = sum(SCORES[item, p] for p in used) / len(used)
            assert agrees(words[item, word], expected)
            for p in used:
                weights[item, p] = 1 / len(used)
    assert not words[1, 1].any()
    words.sum().backward()
    assert agrees(scores.grad, weights.unsqueeze(-1).expand(2, 6, 3))


def test_a_token_classifier() -> None:
    config = SimpleNamespace(id2label={0: "O", 2: "I-X", 1: "B-X"})
    tagger = from_hf(SimpleNamespace(logits=SCORES), config, word_ids=IDS, pooling="mean")
    words, lengths = words_of(SCORES, IDS, pooling="mean")
    assert tagger.labels == ["O", "B-X", "I-X"]
    assert agrees(tagger.marginals, structkd.MaxEnt(words, lengths).marginals)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "none of them"),
        ({"word_ids": IDS, "mask": FIRST}, ValueError, "Exactly one"),
        ({"word_ids": IDS[:1]}, ValueError, "2 sentences, got 1"),
        ({"word_ids": [IDS[0], IDS[1][:5]]}, ValueError, "sentence 1 must be 6 numbers"),
        ({"word_ids": [IDS[0], None]}, TypeError, "not a fast one"),
        ({"word_ids": FIRST}, TypeError, "encoding.word_ids"),
        ({"word_ids": [IDS[0], [None] * 6]}, ValueError, r"\[1\] of the batch have no word"),
        ({"word_ids": [IDS[0], [None, 0, 2, 3, None, None]]}, ValueError, "position 2, word 2 comes after word 0"),
        ({"word_ids": [IDS[0], [None, 1, 2, 3, None, None]]}, ValueError, "word 1 comes after word -1"),
        ({"word_ids": [IDS[0], [None, 0, 1, None, 0, 1]]}, ValueError, "pair of sentences"),
        ({"word_ids": [IDS[0], [None, 0, None, 0, 1, 2]]}, ValueError, "second time"),
        ({"word_ids": [IDS[0], [None, 0, -1, 1, 2, 3]]}, TypeError, "has -1"),
        ({"labels": torch.where(FIRST == 1, 3, -100)}, ValueError, "in 0..2"),
        ({"labels": FIRST.double()}, TypeError, "LongTensor"),
        ({"labels": FIRST[:, :4]}, ValueError, r"shape \[2, 6\]"),
        ({"labels": FIRST * 0 - 100}, ValueError, r"\[0, 1\].*no word.*give word_ids or mask"),
        ({"labels": FIRST, "pooling": "mean"}, ValueError, "needs word_ids"),
        ({"mask": FIRST * 2}, ValueError, "truth values"),
        ({"mask": FIRST.float()}, TypeError, "one position per word"),
        ({"mask": FIRST[:, :4]}, ValueError, r"shape \[2, 6\]"),
        ({"mask": [[True]]}, TypeError, "BoolTensor"),
        ({"word_ids": IDS, "pooling": "last"}, ValueError, "'last'"),
    ],
)
def test_positions_that_cannot_be_words(options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        words_of(SCORES, **options)


CONFIG = SimpleNamespace(id2label={0: "O", 1: "B", 2: "C"})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(from_hf, SCORES[:, 0], CONFIG), "AutoModelForTokenClassification"),
        (partial(from_hf, SimpleNamespace(start_logits=SCORES), CONFIG), "AutoModelForTokenClassification"),
        (partial(from_hf, SCORES, SimpleNamespace()), "id2label"),
        (partial(from_hf, SCORES, SimpleNamespace(id2label={0: "O", 1: "B"})), r"0\.\.2, got \[0, 1\]"),
    ],
)
def test_outputs_of_other_models(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(word_ids=IDS)
