"""The annotation of text by a trained model, as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from structkd.data import Annotation, TagAnnotation, TreeAnnotation
from structkd.sentences import Sentence, parsed, read_sentences, tagged

if TYPE_CHECKING:
    from structkd.models.structured import StructuredModel

__all__ = ["annotate_stream"]

#: Batches whose sentences are sorted by length together, so that batches have little padding.
_POOL = 16


def annotate_stream(
    model: StructuredModel, sentences: Any, batch_size: int = 32, scores: bool = False, best: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the annotation of sentences, see :meth:`structkd.models.StructuredModel.annotate_stream`."""
    for name, number in (("batch_size", batch_size), ("best", 1 if best is None else best)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {number!r}.")
    return _stream(model, read_sentences(sentences), batch_size, scores, best)


def _stream(
    model: StructuredModel, sentences: Iterator[Sentence], batch_size: int, scores: bool, best: int | None
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
                for row, values in zip(
                    rows, _annotated(model, [window[row] for row in rows], scores, best), strict=True
                ):
                    found[row] = values
        finally:
            if was_training:
                model.train()
        for sentence, values in zip(window, found, strict=True):
            result = _result(annotation, sentence, values, scores)
            if best is not None:
                result["best"] = [_part(annotation, sentence, each) for each in values.get("best", [{}])]
            yield result


@torch.no_grad()  # not inference_mode: models cache tensors, and training uses them later
def _annotated(
    model: StructuredModel, sentences: Sequence[Sentence], scores: bool, best: int | None
) -> list[dict[str, Any]]:
    """Return the columns of the annotation of every sentence, those of its scores, and its best structures."""
    examples = [
        {"tokens": sentence.words} if sentence.upos is None else {"tokens": sentence.words, "upos": sentence.upos}
        for sentence in sentences
    ]
    sizes = [len(sentence.words) for sentence in sentences]
    batch = model.encode(examples)
    if model.device.type != "cpu":
        batch = {name: value.to(model.device) for name, value in batch.items()}
    given, lengths = model.scores(model(**batch)), batch["lengths"]
    structure = model.decode(given, lengths)
    columns = structure | model.confidences(given, lengths, structure) if scores else structure
    found: list[dict[str, Any]] = _split(columns, sizes)
    if best is not None:
        for values in found:
            values["best"] = []
        for other, exists in model.k_best(given, lengths, best):
            log_prob = {"log_prob": model.confidences(given, lengths, other)["log_prob"]}
            for values, each, there in zip(found, _split(other | log_prob, sizes), exists.tolist(), strict=True):
                if there:
                    values["best"].append(each)
    return found


def _split(columns: Mapping[str, Tensor], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Return the values of every sentence, without the padding, for tensors [B, N] and [B]."""
    lists = [(name, values.tolist()) for name, values in columns.items()]
    return [
        {name: values[row][:size] if isinstance(values[row], list) else values[row] for name, values in lists}
        for row, size in enumerate(sizes)
    ]


def _part(annotation: Annotation, sentence: Sentence, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return one of several structures of a sentence, without its words."""
    result = _result(annotation, sentence, values, scores=False)
    return {key: each for key, each in result.items() if key not in ("words", "offsets")} | {
        "log_prob": values.get("log_prob", 0.0)
    }


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
    known = (*annotation.columns, "best", "log_prob")
    extra = {name: value for name, value in values.items() if name not in known}
    return {"words": list(sentence.words), **offsets, **names, **extra, **certain}
