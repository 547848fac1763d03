"""From sentences to the padded tensors of a training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets

from structkd.models.tagger import Features
from structkd.training.targets import TeacherTargets

__all__ = ["TaggingCollator", "training_text"]

#: Marks words without a gold label, transformers' and torch's convention.
UNLABELLED = -100


def training_text(labelled: Dataset, unlabelled: Dataset | None = None) -> Dataset:
    """One data set of labelled and unlabelled sentences, ready to be mixed in batches.

    Adds the columns ``labelled`` (bool), ``length`` (words) and ``row`` (its number, by which
    :class:`~structkd.training.TeacherTargets` are found).

    Raises:
        ValueError: if a labelled sentence lacks some of its labels, or an unlabelled one has any.
    """
    parts = []
    for dataset, has_labels in ((labelled, True), (unlabelled, False)):
        if dataset is None or len(dataset) == 0:
            continue
        lengths = []
        for name, tokens, labels in zip(dataset["id"], dataset["tokens"], dataset["labels"], strict=True):
            known = sum(label != UNLABELLED for label in labels)
            if len(labels) != len(tokens) or known != (len(tokens) if has_labels else 0):
                wanted = f"{len(tokens)} labels" if has_labels else "none (every label -100)"
                raise ValueError(f"Sentence {name!r} has {known} labels for {len(tokens)} words; expected {wanted}.")
            lengths.append(len(tokens))
        columns = dataset.select_columns(["id", "tokens", "labels"])
        parts.append(columns.add_column("labelled", [has_labels] * len(dataset)).add_column("length", lengths))
    if not parts:
        raise ValueError("There is no training text: both the labelled and the unlabelled part are empty.")
    parts = [part.cast(parts[0].features) for part in parts]
    together = concatenate_datasets(parts)
    return together.add_column("row", list(range(len(together))))


class TaggingCollator:
    """Pads a batch: the model's features, ``labels``, the ``labelled`` mask, and the teacher's scores if there are any.

    Args:
        features: of the model that is trained.
        targets: the teacher's scores for the rows of the training text.

    It draws no random numbers, so a resumed training repeats exactly.
    """

    def __init__(self, features: Features, targets: TeacherTargets | None = None) -> None:
        self.features = features
        self.targets = targets

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Examples with ``tokens`` and ``labels`` -> tensors; ``labels`` [B, N] is -100 in the padding."""
        batch: dict[str, Any] = self.features.encode([example["tokens"] for example in examples])
        longest = max(len(example["labels"]) for example in examples)
        batch["labels"] = torch.tensor(
            [[*example["labels"], *[UNLABELLED] * (longest - len(example["labels"]))] for example in examples]
        )
        batch["labelled"] = torch.tensor([bool(example.get("labelled", True)) for example in examples])
        if self.targets is not None:
            batch["teacher"] = self.targets.scores([example["row"] for example in examples])
        return batch
