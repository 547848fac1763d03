"""Recipes for teachers that are asked: a language model, k times a sentence, and a crowd of annotators.

Both end with a file of annotations (:mod:`structkd.teachers.annotations`) for ``teacher=annotations``::

    ask(model, sentences, "asked.jsonl", times=5)             # resumes if it is interrupted
    kept = parse_answers("asked.jsonl", "answers.jsonl", parse=mentions)
    weigh("crowd.jsonl", "weighed.jsonl")                     # for several annotators: weights by agreement
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from structkd.files import replacing
from structkd.teachers.alignment import characters
from structkd.teachers.annotations import read_answers

__all__ = ["Asked", "Parsed", "agreement", "ask", "mentions", "parse_answers", "weigh"]


@dataclass(frozen=True)
class Asked:
    """What came of asking.

    Attributes:
        asked: sentences that were asked for in this call, repetitions included.
        known: those that the file had answers to before.
        cost: of all answers in the file, in the unit of the caller's function.
    """

    asked: int
    known: int
    cost: float


@dataclass(frozen=True)
class Parsed:
    """What came of parsing.

    Attributes:
        kept: annotations that were written.
        dropped: answers that were left out, by reason.
        sentences: sentences with an annotation.
        cost: of all answers, kept or not.
    """

    kept: int
    dropped: Counter[str] = field(default_factory=Counter)
    sentences: int = 0
    cost: float = 0.0


def ask(
    annotator: Callable[[list[str]], Sequence[Any]],
    sentences: Sequence[Sequence[str]],
    path: str | Path,
    *,
    times: int = 1,
    batch_size: int = 16,
    cost: Callable[[str, Any], float] | None = None,
) -> Asked:
    """Ask for annotations of unlabelled sentences, k times each, and keep every answer in a file as it comes.

    The file has a line for every answer. If it exists, answers that it has are not asked for again, and a last line
    that was cut off is dropped: the same call continues an interrupted one.

    Args:
        annotator: takes texts and returns one answer for each, of any form that JSON can hold. It may raise; the
            answers of earlier batches are kept.
        sentences: lists of words. The texts are the words joined by blanks.
        path: of the file of answers.
        times: how often every sentence is asked for; an annotator that samples answers differently every time.
        batch_size: texts in a call of the annotator.
        cost: of an answer, from the text and the answer: tokens, seconds or money. It is kept and added up.

    Raises:
        ValueError: the annotator gives another number of answers than texts, or the file is not one of answers.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "asked.jsonl"
    >>> def model(texts):
    ...     return [[{"text": "Ada", "label": "PER"}] for text in texts]
    >>> ask(model, [["Ada", "slept"]], path, times=2, cost=lambda text, answer: 0.5)
    Asked(asked=2, known=0, cost=1.0)
    >>> ask(model, [["Ada", "slept"]], path, times=2)
    Asked(asked=0, known=2, cost=1.0)
    """
    path = Path(path)
    if times < 1 or batch_size < 1:
        raise ValueError(f"times and batch_size must be at least 1, got {times} and {batch_size}.")
    known: set[tuple[str, int]] = set()
    spent = 0.0
    if path.exists():
        _drop_cut_off_line(path)
        for record in _asked(path):
            known.add((record["text"], record["turn"]))
            spent += record["cost"]
    wanted = {(" ".join(words), turn): list(words) for turn in range(times) for words in sentences}
    waiting = [(key, words) for key, words in wanted.items() if key not in known]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for begin in range(0, len(waiting), batch_size):
            batch = waiting[begin : begin + batch_size]
            texts = [text for (text, _), _ in batch]
            answers = list(annotator(texts))
            if len(answers) != len(texts):
                raise ValueError(f"The annotator gave {len(answers)} answers for {len(texts)} texts; expected as many.")
            for ((text, turn), words), answer in zip(batch, answers, strict=True):
                price = 0.0 if cost is None else float(cost(text, answer))
                spent += price
                record = {"text": text, "words": words, "turn": turn, "answer": answer, "cost": price}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()
    return Asked(asked=len(waiting), known=len(wanted) - len(waiting), cost=spent)


def mentions(text: str, answer: Any) -> list[dict[str, Any]]:
    """Read an answer that lists entities by their text, in order, as spans of characters.

    Args:
        text: the sentence.
        answer: a list of objects ``{"text": "Ada Lovelace", "label": "PER"}``, or its JSON, also between other words.

    Raises:
        ValueError: it is not of that form, or an entity is not in the text after the one before; the reason is short,
            to be counted.

    >>> mentions("Ada met Ada", '[{"text": "Ada", "label": "PER"}, {"text": "Ada", "label": "PER"}]')[1]
    {'start_char': 8, 'end_char': 11, 'label': 'PER'}
    """
    if isinstance(answer, str):
        begin, end = answer.find("["), answer.rfind("]")
        try:
            answer = json.loads(answer[begin : end + 1]) if 0 <= begin < end else None
        except (ValueError, RecursionError):  # nested too deeply, or a number of thousands of digits
            answer = None
    if not isinstance(answer, list):
        raise ValueError("no list in the answer")
    found, place = [], 0
    for entity in answer:
        if not isinstance(entity, Mapping) or not all(isinstance(entity.get(key), str) for key in ("text", "label")):
            raise ValueError("an entity without text and label")
        start = text.find(entity["text"], place) if entity["text"].strip() else -1
        if start < 0:
            raise ValueError("an entity that is not in the text")
        place = start + len(entity["text"])
        found.append({"start_char": start, "end_char": place, "label": entity["label"]})
    return found


def parse_answers(
    path: str | Path,
    output: str | Path,
    parse: Callable[[str, Any], list[dict[str, Any]] | Mapping[str, Any]] = mentions,
    labels: Sequence[str] | None = None,
) -> Parsed:
    """Write the answers that can be read as a file of annotations, and count the others.

    Args:
        path: the file of :func:`ask`.
        output: the file of annotations for ``teacher=annotations``, written atomically.
        parse: turns a text and an answer into spans, or into another annotation (``{"tags": [...]}``, ``{"heads":
            [...]}``); a ValueError drops the answer, and its message is the reason that is counted.
        labels: the labels that spans may have; an answer with another one is dropped. None allows all.

    Raises:
        ValueError: no answer can be read.

    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> answers = iter(['[{"text": "Ada", "label": "PER"}]', "I cannot do that."])
    >>> asked = ask(lambda texts: [next(answers) for _ in texts], [["Ada", "slept"]], folder / "asked.jsonl", times=2)
    >>> parse_answers(folder / "asked.jsonl", folder / "answers.jsonl")
    Parsed(kept=1, dropped=Counter({'no list in the answer': 1}), sentences=1, cost=0.0)
    """
    found: dict[str, dict[str, Any]] = {}
    dropped: Counter[str] = Counter()
    kept, spent = 0, 0.0
    for record in _asked(Path(path)):
        spent += record["cost"]
        try:
            parsed = parse(record["text"], record["answer"])
            annotation = dict(parsed) if isinstance(parsed, Mapping) else {"spans": parsed}
            given = {span["label"] for span in annotation.get("spans", ())}
            if labels is not None and not given <= set(labels):
                raise ValueError("a label that was not asked for")
        except ValueError as error:
            dropped[str(error)] += 1
            continue
        kept += 1
        line = found.setdefault(record["text"], {"words": record["words"], "text": record["text"], "annotations": []})
        line["annotations"].append(annotation | {"source": f"turn {record['turn']}"})
    if not kept:
        reasons = ", ".join(f"{count} times {reason}" for reason, count in dropped.most_common(3)) or "it is empty"
        raise ValueError(f"{path}: No answer can be read: {reasons}.")
    _write(output, found.values())
    return Parsed(kept, dropped, len(found), spent)


def agreement(path: str | Path, task: str = "spans") -> dict[str, float]:
    """Compute how far every annotator of a file agrees with the others: the mean of the F1 with each of them.

    Two annotators are compared over the sentences that both annotate, whatever their words: by spans with their types,
    by the label at every character, or by the head and relation of every word.

    Args:
        path: a file of annotations with a ``source`` in every annotation.
        task: "spans", "upos" or "dependencies".

    Returns:
        For every source a number of 0 to 1.

    Raises:
        ValueError: an annotation has no source, or an annotator shares no sentence with another.

    >>> import json, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "crowd.jsonl"
    >>> tags = {"a": ["B-PER", "O"], "b": ["B-PER", "O"], "c": ["O", "B-PER"]}
    >>> lines = [{"words": ["Ada", "slept"], "tags": tag, "source": source} for source, tag in tags.items()]
    >>> _ = path.write_text("\\n".join(map(json.dumps, lines)))
    >>> agreement(path)
    {'a': 0.5, 'b': 0.5, 'c': 0.0}
    """
    kinds = {"spans": "spans", "upos": "labels", "dependencies": "trees"}
    if task not in kinds:
        raise ValueError(f"Unknown task {task!r}; expected one of {', '.join(kinds)}.")
    by_source: dict[str, dict[str, set[Any]]] = {}
    for key, answers in read_answers(path, kinds[task]).items():
        for answer in answers:
            if answer.source is None:
                raise ValueError(f'{path}, line {answer.line}: The annotation has no source. Add "source": "...".')
            by_source.setdefault(answer.source, {})[key] = answer.parts()
    found: dict[str, list[float]] = {source: [] for source in by_source}
    for one, other in combinations(by_source, 2):
        shared = by_source[one].keys() & by_source[other].keys()
        if not shared:
            continue
        common = sum(len(by_source[one][key] & by_source[other][key]) for key in shared)
        size = sum(len(by_source[each][key]) for each in (one, other) for key in shared)
        value = 2 * common / size if size else 1.0
        found[one].append(value)
        found[other].append(value)
    alone = [source for source, values in found.items() if not values]
    if alone:
        raise ValueError(f"{path}: The annotator {alone[0]!r} shares no sentence with another, so that nothing agrees.")
    return {source: sum(values) / len(values) for source, values in found.items()}


def weigh(path: str | Path, output: str | Path, task: str = "spans") -> dict[str, float]:
    """Write a file of annotations in which every annotation is weighted by its annotator's :func:`agreement`.

    A weight that an annotation has is multiplied.

    Args:
        path, task: as in :func:`agreement`.
        output: written atomically.

    Returns:
        The agreement of every source.

    Raises:
        ValueError: as :func:`agreement`, or the annotators of a sentence agree with nobody.

    >>> import json, pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> lines = [{"words": ["Ada"], "tags": [tag], "source": who} for who, tag in zip("abc", ("B-X", "B-X", "O"))]
    >>> _ = (folder / "crowd.jsonl").write_text("\\n".join(map(json.dumps, lines)))
    >>> weights = weigh(folder / "crowd.jsonl", folder / "weighed.jsonl")
    >>> [json.loads(line)["weight"] for line in (folder / "weighed.jsonl").read_text().splitlines()]
    [0.5, 0.5, 0.0]
    """
    weights = agreement(path, task)
    lines = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if not line.strip():
            continue
        record = json.loads(line)
        for each in record.get("annotations", [record]):
            each["weight"] = each.get("weight", 1.0) * weights[each["source"]]
        lines.append(record)
    _write(output, lines)
    try:
        read_answers(output, {"spans": "spans", "upos": "labels", "dependencies": "trees"}[task])
    except ValueError:
        Path(output).unlink()
        raise
    return weights


def _write(output: str | Path, lines: Any) -> None:
    with replacing(Path(output)) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _asked(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the answers of a file."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            if not {"text", "words", "turn", "answer", "cost"} <= record.keys() or not characters(record["words"]):
                raise ValueError
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise ValueError(
                f"{path}, line {number}: It is not an answer that structkd.teachers.ask wrote. Give another file."
            ) from None
        yield record


def _drop_cut_off_line(path: Path) -> None:
    """Drop what follows the last line end: an answer whose writing was interrupted."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
