"""Metrics of predictions, for every kind of annotation: counts per sentence, and F1 of their sums.

A metric has a name ("f1", "las") and three counts per sentence: correct, predicted and gold parts. Counts add up over
sentences, so that significance tests and confidence intervals need nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch

import numpy as np
from numpy.typing import NDArray

from structkd.data.annotation import Annotation, TagAnnotation, TreeAnnotation
from structkd.evaluation.attachment import attachment_counts
from structkd.evaluation.spans import span_counts, tag_counts
from structkd.numbering import UNLABELLED
from structkd.tags import repair_tags

__all__ = ["compute_metrics", "counts", "lenient_counts", "metric_rule", "metric_title", "precision_recall_f1"]

Counts = NDArray[np.int64]
Values = Sequence[Mapping[str, Sequence[int]]]

_TITLES = {"f1": "span F1", "lenient_f1": "lenient span F1", "uas": "UAS", "las": "LAS"}
_RULES = dict.fromkeys(
    ("uas", "las"), "UAS and LAS: punctuation counted, relation subtypes dropped, as the CoNLL-18 scorer."
)
_RULES["lenient_f1"] = (
    "Lenient span F1: the published decoding, legal or not (argmax by word, or Viterbi over all sequences), read as "
    "the CoNLL-2000 scorer does; span F1 is of the best legal sequence."
)


@singledispatch
def counts(annotation: Annotation, gold: Values, predicted: Values) -> dict[str, Counts]:
    """Count the correct, predicted and gold parts of every sentence.

    Tags have the metrics ``f1`` (exact spans, if the tags have a scheme) and ``accuracy``. Dependency trees have
    ``las`` and ``uas``. Another kind of annotation registers a function of its own with ``@counts.register``.

    Args:
        annotation: the kind of annotation, with its inventory.
        gold, predicted: for every sentence the values of the annotation's columns, one int per word.

    Returns:
        For every metric an array [sentences, 3] of correct, predicted and gold parts. Models are chosen and compared by
        the first metric. Without sentences the arrays are empty.

    Raises:
        NotImplementedError: no function is registered for this kind of annotation.
        ValueError: gold and predictions are not aligned, or a sentence's annotation is hidden.

    >>> from structkd.data import TagAnnotation
    >>> annotation = TagAnnotation(("O", "B-PER", "I-PER"), scheme="BIO")
    >>> found = counts(annotation, gold=[{"labels": [1, 2, 0]}], predicted=[{"labels": [1, 0, 0]}])
    >>> found["f1"].tolist(), found["accuracy"].tolist()
    ([[0, 1, 1]], [[2, 3, 3]])
    """
    raise NotImplementedError(
        f"No metrics are known for {type(annotation).__name__}. Register a function of (annotation, gold, predicted) "
        "that returns {name: counts [sentences, 3]} with @structkd.evaluation.counts.register."
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


def lenient_counts(annotation: Annotation, gold: Values, predicted: Values) -> dict[str, Counts]:
    """Count spans of tags that need not be a legal sequence, read as the scorer of CoNLL-2000 reads them.

    It is the published decoding of taggers: the best tag of every word, or Viterbi over all sequences.

    Args:
        annotation, gold: as in :func:`counts`.
        predicted: tags of the scheme of ``annotation``, in any order.

    Returns:
        The metric ``lenient_f1``; no metric for annotation other than tags of a scheme.

    >>> from structkd.data import TagAnnotation
    >>> annotation = TagAnnotation(("O", "B-PER", "I-PER"), scheme="BIO")
    >>> found = lenient_counts(annotation, gold=[{"labels": [1, 2, 0]}], predicted=[{"labels": [2, 2, 0]}])
    >>> found["lenient_f1"].tolist()
    [[1, 1, 1]]
    """
    if not isinstance(annotation, TagAnnotation) or annotation.scheme is None:
        return {}
    repaired = []
    for values in predicted:
        tags, _ = repair_tags([annotation.labels[tag] for tag in values["labels"]], annotation.scheme)
        repaired.append({"labels": [annotation.index[tag] for tag in tags]})
    return {"lenient_f1": counts(annotation, gold, repaired)["f1"]}


def _aligned(annotation: Annotation, gold: Values, predicted: Values) -> tuple[Values, Values]:
    if len(gold) != len(predicted):
        raise ValueError(f"Got {len(gold)} gold sentences and {len(predicted)} predicted ones; expected as many.")
    for number, (truth, guess) in enumerate(zip(gold, predicted, strict=True)):
        for column in annotation.columns:
            if len(truth[column]) != len(guess[column]):
                raise ValueError(
                    f"Sentence {number} has {len(truth[column])} gold {column} and {len(guess[column])} predicted "
                    "ones; expected as many."
                )
            if UNLABELLED in truth[column]:
                raise ValueError(
                    f"Sentence {number} has no gold annotation: some of its {column} are -100. Leave it out of the "
                    "evaluation."
                )
    return gold, predicted


def precision_recall_f1(counts: Counts) -> tuple[float, float, float]:
    """Return micro-averaged precision, recall and F1 of counts [sentences, 3]; 0 if a denominator is 0.

    >>> precision_recall_f1(np.array([[1, 1, 2], [1, 1, 2]]))
    (1.0, 0.5, 0.6666666666666666)
    """
    correct, predicted, gold = (int(total) for total in counts.sum(axis=0))
    precision = correct / predicted if predicted else 0.0
    recall = correct / gold if gold else 0.0
    f1 = 2 * correct / (predicted + gold) if correct else 0.0
    return precision, recall, f1


def compute_metrics(counts: Mapping[str, Counts]) -> dict[str, float]:
    """Return every metric, 0 to 1: the F1 of its :func:`counts`, which is the accuracy if words are counted.

    The metric ``f1`` is followed by its ``precision`` and ``recall``.

    >>> compute_metrics({"las": np.array([[3, 4, 4]]), "uas": np.array([[4, 4, 4]])})
    {'las': 0.75, 'uas': 1.0}
    """
    result: dict[str, float] = {}
    for name, table in counts.items():
        precision, recall, result[name] = precision_recall_f1(table)
        if name == "f1":
            result |= {"precision": precision, "recall": recall}
    return result


def metric_title(name: str) -> str:
    """Return a metric's name for tables; an unknown metric keeps its name.

    >>> metric_title("f1"), metric_title("agreement")
    ('span F1', 'agreement')
    """
    return _TITLES.get(name, name)


def metric_rule(name: str) -> str | None:
    """Return a sentence on how a metric is counted, if it needs one.

    >>> metric_rule("las")
    'UAS and LAS: punctuation counted, relation subtypes dropped, as the CoNLL-18 scorer.'
    """
    return _RULES.get(name)
