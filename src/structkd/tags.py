"""Tag schemes: flat typed spans written as one tag per word, and back.

A tag is ``O`` or ``<prefix>-<type>``. The schemes differ in their prefixes (Ramshaw and Marcus 1995;
Tjong Kim Sang and Veenstra 1999; Ratinov and Roth 2009):

======= ================================================================================================
scheme  a span of type X over words i..j
======= ================================================================================================
BIO     ``B-X`` on i, ``I-X`` on i+1..j (IOB2, the scheme of CoNLL-2000 and Universal NER)
BIOES   ``S-X`` if i = j; otherwise ``B-X`` on i, ``I-X`` between, ``E-X`` on j
IOB1    ``I-X`` on i..j, but ``B-X`` on i if a span of type X ends at i-1 (the files of CoNLL-2003)
IO      ``I-X`` on i..j; two spans of one type cannot touch
======= ================================================================================================

The meaning of these tags is defined here and nowhere else. A sequence that is not legal has two readings: `repair_tags`
gives that of CoNLL-2000's scorer, `strict_spans` that of seqeval. `structkd.data.formats.tag_schemes` knows how other
tools spell the schemes. Everything but `legal_transitions` is plain Python, without torch.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

SCHEMES: tuple[str, ...] = ("BIO", "BIOES", "IOB1", "IO")
"""Schemes of tags; a corpus has BIO or BIOES, since the meaning of a tag of IOB1 or IO depends on the word before."""

PREFIXES = {"BIO": "BI", "BIOES": "BIES", "IOB1": "BI", "IO": "I"}
"""The prefixes of a scheme's tags, in the order of `tag_inventory`."""
OPENING = "BS"
"""Prefixes that begin a span of BIO or BIOES."""
CONTINUING = "IE"
"""Prefixes that continue one."""
_OF_FILES_ONLY = ("IOB1", "IO")
_BOUNDARY = ("O", "")
# Tags of a file may have any length; messages show their ends.
_QUOTED = reprlib.Repr()
_QUOTED.maxstring = 80


class Span(NamedTuple):
    """A typed span of words, 0-based, both ends inclusive."""

    start: int
    end: int
    type: str


def tag_inventory(types: Sequence[str], scheme: str = "BIOES") -> list[str]:
    """Return every tag of a scheme: ``O`` first, then type by type in the order given.

    ``tag_inventory(["NP", "VP"], "BIO")`` is ``["O", "B-NP", "I-NP", "B-VP", "I-VP"]``; BIOES has B, I, E, S.

    Raises:
        ValueError: no, empty or repeated types; a scheme other than BIO and BIOES.
    """
    _check_scheme(scheme)
    if scheme in _OF_FILES_ONLY:
        raise ValueError(
            f"{scheme} is a scheme of files only, because its tags depend on the span before; use BIO or BIOES."
        )
    if not types or len(set(types)) != len(types) or any(not t or t.split() != [t] for t in types):
        raise ValueError(f"Types must be distinct words without blanks, at least one; got {list(types)!r}.")
    return ["O", *(f"{prefix}-{t}" for t in types for prefix in PREFIXES[scheme])]


def find_violation(tags: Sequence[str], scheme: str) -> tuple[int, str] | None:
    """Return the first word at which `tags` violates `scheme`, with the reason, or None.

    The position is that of the illegal tag; it is ``len(tags)`` if the sentence ends inside a BIOES span.
    """
    _check_scheme(scheme)
    previous = _BOUNDARY
    for position, tag in enumerate(tags):
        current = _split(tag, scheme)
        if current is None:
            return position, f"{_QUOTED.repr(tag)} is not a tag of {scheme}, whose tags are O and {_forms(scheme)}"
        if not _follows(previous, current, scheme):
            before = f"after {_QUOTED.repr(tags[position - 1])}" if position else "at the start of the sentence"
            return position, f"{_QUOTED.repr(tag)} cannot stand {before} in {scheme}"
        previous = current
    if tags and not _follows(previous, _BOUNDARY, scheme):
        return len(tags), f"the sentence ends after {tags[-1]!r}, inside a span of {scheme}"
    return None


def validate_tags(tags: Sequence[str], scheme: str) -> None:
    """Raise ValueError, naming the word, unless `tags` is a legal sequence of `scheme`."""
    violation = find_violation(tags, scheme)
    if violation is not None:
        position, reason = violation
        raise ValueError(f"Illegal tag sequence at word {position} (0-based): {reason}; tags {list(tags)!r}.")


def spans(tags: Sequence[str], scheme: str = "BIOES") -> list[Span]:
    """Return the flat typed spans of a legal tag sequence, left to right.

    Raises:
        ValueError: the sequence is illegal in `scheme`; names the word and the tag.
    """
    validate_tags(tags, scheme)
    return list(_read([_split(tag, scheme) or _BOUNDARY for tag in tags]))


def strict_spans(tags: Sequence[str], scheme: str) -> list[Span]:
    """Return the spans of a tag sequence, legal or not, that seqeval finds in ``mode="strict"``.

    Under BIO a span is a B and the run of I of its type after it (an I that continues nothing is ignored); under BIOES
    it is an S, or a B, any I, and an E, all of one type (a B without its E is ignored).

    Raises:
        ValueError: another scheme than BIO and BIOES, or a tag that is not of it.
    """
    if scheme not in ("BIO", "BIOES"):
        raise ValueError(f"Unknown tag scheme {scheme!r}: expected one of BIO, BIOES.")
    found: list[Span] = []
    begin: int | None = None
    current = ""
    for position, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if len(prefix) != 1 or prefix not in f"O{PREFIXES[scheme]}":
            raise ValueError(f"Tag {tag!r} is not of scheme {scheme}: expected O or one of its prefixes and a type.")
        continues = begin is not None and kind == current and prefix in CONTINUING
        if not continues:
            # Under BIO a span is complete at any word that does not continue it; under BIOES only at its E.
            if begin is not None and scheme == "BIO":
                found.append(Span(begin, position - 1, current))
            begin = None
        if prefix == "B":
            begin, current = position, kind
        elif prefix == "S":
            found.append(Span(position, position, kind))
        elif prefix == "E" and continues and begin is not None:
            found.append(Span(begin, position, kind))
            begin = None
    if begin is not None and scheme == "BIO":
        found.append(Span(begin, len(tags) - 1, current))
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
                f"Span {(start, end, span_type)!r} does not lie in a sentence of {length} words "
                "(words are counted from 0, both ends are inclusive)."
            )
        if start <= end_before:
            raise ValueError(f"Span {(start, end, span_type)!r} overlaps the span before it; spans must be flat.")
        tags[start : end + 1] = [f"I-{span_type}"] * (end - start + 1)
        touches = start == end_before + 1 and span_type == type_before
        if scheme == "IO" and touches:
            raise ValueError(f"Span {(start, end, span_type)!r} touches one of its type, which IO cannot write.")
        if scheme in ("BIO", "BIOES") or touches:
            tags[start] = f"B-{span_type}"
        if scheme == "BIOES":
            tags[end] = f"S-{span_type}" if start == end else f"E-{span_type}"
        end_before, type_before = end, span_type
    return tags


def convert_tags(tags: Sequence[str], source: str, target: str) -> list[str]:
    """Rewrite a legal sequence of scheme `source` in scheme `target`; the spans stay the same.

    Raises:
        ValueError: the sequence is illegal in `source`; an unknown scheme.
    """
    return tag_spans(spans(tags, source), len(tags), target)


def repair_tags(tags: Sequence[str], scheme: str = "BIO") -> tuple[list[str], int]:
    """Read tags as the scorer of CoNLL-2000 does, whether or not they are a legal sequence.

    An I (or E) that continues no span of its type begins one, and a span ends if nothing continues it. Tags outside the
    scheme stay as they are.

    Returns:
        The tags, legal in `scheme` if their forms were, and how many were changed.
    """
    _check_scheme(scheme)
    parts = [_split(tag, scheme) for tag in tags]
    repaired = list(tags)
    written = tag_spans(_read([part or _BOUNDARY for part in parts]), len(tags), scheme)
    for position, part in enumerate(parts):
        if part is not None:
            repaired[position] = written[position]
    return repaired, sum(old != new for old, new in zip(tags, repaired, strict=True))


def legal_transitions(labels: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the tags that may start a sentence, follow one another and end it, as masks for constrained decoding.

    The scheme is BIOES if any label has the prefix E or S, else BIO. For decoding only: training scores stay
    unmasked.

    Args:
        labels: the tag inventory in order, C distinct tags.

    Returns:
        A triple. start: BoolTensor [C]; cell [c] says whether label c may tag the first word.
        transition: BoolTensor [C, C] as [next, previous]; cell [j, i] says whether j may follow i.
        end: BoolTensor [C]; cell [c] says whether label c may tag the last word.

    Raises:
        ValueError: a label is not a tag of the scheme (part-of-speech labels, say, have no illegal sequences).
    """
    import torch

    scheme = scheme_of(labels)
    size = len(labels)
    legal = torch.zeros(size + 1, size + 1, dtype=torch.bool)  # [next, previous]; the last index is the edge
    for previous, following in legal_pairs(labels, scheme):
        legal[following, previous] = True
    return legal[:size, size].clone(), legal[:size, :size].clone(), legal[size, :size].clone()


def scheme_of(labels: Iterable[str], types: Iterable[str] | None = None) -> str:
    """Return the scheme of an inventory: BIOES if it has E or S tags (of some types, if given), else BIO."""
    closing = {f"{prefix}-{name}" for name in types for prefix in "ES"} if types is not None else None
    closed = (label in closing if closing is not None else label[:2] in ("E-", "S-") for label in labels)
    return "BIOES" if any(closed) else "BIO"


def legal_pairs(labels: Sequence[str], scheme: str) -> set[tuple[int, int]]:
    """Return the pairs (previous, next) of label indices that may stand side by side in `scheme`.

    Index ``len(labels)`` is the edge of the sentence, before its first and after its last word.

    Raises:
        ValueError: a label is repeated or not a tag of the scheme.
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
        raise ValueError(f"Labels must be distinct and at least one; got {list(labels)!r}.")
    parts = []
    for label in labels:
        part = _split(label, scheme)
        if part is None:
            raise ValueError(
                f"Label {label!r} is not a tag of {scheme} (O and {_forms(scheme)}); labels {list(labels)!r}."
            )
        parts.append(part)
    return parts


def _split(tag: str, scheme: str) -> tuple[str, str] | None:
    """Return (prefix, type) of a tag, ("O", "") of O, and None of anything else."""
    if tag == "O":
        return _BOUNDARY
    prefix, hyphen, span_type = tag.partition("-")
    return (prefix, span_type) if hyphen and span_type and len(prefix) == 1 and prefix in PREFIXES[scheme] else None


def _read(parts: Sequence[tuple[str, str]]) -> Iterator[Span]:
    """Yield the spans of tags as the scorer of CoNLL-2000 reads them; of a legal sequence, those of its scheme."""
    start, previous = 0, _BOUNDARY
    for position, current in enumerate([*parts, _BOUNDARY]):
        begins = current[0] in "BS" or previous[0] in "OES" or previous[1] != current[1]
        if previous != _BOUNDARY and (begins or current == _BOUNDARY):
            yield Span(start, position - 1, previous[1])
        if begins:
            start = position
        previous = current


def _follows(previous: tuple[str, str], current: tuple[str, str], scheme: str) -> bool:
    """Return whether `current` may come directly after `previous`; the edges of a sentence count as O."""
    if scheme == "IO":
        return True
    if scheme == "IOB1":  # B only if it separates two spans of one type
        return current[0] != "B" or previous[1] == current[1]
    if scheme == "BIO":
        return current[0] != "I" or previous[1] == current[1]
    # BIOES: a span continues with its own type after B and I, and only then.
    return (previous[0] in "BI") == (current[0] in "IE") and (previous[0] not in "BI" or previous[1] == current[1])


def _forms(scheme: str) -> str:
    return ", ".join(f"{prefix}-<type>" for prefix in PREFIXES[scheme])


def _check_scheme(scheme: str) -> None:
    if scheme not in SCHEMES:
        raise ValueError(f"Unknown tag scheme {scheme!r}; known: {', '.join(SCHEMES)}.")
