"""From sentences to the padded tensors of a training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets

from structkd.data import UNLABELLED, Annotation
from structkd.models import StructuredModel, padded
from structkd.training.targets import Targets

__all__ = ["Collator", "training_text"]

#: Columns a model may read beside the tokens, where all of the text has them.
INPUT_COLUMNS = ("upos",)


def training_text(annotation: Annotation, labelled: Dataset, unlabelled: Dataset | None = None) -> Dataset:
    """One data set of labelled and unlabelled sentences, ready to be mixed in batches.

    Adds the columns ``labelled`` (bool), ``length`` (words) and ``row`` (its number, by which
    :class:`~structkd.training.TeacherTargets` are found).

    Raises:
        ValueError: if a labelled sentence lacks some of its annotation, or an unlabelled one has any.
    """
    parts = []
    given = [(part, known) for part, known in ((labelled, True), (unlabelled, False)) if part is not None and len(part)]
    inputs = [name for name in INPUT_COLUMNS if all(name in part.column_names for part, _ in given)]
    for dataset, has_labels in given:
        content = dataset.to_dict()
        lengths = [len(tokens) for tokens in content["tokens"]]
        for column in annotation.columns:
            for name, words, values in zip(content["id"], lengths, content[column], strict=True):
                known = sum(value != UNLABELLED for value in values)
                if len(values) != words or known != (words if has_labels else 0):
                    wanted = f"{words}" if has_labels else "none (every one -100)"
                    raise ValueError(f"Sentence {name!r} has {known} {column} for {words} words; expected {wanted}.")
        columns = dataset.select_columns(["id", "tokens", *annotation.columns, *inputs])
        parts.append(columns.add_column("labelled", [has_labels] * len(dataset)).add_column("length", lengths))
    if not parts:
        raise ValueError("There is no training text: both the labelled and the unlabelled part are empty.")
    parts = [part.cast(parts[0].features) for part in parts]
    together = concatenate_datasets(parts)
    return together.add_column("row", list(range(len(together))))


class Collator:
    """Pads a batch: the model's inputs, and beside them ``gold``, ``labelled`` and ``teacher``, or ``annotation``.

    Args:
        model: reads sentences and their annotation.
        targets: the teacher's scores for the rows of the training text.
        evaluation: give the columns of the annotation, -100 in the padding, in place of what a loss needs.

    It draws no random numbers, so a resumed training repeats exactly.
    """

    def __init__(self, model: StructuredModel, targets: Targets | None = None, evaluation: bool = False) -> None:
        self.model = model
        self.targets = targets
        self.evaluation = evaluation

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Sentences -> tensors."""
        batch: dict[str, Any] = self.model.encode(examples)
        if self.evaluation:
            batch["annotation"] = {
                column: padded([example[column] for example in examples]) for column in self.model.annotation.columns
            }
            return batch
        batch["gold"] = self.model.encode_gold(examples)
        batch["labelled"] = torch.tensor([bool(example["labelled"]) for example in examples])
        if self.targets is not None:
            batch["teacher"] = self.targets.scores([example["row"] for example in examples])
        return batch
