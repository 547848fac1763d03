"""The generated parts of the site, and formulas as MathML, which browsers draw without a script.

A page holds a comment such as ``<!-- generated: projections -->``. The text comes from the program itself, so that it
cannot be out of date. Nothing is read from the network.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parents[2]
_COMMANDS = ("demo", "predict", "evaluate", "export", "benchmark", "list", "check-data", "env", "report")
_FENCE = re.compile(r"^ *```.*?^ *```[ ]*$", flags=re.S | re.M)


def on_page_markdown(markdown: str, **context: Any) -> str:
    """Fill the generated parts of a page, and replace formulas."""
    markdown = re.sub(r"<!-- (generated|include): (.*?) -->", lambda match: _made(match[1], match[2]), markdown)
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    markdown = _FENCE.sub(keep, markdown)
    markdown = re.sub(r"`[^`\n]+`", keep, markdown)
    markdown = re.sub(r"^\$\$(.*?)\$\$$", lambda match: _formula(match[1], "block"), markdown, flags=re.S | re.M)
    markdown = re.sub(r"\$([^$\n]+)\$", lambda match: _formula(match[1], "inline"), markdown)
    while "\0" in markdown:
        markdown = re.sub("\0(\\d+)\0", lambda match: kept[int(match[1])], markdown)
    return markdown


def _formula(latex: str, display: str) -> str:
    spaced = re.sub(r"\\(log|exp)\b", r"\\,\\\1\\,", " ".join(latex.split()))
    return convert(spaced, display=display).replace("\n", "")


def _made(kind: str, name: str) -> str:
    if kind == "include":
        return _included(ROOT / name)
    made = {
        "commands": _commands,
        "projections": _projections,
        "performance": _performance,
        "names": _names,
        "api": _api,
    }
    return made[name.split()[0]](*name.split()[1:])


def _included(path: Path) -> str:
    """Return a page of the repository with its links as they are on the site."""
    text = path.read_text(encoding="utf-8")
    text = text.replace("](docs/", "](").replace("](CONTRIBUTING.md)", "](contributing.md)")
    return text.replace("](CHANGELOG.md)", "](changelog.md)")


def _commands() -> str:
    from structkd.commands.help import help_text

    parts = [f"## structkd\n\n```text\n{help_text()}\n```"]
    for name in _COMMANDS:
        module = importlib.import_module(f"structkd.commands.{name.replace('-', '_')}")
        parts.append(f"## structkd {name}\n\n```text\n{_help_of(module)}\n```")
    return "\n\n".join(parts)


def _help_of(module: Any) -> str:
    function = getattr(module, "command", None) or module.overrides_of
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        function(["--help"])
    return printed.getvalue().rstrip()


def _projections() -> str:
    import structkd

    matrix = structkd.projections.matrix()
    teachers = list(dict.fromkeys(teacher for teacher, _ in matrix))
    students = list(dict.fromkeys(student for _, student in matrix))
    marks = {"exact": "●", "sampled": "○"}
    lines = ["| teacher, student | " + " | ".join(f"`{each}`" for each in students) + " |"]
    lines.append("|---" * (len(students) + 1) + "|")
    for teacher in teachers:
        cells = (marks.get(matrix.get((teacher, student), ""), "") for student in students)
        lines.append(f"| `{teacher}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _api(module: str) -> str:
    """Return a directive for every public name of a module, where it is defined."""
    found = importlib.import_module(module)
    names = [getattr(found, name) for name in found.__all__]
    documented = [each for each in names if getattr(each, "__module__", "").startswith("structkd") and each.__doc__]
    paths = dict.fromkeys(f"{each.__module__}.{each.__name__}" for each in documented)
    return "\n\n".join(f"::: {path}" for path in paths)


def _names() -> str:
    """Return the names of the package by room, each with the first sentence of its docstring."""
    import structkd

    pages = {
        "distributions": "distributions.md",
        "projections": "losses.md",
        "losses": "losses.md",
        "models": "models.md",
    }
    lines = ["| name | |", "|---|---|"]
    for name in structkd.__all__:
        found = getattr(structkd, name)
        if not callable(found):
            continue
        summary = " ".join((found.__doc__ or "").split("\n\n")[0].split())
        path = f"{found.__module__}.{found.__name__}"
        lines.append(f"| [`{name}`]({pages[found.__module__.split('.')[1]]}#{path}) | {summary} |")
    return "\n".join(lines)


def _performance() -> str:
    """Return the tables of the newest benchmark: that of this checkout, else the one that is kept with the pages."""
    newest = ROOT / "experiments" / "results" / "bench.json"
    path = newest if newest.exists() else ROOT / "docs" / "measured" / "bench.json"
    sys.path.insert(0, str(ROOT / "experiments" / "bench"))
    try:
        tables = importlib.import_module("tables")
    finally:
        sys.path.pop(0)
    text = tables.markdown(json.loads(path.read_text(encoding="utf-8")))
    text = re.sub(r"^#", "##", re.sub(r"^# .*\n", "", text), flags=re.M)
    return text.replace("](bench.png)", "](measured/bench.png)")
