"""Suggestions for misspelled names and words for what a message quotes."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["did_you_mean", "no_such_file", "shown"]


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return the known name closest to a given one as a question, or nothing if none is close.

    Args:
        given: the misspelled name.
        known: names that exist.

    >>> did_you_mean("emisions", ["emissions", "transitions"])
    " Did you mean 'emissions'?"
    >>> did_you_mean("lengths", ["emissions", "transitions"])
    ''
    """
    close = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def shown(text: str, most: int = 60) -> str:
    """Return a text in quotes for a message, without all that follows its first letters.

    Args:
        text: from a file, of any length.
        most: letters to show.

    >>> shown("B-PER"), shown("9" * 100, most=3)
    ("'B-PER'", "'999...'")
    """
    return repr(text if len(text) <= most else f"{text[:most]}...")


def no_such_file(path: str | os.PathLike[str]) -> str:
    """Return the message about a file that does not exist, with the closest name beside it.

    Args:
        path: of the file; of a relative one the message tells the folder it was looked for in.

    >>> no_such_file("/nowhere/train.txt")
    "/nowhere/train.txt: No such file. The folder '/nowhere' does not exist."
    """
    path = Path(path)
    here = "" if path.is_absolute() else f" (looked for in {Path.cwd()})"
    if not path.parent.is_dir():
        return f"{path}: No such file{here}. The folder {str(path.parent)!r} does not exist."
    try:
        beside = sorted(each.name for each in os.scandir(path.parent) if each.is_file())
    except OSError:
        beside = []
    # Names are compared without their suffixes first, because most files have the same few suffixes.
    stems = difflib.get_close_matches(path.stem, [Path(name).stem for name in beside], n=1, cutoff=0.7)
    return f"{path}: No such file{here}.{did_you_mean(path.name, [n for n in beside if Path(n).stem in stems])}"
