"""Tag schemes: flat typed spans written as one tag per word, and back.

A tag is ``O`` or ``<prefix>-<type>``. The three schemes differ in their prefixes (Ramshaw and Marcus 1995;
Tjong Kim Sang and Veenstra 1999; Ratinov and Roth 2009):

======= ================================================================================================
scheme  a span of type X over words i..j
======= ================================================================================================
BIO     ``B-X`` on i, ``I-X`` on i+1..j (IOB2, the scheme of CoNLL-2000 and Universal NER)
BIOES   ``S-X`` if i = j; otherwise ``B-X`` on i, ``I-X`` between, ``E-X`` on j
IOB1    ``I-X`` on i..j, but ``B-X`` on i if a span of type X ends at i-1 (the files of CoNLL-2003)
======= ================================================================================================

Everything but `legal_transitions` is plain Python: no torch needed to read or to score.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

SCHEMES: tuple[str, ...] = ("BIO", "BIOES", "IOB1")
"""Schemes of files; a corpus has BIO or BIOES, since what a tag of IOB1 means depends on the span before."""

_PREFIXES = {"BIO": "BI", "BIOES": "BIES", "IOB1": "BI"}
_BOUNDARY = ("O", "")


class Span(NamedTuple):
    """A typed span of words, 0-based, both ends inclusive."""

    start: int
    end: int
    type: str


def tag_inventory(types: Sequence[str], scheme: str = "BIOES") -> list[str]:
    """Every tag of a scheme: ``O`` first, then type by type in the order given.

    ``tag_inventory(["NP", "VP"], "BIO")`` is ``["O", "B-NP", "I-NP", "B-VP", "I-VP"]``; BIOES has B, I, E, S.

    Raises:
        ValueError: no, empty or repeated types; a scheme other than BIO and BIOES.
    """
    _check_scheme(scheme)
    if scheme == "IOB1":
        raise ValueError("IOB1 is a scheme of files only, because its tags depend on the span before; use BIO or BIOES")
    if not types or len(set(types)) != len(types) or any(not t or t.split() != [t] for t in types):
        raise ValueError(f"types must be distinct words without blanks, at least one; got {list(types)!r}")
    return ["O", *(f"{prefix}-{t}" for t in types for prefix in _PREFIXES[scheme])]


def find_violation(tags: Sequence[str], scheme: str) -> tuple[int, str] | None:
    """The first word at which `tags` is not a sequence of `scheme`, with the reason, or None.

    The position is that of the tag that cannot stand where it does; it is ``len(tags)`` where the sentence ends
    inside a BIOES span.
    """
    _check_scheme(scheme)
    previous = _BOUNDARY
    for position, tag in enumerate(tags):
        current = _split(tag, scheme)
        if current is None:
            return position, f"{tag!r} is no tag of {scheme}, whose tags are O and {_forms(scheme)}"
        if not _follows(previous, current, scheme):
            before = f"after {tags[position - 1]!r}" if position else "at the start of the sentence"
            return position, f"{tag!r} cannot stand {before} in {scheme}"
        previous = current
    if tags and not _follows(previous, _BOUNDARY, scheme):
        return len(tags), f"the sentence ends after {tags[-1]!r}, inside a span of {scheme}"
    return None


def validate_tags(tags: Sequence[str], scheme: str) -> None:
    """Raise ValueError, naming the word, unless `tags` is a legal sequence of `scheme`."""
    violation = find_violation(tags, scheme)
    if violation is not None:
        position, reason = violation
        raise ValueError(f"illegal tag sequence at word {position} (0-based): {reason}; tags {list(tags)!r}")


def spans(tags: Sequence[str], scheme: str = "BIOES") -> list[Span]:
    """The flat typed spans that a legal tag sequence stands for, left to right.

    Raises:
        ValueError: the sequence is illegal in `scheme`; names the word and the tag.
    """
    validate_tags(tags, scheme)
    found: list[Span] = []
    start, open_type, previous = 0, "", _BOUNDARY
    for position, tag in enumerate(tags):
        current = _split(tag, scheme) or _BOUNDARY
        if _begins(previous, current, scheme):
            if open_type:
                found.append(Span(start, position - 1, open_type))
            start, open_type = position, current[1]
        elif current == _BOUNDARY and open_type:
            found.append(Span(start, position - 1, open_type))
            open_type = ""
        previous = current
    if open_type:
        found.append(Span(start, len(tags) - 1, open_type))
    return found


def tag_spans(spans: Iterable[tuple[int, int, str]], length: int, scheme: str = "BIOES") -> list[str]:
    """Write flat typed spans, in any order, as `length` tags; the inverse of `spans`.

    Raises:
        ValueError: a span is reversed, leaves the sentence or overlaps another; an unknown scheme.
    """
    _check_scheme(scheme)
    tags = ["O"] * length
    end_before, type_before = -1, ""
    for start, end, span_type in sorted(spans):
        if not 0 <= start <= end < length:
            raise ValueError(
                f"span {(start, end, span_type)!r} does not lie in a sentence of {length} words "
                "(words are counted from 0, both ends are inclusive)"
            )
        if start <= end_before:
            raise ValueError(f"span {(start, end, span_type)!r} overlaps the span before it; spans must be flat")
        tags[start : end + 1] = [f"I-{span_type}"] * (end - start + 1)
        if scheme != "IOB1" or (start == end_before + 1 and span_type == type_before):
            tags[start] = f"B-{span_type}"
        if scheme == "BIOES":
            tags[end] = f"S-{span_type}" if start == end else f"E-{span_type}"
        end_before, type_before = end, span_type
    return tags


def convert_tags(tags: Sequence[str], source: str, target: str) -> list[str]:
    """Rewrite a legal sequence of scheme `source` in scheme `target`; the spans stay what they are.

    Raises:
        ValueError: the sequence is illegal in `source`; an unknown scheme.
    """
    return tag_spans(spans(tags, source), len(tags), target)


def repair_bio(tags: Sequence[str]) -> tuple[list[str], int]:
    """Read as B every I that continues no span of its type, as the scorer of CoNLL-2000 does.

    Returns:
        The tags, legal in BIO if their forms were, and how many were changed.
    """
    repaired, previous = [], "O"
    for tag in tags:
        if tag.startswith("I-") and previous[2:] != tag[2:]:
            tag = f"B-{tag[2:]}"
        repaired.append(tag)
        previous = tag
    return repaired, sum(old != new for old, new in zip(tags, repaired, strict=True))


def legal_transitions(labels: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Which tags may start a sentence, follow one another and end it: the mask of constrained decoding.

    The scheme is BIOES if any label has the prefix E or S, else BIO. For decoding only: training scores stay
    unmasked.

    Args:
        labels: the tag inventory in order, C tags of which none is repeated.

    Returns:
        A triple. start: BoolTensor [C]; cell [c] says whether label c may tag the first word.
        transition: BoolTensor [C, C] as [next, previous]; cell [j, i] says whether j may follow i.
        end: BoolTensor [C]; cell [c] says whether label c may tag the last word.

    Raises:
        ValueError: a label is no tag of the scheme (part-of-speech labels, say, have no illegal sequences).
    """
    import torch

    scheme = "BIOES" if any(label[:2] in ("E-", "S-") for label in labels) else "BIO"
    size = len(labels)
    legal = torch.zeros(size + 1, size + 1, dtype=torch.bool)  # [next, previous]; the last index is the edge
    for previous, following in legal_pairs(labels, scheme):
        legal[following, previous] = True
    return legal[:size, size].clone(), legal[:size, :size].clone(), legal[size, :size].clone()


def legal_pairs(labels: Sequence[str], scheme: str) -> set[tuple[int, int]]:
    """The pairs (previous, next) of label indices that may stand side by side in `scheme`.

    Index ``len(labels)`` is the edge of the sentence, before its first and after its last word.

    Raises:
        ValueError: a label is repeated or no tag of the scheme.
    """
    _check_scheme(scheme)
    parts = [*_inventory_parts(labels, scheme), _BOUNDARY]
    return {
        (i, j)
        for i, previous in enumerate(parts)
        for j, following in enumerate(parts)
        if _follows(previous, following, scheme)
    }


def _inventory_parts(labels: Sequence[str], scheme: str) -> list[tuple[str, str]]:
    if not labels or len(set(labels)) != len(labels):
        raise ValueError(f"labels must be distinct and at least one; got {list(labels)!r}")
    parts = []
    for label in labels:
        part = _split(label, scheme)
        if part is None:
            raise ValueError(f"label {label!r} is no tag of {scheme} (O and {_forms(scheme)}); labels {list(labels)!r}")
        parts.append(part)
    return parts


def _split(tag: str, scheme: str) -> tuple[str, str] | None:
    """(prefix, type) of a tag, ("O", "") of O, None of anything else."""
    if tag == "O":
        return _BOUNDARY
    prefix, hyphen, span_type = tag.partition("-")
    return (prefix, span_type) if hyphen and span_type and len(prefix) == 1 and prefix in _PREFIXES[scheme] else None


def _begins(previous: tuple[str, str], current: tuple[str, str], scheme: str) -> bool:
    """Whether a span begins at `current`."""
    if scheme == "IOB1":
        return current[0] == "B" or (current[0] == "I" and previous[1] != current[1])
    return current[0] in "BS"


def _follows(previous: tuple[str, str], current: tuple[str, str], scheme: str) -> bool:
    """Whether `current` may come directly after `previous`; the edges of a sentence count as O."""
    if scheme == "IOB1":  # B only where it separates two spans of one type
        return current[0] != "B" or previous[1] == current[1]
    if scheme == "BIO":
        return current[0] != "I" or previous[1] == current[1]
    # BIOES: after B and I the span goes on with its own type, after anything else it does not.
    return (previous[0] in "BI") == (current[0] in "IE") and (previous[0] not in "BI" or previous[1] == current[1])


def _forms(scheme: str) -> str:
    return ", ".join(f"{prefix}-<type>" for prefix in _PREFIXES[scheme])


def _check_scheme(scheme: str) -> None:
    if scheme not in SCHEMES:
        raise ValueError(f"unknown tag scheme {scheme!r}; known: {', '.join(SCHEMES)}")
