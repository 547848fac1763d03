"""Pretrained word vectors in the text formats of fastText, GloVe and word2vec."""

from __future__ import annotations

from array import array
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from structkd.data.formats.lines import numbered_lines
from structkd.spelling import shown

__all__ = ["WordVectors", "read_vectors"]

#: Numbers of one vector. A line of a million would be a million objects.
_MOST_NUMBERS = 65_536


@dataclass(frozen=True)
class WordVectors:
    """Words of a file and their vectors.

    Attributes:
        words: V distinct words, in lower case if that was requested.
        values: float32 [V, D]; row v is the vector of ``words[v]``.
    """

    words: list[str]
    values: Tensor


def read_vectors(
    path: str | Path, words: Collection[str], *, lowercase: bool = False, most_frequent: int = 0
) -> WordVectors:
    """Read the vectors of the given words; other vectors are not held in memory.

    The file is text, plain or gzip. A line holds a word and its D numbers, separated by spaces (the word may contain
    spaces, as some of GloVe's do). The first line may hold the numbers of words and dimensions. If a word occurs more
    than once, its first line counts.

    Args:
        path: ``.vec`` or ``.txt``, perhaps with ``.gz``.
        words: words whose vectors are read; in lower case if ``lowercase`` is set.
        lowercase: give a word that is missing in lower case the vector of its first other form.
        most_frequent: read this number of words from the beginning of the file as well (files are sorted by frequency).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line does not hold D finite numbers (the message names the line), if D is more than 65,536, or
            if the file has none of the words.
    """
    path = Path(path)
    wanted = frozenset(words)
    # One buffer for all numbers: an array per vector would take several times the memory of a short one.
    found, otherwise = _Rows(), _Rows()
    size = -1
    rank = 0
    for number, line in numbered_lines(path):
        line = line.rstrip(" ")
        if number == 1 and _is_header(line):
            size = int(line.split(" ")[1])
            continue
        if size < 1:
            size = line.count(" ")
            if size < 1:
                raise ValueError(
                    f"{path}, line {number}: Expected a word and its numbers, separated by spaces. Only "
                    "text files are read; convert a binary file first."
                )
        if size > _MOST_NUMBERS:
            raise ValueError(
                f"{path}, line {number}: Vectors of {size:,} numbers; at most {_MOST_NUMBERS:,} are read. Is this a "
                "file of word vectors, with one word a line?"
            )
        if line.count(" ") < size:
            raise ValueError(
                f"{path}, line {number}: Expected a word and {size} numbers, got {line.count(' ')} numbers."
            )
        word = line.rsplit(" ", size)[0] if line.count(" ") > size else line[: line.index(" ")]
        folded = word.lower() if lowercase else word
        rank += 1
        if rank > most_frequent and folded not in wanted:
            continue
        if folded == word:
            if word not in found.words:
                found.add(word, _numbers(line, size, path, number))
        elif folded not in found.words and folded not in otherwise.words:
            otherwise.add(folded, _numbers(line, size, path, number))
    for row, word in enumerate(otherwise.words):
        if word not in found.words:
            found.add(word, np.frombuffer(otherwise.values, np.float32, size, row * size * 4))
    if not found.words:
        raise ValueError(
            f"{path}: None of the {len(wanted)} words of the text has a vector there. Check that the vectors "
            "are of the text's language."
        )
    values = np.frombuffer(found.values, np.float32).reshape(len(found.words), size)
    return WordVectors(list(found.words), torch.from_numpy(values))


class _Rows:
    """Distinct words, and the numbers of their vectors one after the other."""

    def __init__(self) -> None:
        self.words: dict[str, None] = {}
        self.values = array("f")

    def add(self, word: str, vector: np.ndarray) -> None:
        self.words[word] = None
        self.values.frombytes(vector.tobytes())


def _is_header(line: str) -> bool:
    """Return whether a line consists of two whole numbers, those of words and dimensions."""
    fields = line.split(" ")
    return len(fields) == 2 and all(field.isdecimal() and len(field) <= 18 for field in fields)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _numbers(line: str, size: int, path: Path, number: int) -> np.ndarray:
    fields = line.rsplit(" ", size)[1:]
    try:
        vector = np.array([float(field) for field in fields], dtype=np.float32)
    except ValueError:
        wrong = next(field for field in fields if not _is_number(field))
        raise ValueError(
            f"{path}, line {number}: Expected {size} numbers after the word, and {shown(wrong)} is none."
        ) from None
    if not np.isfinite(vector).all():
        raise ValueError(f"{path}, line {number}: The vector holds a number that is not finite.")
    return vector
