"""Attachment scores of dependency trees, counted as by the scorer of the CoNLL 2018 shared task on gold tokens.

UAS is the share of words with the correct head, LAS the share of words with the correct head and relation (Zeman et
al., 2018). Every word counts, punctuation included. Subtypes of relations (``nsubj:pass``) are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["attachment_counts"]

Counts = NDArray[np.int64]
Columns = Sequence[Sequence[int]]


def attachment_counts(
    gold_heads: Columns,
    predicted_heads: Columns,
    gold_relations: Columns,
    predicted_relations: Columns,
    relations: Sequence[str],
) -> tuple[Counts, Counts]:
    """Count the correctly attached words of every sentence.

    Args:
        gold_heads, predicted_heads: for every sentence one head per word, in any numbering that both share.
        gold_relations, predicted_relations: for every sentence one index into the inventory per word.
        relations: the inventory; a colon separates a relation from its subtype.

    Returns:
        LAS counts and UAS counts, [sentences, 3] each: correct words, and the number of words twice (predicted and
        gold), so that F1 is the attachment score.

    >>> labelled, unlabelled = attachment_counts([[2, 0]], [[2, 0]], [[1, 0]], [[2, 0]], ["root", "nsubj", "obj"])
    >>> labelled.tolist(), unlabelled.tolist()
    ([[1, 2, 2]], [[2, 2, 2]])
    """
    lengths = np.array([len(heads) for heads in gold_heads], dtype=np.int64)
    universal: dict[str, int] = {}
    family = np.array(
        [universal.setdefault(relation.split(":")[0], len(universal)) for relation in relations], dtype=np.int64
    )
    attached = _joined(gold_heads) == _joined(predicted_heads)
    labelled = attached & (family[_joined(gold_relations)] == family[_joined(predicted_relations)])
    sentence = np.repeat(np.arange(len(lengths)), lengths)

    def table(is_correct: NDArray[np.bool_]) -> Counts:
        correct = np.bincount(sentence[is_correct], minlength=len(lengths))
        return np.stack([correct, lengths, lengths], axis=1).astype(np.int64)

    return table(labelled), table(attached)


def _joined(columns: Columns) -> NDArray[np.int64]:
    return np.concatenate([np.asarray(values, dtype=np.int64) for values in columns] or [np.empty(0, dtype=np.int64)])
