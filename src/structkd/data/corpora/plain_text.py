"""Plain text without labels: one tokenised sentence a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structkd.configurable import configurable
from structkd.data.corpus import sentence_dataset, with_note
from structkd.data.formats.lines import numbered_lines, split_words
from structkd.data.formats.slips import BLANK_WORDS, check_files, check_option, option, without_blank_words

_NODE = "student.text"

if TYPE_CHECKING:
    from datasets import Dataset


@configurable
def load_text(
    path: str | PathLike[str], longest: int | None = None, encoding: str = "utf-8", blank_words: str = "refuse"
) -> Dataset:
    """Read unlabelled sentences, words separated by blanks and tabs; lines of white space are passed over.

    Other white space does not separate words, here as in column files: ``10\u00a0000`` is one word.

    Args:
        path: the file, plain or compressed.
        longest: sentences of more words are left out; None keeps all.
        encoding: of the file.
        blank_words: treatment of a word that is nothing but white space (a no-break space between blanks): "refuse"
            the file, "skip" the sentence, or read the word as an "underscore".

    Returns:
        A ``datasets.Dataset`` with columns ``id``, the file's name and the line (``news.txt:17``), and ``tokens``. The
        log of a run and its results report how many sentences were left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, empty, cut-off or wrongly encoded file, or a blank word (the line is named); no sentence
            in it, or none short enough.
    """
    check_files({"path": path}, _NODE)
    check_option("blank_words", blank_words, BLANK_WORDS)
    name = Path(path).name
    changes: Counter[str] = Counter()

    def rows() -> Iterator[dict[str, Any]]:
        for number, line in numbered_lines(path, encoding, option("encoding", "latin-1", node=_NODE)):
            words = split_words(line) if line.strip() else []
            if longest is not None and len(words) > longest:
                changes["long"] += 1
                continue
            tokens = without_blank_words(words, partial(_place, path, number), blank_words, changes, _NODE)
            if tokens:
                yield {"id": f"{name}:{number}", "tokens": tokens}

    text = sentence_dataset(rows(), ())
    left_out = [f"{changes['long']} have more than {longest} words"] if changes["long"] else []
    left_out += [f"{changes['skipped']} have a blank word"] if changes["skipped"] else []
    if not len(text):
        why = f"of its sentences {' and '.join(left_out)}" if left_out else "its lines are blank"
        raise ValueError(f"{path}: The file holds no sentence: {why}.")
    if not left_out:
        return text
    count = changes["long"] + changes["skipped"]
    return with_note(text, f"{count} sentences of {name} were left out: {' and '.join(left_out)}.")


def _place(path: str | PathLike[str], number: int, _word: int) -> str:
    return f"{path}, line {number}"
