"""A trained model judged on an annotated file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from structkd.data import (
    Annotation,
    FileScheme,
    TagAnnotation,
    TreeAnnotation,
    raw_lines,
    read_columns,
    read_conllu,
    spans,
)
from structkd.evaluation import compute_metrics, counts, strict_spans
from structkd.inference.formats import format_of
from structkd.models import StructuredModel
from structkd.sentences import Sentence

__all__ = ["Evaluation", "evaluate_file"]


@dataclass(frozen=True)
class Evaluation:
    """The figures of a model on a file.

    Attributes:
        sentences, words: of the file.
        metrics: by name, 0 to 1; see :func:`structkd.evaluation.compute_metrics`.
        labels: for every tag, span type or relation its precision, recall and f1, 0 to 1, and the numbers of
            correct, predicted and gold ones.
        unknown: labels of the file that the model does not have, with their numbers.
    """

    sentences: int
    words: int
    metrics: dict[str, float]
    labels: dict[str, dict[str, float]]
    unknown: dict[str, int]

    def plain(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return dict(vars(self))


def evaluate_file(
    model: StructuredModel,
    path: str,
    *,
    given: str | None = None,
    token_column: int = 0,
    tag_column: int = -1,
    scheme: str | None = None,
    batch_size: int = 32,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Annotate the sentences of a file and compare the result with the file's annotation.

    Args:
        model: a trained model.
        path: a file in columns, CoNLL-U, or JSON lines with ``words`` and ``tags``, or ``heads`` and ``relations``.
        given: the name of its format; None goes by its suffix.
        token_column, tag_column: of a file in columns, from 0; negative ones count from the right.
        scheme: the tag scheme of the file, see :class:`structkd.data.FileScheme`; None is the model's.
        batch_size: sentences in a batch.
        progress: called with the number of words of every sentence.

    Raises:
        FileNotFoundError, ValueError: if the file cannot be read, or has another annotation than the model predicts.
    """
    name = given or format_of(path).name
    annotation = model.annotation
    if not isinstance(annotation, (TagAnnotation, TreeAnnotation)):
        raise NotImplementedError(f"A file with annotation of the kind {type(annotation).__name__} cannot be read.")
    if name == "text":
        raise ValueError(f"{path}: Raw text has no annotation. Give --format columns, conllu or jsonl.")
    read = {"columns": _of_columns, "conllu": _of_conllu, "jsonl": _of_json}[name]
    gold = list(read(path, annotation, token_column, tag_column, scheme))
    columns = ("tags",) if isinstance(annotation, TagAnnotation) else ("heads", "relations")
    predicted = []
    for found in model.annotate_stream((sentence for sentence, _ in gold), batch_size):
        predicted.append({column: found[column] for column in columns})
        if progress is not None:
            progress(len(found["words"]))
    truth = [values for _, values in gold]
    return _judged(annotation, truth, predicted)


def _judged(
    annotation: TagAnnotation | TreeAnnotation,
    gold: Sequence[Mapping[str, Sequence[Any]]],
    predicted: Sequence[Mapping[str, Sequence[Any]]],
) -> Evaluation:
    common: TagAnnotation | TreeAnnotation
    sides: list[list[dict[str, Any]]]
    if isinstance(annotation, TagAnnotation):
        known, common = annotation.labels, _with_tags(annotation, gold)
        index = common.index
        sides = [[{"labels": [index[tag] for tag in each["tags"]]} for each in side] for side in (gold, predicted)]
        found = [_tag_parts(each, annotation.scheme) for side in (gold, predicted) for each in side]
        unknown = Counter(tag for each in gold for tag in each["tags"] if tag not in known)
    else:
        relations = list(dict.fromkeys([*annotation.relations, *(r for each in gold for r in each["relations"])]))
        common = TreeAnnotation(tuple(relations), multiroot=True)
        index = common.index
        sides = [
            [{"heads": each["heads"], "relations": [index[name] for name in each["relations"]]} for each in side]
            for side in (gold, predicted)
        ]
        found = [_arc_parts(each) for side in (gold, predicted) for each in side]
        families = {relation.partition(":")[0] for relation in annotation.relations}
        unknown = Counter(name for each in gold for name in each["relations"] if name.partition(":")[0] not in families)
    metrics = compute_metrics(counts(common, *sides))
    return Evaluation(
        sentences=len(gold),
        words=sum(len(next(iter(each.values()))) for each in gold),
        metrics=metrics,
        labels=_by_label(found[: len(gold)], found[len(gold) :]),
        unknown=dict(unknown.most_common()),
    )


def _with_tags(annotation: TagAnnotation, gold: Sequence[Mapping[str, Sequence[str]]]) -> TagAnnotation:
    """Return the annotation with the tags of the file that the model does not have, too."""
    tags = list(dict.fromkeys(tag for each in gold for tag in each["tags"]))
    if annotation.scheme is None:
        return TagAnnotation((*annotation.labels, *(tag for tag in tags if tag not in annotation.labels)))
    types = list(dict.fromkeys([*(annotation.types or ()), *(tag[2:] for tag in tags if tag != "O")]))
    return TagAnnotation.of_spans(types, annotation.scheme)


def _tag_parts(values: Mapping[str, Sequence[str]], scheme: str | None) -> set[tuple[Any, ...]]:
    if scheme is None:
        return {(place, tag) for place, tag in enumerate(values["tags"])}
    return set(strict_spans(values["tags"], scheme))


def _arc_parts(values: Mapping[str, Sequence[Any]]) -> set[tuple[Any, ...]]:
    pairs = zip(values["heads"], values["relations"], strict=True)
    return {(place, head, relation.partition(":")[0]) for place, (head, relation) in enumerate(pairs)}


def _by_label(
    gold: Sequence[set[tuple[Any, ...]]], predicted: Sequence[set[tuple[Any, ...]]]
) -> dict[str, dict[str, float]]:
    """Return the figures of every label; the label of a part comes last."""
    tables = []
    for side in ([g & p for g, p in zip(gold, predicted, strict=True)], predicted, gold):
        tables.append(Counter(part[-1] for parts in side for part in parts))
    correct, guessed, true = tables
    result = {}
    for label in sorted(true | guessed, key=lambda each: (-true[each], each)):
        both = correct[label]
        result[label] = {
            "precision": both / guessed[label] if guessed[label] else 0.0,
            "recall": both / true[label] if true[label] else 0.0,
            "f1": 2 * both / (guessed[label] + true[label]),
            "correct": both,
            "predicted": guessed[label],
            "gold": true[label],
        }
    return result


Gold = Iterable[tuple[Sentence, dict[str, list[Any]]]]


def _of_columns(path: str, annotation: Annotation, token_column: int, tag_column: int, scheme: str | None) -> Gold:
    if not isinstance(annotation, TagAnnotation):
        raise ValueError(f"{path}: The model predicts trees, and files in columns have tags. Give a file in CoNLL-U.")
    wanted = annotation.scheme
    for sentence in read_columns(
        path,
        None,
        token_column=token_column,
        tag_column=tag_column,
        delimiter=_delimiter(path),
        scheme=(scheme or wanted) if wanted else None,
        target_scheme=wanted,
        offers=("scheme", "comment", "delimiter"),
    ):
        yield Sentence(list(sentence.tokens)), {"tags": list(sentence.tags)}


def _delimiter(path: str) -> str | None:
    """Return the delimiter of columns: tabs if the first word has one, otherwise any blanks."""
    for _, line in raw_lines(path):
        if line.strip() and not line.startswith("# "):
            return "\t" if "\t" in line else None
    return None


def _of_conllu(path: str, annotation: Annotation, token_column: int, tag_column: int, scheme: str | None) -> Gold:
    trees = isinstance(annotation, TreeAnnotation)
    if not trees and annotation.scheme is not None:  # type: ignore[attr-defined]
        raise ValueError(
            f"{path}: The model predicts spans, and CoNLL-U has none. Give a file in columns: --format columns."
        )
    for sentence in read_conllu(path, heads=trees, multiroot=True):
        upos = None if "_" in sentence.upos else list(sentence.upos)
        words = Sentence(list(sentence.tokens), upos=upos)
        if trees:
            yield words, {"heads": list(sentence.heads or ()), "relations": list(sentence.relations or ())}
        else:
            yield words, {"tags": list(sentence.upos)}


def _of_json(path: str, annotation: Annotation, token_column: int, tag_column: int, scheme: str | None) -> Gold:
    wanted = ("tags",) if isinstance(annotation, TagAnnotation) else ("heads", "relations")
    model_scheme = annotation.scheme if isinstance(annotation, TagAnnotation) else None
    spelling = FileScheme(scheme or model_scheme) if model_scheme else None
    for number, line in raw_lines(path):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{place}: Not JSON ({error}).") from None
        words = value.get("words", value.get("tokens")) if isinstance(value, dict) else None
        if not isinstance(words, list) or any(
            not isinstance(value.get(name), list) or len(value[name]) != len(words) for name in wanted
        ):
            raise ValueError(
                f"{place}: Expected an object with words and as many {' and '.join(wanted)}, got {line.strip()!r:.60}."
            )
        values = {name: list(value[name]) for name in wanted}
        if spelling is not None:
            try:
                tags, _ = spelling.read(values["tags"])
                if spelling.scheme != model_scheme:
                    from structkd.data import convert_tags

                    tags = convert_tags(tags, spelling.scheme, str(model_scheme))
                spans(tags, str(model_scheme))
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from None
            values["tags"] = tags
        yield Sentence(words, upos=value.get("upos")), values
