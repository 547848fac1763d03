"""Annotating text with a trained model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from structkd.training.sampling import SortedSampler
from structkd.training.teacher_scores import sentence_lengths

__all__ = ["predict", "predict_by"]


def predict(model: Any, text: Dataset, batch_size: int = 64) -> list[dict[str, list[int]]]:
    """Annotate every sentence with its best legal structure, in evaluation mode.

    Args:
        model: a :class:`~structkd.models.StructuredModel` with its features, or a teacher of the same interface.
        text: the columns that the model reads, ``tokens`` among them.
        batch_size: sentences in a batch; they are of similar length.

    Returns:
        For every sentence the columns of ``model.annotation``, one number per word; ``model.annotation.names`` turns
        them into names.
    """
    return predict_by(model, text, [model.decode], batch_size)[0]


def predict_by(
    model: Any,
    text: Dataset,
    decoders: Sequence[Callable[[Mapping[str, Tensor], Tensor], dict[str, Tensor] | None]],
    batch_size: int = 64,
) -> list[list[dict[str, list[int]]]]:
    """Annotate every sentence by each of some decoders, which share the model's scores; see :func:`predict`.

    Args:
        decoders: as :meth:`structkd.models.StructuredModel.decode`; one that returns None leaves the sentences empty.
    """
    lengths = sentence_lengths(text).tolist()
    order = list(SortedSampler(lengths))
    results: list[list[dict[str, list[int]]]] = [[{} for _ in lengths] for _ in decoders]
    was_training = model.training
    model.eval()
    try:
        for cut in range(0, len(order), batch_size):
            rows = order[cut : cut + batch_size]
            batch = {name: value.to(model.device) for name, value in model.encode([text[row] for row in rows]).items()}
            with torch.no_grad():
                scores = model.scores(model(**batch))
                decoded = [decode(scores, batch["lengths"]) or {} for decode in decoders]
            for result, columns in zip(results, decoded, strict=True):
                for column, values in columns.items():
                    for row, padded in zip(rows, values.tolist(), strict=True):
                        result[row][column] = padded[: lengths[row]]
    finally:
        model.train(was_training)
    return results
