"""Write docs/tutorial.ipynb from docs/tutorial.md: python docs/hooks/notebook.py."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1]


def notebook(page: str) -> str:
    """Return the notebook of a page: its prose, its Python, and its commands with an exclamation mark."""
    cells: list[dict[str, Any]] = []
    for number, part in enumerate(re.split(r"^```(\w+)\n(.*?)^```\n", page, flags=re.S | re.M)):
        kind = number % 3
        if kind == 0 and part.strip():
            cells.append(cell("markdown", part.strip()))
        elif kind == 1:
            language = part
        elif kind == 2 and language == "python":
            cells.append(cell("code", part.rstrip()))
        elif kind == 2 and language == "bash":
            commands = part.rstrip().split("\n")
            joined = [
                line if place and commands[place - 1].endswith("\\") else f"!{line}"
                for place, line in enumerate(commands)
            ]
            cells.append(cell("code", "\n".join(joined)))
    for place, each in enumerate(cells):
        each["id"] = f"cell-{place}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def cell(kind: str, source: str) -> dict[str, Any]:
    made: dict[str, Any] = {"cell_type": kind, "metadata": {}, "source": source.splitlines(keepends=True)}
    return made | ({"execution_count": None, "outputs": []} if kind == "code" else {})


if __name__ == "__main__":
    page = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    (DOCS / "tutorial.ipynb").write_text(notebook(page), encoding="utf-8")
