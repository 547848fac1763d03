"""Tag inventories as tensors: how tags are read as spans, and how spans are written as tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..tags import CONTINUING, OPENING, PREFIXES


@dataclass(frozen=True)
class TagReader:
    """The part of every tag in a sequence that is read as decoding reads it, whether or not it is legal.

    A span begins at a tag other than O if the tag opens one (B, S), if the tag before it is O or closes one (E, S), or
    if the types differ. It ends before O, before a tag that begins another span, and with the sentence.

    Attributes:
        types: LongTensor [C], the index of the tag's type, -1 for O.
        opens, closes: BoolTensor [C], whether the tag opens or closes a span whatever stands beside it.
    """

    types: Tensor
    opens: Tensor
    closes: Tensor

    def begins(self, previous: Tensor, current: Tensor) -> Tensor:
        """Return whether a span begins at `current` after `previous`, tags as LongTensors that broadcast.

        The edge of the sentence is an O, which is tag -1.
        """
        before = torch.where(previous < 0, -1, self.types[previous.clamp_min(0)])
        here = torch.where(current < 0, -1, self.types[current.clamp_min(0)])
        closed = (previous < 0) | self.closes[previous.clamp_min(0)]
        return (here >= 0) & ((before != here) | closed | self.opens[current.clamp_min(0)])

    def read(self, tags: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return type, begin and end of the span that every word lies in, each [..., N]; tags LongTensor, -1 padding.

        The type is -1 outside spans and in the padding.
        """
        edge = torch.full_like(tags[..., :1], -1)
        begins = self.begins(torch.cat([edge, tags[..., :-1]], -1), tags)
        types = torch.where(tags < 0, -1, self.types[tags.clamp_min(0)])
        follows = torch.cat([begins[..., 1:], torch.ones_like(begins[..., :1])], -1)
        outside = torch.cat([types[..., 1:] < 0, torch.ones_like(begins[..., :1])], -1)
        return types, begins, (types >= 0) & (follows | outside)

    def of(self, outputs: Tensor) -> TagReader:
        """Return the reader of labels [S] of which each stands for the tag of that number."""
        return TagReader(self.types[outputs], self.opens[outputs], self.closes[outputs])


def reader(labels: Sequence[str] | None, types: Sequence[str], device: Any = None) -> TagReader:
    """Return the reader of a tag inventory.

    Raises:
        ValueError: for a missing inventory, a label that is not a tag, or a tag of a type that `types` lacks.
    """
    if labels is None:
        raise ValueError("Tags become spans by their names, and the tagger has none. Build it with labels=[...].")
    kinds, opens, closes = [], [], []
    for label in labels:
        prefix, hyphen, kind = label.partition("-")
        if label != "O" and not (hyphen and kind and prefix in ("B", "I", "E", "S")):
            raise ValueError(
                f"Label {label!r} is not a tag (O, or B-, I-, E- or S- and a type), so its spans are not known. Map it "
                "to a tag, or to None for outside, with structkd.relabel."
            )
        if label != "O" and kind not in types:
            raise ValueError(
                f"Tag {label!r} has a type that the other side lacks; its types are {list(types)}. Map the type to one "
                "of these, or to None for outside, with structkd.relabel."
            )
        kinds.append(-1 if label == "O" else list(types).index(kind))
        opens.append(label != "O" and prefix in OPENING)
        closes.append(label == "O" or prefix in "ES")
    return TagReader(*(torch.tensor(column, device=device) for column in (kinds, opens, closes)))


def scheme_of_tags(labels: Sequence[str]) -> str | None:
    """Return IO, BIO or BIOES, the scheme of an inventory of tags; None if a label is not a tag."""
    prefixes = set()
    for label in labels:
        prefix, hyphen, kind = label.partition("-")
        if label != "O" and not (hyphen and kind and prefix in ("B", *CONTINUING, "S")):
            return None
        prefixes.add("" if label == "O" else prefix)
    if prefixes & {"E", "S"}:
        return "BIOES"
    return "BIO" if "B" in prefixes else "IO"


def types_of_tags(labels: Sequence[str]) -> list[str]:
    """Return the types of an inventory of tags, in order."""
    return list(dict.fromkeys(label[2:] for label in labels if label != "O"))


def same_spans(labels: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether two inventories write spans of the same types in different schemes."""
    schemes = {scheme_of_tags(labels), scheme_of_tags(others)}
    return len(schemes) == 2 and None not in schemes and set(types_of_tags(labels)) == set(types_of_tags(others))


@dataclass(frozen=True)
class TagWriter:
    """The tag of every word of a span in an inventory.

    Attributes:
        outside: the index of O.
        table: LongTensor [L, 2, 2]; cell [l, b, e] is the tag of a word of a span of type l that is (b) or is not its
            first word and is (e) or is not its last.
        scheme: IO, BIO or BIOES.
    """

    outside: int
    table: Tensor
    scheme: str

    def write(self, types: Tensor, begins: Tensor, ends: Tensor) -> Tensor:
        """Return tags, LongTensor of the arguments' shape, of what `TagReader.read` gives."""
        tags = self.table[types.clamp_min(0), begins.long(), ends.long()]
        return torch.where(types < 0, self.outside, tags)


def writer(labels: Sequence[str] | None, types: Sequence[str], device: Any = None) -> TagWriter:
    """Return the writer of spans of some types in a tag inventory.

    The scheme is BIOES if the inventory has S- or E- tags of these types, IO if it has no B- tags of them, and BIO
    otherwise. Other tags of the inventory are never written.

    Raises:
        ValueError: if the inventory is unknown, or lacks a tag of its scheme.
    """
    if labels is None:
        raise ValueError("Spans become tags by their names, and the tagger has none. Build it with labels=[...].")
    labels = list(labels)
    named = {label for kind in types for label in labels if label[1:] == f"-{kind}"}
    prefixes = {label[0] for label in named}
    scheme = "BIOES" if prefixes & {"E", "S"} else "BIO" if "B" in prefixes or not named else "IO"
    needed = ["O", *(f"{prefix}-{kind}" for kind in types for prefix in PREFIXES[scheme])]
    missing = [tag for tag in needed if tag not in labels]
    if missing:
        raise ValueError(f"The tagger's {scheme} inventory lacks {missing}; it has {labels}. Add the missing tags.")
    place = {  # by scheme: the prefix of (inside, last), (first, first and last)
        "IO": "IIII",
        "BIO": "IIBB",
        "BIOES": "IEBS",
    }[scheme]
    table = [[labels.index(f"{prefix}-{kind}") for prefix in place] for kind in types]
    return TagWriter(labels.index("O"), torch.tensor(table, device=device).view(-1, 2, 2), scheme)
