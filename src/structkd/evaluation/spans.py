"""Spans of tag sequences under a scheme read strictly, and words with the right tag, counted per sentence.

The spans of a tag sequence, legal or not, are those that seqeval finds in ``mode="strict"``: under BIO a span is a B
and the run of I of the same type after it (an I that continues nothing is ignored); under BIOES it is an S, or a B,
any I, and an E, all of one type (a B without its E is ignored).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SCHEMES", "span_counts", "strict_spans", "tag_counts"]

SCHEMES = ("BIO", "BIOES")

Span = tuple[int, int, str]
Counts = NDArray[np.int64]


def strict_spans(tags: Sequence[str], scheme: str) -> list[Span]:
    """Spans (first word, last word, type) of one sentence, last word included.

    Args:
        tags: "O", or a prefix, a hyphen and a type.
        scheme: "BIO" or "BIOES".

    Raises:
        ValueError: for an unknown scheme or a tag that is not of it.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"Unknown tag scheme {scheme!r}: expected one of {', '.join(SCHEMES)}.")
    spans: list[Span] = []
    begin: int | None = None
    current = ""
    for position, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if prefix not in scheme + "O" or len(prefix) != 1:
            raise ValueError(f"Tag {tag!r} is not of scheme {scheme}: expected O or one of its prefixes and a type.")
        continues = begin is not None and kind == current and prefix in "IE"
        if not continues:
            # Under BIO a span is complete at any word that does not continue it; under BIOES only at its E.
            if begin is not None and scheme == "BIO":
                spans.append((begin, position - 1, current))
            begin = None
        if prefix == "B":
            begin, current = position, kind
        elif prefix == "S":
            spans.append((position, position, kind))
        elif prefix == "E" and continues and begin is not None:
            spans.append((begin, position, kind))
            begin = None
    if begin is not None and scheme == "BIO":
        spans.append((begin, len(tags) - 1, current))
    return spans


def span_counts(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: str) -> Counts:
    """Per sentence: spans predicted correctly, predicted, and in the gold annotation.

    Returns:
        [sentences, 3]. Sums over sentences give micro-averaged figures; resampled rows give their bootstrap.
    """
    _check_aligned(gold, predicted)
    rows = []
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        truth, guess = set(strict_spans(gold_tags, scheme)), set(strict_spans(predicted_tags, scheme))
        rows.append((len(truth & guess), len(guess), len(truth)))
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def tag_counts(gold: Sequence[Sequence[Any]], predicted: Sequence[Sequence[Any]]) -> Counts:
    """Per sentence: right tags (names or indices), and words twice (predicted and gold), so that F1 is accuracy.

    Returns:
        [sentences, 3], laid out as :func:`span_counts`.
    """
    _check_aligned(gold, predicted)
    rows = [
        (sum(one == other for one, other in zip(truth, guess, strict=True)), len(guess), len(truth))
        for truth, guess in zip(gold, predicted, strict=True)
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def _check_aligned(gold: Sequence[Sequence[Any]], predicted: Sequence[Sequence[Any]]) -> None:
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold sentences but {len(predicted)} predicted ones.")
    for number, (truth, guess) in enumerate(zip(gold, predicted, strict=True)):
        if len(truth) != len(guess):
            raise ValueError(f"Sentence {number} has {len(truth)} gold tags but {len(guess)} predicted ones.")
