"""Read the examples of docstrings, lines of ">>>" and their output, as the section of examples that they are."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Give every docstring the heading that the parser of docstrings knows."""

    def on_object(self, *, obj: griffe.Object, **context: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = with_heading(obj.docstring.value)


def with_heading(docstring: str) -> str:
    """Return a docstring whose examples stand below "Examples:", indented."""
    lines: list[str] = []
    inside = False  # an example, which ends with a blank line
    for line in re.sub(r"^Example:$", "Examples:", docstring, flags=re.M).split("\n"):
        if line.startswith(">>>") and not inside:
            inside = True
            lines += ["Examples:"]
        elif not line.strip():
            inside = False
        lines.append(f"    {line}" if inside else line)
    return "\n".join(lines)
