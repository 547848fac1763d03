"""Plain text without labels: one tokenised sentence a line."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structkd.data.corpus import sentence_dataset
from structkd.data.text_files import numbered_lines

if TYPE_CHECKING:
    from datasets import Dataset


def load_text(path: str | PathLike[str], longest: int | None = None, encoding: str = "utf-8") -> Dataset:
    """Read unlabelled sentences, words separated by blanks; empty lines are passed over.

    Args:
        path: the file, plain or gzip.
        longest: sentences of more words are left out; None: none is.
        encoding: of the file.

    Returns:
        A ``datasets.Dataset`` with columns ``id``, the file's name and the line (``news.txt:17``), and ``tokens``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, empty, cut-off or wrongly encoded file (the line is named); no sentence in it, or none
            short enough.
    """
    name = Path(path).name
    skipped = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal skipped
        for number, line in numbered_lines(path, encoding):
            tokens = line.split()
            if longest is not None and len(tokens) > longest:
                skipped += 1
            elif tokens:
                yield {"id": f"{name}:{number}", "tokens": tokens}

    text = sentence_dataset(rows(), ())
    if not len(text):
        why = f"its {skipped} sentences have more than {longest} words" if skipped else "its lines are blank"
        raise ValueError(f"{path}: the file holds no sentence: {why}")
    return text
