"""Words and characters as integers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from structkd.files import read_json, write_text
from structkd.models.tensor_cache import TensorCache

__all__ = ["Vocabulary"]

PADDING = 0
UNKNOWN = 1
# Markers around a word's characters. They let a convolution distinguish a suffix from the same letters inside a word,
# and no word is empty.
WORD_START = 2
WORD_END = 3

#: Cells of encoded sentences that a vocabulary caches at most (four bytes each: 128 MiB).
_CACHED_CELLS = 1 << 25
#: Words whose spelling is kept, at most; about half a kilobyte each. Longer words are spelled again.
_KEPT_WORDS, _LONGEST_KEPT = 20_000, 100


class Vocabulary:
    """Maps sentences to padded tensors of word and character numbers.

    Numbers 0 and 1 are padding and unknown in both tables; characters also have 2 and 3, the word boundaries.

    Args:
        words: known words, in the order of their numbers (from 2); in lower case if ``lowercase`` is set.
        characters: known characters, in the order of their numbers (from 4). Their case is kept.
        lowercase: look words up in lower case.
        max_characters: a longer word is shortened to this length by removing its middle, which keeps prefix and suffix.
    """

    file_name = "vocabulary.json"

    def __init__(
        self, words: Sequence[str], characters: Sequence[str], *, lowercase: bool = True, max_characters: int = 24
    ) -> None:
        for name, entries in (("words", words), ("characters", characters)):
            repeated = [entry for entry, count in Counter(entries).items() if count > 1]
            if repeated:
                raise ValueError(f"The vocabulary's {name} must be distinct, but {repeated[:5]} occur more than once.")
        if max_characters < 2:
            raise ValueError(f"max_characters must be at least 2, got {max_characters}.")
        self.words = list(words)
        self.characters = list(characters)
        self.lowercase = lowercase
        self.max_characters = max_characters
        self._cache = TensorCache(again=True)
        self._rows: dict[str, list[int]] = {}
        self._word_number = {word: number for number, word in enumerate(self.words, start=2)}
        self._character_number = {character: number for number, character in enumerate(self.characters, start=4)}

    @classmethod
    def build(
        cls,
        sentences: Iterable[Sequence[str]],
        *,
        minimum_count: int = 1,
        lowercase: bool = True,
        max_characters: int = 24,
    ) -> Vocabulary:
        """Collect the words seen at least ``minimum_count`` times, and every character, of the training sentences.

        The most frequent entries come first, ties in alphabetical order, so that the order of sentences has no effect.
        """
        words: Counter[str] = Counter()
        characters: Counter[str] = Counter()
        for tokens in sentences:
            for token in tokens:
                words[token.lower() if lowercase else token] += 1
                characters.update(token)
        if not words:
            raise ValueError("A vocabulary needs at least one training sentence, but none was given.")

        def ordered(counts: Counter[str], least: int) -> list[str]:
            frequent = ((entry, count) for entry, count in counts.items() if count >= least)
            return [entry for entry, _ in sorted(frequent, key=lambda item: (-item[1], item[0]))]

        return cls(
            ordered(words, minimum_count), ordered(characters, 1), lowercase=lowercase, max_characters=max_characters
        )

    @property
    def word_count(self) -> int:
        """The number of rows of a word embedding: the known words, padding and unknown."""
        return len(self.words) + 2

    @property
    def character_count(self) -> int:
        """The number of rows of a character embedding: known characters, padding, unknown and the two boundaries."""
        return len(self.characters) + 4

    def encode(self, sentences: Sequence[Sequence[str]]) -> dict[str, Tensor]:
        """Pad a batch of tokenised sentences.

        Returns:
            ``words`` LongTensor [B, N]; ``characters`` LongTensor [B, N, W], W = characters of the batch's longest
            word plus its two boundaries; ``lengths`` LongTensor [B]. Padding is 0.

        Raises:
            ValueError: if the batch is empty or a sentence has no words.
        """
        if not sentences or not all(len(tokens) for tokens in sentences):
            raise ValueError("Every sentence of a batch needs at least one word, and a batch at least one sentence.")
        rows = [self._cache.get(tuple(tokens), partial(self._sentence, tokens), _CACHED_CELLS) for tokens in sentences]
        if len(rows) == 1:
            batch = rows[0].long().unsqueeze(0)
        else:
            longest, widest = (max(row.shape[axis] for row in rows) for axis in (0, 1))
            batch = torch.full((len(rows), longest, widest), PADDING)
            for padded, row in zip(batch, rows, strict=True):
                padded[: row.shape[0], : row.shape[1]] = row
        lengths = torch.tensor([len(tokens) for tokens in sentences])
        return {"words": batch[..., 0].contiguous(), "characters": batch[..., 1:].contiguous(), "lengths": lengths}

    def _sentence(self, tokens: Sequence[str]) -> Tensor:
        """Return every word's number and spelling, IntTensor [N, 1 + W]."""
        columns = list(zip_longest(*map(self._row, tokens), fillvalue=PADDING))
        cells = np.fromiter(chain.from_iterable(columns), np.int32, len(columns) * len(tokens))
        return torch.from_numpy(cells).view(len(columns), len(tokens)).T

    def number(self, token: str) -> int:
        """Return the number of a word, 1 (unknown) if it is not known."""
        return self._word_number.get(token.lower() if self.lowercase else token, UNKNOWN)

    def _row(self, token: str) -> list[int]:
        """Return a word's number and spelling; most words of a text come again."""
        row = self._rows.get(token)
        if row is None:
            row = [self.number(token), *self._spell(token)]
            if len(self._rows) >= _KEPT_WORDS:
                self._rows.clear()
            if len(token) <= _LONGEST_KEPT:
                self._rows[token] = row
        return row

    def _spell(self, token: str) -> list[int]:
        if len(token) > self.max_characters:
            half = self.max_characters // 2
            token = token[: self.max_characters - half] + token[-half:]
        return [WORD_START, *(self._character_number.get(character, UNKNOWN) for character in token), WORD_END]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``vocabulary.json`` into ``folder``, atomically."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "words": self.words,
            "characters": self.characters,
            "lowercase": self.lowercase,
            "max_characters": self.max_characters,
        }
        write_text(folder / self.file_name, json.dumps(content, ensure_ascii=False))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Vocabulary:
        """Read the vocabulary that :meth:`save_pretrained` wrote.

        Raises:
            FileNotFoundError: if ``folder`` has no vocabulary.
            ValueError: if the file is not a vocabulary.
        """
        path = Path(folder) / cls.file_name
        if not path.is_file():
            raise FileNotFoundError(f"No {cls.file_name} in {folder}: expected a folder written by save_pretrained.")
        content = read_json(path, "Save the model again.")
        try:
            return cls(
                content["words"],
                content["characters"],
                lowercase=content["lowercase"],
                max_characters=content["max_characters"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a vocabulary ({error!r}). Save the model again.") from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return (self.words, self.characters, self.lowercase, self.max_characters) == (
            other.words,
            other.characters,
            other.lowercase,
            other.max_characters,
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Vocabulary({len(self.words)} words, {len(self.characters)} characters, lowercase={self.lowercase})"
