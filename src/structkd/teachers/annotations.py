"""Annotations in a file of JSON lines as a teacher: by people, by a language model, by any program.

A line is an object with a sentence and one annotation, or several in a list::

    {"words": ["Ada", "met", "Bob"], "tags": ["B-PER", "O", "B-PER"], "weight": 2, "source": "first annotator"}
    {"text": "Ada met Bob", "spans": [{"start_char": 0, "end_char": 3, "label": "PER"}]}
    {"words": ["Ada", "met", "Bob"], "annotations": [{"spans": [[0, 1, "PER"]]}, {"spans": [], "weight": 0.5}]}
    {"words": ["Ada", "met", "Bob"], "heads": [2, 0, 2], "relations": ["nsubj", "root", "obj"]}

==================== ===============================================================================================
``words``            the sentence as the annotator had it in words; ``text``, as characters. Annotations of one sentence
                     may disagree in their words. An annotation of a list takes those of its line, or has its own
``tags``             a tag for every word, in any scheme; for ``task=upos`` any labels
``spans``            ``{"start": 0, "end": 2, "label": "PER"}`` or ``[0, 2, "PER"]``, words from 0, end exclusive; or
                     ``{"start_char": 0, "end_char": 11, "label": "PER"}``, characters of ``text``, the end exclusive
``heads``            the head of every word as in CoNLL-U, from 1, 0 for the root; with ``relations`` or without
``weight``           of the annotation, not negative; 1 if it is not given
``source``           who annotated, for `structkd.teachers.agreement`; ``id`` and other keys are passed over
``format``           1, if it is given; a later number is refused
==================== ===============================================================================================

The lines of one sentence belong together wherever they stand in the file. The lines that ``structkd predict --format
jsonl`` writes are of this form.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from structkd.configurable import configurable
from structkd.data import Annotation, FileScheme, TagAnnotation, TreeAnnotation, sentence_dataset
from structkd.data.annotation import tree_fault
from structkd.data.formats.lines import numbered_lines, sharing
from structkd.files import sha256
from structkd.tags import spans as spans_of_tags
from structkd.teachers.alignment import (
    Misaligned,
    bounds,
    characters,
    positions,
    words_of_labels,
    words_of_spans,
    words_of_tree,
)
from structkd.teachers.given import GivenModel, GivenTeacher, required_path
from structkd.teachers.label_map import LabelMap, data_names, spelling_of
from structkd.teachers.structures import StructureModel, Weighted, merged
from structkd.training import Coverage, Teacher, TeacherScores

__all__ = ["Annotations", "Answer", "load_annotated_text", "read_answers"]

FORMAT = 1
_WANTED = {"spans": "spans or tags", "labels": "tags", "trees": "heads"}


@configurable
class Annotations(GivenTeacher):
    """The annotations of a file as a teacher: for every sentence a weighted set of structures.

    Args:
        path: the file, plain or compressed.
        map: names of the data for entity types, labels or relations of the file, null for outside; ``*`` is the rest.
        scheme: the tag scheme of the file's ``tags`` by any tool's name; null reads it from the tags.
        repair: read tags that are illegal in their scheme as the scorer of CoNLL-2000 does, instead of refusing them.
        encoding: of the file.

    >>> from structkd.teachers import Annotations
    >>> Annotations("answers.jsonl", map={"PERSON": "PER", "*": None}).path
    'answers.jsonl'
    """

    def __init__(
        self,
        path: str | None = None,
        map: Mapping[str, str | None] | None = None,
        scheme: str | None = None,
        repair: bool = False,
        encoding: str = "utf-8",
    ) -> None:
        self.path = required_path(path, "annotations")
        self.map, self.scheme, self.repair, self.encoding = map, scheme, repair, encoding

    def open(self, annotation: Annotation) -> GivenModel:
        """Read the file and compare its labels with those of the data; see :class:`GivenTeacher`.

        Raises:
            ValueError: a line is malformed or of a newer format, a weight is negative, all weights of a sentence are 0,
                tags are illegal, heads are no tree, or the data lack a label; file and line are named.
        """
        return _Annotated(self, annotation)


@configurable
def load_annotated_text(path: str, encoding: str = "utf-8") -> Dataset:
    """Return the sentences of a file of annotations as unlabelled text, each once, in the words of its first line.

    Args:
        path: of the file, see :mod:`structkd.teachers.annotations`.
        encoding: of the file.

    Raises:
        ValueError: a sentence has no ``words`` in any of its lines.
    """
    found: dict[str, tuple[Any, ...]] = {}  # the line, and the words if there are any
    shared = sharing()
    for line, record in _records(path, encoding):
        refuse = _Refused(path, line)
        for each in _annotations(record, refuse):
            words, text = _sentence(each, refuse)
            key = characters(words or [text or ""])
            if key and (key not in found or len(found[key]) == 1):
                found[key] = (line, *map(shared, words or ()))
    for line, *words in found.values():
        if not words:
            raise ValueError(f"{path}, line {line}: The sentence has a text and no words. Add its words to the line.")
    name = Path(path).name
    return sentence_dataset(({"id": f"{name}:{line}", "tokens": words} for line, *words in found.values()), ())


@dataclass(frozen=True, slots=True)
class Answer:
    """One annotation, its structure at positions of characters (:mod:`structkd.teachers.alignment`).

    Attributes:
        line: of the file.
        weight: as it was given.
        own: bounds of the annotation's words.
        spans: (first position, position after the last, type), for data with spans.
        labels: of the annotation's words.
        heads: 1-based.
        relations: None if the annotation has none.
        source: who annotated.
    """

    line: int
    weight: float
    own: Sequence[int]
    spans: Sequence[tuple[int, int, str]] | None = None
    labels: Sequence[str] | None = None
    heads: Sequence[int] | None = None
    relations: Sequence[str] | None = None
    source: str | None = None

    def parts(self) -> set[Any]:
        """Return the parts of the structure at positions of characters, to compare annotators by."""
        if self.spans is not None:
            return set(self.spans)
        if self.labels is not None:
            labelled = zip(pairwise(self.own), self.labels, strict=True)
            return {(place, label) for (start, end), label in labelled for place in range(start, end)}
        relations = self.relations or [""] * len(self.heads or [])
        heads = enumerate(zip(self.heads or [], relations, strict=True))
        return {(self.own[word], self.own[head - 1] if head else -1, relation) for word, (head, relation) in heads}


class _Annotated(StructureModel):
    """The answers by the characters of their sentence, translated into structures of the data on demand."""

    runs = False

    def __init__(self, recipe: Annotations, annotation: Annotation) -> None:
        self.path = recipe.path
        kind = "trees" if isinstance(annotation, TreeAnnotation) else "labels"
        kind = "spans" if isinstance(annotation, TagAnnotation) and annotation.types is not None else kind
        self.answers = read_answers(recipe.path, kind, recipe.scheme, recipe.repair, recipe.encoding)
        several = [each for answers in self.answers.values() for each in answers]
        labelled = kind == "trees" and any(each.relations is not None for each in several)
        if labelled:
            plain = next((each.line for each in several if each.relations is None), None)
            if plain is not None:
                raise ValueError(
                    f"{self.path}, line {plain}: The tree has no relations, and others of the file have. Give all of "
                    "them relations, or none."
                )
        super().__init__(annotation, max(map(len, self.answers.values())), labelled)
        first: dict[str, int] = {}
        for each in several:
            for name in _names(each):
                first.setdefault(name, each.line)
        unknown = next((n for n in first if n not in data_names(annotation) and n not in (recipe.map or {})), None)
        try:
            self.map = LabelMap.of(first, annotation, recipe.map, f"the annotations {self.path}")
        except ValueError as error:
            if unknown is None:
                raise
            raise ValueError(f"{self.path}, line {first[unknown]}: {error}") from None
        self.identity = [self.path, sha256(Path(self.path).expanduser())]
        weights = "" if len({each.weight for each in several}) == 1 else " with weights"
        self.title = (
            f"the annotations {self.path} ({len(several):,}{weights}, of {len(self.answers):,} sentences, at most "
            f"{self.count} of one); {self.map.describe()}"
        )

    def found(self, tokens: Sequence[str], dropped: Counter[str] | None = None, lines: Any = None) -> list[Weighted]:
        """Return the structures of a sentence in the words of the data; none if it is not annotated.

        Args:
            tokens: the words.
            dropped: counts annotations that were left out, by reason.
            lines: a mapping to which the first line of every reason is added.
        """
        structures = []
        target = bounds(tokens)
        for answer in self.answers.get(characters(tokens), ()):
            try:
                structures.append(self._structure(answer, target))
            except Misaligned as error:
                reason = str(error).partition(" (")[0].partition(" labelled")[0]
                if dropped is not None:
                    dropped[reason] += 1
                    lines.setdefault(reason, answer.line)
        return merged(structures)

    def _structure(self, answer: Answer, target: list[int]) -> Weighted:
        annotation = self.annotation
        length = len(target) - 1
        if answer.spans is not None:
            found = words_of_spans(answer.spans, target)
            ends = sorted((start, end) for start, end, kind in found if self.map.names[kind] is not None)
            if any(right[0] <= left[1] for left, right in pairwise(ends)):
                raise Misaligned("spans overlap")
            return Weighted(answer.weight, tuple(self.map.labels_of_spans(found, length)))
        if answer.labels is not None:
            labels = words_of_labels(answer.labels, answer.own, target)
            return Weighted(answer.weight, tuple(self.map.numbers(labels)))
        heads, sources = words_of_tree(answer.heads or [], answer.own, target)
        fault = tree_fault(heads, multiroot=annotation.multiroot)  # type: ignore[attr-defined]
        if fault:
            raise Misaligned("the words of the data do not form a tree")
        own_index = tuple(word if head == 0 else head - 1 for word, head in enumerate(heads))
        if answer.relations is None or not self.has_relations:
            return Weighted(answer.weight, own_index)
        relations = self.map.numbers(answer.relations[source] for source in sources)
        return Weighted(answer.weight, own_index, tuple(relations))

    def structures(self, examples: Sequence[Mapping[str, Any]]) -> list[list[Weighted]]:
        found = [self.found(example["tokens"]) for example in examples]
        for example, several in zip(examples, found, strict=True):
            if not several:
                raise ValueError(f"{self.path} has no annotation of sentence {example.get('id')!r}.")
        return found

    def cover(self, text: Dataset) -> Coverage:
        """Return the sentences that have an annotation which fits their words. Linear in the text and the file."""
        dropped: Counter[str] = Counter()
        lines: dict[str, int] = {}
        rows = [row for row, tokens in enumerate(text["tokens"]) if self.found(tokens, dropped, lines)]
        notes = []
        if len(rows) < len(text):
            notes.append(
                f"{self.path} annotates {len(self.answers):,} sentences, {len(rows):,} of the {len(text):,} unlabelled "
                "ones among them; the others were left out."
            )
        for reason, count in dropped.items():
            notes.append(
                f"{count:,} annotations of {self.path} were left out, because {reason} (the first: line "
                f"{lines[reason]})."
            )
        return Coverage(rows if len(rows) < len(text) else None, notes)

    def of_text(self, text: Dataset) -> Teacher:
        """Return the teacher of a training text; the gold annotation stands in for labelled sentences without any."""
        stood_in, rows = 0, []
        for example in text:
            several = self.found(example["tokens"])
            if not several and not example["labelled"]:
                raise ValueError(f"{self.path} has no annotation of sentence {example['id']!r}.")
            stood_in += not several
            rows.append(several or [self._gold(example)])
        if stood_in == len(rows):
            line = next(iter(self.answers.values()))[0].line
            raise ValueError(
                f"{self.path} annotates none of the student's {len(rows)} sentences. The first of the file is at line "
                f"{line}, the first of the text is {' '.join(text[0]['tokens'])[:60]!r}."
            )
        self.remarks = []
        if stood_in:
            self.remarks.append(
                f"The gold annotation stands in for {self.path} in {stood_in:,} labelled sentences that it does not "
                "annotate"
            )
        lengths = torch.tensor([len(tokens) for tokens in text["tokens"]], dtype=torch.int32)
        total, count = int(lengths.sum()), max(map(len, rows))
        shard = {"lengths": lengths, "weights": torch.zeros(total, count)}
        shard |= {name: torch.zeros(total, count, dtype=torch.int32) for name in self.score_axes if name != "weights"}
        begin = 0
        for several in rows:
            end = begin + len(several[0].values)
            shard["structures"][begin:end, : len(several)] = torch.tensor([each.values for each in several]).mT
            shard["weights"][begin:end, : len(several)] = torch.tensor([each.weight for each in several])
            if self.has_relations:
                shard["relations"][begin:end, : len(several)] = torch.tensor([each.relations for each in several]).mT
            begin = end
        return TeacherScores(self, [shard], {})

    def _gold(self, example: Mapping[str, Any]) -> Weighted:
        if isinstance(self.annotation, TagAnnotation):
            return Weighted(1.0, tuple(example["labels"]))
        heads = tuple(word if head == 0 else head - 1 for word, head in enumerate(example["heads"]))
        return Weighted(1.0, heads, tuple(example["relations"]) if self.has_relations else None)


def _names(answer: Answer) -> Iterable[str]:
    if answer.spans is not None:
        return [kind for _, _, kind in answer.spans]
    return answer.labels or answer.relations or []


class _Refused:
    """Raises ValueError with the file and the line."""

    def __init__(self, path: str | PathLike[str], line: int) -> None:
        self.path, self.line = path, line

    def __call__(self, message: str) -> ValueError:
        return ValueError(f"{self.path}, line {self.line}: {message}")


def _records(path: str | PathLike[str], encoding: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line numbers and objects of a file."""
    for number, line in numbered_lines(path, encoding):
        if not line.strip():
            continue
        refuse = _Refused(path, number)
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:  # nested too deeply, or a number of thousands of digits
            why = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else f"{error}"
            raise refuse(f"It is not JSON ({why:.200}). Every line is one object.") from None
        if not isinstance(record, dict):
            raise refuse(f"Expected an object with words or text, got a {type(record).__name__}.")
        if not isinstance(record.get("format", FORMAT), int) or record.get("format", FORMAT) > FORMAT:
            raise refuse(
                f"The format is {record['format']!r}, and this version of structkd reads {FORMAT}. Update structkd, or "
                "write the file in that format."
            )
        yield number, record


def _annotations(record: Mapping[str, Any], refuse: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the annotations of a line, each with the words or text of the line unless it has its own."""
    if "annotations" not in record:
        yield record
        return
    listed = record["annotations"]
    if not isinstance(listed, list) or not listed or not all(isinstance(each, dict) for each in listed):
        raise refuse("annotations must be a list of objects, at least one.")
    shared = {name: record[name] for name in ("words", "text") if name in record}
    for each in listed:
        yield shared | each


def _sentence(each: Mapping[str, Any], refuse: Any) -> tuple[list[str] | None, str | None]:
    """Return the words and the text of an annotation, one of which may be missing."""
    words, text = each.get("words"), each.get("text")
    if words is not None and (not isinstance(words, list) or not all(isinstance(word, str) for word in words)):
        raise refuse("words must be a list of strings.")
    if not words and not isinstance(text, str):
        raise refuse("The sentence is missing: expected words, a list of strings, or text.")
    return words, text if isinstance(text, str) else None


def read_answers(
    path: str | PathLike[str],
    kind: str,
    scheme: str | None = None,
    repair: bool = False,
    encoding: str = "utf-8",
) -> dict[str, list[Answer]]:
    """Return the annotations of a file by the characters of their sentence.

    Args:
        path: the file.
        kind: "spans", "labels" or "trees".
        scheme, repair, encoding: as in :class:`Annotations`.
    """

    def annotations() -> Iterator[tuple[_Refused, Mapping[str, Any]]]:
        for line, record in _records(path, encoding):
            refuse = _Refused(path, line)
            for each in _annotations(record, refuse):
                yield refuse, each

    spelling = None
    if kind == "spans":
        # The file is read twice, because its tags tell their scheme: to hold it as objects takes 30 times its size.
        tags = {tag for refuse, each in annotations() if "spans" not in each for tag in _tags(each, refuse)}
        if tags - {"O"}:
            spelling = spelling_of(sorted(tags), scheme, f"the annotations {path}")
    answers: dict[str, list[Answer]] = {}
    # Sentences have places of their own in memory, so that they do not take those of labels.
    shared = sharing(), sharing()
    for refuse, each in annotations():
        key, answer = _answer(each, refuse, kind, spelling, repair, *shared)
        if (several := answers.get(key)) is None:
            answers[key] = [answer]
        else:
            several.append(answer)
    for several in answers.values():
        if not any(answer.weight > 0 for answer in several):
            refuse = _Refused(path, several[0].line)
            raise refuse("All annotations of the sentence have weight 0. Give one a weight.")
    if not answers:
        raise ValueError(f"{path}: The file holds no annotation.")
    return answers


def _tags(each: Mapping[str, Any], refuse: _Refused) -> list[str]:
    tags = each.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise refuse("tags must be a list of strings.")
    return tags


def _answer(
    each: Mapping[str, Any],
    refuse: _Refused,
    kind: str,
    spelling: FileScheme | None,
    repair: bool,
    shared: Callable[[str], str],
    shared_row: Callable[[Any], Any],
) -> tuple[str, Answer]:
    """Check one annotation, and return the characters of its sentence and its structure."""
    words, text = _sentence(each, refuse)
    key = characters(words or [str(text)])
    if not key:
        raise refuse("The sentence has no characters.")
    if words and text is not None and characters([text]) != key:
        raise refuse(f"words and text are different sentences: {' '.join(words)[:60]!r} and {text[:60]!r}.")
    weight = each.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
        raise refuse(f"The weight is {weight!r}; expected a number that is not negative.")
    source = each.get("source")
    own = shared_row(tuple(bounds(words or [])))
    who = None if source is None else shared(str(source))
    make = partial(Answer, refuse.line, shared_row(float(weight)), own, source=who)
    if kind == "spans" and "spans" in each:
        spans = _spans(each["spans"], words, text, refuse)
        return key, make(spans=tuple((start, end, shared(label)) for start, end, label in spans))
    if kind != "trees" and "tags" in each:
        tags = _column(each["tags"], "tags", words, refuse)
        if kind == "labels":
            return key, make(labels=shared_row(tuple(map(shared, tags))))
        if spelling is None:
            return key, make(spans=())
        if not repair and (found := spelling.violation(tags)) is not None:
            raise refuse(f"{found[1]}. To read such tags as conlleval does, set teacher.model.repair=true.")
        read = spans_of_tags(spelling.read(tags, repair)[0], spelling.scheme)
        return key, make(spans=tuple((own[start], own[end + 1], shared(name)) for start, end, name in read))
    if kind == "trees" and "heads" in each:
        heads, relations = _tree(each, words, refuse)
        named = None if relations is None else shared_row(tuple(map(shared, relations)))
        return key, make(heads=shared_row(tuple(heads)), relations=named)
    raise refuse(f"Expected {_WANTED[kind]} for this task; the annotation has {', '.join(sorted(each))}.")


def _column(values: Any, name: str, words: Any, refuse: _Refused) -> list[str]:
    if not words:
        raise refuse(f"{name} need words, one for each; the annotation has a text only.")
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise refuse(f"{name} must be a list of strings.")
    if len(values) != len(words):
        raise refuse(f"{len(values)} {name} for {len(words)} words.")
    return values


def _spans(given: Any, words: Any, text: Any, refuse: _Refused) -> list[tuple[int, int, str]]:
    """Return spans at positions of characters."""
    if not isinstance(given, list):
        raise refuse("spans must be a list.")
    own = bounds(words or [])
    places = positions(text) if isinstance(text, str) else []
    found = []
    for span in given:
        if isinstance(span, list) and len(span) == 3:
            span = dict(zip(("start", "end", "label"), span, strict=True))
        if not isinstance(span, dict) or not isinstance(span.get("label"), str):
            raise refuse(f"The span {span!r} is not [start, end, label] or an object with these keys.")
        by_word = words and "start" in span
        start, end = (span.get(name if by_word else f"{name}_char") for name in ("start", "end"))
        size, unit = (len(own) - 1, "words") if by_word else (len(places) - 1, "characters")
        if not by_word and not places:
            raise refuse(f"The span {span!r} needs words, for start and end, or text, for start_char and end_char.")
        whole = all(isinstance(place, int) and not isinstance(place, bool) for place in (start, end))
        if not whole or not 0 <= start < end <= size:  # type: ignore[operator]
            raise refuse(f"The span {span!r} does not lie in the {size} {unit} of the sentence; the end is exclusive.")
        axis = own if by_word else places
        found.append((axis[start], axis[end], span["label"]))  # type: ignore[index]
    return found


def _tree(each: Mapping[str, Any], words: Any, refuse: _Refused) -> tuple[list[int], list[str] | None]:
    heads = each["heads"]
    if not words or not isinstance(heads, list) or len(heads) != len(words):
        raise refuse("heads must be a list of one whole number for each of the words.")
    if any(isinstance(head, bool) or not isinstance(head, int) or not 0 <= head <= len(words) for head in heads):
        raise refuse(f"The heads {heads!r} are not all in 0 (root) to {len(words)}.")
    fault = tree_fault(heads, multiroot=True)
    if fault:
        raise refuse(f"The heads are not a tree: {fault}.")
    relations = each.get("relations")
    return heads, None if relations is None else _column(relations, "relations", words, refuse)
