"""Annotating text with a trained model."""

from __future__ import annotations

import torch
from datasets import Dataset

from structkd.models import StructuredModel
from structkd.training.sampling import SortedSampler
from structkd.training.teacher_scores import sentence_lengths

__all__ = ["predict"]


def predict(model: StructuredModel, text: Dataset, batch_size: int = 64) -> list[dict[str, list[int]]]:
    """Annotate every sentence with its best legal structure, in evaluation mode.

    Args:
        model: with its features.
        text: the columns that the model reads, ``tokens`` among them.
        batch_size: sentences in a batch; they are of similar length.

    Returns:
        For every sentence the columns of ``model.annotation``, one number per word; ``model.annotation.names`` turns
        them into names.
    """
    lengths = sentence_lengths(text).tolist()
    order = list(SortedSampler(lengths))
    result: list[dict[str, list[int]]] = [{} for _ in lengths]
    was_training = model.training
    model.eval()
    try:
        for cut in range(0, len(order), batch_size):
            rows = order[cut : cut + batch_size]
            batch = {name: value.to(model.device) for name, value in model.encode([text[row] for row in rows]).items()}
            with torch.no_grad():
                decoded = model.decode(model.scores(model(**batch)), batch["lengths"])
            for column, values in decoded.items():
                for row, padded in zip(rows, values.tolist(), strict=True):
                    result[row][column] = padded[: lengths[row]]
    finally:
        model.train(was_training)
    return result
