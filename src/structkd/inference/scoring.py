"""A trained model judged on an annotated file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from structkd.data import (
    FileScheme,
    TagAnnotation,
    TreeAnnotation,
    convert_tags,
    raw_lines,
    read_columns,
    read_conllu,
)
from structkd.data.formats.columns import tag_hint
from structkd.data.formats.conllu import RelationRule
from structkd.data.formats.slips import typed_as
from structkd.evaluation import compute_metrics, counts, strict_spans
from structkd.inference.formats import format_of, lines_of
from structkd.models import StructuredModel
from structkd.sentences import Sentence

__all__ = ["Evaluation", "evaluate_file"]

#: The options that messages about a file may offer: those of `evaluate_file`, with the flags of the command.
_OFFERED = {
    "token_column": "--token-column",
    "scheme": "--scheme",
    "separator": "--separator",
    "repair": "--repair",
}


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
    separator: str = "-",
    repair: bool = False,
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
        separator: the characters between the prefix and the type of a tag of the file.
        repair: read tags that are illegal in the scheme as the scorer of CoNLL-2000 does, instead of refusing them.
        batch_size: sentences in a batch.
        progress: called with the number of words of every sentence.

    Raises:
        FileNotFoundError, ValueError: if the file cannot be read, or has another annotation than the model predicts.
    """
    name = given or format_of(path).name
    annotation = model.annotation
    if not isinstance(annotation, (TagAnnotation, TreeAnnotation)):
        raise NotImplementedError(f"A file with annotation of the kind {type(annotation).__name__} cannot be read.")
    if name in ("text", "words"):
        raise ValueError(f"{path}: Raw text has no annotation. Give --format columns, conllu or jsonl.")
    if path != "-" and not any(line.strip() for _, line in lines_of(path)):
        raise ValueError(f"{path}: The file is empty. Name a file with annotated sentences.")
    read = {"columns": _of_columns, "conllu": _of_conllu, "jsonl": _of_json}[name]
    own = annotation.scheme if isinstance(annotation, TagAnnotation) else None
    spelling = FileScheme(scheme or own, separator) if own else None
    with typed_as(_OFFERED):
        gold = list(read(_File(path, annotation, token_column, tag_column, spelling, repair)))
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


@dataclass(frozen=True)
class _File:
    """A file to compare with, and how its annotation is written; `spelling` is that of spans, None for other tags."""

    path: str
    annotation: TagAnnotation | TreeAnnotation
    token_column: int
    tag_column: int
    spelling: FileScheme | None
    repair: bool


def _of_columns(file: _File) -> Gold:
    if not isinstance(file.annotation, TagAnnotation):
        raise ValueError(
            f"{file.path}: The model predicts trees, and files in columns have tags. Give a file in CoNLL-U."
        )
    for sentence in read_columns(
        file.path,
        None,
        token_column=file.token_column,
        tag_column=file.tag_column,
        delimiter=_delimiter(file.path),
        scheme=file.spelling.name if file.spelling else None,
        separator=file.spelling.separator if file.spelling else "-",
        target_scheme=file.annotation.scheme,
        repair=file.repair,
        repeated_ids="number",  # the ids are not used
        offers=_OFFERED,
    ):
        yield Sentence(list(sentence.tokens)), {"tags": list(sentence.tags)}


def _delimiter(path: str) -> str | None:
    """Return the delimiter of columns: tabs if the first word has one, otherwise any blanks."""
    for _, line in raw_lines(path):
        if line.strip() and not line.startswith("# "):
            return "\t" if "\t" in line else None
    return None


def _of_conllu(file: _File) -> Gold:
    trees = isinstance(file.annotation, TreeAnnotation)
    if file.spelling is not None:
        raise ValueError(
            f"{file.path}: The model predicts spans, and CoNLL-U has none. Give a file in columns: --format columns."
        )
    rule = RelationRule(offers=())
    for sentence in read_conllu(file.path, heads=trees, multiroot=True, repeated_ids="number", rule=rule):
        upos = None if "_" in sentence.upos else list(sentence.upos)
        words = Sentence(list(sentence.tokens), upos=upos)
        if trees:
            yield words, {"heads": list(sentence.heads or ()), "relations": list(sentence.relations or ())}
        else:
            yield words, {"tags": list(sentence.upos)}


def _of_json(file: _File) -> Gold:
    trees = isinstance(file.annotation, TreeAnnotation)
    wanted: dict[str, type] = {"heads": int, "relations": str} if trees else {"tags": str}
    for number, line in raw_lines(file.path):
        if not line.strip():
            continue
        place = f"{file.path}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place}: Not JSON ({error}).") from None
        value = value if isinstance(value, dict) else {}
        words: Any = value.get("words", value.get("tokens"))
        values: dict[str, Any] = {name: value.get(name) for name in wanted}
        if not _are(words, str) or any(
            not _are(given, wanted[name]) or len(given) != len(words) for name, given in values.items()
        ):
            raise ValueError(
                f"{place}: Expected an object with words and as many {' and '.join(wanted)}, got {line.strip()!r:.60}."
            )
        wrong = [head for head in values.get("heads", ()) if not 0 <= head <= len(words)]
        if wrong:
            raise ValueError(f"{place}: Head {wrong[0]} where 0 (root) to {len(words)} was expected.")
        if file.spelling is not None and words:
            values["tags"] = _model_tags(place, values["tags"], file.spelling, file)
        yield Sentence(words, upos=value.get("upos")), values


def _are(values: Any, kind: type) -> bool:
    """Return whether a value is a list of texts, or of whole numbers."""
    return isinstance(values, list) and all(type(each) is kind for each in values)


def _model_tags(place: str, tags: list[str], spelling: FileScheme, file: _File) -> list[str]:
    """Return the tags of a file in the scheme of the model."""
    violation = None if file.repair else spelling.violation(tags)
    if violation is not None:
        hint = tag_hint(tags, spelling, _OFFERED)
        raise ValueError(f"{place}: Word {violation[0] + 1}: {violation[1]}{hint}")
    try:
        read, _ = spelling.read(tags, file.repair)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    wanted = str(file.annotation.scheme)  # type: ignore[union-attr]
    return read if spelling.scheme == wanted else convert_tags(read, spelling.scheme, wanted)
