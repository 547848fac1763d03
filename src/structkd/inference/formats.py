"""Sentences read from files as a stream, and written with their annotation: text, columns, CoNLL-U and JSON lines.

A format reads lines into items and writes an item with its annotation. If an item was read in the same format, its
lines are kept, and only the predicted columns change. Nothing but the sentence at hand is held in memory.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, ClassVar

from structkd.data import UPOS, raw_lines
from structkd.data.formats.columns import are_numbers
from structkd.data.formats.lines import split_words
from structkd.harmless import printable_json
from structkd.sentences import Sentence, split_sentences

__all__ = ["FORMATS", "Format", "Item", "format_of"]

Lines = Iterable[tuple[int, str]]


@dataclass(frozen=True)
class Item:
    """A sentence of a file.

    Attributes:
        sentence: its words.
        lines: the lines of the file that hold it, with their line ends; empty for text.
        source: for JSON lines, the object that the line holds.
        base: for text, the position in the file of the line that the offsets count in.
    """

    sentence: Sentence
    lines: tuple[str, ...] = ()
    source: Mapping[str, Any] | None = None
    base: int = 0


class Format(ABC):
    """A format of files, by its name and its usual suffixes."""

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def read(self, path: str, lines: Lines) -> Iterator[Item]:
        """Yield the items of a file.

        Args:
            path: the file, for messages.
            lines: (number from 1, line with its line end).

        Raises:
            ValueError: if the file is in another format; names file and line.
        """

    @abstractmethod
    def write(self, item: Item, found: Mapping[str, Any], same: bool) -> str:
        """Return an item with its annotation.

        Args:
            item: the sentence.
            found: its annotation, see :func:`structkd.sentences.tagged` and :func:`structkd.sentences.parsed`.
            same: whether the item was read in this format.
        """


class Text(Format):
    """Raw text. It is written a sentence on a line: ``[Ana Lee PER] runs``, ``Ana/PROPN`` or ``Ana/2/nsubj``."""

    name = "text"
    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".text", "")

    def read(self, path: str, lines: Lines) -> Iterator[Item]:
        base = 0
        for number, line in lines:
            if number <= 100 and line.count("\t") == 9 and line.split("\t", 1)[0].replace("-", "").isdecimal():
                raise ValueError(f"{path}, line {number}: This is a line of CoNLL-U, and no text. Add --format conllu.")
            for words in split_sentences(line):
                yield Item(Sentence([word for word, _ in words], [place for _, place in words], line), base=base)
            base += len(line)

    def write(self, item: Item, found: Mapping[str, Any], same: bool) -> str:
        words = [str(word) for word in found["words"]]
        if "spans" in found:
            for span in found["spans"]:
                score = f" {span['score']:.3f}" if "score" in span else ""
                words[span["start"]] = f"[{words[span['start']]}"
                words[span["end"] - 1] += f" {span['label']}{score}]"
        else:
            for columns in _predicted(found):
                words = [f"{word}/{value}" for word, value in zip(words, columns, strict=True)]
        return " ".join(words) + "\n"


class Words(Text):
    """Text whose words are separated by white space, a sentence a line, as a training reads it; written as text.

    A line without words is a sentence without words, so that as many lines are written as were read.
    """

    name = "words"
    suffixes = ()

    def read(self, path: str, lines: Lines) -> Iterator[Item]:
        base = 0
        for _, line in lines:
            found = list(_WORD.finditer(line))
            yield Item(Sentence([each[0] for each in found], [each.span() for each in found], line), base=base)
            base += len(line)


class Columns(Format):
    """A word a line, in a column; blank lines between sentences. Predictions are appended as columns.

    Every line has as many columns as the first one, unless the column of the words is named.

    Args:
        token_column: the column of the words, from 0; negative ones count from the right. None is the first column,
            unless it numbers the words.
    """

    name = "columns"
    suffixes = (".conll", ".tsv", ".iob", ".iob2", ".bio", ".bioes")

    def __init__(self, token_column: int | None = None) -> None:
        self.token_column = token_column

    def read(self, path: str, lines: Lines) -> Iterator[Item]:
        block: list[str] = []
        words: list[str] = []
        width = 0
        for number, line in lines:
            content = line.rstrip("\r\n")
            block.append(line)
            if not content.strip(" \t"):
                if words:
                    self._check(path, words, block)
                    yield Item(Sentence(words), tuple(block))
                    block, words = [], []
            elif word := self._word(content, words):
                words.append(word)
                own = content.count("\t") + 1 if "\t" in content else len(split_words(content))
                width = width or own
                if own != width and self.token_column is None:
                    raise ValueError(
                        f"{path}, line {number}: {own} columns, and the first word has {width}: {content!r:.60}. "
                        "Columns are a word a line; text is read with --format text or words. If the words are in the "
                        "first column all the same, add --token-column 0."
                    )
            elif not self._is_comment(content):
                place = f"column {self.token_column} (from 0)" if self.token_column else "its first column"
                raise ValueError(
                    f"{path}, line {number}: The line has no word in {place}: {content!r:.60}. Columns are a "
                    "word a line; text is read with --format text."
                )
        if block:
            self._check(path, words, block)
            yield Item(Sentence(words), tuple(block))

    def _check(self, path: str, words: Sequence[str], block: Sequence[str]) -> None:
        """Refuse a sentence whose first column numbers its words, unless that column was asked for."""
        if self.token_column is not None or len(words) < 3 or not are_numbers(words):
            return
        if any(len(self._cells(line.strip())) > 1 for line in block if not self._is_comment(line)):
            raise ValueError(
                f"{path}: The first column numbers the words (1 2 3 ...). Name the column of the words, from 0: "
                "--token-column 1, or --token-column 0 if these are the words."
            )

    @staticmethod
    def _is_comment(content: str) -> bool:
        return content.startswith(("# ", "-DOCSTART-"))

    def _word(self, content: str, words: Sequence[str]) -> str:
        if not words and self._is_comment(content):
            return ""
        cells, column = self._cells(content), self.token_column or 0
        return cells[column] if -len(cells) <= column < len(cells) else ""

    @staticmethod
    def _cells(content: str) -> list[str]:
        return content.split("\t") if "\t" in content else content.split(" ")

    def write(self, item: Item, found: Mapping[str, Any], same: bool) -> str:
        rows = list(zip(*_predicted(found), strict=True))
        if not same:
            return (
                "".join("\t".join([word, *row]) + "\n" for word, row in zip(found["words"], rows, strict=True)) + "\n"
            )
        written, remaining, begun = [], iter(rows), False
        for line in item.lines:
            content = line.rstrip("\r\n")
            if not content.strip(" \t") or (not begun and self._is_comment(content)):
                written.append(line)
                continue
            begun = True
            delimiter = "\t" if "\t" in content or " " not in content else " "
            written.append(delimiter.join([content, *next(remaining)]) + line[len(content) :])
        return "".join(written)


class Conllu(Format):
    """CoNLL-U. All but the predicted columns is written as it was read, byte for byte.

    Trees are written into HEAD and DEPREL, parts of speech into UPOS (XPOS, if they are not universal), tags of spans
    into MISC as ``ner=``, and scores into MISC as ``tag_score=``, ``head_score=`` and ``relation_score=``.
    """

    name = "conllu"
    suffixes = (".conllu", ".conllx")

    def read(self, path: str, lines: Lines) -> Iterator[Item]:
        block: list[str] = []
        words: list[str] = []
        upos: list[str] = []
        for number, line in lines:
            content = line.rstrip("\r\n")
            block.append(line)
            if not content.strip():
                if words:
                    yield self._item(block, words, upos)
                    block, words, upos = [], [], []
            elif not content.startswith("#") or words:
                columns = content.split("\t")
                if len(columns) != 10:
                    raise ValueError(
                        f"{path}, line {number}: {len(columns)} tab-separated columns where CoNLL-U has 10. "
                        "Give another --format: text, columns or jsonl."
                    )
                if columns[0].isdecimal():
                    if columns[0] != str(len(words) + 1):
                        raise ValueError(
                            f"{path}, line {number}: Word number {columns[0]!r} where {len(words) + 1} was expected. A "
                            "blank line may be missing before it."
                        )
                    words.append(columns[1])
                    upos.append(columns[3])
                elif not all(part.isdecimal() for part in columns[0].replace("-", ".").split(".")):
                    raise ValueError(
                        f"{path}, line {number}: {columns[0]!r} is no number of a word (1), of words (1-2) or of an "
                        "empty node (1.1)."
                    )
        if block:
            yield self._item(block, words, upos)

    @staticmethod
    def _item(block: list[str], words: list[str], upos: list[str]) -> Item:
        return Item(Sentence(words, upos=None if "_" in upos else upos), tuple(block))

    def write(self, item: Item, found: Mapping[str, Any], same: bool) -> str:
        if not same:
            item = Item(item.sentence, tuple(self._lines(item.sentence)))
        predicted = [self._cells(found, place) for place in range(len(found["words"]))]
        written, place, begun = [], 0, False
        for line in item.lines:
            content = line.rstrip("\r\n")
            begun = begun or bool(content.strip() and not content.startswith("#"))
            if begun and content.strip() and content.split("\t", 1)[0].isdecimal():
                columns = content.split("\t")
                cells, misc = predicted[place]
                for number, value in cells.items():
                    columns[number] = value
                if misc:
                    kept = [
                        each
                        for each in columns[9].split("|")
                        if each not in ("", "_") and each.split("=")[0] not in misc
                    ]
                    columns[9] = "|".join([*kept, *(f"{key}={value}" for key, value in misc.items())])
                line = "\t".join(columns) + line[len(content) :]
                place += 1
            written.append(line)
        return "".join(written)

    @staticmethod
    def _lines(sentence: Sentence) -> Iterator[str]:
        """Yield the lines of a sentence without annotation."""
        if sentence.offsets is not None and sentence.text is not None and sentence.words:
            yield f"# text = {' '.join(sentence.text[sentence.offsets[0][0] : sentence.offsets[-1][1]].split())}\n"
        for number, word in enumerate(sentence.words, 1):
            places = sentence.offsets
            joined = places is not None and number < len(places) and places[number - 1][1] == places[number][0]
            yield "\t".join([str(number), word, *"_______", "SpaceAfter=No" if joined else "_"]) + "\n"
        yield "\n"

    @staticmethod
    def _cells(found: Mapping[str, Any], place: int) -> tuple[dict[int, str], dict[str, str]]:
        """Return the predicted columns of a word, and its keys in MISC."""
        cells: dict[int, str] = {}
        misc: dict[str, str] = {}
        if "heads" in found:
            cells = {6: str(found["heads"][place]), 7: found["relations"][place]}
        elif "spans" in found:
            misc["ner"] = found["tags"][place]
        elif "tags" in found:
            tag = found["tags"][place]
            cells = {3 if tag in UPOS else 4: tag}
        for name, key in (("tag", "tag_scores"), ("head", "head_scores"), ("relation", "relation_scores")):
            if key in found:
                misc[f"{name}_score"] = _number(found[key][place])
        return cells, misc


class JsonLines(Format):
    """A JSON value a line: an object with ``words`` (or ``tokens``) or ``text``, a text, or a list of words.

    A text is split into sentences, each on a line of its own; the other keys of an object are kept.
    """

    name = "jsonl"
    suffixes = (".jsonl", ".ndjson", ".json")

    def read(self, path: str, lines: Lines) -> Iterator[Item]:
        for number, line in lines:
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    f"{path}, line {number}: Not JSON ({error}). JSON lines hold a JSON value a line; give another "
                    "--format otherwise: text, columns or conllu."
                ) from None
            source = value if isinstance(value, dict) else {}
            given = next(
                (source[key] for key in ("words", "tokens", "text") if key in source), None if source else value
            )
            if isinstance(given, str):
                for words in split_sentences(given) or [[]]:  # an object without words has a line, too
                    yield Item(
                        Sentence([word for word, _ in words], [place for _, place in words], given), source=source
                    )
            elif isinstance(given, list) and all(isinstance(word, str) for word in given):
                yield Item(Sentence(given, upos=self._upos(source, given)), source=source)
            else:
                raise ValueError(
                    f"{path}, line {number}: A line must hold words (a list of texts) or a text, by itself or under "
                    f"the key words, tokens or text; it holds {line.strip()!r:.60}."
                )

    @staticmethod
    def _upos(source: Mapping[str, Any], words: Sequence[str]) -> list[str] | None:
        upos = source.get("upos")
        fits = isinstance(upos, list) and len(upos) == len(words) and all(isinstance(tag, str) for tag in upos)
        return upos if fits else None

    def write(self, item: Item, found: Mapping[str, Any], same: bool) -> str:
        kept = {key: value for key, value in (item.source or {}).items() if key not in ("tokens", *found)}
        moved = dict(found)
        if item.base and "offsets" in found:
            moved["offsets"] = [(start + item.base, end + item.base) for start, end in found["offsets"]]
            moved["spans"] = [
                {**span, "start_char": span["start_char"] + item.base, "end_char": span["end_char"] + item.base}
                for span in found.get("spans", [])
            ]
            if "spans" not in found:
                del moved["spans"]
        try:
            return printable_json({**kept, **moved}, allow_nan=False) + "\n"
        except ValueError:  # JSON has no infinite numbers
            return printable_json(_finite({**kept, **moved})) + "\n"


#: A word of the format `words`: a training separates words at blanks and tabs only.
_WORD = re.compile("[^ \t\r\n]+")
#: Lines of a text that are looked at, and the form of a line of columns: a word and a tab, or a word and a tag.
_LOOKED_AT = 100
_OF_COLUMNS = re.compile(r"[^ \t]+(\t[^ \t]+)+|[^ \t]+ (.* )?(O|[BIESLUW][-_]\S+)")


def lines_of(path: str, notice: Callable[[str], None] | None = None) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a file, see :func:`structkd.data.raw_lines`.

    Args:
        path: the file; ``-`` is the standard input.
        notice: told in a sentence if most of a text's first lines look like columns; None does not look.

    Raises:
        FileNotFoundError, ValueError: if the file cannot be read, or is not a text file.
    """
    looked_at, like_columns = 0, 0
    try:
        for number, line in raw_lines(path):
            if "\0" in line:
                raise ValueError(f"{path} is not a text file: line {number} has a zero byte.")
            if notice is not None and (content := line.strip()):
                looked_at += 1
                like_columns += bool(_OF_COLUMNS.fullmatch(content))
                if looked_at == _LOOKED_AT:
                    _tell(path, looked_at, like_columns, notice)
                    notice = None
            yield number, line
    except ValueError as error:
        if not isinstance(error.__cause__, UnicodeDecodeError):
            raise
        raise ValueError(f"{error} If it is in Latin-1: iconv -f latin1 -t utf-8 {shlex.quote(path)}") from error
    if notice is not None:
        _tell(path, looked_at, like_columns, notice)


def _tell(path: str, seen: int, alike: int, notice: Callable[[str], None]) -> None:
    if seen > 2 and alike > 0.8 * seen:
        notice(f"{path} is read as text, and looks like columns, a word and its tag a line: add --format columns.")


#: Formats by name.
FORMATS: dict[str, Format] = {each.name: each for each in (Text(), Words(), Columns(), Conllu(), JsonLines())}


def reader_of(path: str, given: str | None = None, token_column: int | None = None) -> Format:
    """Return the format in which a file is read.

    Args:
        path: the file.
        given: the name of its format; None goes by the suffix, see :func:`format_of`.
        token_column: see :class:`Columns`; formats without columns have no use for it.
    """
    found = FORMATS[given] if given else format_of(path)
    return Columns(token_column) if isinstance(found, Columns) else found


def format_of(path: str) -> Format:
    """Return the format that a file's suffix names (that of a compressed file before ``.gz``); text if none does."""
    suffixes = [suffix.lower() for suffix in PurePath(path).suffixes]
    if suffixes and suffixes[-1] in (".gz", ".bz2", ".xz"):
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    return next((each for each in FORMATS.values() if suffix in each.suffixes), FORMATS["text"])


def _predicted(found: Mapping[str, Any]) -> list[list[str]]:
    """Return the predicted columns as texts, their scores beside them."""
    columns: list[list[str]] = []
    for name, score in (("tags", "tag_scores"), ("heads", "head_scores"), ("relations", "relation_scores")):
        if name in found:
            columns.append([str(value) for value in found[name]])
            if score in found:
                columns.append([_number(value) for value in found[score]])
    return columns


def _number(value: float) -> str:
    return f"{value:.6f}"


def _finite(value: Any) -> Any:
    """Return plain data with null for the infinite numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, (list, tuple)) else value
