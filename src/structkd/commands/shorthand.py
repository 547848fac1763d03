"""Overrides that mean more than Hydra's grammar lets them say, written out before Hydra reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["written_out"]

_TEXT = "student.text"


def written_out(overrides: Sequence[str]) -> list[str]:
    """Return the overrides with ``student.text=news.txt`` as the choice of a text and its path.

    A value with a dot or a slash is a file, and any other one is a choice of the group ``text``. null, several values
    and interpolations stay as they are.

    >>> written_out(["student.text=news.txt"])
    ['+text@student.text=lines', 'student.text.path=news.txt']
    >>> written_out(["student.text=porttinari", "seed=1"])
    ['+text@student.text=porttinari', 'seed=1']
    """
    result = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if key != _TEXT or not equals or value in ("", "null") or re.search(r"[,{}$]", value):
            result.append(override)
        elif re.search(r"[./\\]", value):
            result += [f"+text@{_TEXT}=lines", f"{_TEXT}.path={value}"]
        else:
            result.append(f"+text@{_TEXT}={value}")
    return result
