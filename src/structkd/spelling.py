"""Suggestions for misspelled names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "shown"]


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
