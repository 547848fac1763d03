"""What a kind of fault is tried on, and how a try ended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["OUTCOMES", "Case", "Outcome", "digest", "digests"]

#: How a try can end: the first two are good.
OUTCOMES = {
    "mended": "the fault was noticed, or harmless, and the same command ended with the same bytes",
    "noticed": "the fault was noticed by a message that says what to do, or changed nothing that is used",
    "lost": "something that was finished is gone, or the bytes are others",
    "executed": "a hostile input was obeyed, or was refused too late",
    "silent": "a damaged file was used without a word",
    "unclear": "a traceback, an exception of another library, or a message that is much longer than the file",
    "hung": "no end within the limit of time",
    "manual": "the same command does not go on until somebody removes something",
}


@dataclass(frozen=True)
class Outcome:
    """How a try ended.

    Attributes:
        kind: a key of :data:`OUTCOMES`.
        detail: what was seen, for a bad end.
    """

    kind: str
    detail: str = ""

    @property
    def good(self) -> bool:
        """Whether it is as it should be."""
        return self.kind in ("mended", "noticed")


@dataclass(frozen=True)
class Case:
    """One try, or many cheap ones under one name.

    Attributes:
        part: of the table.
        name: unique in its part; a later call of the suite finds by it that the case is done.
        tries: the outcomes, one after the other.
    """

    part: str
    name: str
    tries: Callable[[], Iterator[Outcome]]


def digest(path: Path) -> str:
    """Return the sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Return the sha256 of the files whose names end as given, without those that were moved aside."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    return {
        str(path.relative_to(folder)): digest(path)
        for path in files
        if path.name.endswith(names) and ".damaged" not in str(path.relative_to(folder))
    }
