"""Errors in files: the ways to read past them, their counts, and the options that messages offer."""

from __future__ import annotations

import re
import shlex
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from os import PathLike
from pathlib import Path

from structkd.spelling import no_such_file

BLANK_WORDS: tuple[str, ...] = ("refuse", "skip", "underscore")
"""The treatments of words that are empty or nothing but white space."""
REPEATED_IDS: tuple[str, ...] = ("refuse", "number")
"""The treatments of sentence ids that occur before in the file."""

_node: ContextVar[str | None] = ContextVar("node", default=None)
_flags: ContextVar[Mapping[str, str] | None] = ContextVar("flags", default=None)
_UNDERSCORE = "_"
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_NOTES = {
    "blank": "Words that are empty or blank were read as an underscore: {}.",
    "skipped": "Sentences with an empty or blank word were left out: {}.",
    "empty": "Rows without words were left out: {}.",
    "renamed": "Sentence ids that repeat were told apart: {}.",
    "repaired": "Tags out of place were read as the scorer conlleval reads them, an I that continues no span as B: {}.",
}


def changes_note(changes: Mapping[str, Counter[str]]) -> str:
    """Return the sentences for `Corpus.notes` on the changes that the readers made to the splits.

    Args:
        changes: for every split, how often each of "blank", "skipped", "empty", "renamed" and "repaired" occurred.
    """
    lines = []
    for kind, text in _NOTES.items():
        if any(counts[kind] for counts in changes.values()):
            lines.append(text.format(", ".join(f"{counts[kind]} of {split}" for split, counts in changes.items())))
    return " ".join(lines)


@contextmanager
def configured_at(node: str) -> Iterator[None]:
    """Name options in messages by a node of the configuration, as ``data.source``, within the block."""
    token = _node.set(node)
    try:
        yield
    finally:
        _node.reset(token)


@contextmanager
def typed_as(flags: Mapping[str, str]) -> Iterator[None]:
    """Name options in messages by the flags of a command, as ``--scheme BIO``, within the block.

    Args:
        flags: the flag of every option that is offered, by the option's name. A flag of an option that is True stands
            alone.
    """
    token = _flags.set(flags)
    try:
        yield
    finally:
        _flags.reset(token)


def option(name: str, value: object, key: str | None = None, node: str = "data") -> str:
    """Return an option as it is typed, in Python and on the command line: ``repair=True (data.repair=true)``.

    Within `typed_as` the command line is that of a command with flags: ``repair=True (--repair)``.

    Args:
        name: of the keyword argument.
        value: a string, number, bool or None, or a list or dict of these.
        key: its name in the configuration, if that is another one.
        node: the node of the configuration outside of `configured_at`.
    """
    shown = f"{name}={value!r}"
    flags = _flags.get()
    if flags is not None:
        typed = flags[name] if value is True else f"{flags[name]} {shlex.quote(str(value))}"
        return f"{shown} ({typed})"
    if isinstance(value, dict) and not all(_PLAIN.fullmatch(str(each)) for each in value):
        return shown  # the grammar of command lines has no quotes in keys
    return f"{shown} ({shlex.quote(f'{_node.get() or node}.{key or name}={_typed(value)}')})"


def check_files(files: Mapping[str, str | PathLike[str] | None], node: str = "data") -> None:
    """Refuse files that do not exist, before any of them is read.

    Args:
        files: the paths by the keyword argument that gives them; None and "-", the standard input, are passed over.
        node: see `option`.

    Raises:
        FileNotFoundError: the message names the option that gives the file.
    """
    for name, path in files.items():
        if path is not None and str(path) != "-" and not Path(path).exists():
            raise FileNotFoundError(f"{no_such_file(path)} The file is given by {option(name, 'FILE', node=node)}.")


def choice(name: str) -> str:
    """Return the choice of a format as it is typed: ``data=conllu``, or within `typed_as` ``--format conllu``."""
    return f"{_node.get() or 'data'}={name}" if _flags.get() is None else f"--format {name}"


def _typed(value: object) -> str:
    """Return a value in the grammar of command lines."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_typed, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{_typed(key)}: {_typed(each)}' for key, each in value.items())}}}"
    text = str(value)
    if not isinstance(value, str) or (_PLAIN.fullmatch(text) and text.lower() not in ("null", "true", "false")):
        return text
    quoted = text.replace('"', '\\"')
    return f'"{quoted}"'


def check_option(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise ValueError unless an option has one of its values."""
    if value not in known:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(known)}.")


def without_blank_words(
    words: list[str],
    place: Callable[[int], str],
    blank_words: str,
    changes: Counter[str],
    node: str = "data",
    offers: Collection[str] = ("blank_words",),
) -> list[str] | None:
    """Return the words of a sentence with a blank one read as `blank_words` says; None if the sentence is left out.

    Args:
        words: the sentence.
        place: where a word, counted from 0, stands, for messages.
        blank_words: one of `BLANK_WORDS`.
        changes: the counter of changes.
        node: of the configuration, see `option`.
        offers: the options that the message may offer, by name.

    Raises:
        ValueError: a word is blank, and `blank_words` is "refuse".
    """
    if "" not in words and not any(map(str.isspace, words)):
        return words
    blank = [number for number, word in enumerate(words) if not word or word.isspace()]
    if blank_words == "refuse":
        remedy = "Write the word into the file, or remove the sentence."
        if "blank_words" in offers:
            skip, underscore = (option("blank_words", each, node=node) for each in BLANK_WORDS[1:])
            remedy = f"To leave such sentences out, read with {skip}; to read such words as an underscore, "
            remedy += f"with {underscore}."
        raise ValueError(f"{place(blank[0])}: The word is empty or blank ({words[blank[0]]!r}). {remedy}")
    if blank_words == "skip":
        changes["skipped"] += 1
        return None
    changes["blank"] += len(blank)
    return [_UNDERSCORE if number in blank else word for number, word in enumerate(words)]


class SentenceIds:
    """The ids of a file's sentences, each once.

    An id that occurs before but in another document (``# newdoc id``) gets the document's name before it.

    Args:
        path: the file, for messages.
        repeated: "refuse", or "number" to write ``#2`` and so on after an id that occurs before.
        changes: the counter of changes.
        offers: the options that messages may offer, by name.
    """

    def __init__(
        self, path: object, repeated: str, changes: Counter[str], offers: Collection[str] = ("repeated_ids",)
    ) -> None:
        check_option("repeated_ids", repeated, REPEATED_IDS)
        self._path, self._repeated, self._changes, self._offers = path, repeated, changes, offers
        # Ids that are the sentence's number, of most files all, are not held.
        self._given: dict[str, int] = {}
        self._lines = array("Q")
        self._is_number = bytearray()
        self._times: Counter[str] = Counter()

    def next(self, given: str | None, line: int, document: str | None = None) -> str:
        """Return the id of the next sentence: the one given, or else its number.

        Raises:
            ValueError: the id occurs before.
        """
        number = str(len(self._lines) + 1)
        name = given or number
        before = self._line(name)
        if before is not None:
            other = f"{document}/{name}" if document else name
            if self._repeated == "refuse" and self._line(other) is not None:
                remedy = "Give every sentence an id of its own."
                if "repeated_ids" in self._offers:
                    remedy = f"To number ids that repeat, read with {option('repeated_ids', 'number')}."
                raise ValueError(
                    f"{self._path}, line {line}: Sentence id {name!r} occurs before, at line {before}. {remedy}"
                )
            self._times[name] += 1
            while self._line(other) is not None:
                self._times[name] += 1
                other = f"{name}#{self._times[name]}"
            name = other
            self._changes["renamed"] += 1
        self._lines.append(line)
        self._is_number.append(name == number)
        if name != number:
            self._given[name] = line
        return name

    def _line(self, name: str) -> int | None:
        """Return the line of the sentence that has an id, or None."""
        if _NUMBER.fullmatch(name) and int(name) <= len(self._lines) and self._is_number[int(name) - 1]:
            return self._lines[int(name) - 1]
        return self._given.get(name)
