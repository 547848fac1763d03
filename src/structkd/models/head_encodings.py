"""Dependency trees written as one symbol per word, and read back (Strzyz et al., 2019, arXiv 1902.10505).

A symbol is a short string that locates a word's head. Inventories of symbols are therefore plain JSON. The encoding is
lossless: the symbols of any tree, projective or not, decode to that tree. Arbitrary symbols need not give a tree, and a
symbol may name no word of the sentence.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from structkd.numbering import NOWHERE, to_conllu, to_own_index

__all__ = [
    "ROOT",
    "AbsolutePosition",
    "HeadEncoding",
    "RelativeOffset",
    "RelativePoS",
    "head_encoding",
    "register_head_encoding",
]

#: The symbol of the words whose head is the root.
ROOT = "root"

_ENCODINGS: dict[str, HeadEncoding] = {}
Kind = TypeVar("Kind", bound="type[HeadEncoding]")


class HeadEncoding(ABC):
    """A way to write every word's head as a symbol.

    A subclass defines the symbol of a head (:meth:`symbol`) and the words that symbols name (:meth:`words_named`), both
    for heads other than the root. Within a sentence two symbols never name the same head of a word. Heads are numbered
    as in CoNLL-U, from 1, with 0 for the root.

    Attributes:
        name: its name in configurations.
        reads_upos: whether symbols depend on the words' parts of speech.
    """

    name: ClassVar[str]
    reads_upos: ClassVar[bool] = False

    @abstractmethod
    def symbol(self, word: int, head: int, upos: Sequence[str]) -> str:
        """Return the symbol of an arc; both ends count from 0. ``upos`` is empty unless :attr:`reads_upos`."""

    @abstractmethod
    def words_named(self, symbols: Sequence[str], length: int, upos: Sequence[str]) -> Tensor:
        """Return the words, from 0, that symbols name as heads, LongTensor [N, H]; outside 0..N-1 if there is none.

        Raises:
            ValueError: if a symbol does not belong to this encoding.
        """

    def encode(self, heads: Sequence[int], upos: Sequence[str] | None = None) -> list[str]:
        """Return one symbol per word.

        Args:
            heads: the tree, 1-based, 0 = root.
            upos: parts of speech, if the encoding reads them.

        Raises:
            ValueError: if a head is outside the sentence or the word itself, or if parts of speech are missing.
        """
        tags = self._tags(len(heads), upos)
        for word, head in enumerate(heads, 1):
            if not 0 <= head <= len(heads) or head == word:
                raise ValueError(
                    f"The head of word {word} is {head}: expected another word of 1..{len(heads)}, or 0 for the root."
                )
        own = to_own_index(torch.tensor(heads)).tolist()
        return [ROOT if head == word else self.symbol(word, head, tags) for word, head in enumerate(own)]

    def decode(self, symbols: Sequence[str], upos: Sequence[str] | None = None) -> list[int]:
        """Return the head that every word's symbol names, 1-based, 0 = root; :data:`NOWHERE` if it names no word.

        Raises:
            ValueError: if a symbol does not belong to this encoding, or if parts of speech are missing.
        """
        if not symbols:
            return []
        number = {symbol: column for column, symbol in enumerate(dict.fromkeys(symbols))}
        own = torch.arange(len(symbols))
        heads = self.candidates(list(number), len(symbols), upos)[own, [number[symbol] for symbol in symbols]]
        return to_conllu(heads).tolist()

    def candidates(self, symbols: Sequence[str], length: int, upos: Sequence[str] | None = None) -> Tensor:
        """Return the head that every symbol of an inventory names at every word of a sentence.

        Args:
            symbols: H symbols.
            length: N.
            upos: N parts of speech, if the encoding reads them.

        Returns:
            LongTensor [N, H] as :class:`structkd.HeadLabeling` takes heads: the head's position from 0, the word's own
            for the root, -1 if the symbol names no word. O(N H).

        Raises:
            ValueError: if a symbol does not belong to this encoding, or if parts of speech are missing.
        """
        own = torch.arange(length).unsqueeze(1)
        heads = own.repeat(1, len(symbols))
        arcs = [column for column, symbol in enumerate(symbols) if symbol != ROOT]
        named = self.words_named([symbols[column] for column in arcs], length, self._tags(length, upos))
        # A word's own position stands for the root, which only ROOT names.
        heads[:, arcs] = named.masked_fill((named < 0) | (named >= length) | (named == own), NOWHERE)
        return heads

    def _tags(self, length: int, upos: Sequence[str] | None) -> Sequence[str]:
        if not self.reads_upos:
            return ()
        if upos is None:
            raise ValueError(f"The head encoding {self.name!r} reads parts of speech (upos), and none were given.")
        if len(upos) != length:
            raise ValueError(f"Expected one part of speech for each of {length} words, got {len(upos)}.")
        return upos

    def _number(self, symbol: str, digits: str) -> int:
        """Return the number in a symbol, which is not 0."""
        number = _number_written(digits)
        if number == 0:
            raise ValueError(f"{symbol!r} is not a symbol of the head encoding {self.name!r}.")
        return number


@lru_cache(maxsize=1 << 12)
def _number_written(digits: str) -> int:
    """Return the number that digits stand for, 0 if they stand for none."""
    return int(digits) if re.fullmatch(r"[+-]?[1-9][0-9]*", digits, re.ASCII) else 0


def register_head_encoding(kind: Kind) -> Kind:
    """Register a head encoding by its name (a class decorator); saved models find it by that name."""
    _ENCODINGS[kind.name] = kind()
    return kind


def head_encoding(name: str) -> HeadEncoding:
    """Return the encoding of a name.

    Raises:
        ValueError: if there is none; the message lists the known ones.
    """
    if name not in _ENCODINGS:
        raise ValueError(
            f"Unknown head encoding {name!r}: expected one of {', '.join(_ENCODINGS)}. (One of your own is known once "
            "the module that registers it is imported.)"
        )
    return _ENCODINGS[name]


@register_head_encoding
class RelativeOffset(HeadEncoding):
    """Position of the head minus that of the word: "-1" for the word before, "+2" for the second after."""

    name = "relative_offset"

    def symbol(self, word: int, head: int, upos: Sequence[str]) -> str:
        return f"{head - word:+d}"

    def words_named(self, symbols: Sequence[str], length: int, upos: Sequence[str]) -> Tensor:
        offsets = torch.tensor([self._number(symbol, symbol) for symbol in symbols], dtype=torch.long)
        return torch.arange(length).unsqueeze(1) + offsets


@register_head_encoding
class RelativePoS(HeadEncoding):
    """The head's part of speech, and the number of words with this tag up to it: "-1@NOUN" for the nearest noun to the
    left, "+2@VERB" for the second verb to the right.
    """

    name = "relative_pos"
    reads_upos = True

    def symbol(self, word: int, head: int, upos: Sequence[str]) -> str:
        tag = upos[head]
        if head < word:
            return f"-{list(upos[head:word]).count(tag)}@{tag}"
        return f"+{list(upos[word + 1 : head + 1]).count(tag)}@{tag}"

    def words_named(self, symbols: Sequence[str], length: int, upos: Sequence[str]) -> Tensor:
        row = {tag: number for number, tag in enumerate(dict.fromkeys(upos))}
        ranks, rows = [], []
        for symbol in symbols:
            count, _, tag = symbol.partition("@")
            ranks.append(self._number(symbol, count if tag else ""))
            rows.append(row.get(tag, len(row)))  # a tag that does not occur has a row without words
        rank, kind = torch.tensor(ranks, dtype=torch.long), torch.tensor(rows, dtype=torch.long)
        own = torch.tensor([row[name] for name in upos], dtype=torch.long)
        is_tag = torch.nn.functional.one_hot(own, len(row) + 1)  # [N, P]
        until = is_tag.cumsum(0)  # words of the tag up to this one, itself included
        # Words of one tag stand in a row of `places`, in order; the next to the right is the `until`-th of them,
        # counted from 0, and the nearest to the left the one before this word's own place.
        places = torch.full((len(row) + 1, length), length)
        places[own, until.gather(1, own.unsqueeze(1)).squeeze(1) - 1] = torch.arange(length)
        place = torch.where(rank > 0, until[:, kind] + rank - 1, until[:, kind] - is_tag[:, kind] + rank)
        named = places[kind.expand_as(place), place.clamp(0, length - 1)]
        return named.masked_fill((place < 0) | (place >= length), NOWHERE)


@register_head_encoding
class AbsolutePosition(HeadEncoding):
    """The head's position in the sentence, from 1 (the paper's naive encoding)."""

    name = "absolute_position"

    def symbol(self, word: int, head: int, upos: Sequence[str]) -> str:
        return str(head + 1)

    def words_named(self, symbols: Sequence[str], length: int, upos: Sequence[str]) -> Tensor:
        positions = torch.tensor([self._number(symbol, symbol) for symbol in symbols], dtype=torch.long)
        return (positions - 1).expand(length, -1)
