"""Kinds of annotation: a tag per word, or a dependency tree.

An annotation defines its columns, its inventory and the check of a sentence's values. Corpora, models and metrics use
this interface and do not distinguish tasks. A new kind of annotation is a new subclass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from structkd.numbering import UNLABELLED
from structkd.tags import legal_pairs, tag_inventory

_SHOWN = 8


class Annotation(ABC):
    """The kind of annotation that a corpus carries, with its inventories.

    Attributes:
        columns: the columns that hold it, each with one int per word; `UNLABELLED` throughout a sentence whose
            annotation is hidden.
    """

    columns: ClassVar[tuple[str, ...]]

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Return the kind and the inventories as plain JSON, for fingerprints and result files."""

    @abstractmethod
    def names(self, values: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
        """Return the values of one sentence in readable form, for files of predictions; None for hidden values."""

    @abstractmethod
    def fault(self, values: Mapping[str, Sequence[int]]) -> str | None:
        """Return the reason why the values of a sentence are not well formed, or None. No value is hidden."""

    def check(self, words: Sequence[str], values: Mapping[str, Sequence[int]]) -> None:
        """Check the annotation of one sentence.

        Args:
            words: the sentence.
            values: for every column, one value per word.

        Raises:
            ValueError: a column is missing, does not have one value per word, or is hidden in part, or `fault` finds a
                fault. The caller adds the names of the corpus and the sentence.
        """
        for column in self.columns:
            if column not in values:
                raise ValueError(f"Column {column!r} is missing; expected {', '.join(self.columns)}.")
            if not words or len(values[column]) != len(words):
                raise ValueError(
                    f"{len(words)} tokens and {len(values[column])} {column}; one of the {column} per token expected."
                )
        hidden = [set(values[column]) == {UNLABELLED} for column in self.columns]
        if all(hidden):
            return
        if any(hidden):
            raise ValueError(f"Columns {', '.join(self.columns)} must be hidden ({UNLABELLED}) together or not at all.")
        fault = self.fault(values)
        if fault:
            raise ValueError(fault)


@dataclass(frozen=True)
class TagAnnotation(Annotation):
    """One tag per word, in column ``labels``: indices into the inventory.

    Attributes:
        labels: tag inventory in order; any sequence is accepted and kept as a tuple.
        scheme: "BIO" or "BIOES" if the tags stand for flat typed spans, else None.

    Raises:
        ValueError: no or repeated labels; with a scheme, labels that are not `tag_inventory` of their types.
    """

    labels: tuple[str, ...]
    scheme: str | None = None
    columns: ClassVar[tuple[str, ...]] = ("labels",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"Labels must be distinct and at least one; got {list(self.labels)}.")
        if self.scheme is not None:
            types = list(dict.fromkeys(label.partition("-")[2] for label in self.labels if label != "O"))
            expected = tag_inventory(types, self.scheme)
            if list(self.labels) != expected:
                raise ValueError(f"Labels of {self.scheme} must be {expected}; got {list(self.labels)}.")

    @classmethod
    def of_spans(cls, types: Sequence[str], scheme: str = "BIOES") -> TagAnnotation:
        """Return the annotation of flat spans of these types, in order, in `scheme` ("BIO" or "BIOES")."""
        return cls(tuple(tag_inventory(types, scheme)), scheme)

    @property
    def types(self) -> tuple[str, ...] | None:
        """Span types in order, or None if the tags do not stand for spans."""
        if self.scheme is None:
            return None
        return tuple(label[2:] for label in self.labels if label.startswith("B-"))

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of every label in the inventory."""
        return {label: number for number, label in enumerate(self.labels)}

    @cached_property
    def _legal(self) -> set[tuple[int, int]] | None:
        return legal_pairs(self.labels, self.scheme) if self.scheme else None

    def description(self) -> dict[str, Any]:
        return {"kind": "tags", "labels": list(self.labels), "scheme": self.scheme}

    def names(self, values: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
        """Return ``{"labels": ["B-PER", ...]}``."""
        return {"labels": _named(values["labels"], self.labels)}

    def fault(self, values: Mapping[str, Sequence[int]]) -> str | None:
        labels = values["labels"]
        strange = _strange(labels, self.labels)
        if strange:
            return (
                f"Labels {strange} are outside 0..{len(self.labels) - 1}. To hide a sentence's annotation, set all of "
                f"its labels to {UNLABELLED}."
            )
        if self._legal is not None:
            edge = len(self.labels)
            for pair in zip([edge, *labels], [*labels, edge], strict=True):
                if pair not in self._legal:
                    names = [*self.labels, "the edge of the sentence"]
                    return f"{names[pair[1]]} cannot follow {names[pair[0]]} in {self.scheme}."
        return None


@dataclass(frozen=True)
class TreeAnnotation(Annotation):
    """A dependency tree, in columns ``heads`` and ``relations``.

    Heads are CoNLL-U's: 1-based, 0 for the root. (Distributions have another numbering: `structkd.numbering` leads from
    one to the other.) Relations are indices into the inventory.

    Attributes:
        relations: relation inventory in order; any sequence is taken and kept as a tuple.
        multiroot: whether a sentence may have several roots.

    Raises:
        ValueError: no or repeated relations.
    """

    relations: tuple[str, ...]
    multiroot: bool = False
    columns: ClassVar[tuple[str, ...]] = ("heads", "relations")

    def __post_init__(self) -> None:
        object.__setattr__(self, "relations", tuple(self.relations))
        if not self.relations or len(set(self.relations)) != len(self.relations):
            raise ValueError(f"Relations must be distinct and at least one; got {list(self.relations)}.")

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of every relation in the inventory."""
        return {relation: number for number, relation in enumerate(self.relations)}

    def description(self) -> dict[str, Any]:
        return {"kind": "tree", "relations": list(self.relations), "multiroot": self.multiroot}

    def names(self, values: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
        """Return ``{"heads": [2, 0, ...], "relations": ["nsubj", "root", ...]}``."""
        heads = [None if head == UNLABELLED else head for head in values["heads"]]
        return {"heads": heads, "relations": _named(values["relations"], self.relations)}

    def fault(self, values: Mapping[str, Sequence[int]]) -> str | None:
        heads = values["heads"]
        outside = [head for head in heads if not 0 <= head <= len(heads)]
        if outside:
            return f"Heads {sorted(set(outside))} are outside 0 (root) to {len(heads)}."
        fault = tree_fault(heads, multiroot=self.multiroot)
        if fault:
            return f"It is not a tree: {fault}."
        strange = _strange(values["relations"], self.relations)
        if strange:
            return f"Relations {strange} are outside 0..{len(self.relations) - 1}."
        return None


def tree_fault(heads: Sequence[int], *, multiroot: bool = False) -> str | None:
    """Return the reason why 1-based heads (0 = root) are not a tree, or None if they are one. O(n) time."""
    roots = [word for word, head in enumerate(heads, 1) if head == 0]
    if not roots:
        return "it has no root (no head is 0)"
    if len(roots) > 1 and not multiroot:
        more = f" and {len(roots) - _SHOWN} more" if len(roots) > _SHOWN else ""
        return f"it has {len(roots)} roots, words {', '.join(map(str, roots[:_SHOWN]))}{more}, where one is allowed"
    settled = [False] * (len(heads) + 1)
    settled[0] = True
    for word in range(1, len(heads) + 1):
        path, ancestor = [], word
        while not settled[ancestor]:
            settled[ancestor] = True
            path.append(ancestor)
            ancestor = heads[ancestor - 1]
        # The walk ended at a word that was settled before it began, or at a word of its own path.
        if ancestor in path:
            cycle = list(map(str, [*path[path.index(ancestor) :], ancestor]))
            shown = [*cycle[:_SHOWN], "...", cycle[-1]] if len(cycle) > _SHOWN + 1 else cycle
            return f"words {' -> '.join(shown)} are a cycle"
    return None


def _named(indices: Sequence[int], inventory: Sequence[str]) -> list[str | None]:
    return [None if index == UNLABELLED else inventory[index] for index in indices]


def _strange(indices: Sequence[int], inventory: Sequence[str]) -> list[int]:
    """Return the indices that lie outside an inventory."""
    return sorted(index for index in set(indices) if not 0 <= index < len(inventory))
