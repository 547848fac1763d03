"""The annotation of text by a trained model, as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from structkd.data import Annotation, TagAnnotation, TreeAnnotation
from structkd.sentences import Sentence, parsed, read_sentences, tagged

if TYPE_CHECKING:
    from structkd.models.structured import StructuredModel

__all__ = ["annotate_stream"]

#: Batches whose sentences are sorted by length together, so that batches have little padding.
_POOL = 16


def annotate_stream(
    model: StructuredModel, sentences: Any, batch_size: int = 32, scores: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the annotation of sentences, see :meth:`structkd.models.StructuredModel.annotate_stream`."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}.")
    return _stream(model, read_sentences(sentences), batch_size, scores)


def _stream(
    model: StructuredModel, sentences: Iterator[Sentence], batch_size: int, scores: bool
) -> Iterator[dict[str, Any]]:
    annotation = model.annotation
    pool = batch_size * _POOL if batch_size > 1 else 1
    while window := list(islice(sentences, pool)):
        order = [row for row, sentence in enumerate(window) if sentence.words]
        order.sort(key=lambda row: len(window[row].words))
        found: list[dict[str, Any]] = [{} for _ in window]
        was_training = model.training
        if was_training:
            model.eval()
        try:
            for cut in range(0, len(order), batch_size):
                rows = order[cut : cut + batch_size]
                columns = _annotated(model, [window[row] for row in rows], scores)
                for place, row in enumerate(rows):
                    length = len(window[row].words)
                    found[row] = {
                        name: values[place][:length] if isinstance(values[place], list) else values[place]
                        for name, values in columns.items()
                    }
        finally:
            if was_training:
                model.train()
        for sentence, values in zip(window, found, strict=True):
            yield _result(annotation, sentence, values, scores)


@torch.no_grad()  # not inference_mode: models cache tensors, and training uses them later
def _annotated(model: StructuredModel, sentences: Sequence[Sentence], scores: bool) -> dict[str, list[Any]]:
    """Return the columns of the annotation and of its scores; lists [B] of lists [N], or of numbers."""
    examples = [
        {"tokens": sentence.words} if sentence.upos is None else {"tokens": sentence.words, "upos": sentence.upos}
        for sentence in sentences
    ]
    batch = model.encode(examples)
    if model.device.type != "cpu":
        batch = {name: value.to(model.device) for name, value in batch.items()}
    given = model.scores(model(**batch))
    structure = model.decode(given, batch["lengths"])
    columns = {name: values.tolist() for name, values in structure.items()}
    if scores:
        confidences = model.confidences(given, batch["lengths"], structure)
        columns |= {name: values.tolist() for name, values in confidences.items()}
    return columns


def _result(annotation: Annotation, sentence: Sentence, values: Mapping[str, Any], scores: bool) -> dict[str, Any]:
    """Return the annotation of one sentence as plain data; no values are given for a sentence without words."""
    names = annotation.names({column: values.get(column, []) for column in annotation.columns})
    certain: dict[str, Any] = {"log_prob": values.get("log_prob", 0.0)} if scores else {}
    if isinstance(annotation, TagAnnotation):
        if scores:
            certain |= {name: values.get(name, []) for name in ("tag_scores", "span_scores")}
        return tagged(sentence, names["labels"], annotation.scheme, **certain)
    if isinstance(annotation, TreeAnnotation):
        if scores:
            certain |= {name: values.get(name, []) for name in ("head_scores", "relation_scores")}
        return parsed(sentence, names["heads"], names["relations"], **certain)
    offsets = {} if sentence.offsets is None else {"offsets": list(sentence.offsets)}
    extra = {name: value for name, value in values.items() if name not in annotation.columns}
    return {"words": list(sentence.words), **offsets, **names, **extra, **certain}
