"""Tagging text with a trained model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from structkd.evaluation import Legality, viterbi
from structkd.models import Tagger
from structkd.training.sampling import SortedSampler

__all__ = ["predict"]


def predict(
    model: Tagger, sentences: Sequence[Sequence[str]], legal: Legality | None = None, batch_size: int = 64
) -> list[list[str]]:
    """Tag tokenised sentences with the best legal tag sequence each, in evaluation mode."""
    if model.features is None:
        raise ValueError("The model has no vocabulary and cannot read text: load it with from_pretrained.")
    names = model.config.labels
    order = list(SortedSampler([len(tokens) for tokens in sentences]))
    result: list[list[str]] = [[] for _ in sentences]
    was_training = model.training
    model.eval()
    try:
        for cut in range(0, len(order), batch_size):
            rows = order[cut : cut + batch_size]
            batch = {
                name: value.to(model.device)
                for name, value in model.features.encode([sentences[row] for row in rows]).items()
            }
            with torch.no_grad():
                scores = model.scores(model(**batch))
            decoded = viterbi(**scores, lengths=batch["lengths"], legal=legal).cpu()
            for row, labels in zip(rows, decoded.tolist(), strict=True):
                result[row] = [names[label] for label in labels[: len(sentences[row])]]
    finally:
        model.train(was_training)
    return result
