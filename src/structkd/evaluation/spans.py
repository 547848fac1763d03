"""Counts of spans, found as by seqeval in ``mode="strict"``, and of tags per sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structkd.tags import strict_spans

__all__ = ["span_counts", "strict_spans", "tag_counts"]

Counts = NDArray[np.int64]


def span_counts(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: str) -> Counts:
    """Count the correct, predicted and gold spans of every sentence.

    Returns:
        [sentences, 3]. Sums over sentences give micro-averaged metrics, and resampled rows give their bootstrap.

    >>> span_counts([["B-PER", "I-PER", "B-LOC"]], [["B-PER", "O", "B-LOC"]], "BIO").tolist()
    [[1, 2, 2]]
    """
    _check_aligned(gold, predicted)
    rows = []
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        truth, guess = set(strict_spans(gold_tags, scheme)), set(strict_spans(predicted_tags, scheme))
        rows.append((len(truth & guess), len(guess), len(truth)))
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def tag_counts(gold: Sequence[Sequence[Any]], predicted: Sequence[Sequence[Any]]) -> Counts:
    """Count the correct tags (names or indices) of every sentence, and its words twice, so that F1 is the accuracy.

    Returns:
        [sentences, 3], as from :func:`span_counts`.

    >>> tag_counts([["DET", "NOUN"]], [["DET", "VERB"]]).tolist()
    [[1, 2, 2]]
    """
    _check_aligned(gold, predicted)
    rows = [
        (sum(one == other for one, other in zip(truth, guess, strict=True)), len(guess), len(truth))
        for truth, guess in zip(gold, predicted, strict=True)
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def _check_aligned(gold: Sequence[Sequence[Any]], predicted: Sequence[Sequence[Any]]) -> None:
    if len(gold) != len(predicted):
        raise ValueError(f"Got {len(gold)} gold sentences and {len(predicted)} predicted ones; expected as many.")
    for number, (truth, guess) in enumerate(zip(gold, predicted, strict=True)):
        if len(truth) != len(guess):
            raise ValueError(
                f"Sentence {number} has {len(truth)} gold tags and {len(guess)} predicted ones; expected as many."
            )
