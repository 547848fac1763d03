"""Words of one tokenisation and structures over another, or over characters, of the same sentence.

Sentences are compared by their characters without blanks: ``do n't`` and ``don't`` are the same. Positions count these
characters, so that every tokenisation of a sentence has its words at positions of one axis. Everything here takes time
linear in the characters and words of a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

__all__ = ["Misaligned", "bounds", "characters", "positions", "words_of_labels", "words_of_spans", "words_of_tree"]


class Misaligned(ValueError):
    """A structure over one tokenisation has no counterpart over another."""


def characters(words: Iterable[str]) -> str:
    """Return the characters of a sentence without blanks."""
    return "".join("".join(word.split()) for word in words)


def bounds(words: Iterable[str]) -> list[int]:
    """Return the positions at which words begin and end: [0, end of the first word, ...]."""
    return list(accumulate((len("".join(word.split())) for word in words), initial=0))


def positions(text: str) -> list[int]:
    """Return, for every offset in a text (its end included), how many characters before it are not blank."""
    return list(accumulate((not character.isspace() for character in text), initial=0))


def words_of_spans(spans: Iterable[tuple[int, int, str]], target: Sequence[int]) -> list[tuple[int, int, str]]:
    """Return spans of positions as spans of words, both ends inclusive.

    Args:
        spans: (first position, position after the last, type).
        target: :func:`bounds` of the words.

    Raises:
        Misaligned: a span begins or ends inside a word.
    """
    begins = {position: word for word, position in enumerate(target[:-1])}
    ends = {position: word for word, position in enumerate(target[1:])}
    try:
        return [(begins[start], ends[end], kind) for start, end, kind in spans]
    except KeyError as error:
        raise Misaligned(f"a span begins or ends inside a word (at character {error.args[0]})") from None


def words_of_labels(labels: Sequence[str], own: Sequence[int], target: Sequence[int]) -> list[str]:
    """Return labels of words as labels of the words of another tokenisation.

    A word takes the label of the words that it overlaps.

    Args:
        labels: of the words whose :func:`bounds` are ``own``.
        own, target: bounds of the two tokenisations.

    Raises:
        Misaligned: a word overlaps words of different labels.
    """
    result, word = [], 0
    for start, end in pairwise(target):
        while own[word + 1] <= start:
            word += 1
        label, inner = labels[word], word
        while own[inner + 1] < end:
            inner += 1
            if labels[inner] != label:
                raise Misaligned(f"a word covers words labelled {label} and {labels[inner]}")
        result.append(label)
    return result


def words_of_tree(heads: Sequence[int], own: Sequence[int], target: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return a tree over the words of another tokenisation.

    A word that joins several words takes the head of the one whose head is outside of it.

    Args:
        heads: 1-based, 0 for the root, of the words whose :func:`bounds` are ``own``.
        own, target: bounds of the two tokenisations.

    Returns:
        The heads, 1-based, and for every word the word (0-based) that its head and relation come from.

    Raises:
        Misaligned: a word splits a word, or joins words with several heads outside of it.
    """
    if not set(target) <= set(own):
        raise Misaligned("a word splits a word of the tree")
    group, current = [], 0  # the target word of every own word
    for end in own[1:]:
        while target[current + 1] < end:
            current += 1
        group.append(current)
    result: list[int | None] = [None] * (len(target) - 1)
    taken = [0] * (len(target) - 1)
    for word, head in enumerate(heads):
        mine, theirs = group[word], 0 if head == 0 else group[head - 1] + 1
        if theirs == mine + 1:
            continue
        if result[mine] is not None:
            raise Misaligned("a word joins words with several heads")
        result[mine], taken[mine] = theirs, word
    return [head or 0 for head in result], taken
