"""Text that is made to fill the memory, to hang a program, or to show what nobody should see in a message."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from structkd.commands.messages import explain
from structkd.data import load_columns, load_conllu, load_text, read_columns, read_conllu
from structkd.data.formats.lines import LONGEST_LINE, raw_lines
from structkd.models.vectors import read_vectors
from structkd.teachers import load_annotated_text

READERS: dict[str, Callable[[Path], Any]] = {
    "columns": lambda path: read_columns(path, None, token_column=0, tag_column=1, delimiter=None),
    "conllu": read_conllu,
    "text": load_text,
    "vectors": lambda path: read_vectors(path, {"a"}),
    "annotations": lambda path: load_annotated_text(str(path)),
    "corpus of columns": lambda path: load_columns(path),
    "corpus of trees": lambda path: load_conllu(path),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_readers_refuse_with_the_name_of_the_file(read: Callable[[Path], Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long.txt").write_bytes(b"a" * (LONGEST_LINE + 1))
    (tmp_path / "bomb.gz").write_bytes(gzip.compress((b"a" * 2000 + b" O\n") * 9000))
    (tmp_path / "bomb.xz").write_bytes(lzma.compress((b"a" * 2000 + b" O\n") * 9000))
    (tmp_path / "line.gz").write_bytes(gzip.compress(b"a" * (1 << 24)))
    (tmp_path / "nul.txt").write_bytes(b"\x00" * 100)
    (tmp_path / "digits.txt").write_text(f"{'9' * 5000} {'9' * 5000}\n")
    (tmp_path / "deep.txt").write_text("[" * 100_000 + "\n")
    (tmp_path / "number.txt").write_text(json.dumps({"words": ["a"], "weight": 1}).replace("1}", "9" * 5000 + "}\n"))
    (tmp_path / "surrogate.txt").write_bytes(b"a\xed\xa0\x80 O\n")
    (tmp_path / "shadow.txt").write_text("root:$6$the-hash-of-the-password:19000:0:99999:7:::\n")
    reasons = {"pipe": "pipe or a device", "long.txt": "bytes", "surrogate.txt": "UTF-8"}
    for path in sorted(tmp_path.iterdir()):
        tracemalloc.start()
        try:
            read(path)
        except ValueError as error:
            message = explain(error)
            assert path.name in message, message
            assert reasons.get(path.name, "") in message
            assert len(message) < 3000
            assert "the-hash-of-the-password" not in message, message
        else:
            assert path.name in ("nul.txt", "digits.txt", "deep.txt", "number.txt", "shadow.txt")
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 10 * path.stat().st_size + (64 << 20), path


def test_ordinary_archives_are_read(tmp_path: Path) -> None:
    text = "".join(f"word{number} of a sentence\n" for number in range(20_000))
    (tmp_path / "x.gz").write_bytes(gzip.compress(text.encode()))
    assert sum(1 for _ in raw_lines(tmp_path / "x.gz")) == 20_000
    (tmp_path / "y.txt").write_bytes(b"a" * (LONGEST_LINE - 1) + b"\n")
    assert [len(line) for _, line in raw_lines(tmp_path / "y.txt")] == [LONGEST_LINE]


@pytest.mark.parametrize("kind", ["columns", "conllu"])
def test_corpora_take_less_than_ten_times_their_size(kind: str, tmp_path: Path) -> None:
    """Words and tags repeat, and a sentence is a small object; measured without the 64 MiB that are allowed as well."""
    words = [f"word{number % 997}" for number in range(40_000)]
    if kind == "columns":
        lines = [f"{word} B-PER" + "\n" * (1 + (number % 20 == 19)) for number, word in enumerate(words)]
    else:
        tree = "{0}\t{1}\t{1}\tNOUN\t_\t_\t{2}\t{3}\t_\t_"
        rows = [
            tree.format(n % 20 + 1, word, n % 20 and 1, "dep" if n % 20 else "root") for n, word in enumerate(words)
        ]
        lines = [row + "\n" * (1 + (number % 20 == 19)) for number, row in enumerate(rows)]
    path = tmp_path / "corpus.txt"
    path.write_text("".join(lines))
    tracemalloc.start()
    try:
        found = READERS[kind](path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) == 2000
    assert peak < 10 * path.stat().st_size
