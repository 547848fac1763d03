"""Sentences of a file of any size as a sequence, in memory of the order of the file.

A sentence as a Python object takes 300 bytes and more. A file of one-word sentences has five bytes for each, and would
grow 60 times. Sentences are therefore objects up to a number that an ordinary corpus has; from there on they are kept
as bytes, and become objects again when they are asked for.
"""

from __future__ import annotations

import dataclasses
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

__all__ = ["PackedSentences", "SentenceList", "chosen"]

#: Objects that are kept as such: a word counts one, a sentence five. They take about 35 MB.
_MOST_OBJECTS = 500_000
_SENTENCE = 5

S = TypeVar("S")


class SentenceList(Generic[S]):
    """Collects sentences, which are frozen dataclasses of texts, numbers, None, and tuples of these.

    Args:
        kind: the class of the sentences, with an attribute ``tokens``.
    """

    def __init__(self, kind: type[S]) -> None:
        self._kind = kind
        self._objects: list[S] = []
        self._size = 0
        self._packed: PackedSentences[S] | None = None

    def append(self, sentence: S) -> None:
        """Add a sentence to the end."""
        if self._packed is not None:
            self._packed.append(sentence)
            return
        self._objects.append(sentence)
        self._size += _SENTENCE + len(sentence.tokens)  # type: ignore[attr-defined]
        if self._size > _MOST_OBJECTS:
            self._packed = PackedSentences(self._kind, self._objects)
            self._objects = []

    def content(self) -> Sequence[S]:
        """Return the sentences: a list if they are few, else :class:`PackedSentences`."""
        return self._objects if self._packed is None else self._packed


class PackedSentences(Sequence[S]):
    """Sentences that are objects only while somebody looks at them.

    Args:
        kind: the class of the sentences.
        sentences: the first ones; more can be appended.
    """

    def __init__(self, kind: type[S], sentences: Iterable[S] = ()) -> None:
        self._kind = kind
        self._names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
        self._bytes = bytearray()
        self._begins = array("Q", [0])
        self._rows: array[int] | None = None
        for sentence in sentences:
            self.append(sentence)

    def append(self, sentence: S) -> None:
        """Add a sentence to the end."""
        if self._rows is not None:
            raise TypeError("A selection of sentences cannot grow.")
        record = [getattr(sentence, name) for name in self._names]
        self._bytes += json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
        self._begins.append(len(self._bytes))

    def select(self, rows: Iterable[int]) -> PackedSentences[S]:
        """Return the sentences of these numbers, from 0, without a copy of their content."""
        selected: PackedSentences[S] = PackedSentences(self._kind)
        selected._bytes, selected._begins = self._bytes, self._begins
        selected._rows = array("Q", rows if self._rows is None else (self._rows[row] for row in rows))
        return selected

    def __len__(self) -> int:
        return len(self._begins) - 1 if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, index: int) -> S: ...
    @overload
    def __getitem__(self, index: slice) -> PackedSentences[S]: ...
    def __getitem__(self, index: int | slice) -> S | PackedSentences[S]:
        numbers = range(len(self))[index]
        return self.select(numbers) if isinstance(numbers, range) else self._at(numbers)

    def __iter__(self) -> Iterator[S]:
        return map(self._at, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list | PackedSentences):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def _at(self, number: int) -> S:
        row = number if self._rows is None else self._rows[number]
        record: list[Any] = json.loads(self._bytes[self._begins[row] : self._begins[row + 1]])
        return self._kind(*(tuple(value) if isinstance(value, list) else value for value in record))


def chosen(sentences: Sequence[S], rows: Iterable[int]) -> Sequence[S]:
    """Return the sentences of these numbers, from 0, as a sequence of the same kind."""
    if isinstance(sentences, PackedSentences):
        return sentences.select(rows)
    return [sentences[row] for row in rows]
