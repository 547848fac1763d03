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

`FileScheme` knows how the files of other tools spell these schemes. Everything but `legal_transitions` is plain Python:
no torch needed to read or to score.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

SCHEMES: tuple[str, ...] = ("BIO", "BIOES", "IOB1", "IO")
"""Schemes of tags; a corpus has BIO or BIOES, since what a tag of IOB1 or IO means depends on the word before."""

_PREFIXES = {"BIO": "BI", "BIOES": "BIES", "IOB1": "BI", "IO": "I"}
_OF_FILES_ONLY = ("IOB1", "IO")
_BOUNDARY = ("O", "")
#: What other tools call a scheme: the scheme, its prefixes in the order of `_PREFIXES`, and whether spans are marked at
#: their ends, as IOB1 and BIO mark them at their beginnings.
_SPELLINGS: dict[str, tuple[str, str, bool]] = {
    "BIO": ("BIO", "BI", False),
    "BIOES": ("BIOES", "BIES", False),
    "IOB1": ("IOB1", "BI", False),
    "IO": ("IO", "I", False),
    "IOB2": ("BIO", "BI", False),
    "IOBES": ("BIOES", "BIES", False),
    "SBIEO": ("BIOES", "BIES", False),
    "BILOU": ("BIOES", "BILU", False),
    "BILUO": ("BIOES", "BILU", False),
    "BMEWO": ("BIOES", "BMEW", False),
    "BMEWO+": ("BIOES", "BMEW", False),
    "BMES": ("BIOES", "BMES", False),
    "BMESO": ("BIOES", "BMES", False),
    "IOE1": ("IOB1", "EI", True),
    "IOE2": ("BIO", "EI", True),
}
FILE_SCHEMES: tuple[str, ...] = tuple(_SPELLINGS)
"""Names of schemes that files may have."""
_SEPARATORS = ("-", "_", ":", "/", ".", "|")


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
    if scheme in _OF_FILES_ONLY:
        raise ValueError(
            f"{scheme} is a scheme of files only, because its tags depend on the span before; use BIO or BIOES"
        )
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
    return list(_read([_split(tag, scheme) or _BOUNDARY for tag in tags]))


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
        touches = start == end_before + 1 and span_type == type_before
        if scheme == "IO" and touches:
            raise ValueError(f"span {(start, end, span_type)!r} touches one of its type, which IO cannot write")
        if scheme in ("BIO", "BIOES") or touches:
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


def repair_tags(tags: Sequence[str], scheme: str = "BIO") -> tuple[list[str], int]:
    """Read tags as the scorer of CoNLL-2000 does, whether or not they are a legal sequence.

    An I (or E) that continues no span of its type begins one, and a span ends where nothing continues it. Tags that are
    none of the scheme stay as they are.

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


@dataclass(frozen=True)
class FileScheme:
    """How the files of a tool spell the tags of a scheme.

    The tools' names of the schemes: IOB2 is BIO; IOBES and SBIEO are BIOES, as are BILOU (or BILUO) with L and U for E
    and S, BMEWO with M and W for I and S, and BMES (or BMESO) with M for I. BMEWO+ also tells words outside by their
    neighbors (``O_PER``, ``MM_O``). IOE1 and IOE2 mark the ends of spans as IOB1 and BIO mark their beginnings.
    In IO a tag may be the type alone (``PER``).

    Attributes:
        name: of the scheme, one of `FILE_SCHEMES`, in any case.
        separator: between prefix and type.

    Raises:
        ValueError: an unknown scheme, or an empty separator.
    """

    name: str
    separator: str = "-"

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name.upper())
        if self.name == "IOB":
            raise ValueError("The tag scheme IOB is either IOB1 or IOB2: give one of these names.")
        if self.name not in _SPELLINGS:
            raise ValueError(f"unknown tag scheme {self.name!r}; known: {', '.join(_SPELLINGS)}")
        if not self.separator:
            raise ValueError(
                "The separator between a tag's prefix and its type is empty; expected a character, as '-'."
            )

    @property
    def scheme(self) -> str:
        """The scheme of the tags that `read` returns."""
        return "BIO" if self._mirrored else _SPELLINGS[self.name][0]

    @property
    def _mirrored(self) -> bool:
        return _SPELLINGS[self.name][2]

    def tag(self, tag: str) -> str | None:
        """Return one tag of a file in our spelling, or None if it is not a tag of the scheme."""
        scheme, letters, _ = _SPELLINGS[self.name]
        if tag == "O" or (self.name == "BMEWO+" and "O" in tag.split(self.separator)):
            return "O"
        prefix, separator, span_type = tag.partition(self.separator)
        if separator and span_type and len(prefix) == 1 and prefix in letters:
            return f"{_PREFIXES[scheme][letters.index(prefix)]}-{span_type}"
        # A type alone, unless it looks like a tag of another scheme.
        bare = self.name == "IO" and tag and not (separator and len(prefix) <= 1)
        return f"I-{tag}" if bare else None

    def inventory(self, types: Sequence[str]) -> list[str]:
        """Return every tag of a file with these types, in the file's spelling."""
        letters = _SPELLINGS[self.name][1]
        spelled = [types] if self.name == "IO" else [[f"{p}{self.separator}{t}" for p in letters] for t in types]
        return ["O", *(tag for tags in spelled for tag in tags)]

    def violation(self, tags: Sequence[str]) -> tuple[int, str] | None:
        """Return `find_violation` of a file's tags, in the file's words."""
        scheme = _SPELLINGS[self.name][0]
        own = [self.tag(tag) for tag in tags]
        for position, tag in enumerate(own):
            if tag is None:
                forms = ", ".join(self.inventory(["<type>"])[1:])
                return position, f"{tags[position]!r} is no tag of {self.name}, whose tags are O and {forms}"
        found = find_violation([str(tag) for tag in (own[::-1] if self._mirrored else own)], scheme)
        if found is None:
            return None
        position = len(tags) - 1 - found[0] if self._mirrored else found[0]
        if position == len(tags):
            return position, f"the sentence ends after {tags[-1]!r}, inside a span of {self.name}"
        if self._mirrored:
            after = f"before {tags[position + 1]!r}" if position + 1 < len(tags) else "at the end of the sentence"
        else:
            after = f"after {tags[position - 1]!r}" if position else "at the start of the sentence"
        return position, f"{tags[position]!r} cannot stand {after} in {self.name}"

    def read(self, tags: Sequence[str], repair: bool = False) -> tuple[list[str], int]:
        """Return the tags of a file in `scheme`, and how many `repair_tags` changed.

        Raises:
            ValueError: the tags are illegal; names the word.
        """
        scheme = _SPELLINGS[self.name][0]
        own = [self.tag(tag) or tag for tag in (reversed(tags) if self._mirrored else tags)]
        own, changed = repair_tags(own, scheme) if repair else (own, 0)
        if not self._mirrored:
            validate_tags(own, scheme)
            return own, changed
        last = len(tags) - 1
        mirrored = [(last - end, last - start, span_type) for start, end, span_type in spans(own, scheme)]
        return tag_spans(mirrored, len(tags), self.scheme), changed

    def others(self, tags: Sequence[str]) -> FileScheme | None:
        """Return another scheme or separator in which a file's tags are legal, the likeliest one, or None."""
        prefixed = [name for name in _SPELLINGS if name != "IO"]
        separators = dict.fromkeys((self.separator, *_SEPARATORS))
        candidates = [FileScheme(name, separator) for separator in separators for name in prefixed]
        if not any(separator in tag for tag in tags for separator in _SEPARATORS):
            candidates.append(FileScheme("IO"))
        return next((other for other in candidates if other != self and other.violation(tags) is None), None)


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


def _read(parts: Sequence[tuple[str, str]]) -> Iterator[Span]:
    """The spans of tags as the scorer of CoNLL-2000 reads them; of a legal sequence, those of its scheme."""
    start, previous = 0, _BOUNDARY
    for position, current in enumerate([*parts, _BOUNDARY]):
        begins = current[0] in "BS" or previous[0] in "OES" or previous[1] != current[1]
        if previous != _BOUNDARY and (begins or current == _BOUNDARY):
            yield Span(start, position - 1, previous[1])
        if begins:
            start = position
        previous = current


def _follows(previous: tuple[str, str], current: tuple[str, str], scheme: str) -> bool:
    """Whether `current` may come directly after `previous`; the edges of a sentence count as O."""
    if scheme == "IO":
        return True
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
