"""The pages of the documentation, their code blocks and their sentences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, its number there, its language, its text, and the output that the page shows for it."""

    page: str
    number: int
    language: str
    text: str
    output: str | None

    @property
    def name(self) -> str:
        return f"{self.page}-{self.number}"


_FENCE = re.compile(r"^( *)```([a-z]*)[^\n]*\n(.*?)^\1```[ ]*$", flags=re.S | re.M)
#: What runs; the block of text that follows is its output.
RUN = ("python", "bash")


def blocks_of(path: Path) -> list[Block]:
    """Return the blocks of a page; those that show the output of the block before belong to it."""
    content = path.read_text(encoding="utf-8")
    page = str(path.relative_to(ROOT / "docs" if path.is_relative_to(ROOT / "docs") else ROOT))
    found: list[Block] = []
    for match in _FENCE.finditer(content):
        indent, language, text = match.groups()
        text = "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))
        last = found[-1] if found else None
        if language == "text" and last is not None and last.language in RUN and last.output is None:
            found[-1] = Block(last.page, last.number, last.language, last.text, text)
        else:
            found.append(Block(page, len(found) + 1, language, text, None))
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def block(name: str) -> Block:
    """Return a block by its page and number."""
    return next(each for each in BLOCKS if each.name == name)


def prose(path: Path) -> str:
    """Return a page without code, tables, formulas, pictures and addresses."""
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    text = re.sub(r"<!--.*?-->|<style>.*?</style>|\$\$.*?\$\$", "", text, flags=re.S)
    lines = [line for line in text.splitlines() if not line.startswith(("|", "    ", ":::", "#", "![", "---"))]
    text = "\n".join(lines)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "code", text)
    return re.sub(r"\$[^$]*\$", "formula", text)


def sentences(text: str) -> list[str]:
    """Return the sentences of prose; an item of a list and a paragraph end one, too."""
    parts = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", text)
    plain = [re.sub(r"^\s*(?:[-*]|\d+\.) ", "", part.strip()) for part in parts]
    found = [each for part in plain for each in re.split(r"(?<=[.!?])[*_)\"]*\s+(?=[\w(*_\"\[])", part)]
    return [" ".join(each.split()) for each in found if each.strip()]
