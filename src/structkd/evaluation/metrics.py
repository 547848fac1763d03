"""From predictions to figures, whatever the annotation: counts per sentence, and what is reported of their sums.

A figure is known by its name ("f1", "las"). Everything about it is decided by three numbers a sentence - what is
correct, predicted and in the gold annotation - which add up over sentences; tests and intervals need no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch

import numpy as np
from numpy.typing import NDArray

from structkd.data.annotation import UNLABELLED, Annotation, TagAnnotation, TreeAnnotation
from structkd.evaluation.attachment import attachment_counts
from structkd.evaluation.spans import span_counts, tag_counts

__all__ = ["compute_metrics", "counts", "metric_rule", "metric_title", "precision_recall_f1"]

Counts = NDArray[np.int64]
Values = Sequence[Mapping[str, Sequence[int]]]

_TITLES = {"f1": "span F1", "uas": "UAS", "las": "LAS"}
_RULES = dict.fromkeys(
    ("uas", "las"), "UAS and LAS: punctuation counted, relation subtypes dropped, as the CoNLL-18 scorer."
)


@singledispatch
def counts(annotation: Annotation, gold: Values, predicted: Values) -> dict[str, Counts]:
    """Per sentence: what was predicted correctly, what was predicted, what is in the gold annotation.

    Tags give ``f1`` (exact spans, where they have a scheme) and ``accuracy``, dependency trees ``las`` and ``uas``.
    Another kind of annotation registers its own with ``@counts.register``.

    Args:
        annotation: the kind of annotation, with its inventory.
        gold, predicted: for every sentence the values of the annotation's columns, one int a word.

    Returns:
        For every figure an array [sentences, 3] of correct, predicted and gold. Models are chosen and compared by the
        first. Without sentences the arrays are empty.

    Raises:
        NotImplementedError: for a kind of annotation that nothing is registered for.
        ValueError: where gold and predictions are not aligned, or a sentence's annotation is hidden.
    """
    raise NotImplementedError(
        f"No figures are known for {type(annotation).__name__}: register a function of (annotation, gold, predicted) "
        "with @structkd.evaluation.counts.register that returns {name: counts [sentences, 3]}."
    )


@counts.register
def _of_tags(annotation: TagAnnotation, gold: Values, predicted: Values) -> dict[str, Counts]:
    truth, guess = ([tags["labels"] for tags in side] for side in _aligned(annotation, gold, predicted))
    tables = {"accuracy": tag_counts(truth, guess)}
    if annotation.scheme is not None:
        gold_tags, predicted_tags = (
            [[annotation.labels[tag] for tag in tags] for tags in side] for side in (truth, guess)
        )
        tables = {"f1": span_counts(gold_tags, predicted_tags, annotation.scheme), **tables}
    return tables


@counts.register
def _of_trees(annotation: TreeAnnotation, gold: Values, predicted: Values) -> dict[str, Counts]:
    gold, predicted = _aligned(annotation, gold, predicted)
    labelled, unlabelled = attachment_counts(
        [tree["heads"] for tree in gold],
        [tree["heads"] for tree in predicted],
        [tree["relations"] for tree in gold],
        [tree["relations"] for tree in predicted],
        annotation.relations,
    )
    return {"las": labelled, "uas": unlabelled}


def _aligned(annotation: Annotation, gold: Values, predicted: Values) -> tuple[Values, Values]:
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold sentences but {len(predicted)} predicted ones.")
    for number, (truth, guess) in enumerate(zip(gold, predicted, strict=True)):
        for column in annotation.columns:
            if len(truth[column]) != len(guess[column]):
                raise ValueError(
                    f"Sentence {number} has {len(truth[column])} gold {column} but {len(guess[column])} predicted ones."
                )
            if UNLABELLED in truth[column]:
                raise ValueError(f"Sentence {number} has no gold annotation: its {column} are hidden.")
    return gold, predicted


def precision_recall_f1(counts: Counts) -> tuple[float, float, float]:
    """Micro-averaged figures of per-sentence counts [sentences, 3]; a figure without a denominator is 0."""
    correct, predicted, gold = (int(total) for total in counts.sum(axis=0))
    precision = correct / predicted if predicted else 0.0
    recall = correct / gold if gold else 0.0
    f1 = 2 * correct / (predicted + gold) if correct else 0.0
    return precision, recall, f1


def compute_metrics(counts: Mapping[str, Counts]) -> dict[str, float]:
    """The figure of each of the :func:`counts`, 0 to 1: its F1, which is accuracy where words are counted.

    Beside ``f1`` come its ``precision`` and ``recall``.
    """
    result: dict[str, float] = {}
    for name, table in counts.items():
        precision, recall, result[name] = precision_recall_f1(table)
        if name == "f1":
            result |= {"precision": precision, "recall": recall}
    return result


def metric_title(name: str) -> str:
    """A figure's name as tables print it; a figure not known here is printed by its name."""
    return _TITLES.get(name, name)


def metric_rule(name: str) -> str | None:
    """What a table must say about how a figure is counted, if anything."""
    return _RULES.get(name)
