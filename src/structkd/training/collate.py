"""The training text, and padded tensors for a training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset, concatenate_datasets

from structkd.data import UNLABELLED, Annotation
from structkd.models import StructuredModel, padded
from structkd.training.teacher_scores import Teacher, sentence_lengths

__all__ = ["Collator", "training_text"]

#: Columns that a model may read beside the tokens, if all of the text has them.
INPUT_COLUMNS = ("upos",)


def training_text(annotation: Annotation, labelled: Dataset, unlabelled: Dataset | None = None) -> Dataset:
    """Join labelled and unlabelled sentences to one data set.

    It has the further columns ``labelled`` (bool), ``length`` (words) and ``row`` (the sentence's number, by which a
    :class:`~structkd.training.Teacher` finds it).

    Raises:
        ValueError: there are no sentences, a labelled sentence lacks some of its annotation, or an unlabelled one has
            some.

    >>> from structkd.data import hidden, load_toy
    >>> corpus = load_toy()
    >>> train = corpus.splits["train"]
    >>> text = training_text(corpus.annotation, train.select([0, 1]), hidden(train.select([2]), corpus.annotation))
    >>> text["labelled"][:], text["row"][:]
    ([True, True, False], [0, 1, 2])
    """
    parts = []
    given = [(part, known) for part, known in ((labelled, True), (unlabelled, False)) if part is not None and len(part)]
    inputs = [name for name in INPUT_COLUMNS if all(name in part.column_names for part, _ in given)]
    for dataset, has_labels in given:
        columns = dataset.select_columns(["id", "tokens", *annotation.columns, *inputs])
        _check_annotation(annotation, columns, has_labels)
        columns = columns.add_column("labelled", np.full(len(dataset), has_labels))
        parts.append(columns.add_column("length", sentence_lengths(columns)))
    if not parts:
        raise ValueError(
            "There is no training text: the labelled and the unlabelled part are both empty. Give a sentence at least."
        )
    features = parts[0].features
    together = concatenate_datasets([part if part.features == features else part.cast(features) for part in parts])
    return together.add_column("row", np.arange(len(together)))


def _check_annotation(annotation: Annotation, text: Dataset, has_labels: bool) -> None:
    """Check that every word has a value in every column of the annotation, or that none has."""
    for batch in text.with_format("arrow").iter(batch_size=10_000):
        words = _sizes(batch["tokens"])
        for column in annotation.columns:
            sizes = _sizes(batch[column])
            is_known = pc.list_flatten(batch[column]).to_numpy() != UNLABELLED
            known = np.bincount(np.repeat(np.arange(len(sizes)), sizes), is_known, len(sizes)).astype(int)
            wrong = np.flatnonzero((sizes != words) | (known != (words if has_labels else 0)))
            for row in wrong[:1].tolist():
                wanted = f"{words[row]}" if has_labels else "none (every one -100)"
                raise ValueError(
                    f"Sentence {batch['id'][row].as_py()!r} has {known[row]} {column} for {words[row]} words; "
                    f"expected {wanted}. To hide a sentence's annotation, set all of it to -100."
                )


def _sizes(lists: Any) -> np.ndarray:
    sizes: np.ndarray = pc.list_value_length(lists).fill_null(0).to_numpy()
    return sizes


class Collator:
    """Turn sentences into padded tensors: the model's inputs, and beside them ``gold``, ``labelled`` and ``teacher``.

    ``ids`` are the sentences' ids, for messages.

    A collator draws no random numbers, so that a resumed training repeats exactly.

    Args:
        model: reads sentences and their annotation.
        teacher: of the sentences of the training text.
        evaluation: add the columns of the annotation, -100 in the padding, as ``annotation`` instead.
    """

    def __init__(self, model: StructuredModel, teacher: Teacher | None = None, evaluation: bool = False) -> None:
        self.model = model
        self.teacher = teacher
        self.evaluation = evaluation

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch of some sentences."""
        batch: dict[str, Any] = self.model.encode(examples)
        if self.evaluation:
            batch["annotation"] = {
                column: padded([example[column] for example in examples]) for column in self.model.annotation.columns
            }
            return batch
        batch["gold"] = self.model.encode_gold(examples)
        batch["labelled"] = torch.tensor([bool(example["labelled"]) for example in examples])
        batch["ids"] = [str(example.get("id")) for example in examples]
        if self.teacher is not None:
            batch["teacher"] = self.teacher.batch([example["row"] for example in examples])
        return batch
