"""The spellings of tag schemes in the files of other tools: IOB2, BILOU, BMEWO, ``B_PER``, types alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from structkd.spelling import shown
from structkd.tags import PREFIXES, find_violation, repair_tags, spans, tag_spans, validate_tags

#: For every name that a tool gives to a scheme: the scheme, its prefixes in the order of `PREFIXES`, and whether it
#: marks the ends of spans as IOB1 and BIO mark their beginnings.
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
    "BIOLU": ("BIOES", "BILU", False),
    "BMEWO": ("BIOES", "BMEW", False),
    "BMEOW": ("BIOES", "BMEW", False),
    "BMEWO+": ("BIOES", "BMEW", False),
    "BMES": ("BIOES", "BMES", False),
    "BMESO": ("BIOES", "BMES", False),
    "IOE1": ("IOB1", "EI", True),
    "IOE2": ("BIO", "EI", True),
}
FILE_SCHEMES: tuple[str, ...] = tuple(_SPELLINGS)
"""Names of schemes that files may have."""
_SEPARATORS = ("-", "_", ":", "/", ".", "|")


@dataclass(frozen=True)
class FileScheme:
    """The spelling of a scheme's tags in the files of a tool.

    Other tools have these names and spellings:

    - IOB2 is BIO. IOBES and SBIEO are BIOES.
    - BILOU (or BILUO, BIOLU) is BIOES with L for E and U for S.
    - BMEWO (or BMEOW) is BIOES with M for I and W for S. BMEWO+ also marks the words outside of spans that have a span
      beside them (``O_PER``, ``MM_O``).
    - BMES (or BMESO) is BIOES with M for I.
    - IOE1 and IOE2 mark the ends of spans as IOB1 and BIO mark their beginnings.
    - In IO a tag may be the type alone (``PER``).

    Attributes:
        name: of the scheme, one of `FILE_SCHEMES`, in any case.
        separator: between prefix and type.

    Raises:
        ValueError: an unknown scheme, or an empty separator.
    """

    name: str
    separator: str = "-"
    _read: dict[str, str | None] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name.upper())
        if self.name == "IOB":
            raise ValueError("The tag scheme IOB is either IOB1 or IOB2: give one of these names.")
        if self.name not in _SPELLINGS:
            raise ValueError(f"Unknown tag scheme {self.name!r}; known: {', '.join(_SPELLINGS)}.")
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
        if tag not in self._read:
            self._read[tag] = self._of(tag)
        return self._read[tag]

    def _of(self, tag: str) -> str | None:
        scheme, letters, _ = _SPELLINGS[self.name]
        if tag == "O" or (self.name == "BMEWO+" and "O" in tag.split(self.separator)):
            return "O"
        prefix, separator, span_type = tag.partition(self.separator)
        if separator and span_type and len(prefix) == 1 and prefix in letters:
            return f"{PREFIXES[scheme][letters.index(prefix)]}-{span_type}"
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
                return position, f"{shown(tags[position])} is not a tag of {self.name}, whose tags are O and {forms}"
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
        # A column of other labels, as parts of speech, has no O.
        if "O" in tags and not any(separator in tag for tag in tags for separator in _SEPARATORS):
            candidates.append(FileScheme("IO"))
        return next((other for other in candidates if other != self and other.violation(tags) is None), None)
