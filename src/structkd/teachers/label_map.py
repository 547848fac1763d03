"""The translation of a teacher's labels, entity types or relations, and of its tag scheme, into those of the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structkd
from structkd.data import Annotation, FileScheme, TagAnnotation, TreeAnnotation, tag_inventory
from structkd.spelling import did_you_mean
from structkd.tags import tag_spans

__all__ = ["LabelMap", "data_names", "read_scheme", "scheme_inventory", "spelling_of"]

#: The key of a map that stands for all labels that the map does not name.
OTHERS = "*"
_SEPARATORS = ("-", "_", ":", "/", ".", "|")
#: The schemes that a set of prefixes shows, the narrowest first.
_BY_PREFIXES = (("I", "IO"), ("BI", "BIO"), ("BIES", "BIOES"), ("BILU", "BILOU"), ("BMES", "BMES"), ("BMEW", "BMEWO"))


@dataclass(frozen=True)
class LabelMap:
    """What a teacher's entity types, labels or relations are called in the data.

    Attributes:
        names: for every name of the teacher, the name in the data, or None for "outside of any span".
        annotation: of the data.
    """

    names: Mapping[str, str | None]
    annotation: Annotation

    @classmethod
    def of(
        cls, own: Iterable[str], annotation: Annotation, given: Mapping[str, str | None] | None, who: str
    ) -> LabelMap:
        """Complete a map that was given, by names that both sides have.

        Args:
            own: the teacher's entity types; its labels or relations, if the data have no spans.
            annotation: of the data.
            given: for some names of the teacher, the name in the data, or None for outside. The name ``*`` stands for
                all others that the data lack.
            who: the teacher, for messages.

        Raises:
            ValueError: names that are left out, are not the teacher's, or lead to a name that the data lack.
        """
        theirs = data_names(annotation)
        kind = (
            "relations" if isinstance(annotation, TreeAnnotation) else "types" if _has_spans(annotation) else "labels"
        )
        own, given = list(dict.fromkeys(own)), dict(given or {})
        others = {OTHERS: given.pop(OTHERS)} if OTHERS in given else {}
        for name, target in [*given.items(), *others.items()]:
            if name not in own and name != OTHERS:
                raise ValueError(
                    f"teacher.map: {name!r} is not one of the {kind} of {who}, which are {', '.join(own)}."
                    f"{did_you_mean(name, own)}"
                )
            if target is None and not _has_spans(annotation):
                raise ValueError(
                    f"teacher.map: {name}=null stands for outside of any span, and the data have no spans but {kind}. "
                    f"Name one of {_shown(theirs)}."
                )
            if target is not None and target not in theirs:
                raise ValueError(
                    f"teacher.map: {name} leads to {target!r}, and the {kind} of the data are {_shown(theirs)}."
                    f"{did_you_mean(str(target), theirs)}"
                )
        names = {
            name: given[name] if name in given else name if name in theirs else others.get(OTHERS, OTHERS)
            for name in own
        }
        missing = [name for name, target in names.items() if target == OTHERS]
        if missing:
            example = "{" + ",".join(f"{name}:{theirs[0]}" for name in missing[:1]) + ",*:null}"
            outside = "null for outside of any span; " if _has_spans(annotation) else ""
            raise ValueError(
                f"The data have no {kind} {_shown(missing)} of {who}; theirs are {_shown(theirs)}. State the name of "
                f'each in the data with teacher.map, say "teacher.map={example}" ({outside}* is the rest).'
            )
        return cls(names, annotation)

    @property
    def changes(self) -> dict[str, str | None]:
        """The names that are not the same on both sides."""
        return {name: target for name, target in self.names.items() if name != target}

    def describe(self) -> str:
        """Return the map in a few words."""
        if not self.changes:
            return "labels as they are"
        by_target: dict[str, list[str]] = {}
        for name, target in self.changes.items():
            by_target.setdefault("outside" if target is None else target, []).append(name)
        return "; ".join(f"{_shown(names)} read as {target}" for target, names in by_target.items())

    def distribution(self, distribution: Any, scheme: str | None) -> Any:
        """Return the exact push-forward of a teacher's distribution onto the labels of the data.

        Args:
            distribution: over the teacher's labels.
            scheme: the tag scheme of its labels: BIO, BIOES or IO; None if it has no tags of spans.
        """
        annotation = self.annotation
        wanted = data_names(annotation)
        labels = scheme_inventory(wanted, scheme) if scheme is not None else list(wanted)
        if self.changes or _inventory(distribution) not in (None, labels):
            distribution = structkd.relabel(distribution, dict(self.names), labels=labels)
        if scheme is not None and isinstance(annotation, TagAnnotation) and labels != list(annotation.labels):
            distribution = structkd.retag(distribution, list(annotation.labels))
        return distribution

    def relations(self, distribution: Any, own: Sequence[str]) -> Any:
        """Return a distribution of labelled trees whose relations, numbered by ``own``, are those of the data."""
        return structkd.relabel(distribution, dict(enumerate(self.numbers(own))), labels=data_names(self.annotation))

    def labels_of_spans(self, spans: Iterable[tuple[int, int, str]], length: int) -> list[int]:
        """Return the data's label numbers for the teacher's spans, flat and with both ends inclusive."""
        annotation = self.annotation
        assert isinstance(annotation, TagAnnotation)
        kept = [(start, end, name) for start, end, kind in spans if (name := self.names[kind]) is not None]
        return [annotation.index[tag] for tag in tag_spans(kept, length, str(annotation.scheme))]

    def numbers(self, labels: Iterable[str]) -> list[int]:
        """Return the data's numbers for labels or relations of the teacher."""
        index: Mapping[str, int] = self.annotation.index  # type: ignore[attr-defined]
        return [index[str(self.names[label])] for label in labels]


def data_names(annotation: Annotation) -> tuple[str, ...]:
    """Return the entity types of an annotation, its relations, or its labels if they do not stand for spans."""
    if isinstance(annotation, TreeAnnotation):
        return annotation.relations
    if not isinstance(annotation, TagAnnotation):
        raise ValueError(
            f"Teachers that train nothing are taken for tags and trees; the data are {annotation.description()}."
        )
    return annotation.labels if annotation.types is None else annotation.types


def scheme_inventory(types: Sequence[str], scheme: str) -> list[str]:
    """Return every tag of BIO, BIOES or IO for some types, ``O`` first."""
    return ["O", *(f"I-{name}" for name in types)] if scheme == "IO" else tag_inventory(types, scheme)


def read_scheme(labels: Sequence[str], scheme: str | None, who: str) -> tuple[str, dict[str, str]]:
    """Read the tag scheme of an inventory from its labels.

    Args:
        labels: every label, as ``["O", "B-PER", "I-PER"]``.
        scheme: its scheme by any tool's name, if it is known; see :class:`~structkd.data.FileScheme`.
        who: the teacher, for messages.

    Returns:
        The scheme as structkd spells it (BIO, BIOES or IO), and for every label its tag in that scheme.

    Raises:
        ValueError: the labels are of no scheme, or of one that single labels cannot be read in.
    """
    found = spelling_of(labels, scheme, who)
    tags = {label: str(found.tag(label)) for label in labels}
    if found.scheme not in ("BIO", "BIOES", "IO"):
        raise ValueError(
            f"The meaning of a tag of {found.name} depends on the tag before it, so that {who} cannot be read by it. "
            "Expected BIO, BIOES, IO, or another name of these."
        )
    if len(set(tags.values())) < len(tags):
        raise ValueError(f"The labels of {who} mean the same more than once: {_shown(labels)}.")
    return found.scheme, tags


def spelling_of(labels: Sequence[str], scheme: str | None, who: str) -> FileScheme:
    """Return the spelling of a tag scheme that all labels are of; see :func:`read_scheme`."""
    names = [FileScheme(scheme, separator) for separator in _SEPARATORS] if scheme is not None else None
    for found in _candidates([label for label in labels if label != "O"]) if names is None else names:
        if all(found.tag(label) is not None for label in labels):
            return found
    asked = f"are not tags of {scheme}" if scheme is not None else "have no tag scheme that could be read from them"
    raise ValueError(
        f"The labels of {who} {asked}: {_shown(labels)}. Expected O and tags such as B-PER, I-PER (BIO), with E-PER, "
        "S-PER (BIOES) or L-PER and U-PER (BILOU), I-PER alone or types alone (IO). State the scheme with "
        "teacher.model.scheme, and lead labels that are no tags to outside: teacher.map={X:null}."
    )


def _candidates(labels: Sequence[str]) -> list[FileScheme]:
    found = []
    for separator in _SEPARATORS:
        prefixes = {label.partition(separator)[0] for label in labels if separator in label}
        if labels and all(separator in label for label in labels):
            found += [FileScheme(name, separator) for letters, name in _BY_PREFIXES if prefixes <= set(letters)][:1]
    return [*found, FileScheme("IO")]


def _has_spans(annotation: Annotation) -> bool:
    return isinstance(annotation, TagAnnotation) and annotation.types is not None


def _inventory(distribution: Any) -> list[str] | None:
    for name in ("labels", "types"):
        if (found := getattr(distribution, name, None)) is not None:
            return list(found)
    return None


def _shown(names: Iterable[str], most: int = 24) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
