"""Annotating text with a trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from structkd.training.sampling import SortedSampler
from structkd.training.teacher_scores import sentence_lengths

__all__ = ["predict", "predict_by"]

#: Sentences that are Python objects at a time, about.
_ROWS = 1024


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
        for rows, examples in _batches(text, order, batch_size):
            batch = {name: value.to(model.device) for name, value in model.encode(examples).items()}
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


def _batches(
    text: Dataset, order: Sequence[int], batch_size: int
) -> Iterator[tuple[Sequence[int], list[dict[str, Any]]]]:
    """Yield the rows of every batch and their sentences; a data set takes long to give one row, and not many."""
    together = batch_size * max(1, _ROWS // batch_size)
    for begin in range(0, len(order), together):
        rows = order[begin : begin + together]
        content = text[list(rows)]
        examples = [dict(zip(content, values, strict=True)) for values in zip(*content.values(), strict=True)]
        for cut in range(0, len(rows), batch_size):
            yield rows[cut : cut + batch_size], examples[cut : cut + batch_size]
