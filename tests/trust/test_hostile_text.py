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
from structkd.data.formats import lines, packed
from structkd.data.formats.lines import LONGEST_LINE, raw_lines
from structkd.models.vectors import read_vectors
from structkd.teachers import load_annotated_text
from structkd.teachers.annotations import read_answers

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


@pytest.mark.processes
def test_sentences_of_large_files_are_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of one-word sentences grew 60 times. Packed sentences are those of a list, the corpus of them likewise."""
    path = tmp_path / "short.txt"
    path.write_text("".join(f'{"é" * (n % 3)}"{n % 7} {"OB"[n % 2]}{"-X" * (n % 2)}\n\n' for n in range(20_000)))
    as_list = READERS["columns"](path)
    corpus = load_columns(path)
    monkeypatch.setattr(packed, "_MOST_OBJECTS", 60)
    tracemalloc.start()
    try:
        found = READERS["columns"](path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (type(as_list), type(found)) == (list, packed.PackedSentences)
    assert found == as_list
    assert found[-1] == as_list[-1]
    assert list(found[3:9:2]) == as_list[3:9:2]
    assert list(packed.chosen(found[5:], [2, 0])) == packed.chosen(as_list[5:], [2, 0])
    assert peak < 10 * path.stat().st_size
    assert load_columns(path).fingerprint == corpus.fingerprint
    with pytest.raises(IndexError):
        found[20_000]
    with pytest.raises(TypeError):
        found[:1].append(found[0])


def test_a_sentence_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_MOST_WORDS", 3)
    row = "\t_\t_\t_\t_\t{}\tdep\t_\t_\n"
    for kind, words in (("columns", ["a O\n"] * 4), ("conllu", [f"{n + 1}\ta{row.format(n)}" for n in range(4)])):
        (tmp_path / kind).write_text("".join(words[:3]) + "\n")
        assert len(READERS[kind](tmp_path / kind)) == 1
        (tmp_path / kind).write_text("".join(words))
        with pytest.raises(ValueError, match=f"{kind}, line 1: The sentence has more than 3 words"):
            READERS[kind](tmp_path / kind)


def test_annotations_and_vectors_in_bounded_memory(tmp_path: Path) -> None:
    """Objects take much memory: answers as JSON, and an array for each vector."""
    rows = {"words": [f"w{n}" for n in range(10)], "tags": ["B-PER", *["O"] * 9]}
    texts = {
        "annotations": "".join(json.dumps({**rows, "id": number}) + "\n" for number in range(2_000)),
        "vectors": "".join(f"word{number} 1 2 3\n" for number in range(20_000)),
    }
    reads = {
        "annotations": lambda path: read_answers(path, "spans"),
        "vectors": lambda path: read_vectors(path, {"a"}, most_frequent=20_000),
    }
    for kind, text in texts.items():
        (tmp_path / kind).write_text(text)
        tracemalloc.start()
        try:
            reads[kind](tmp_path / kind)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 10 * len(text), (kind, peak / len(text))
    (tmp_path / "wide").write_text(f"word {'1 ' * 70_000}\n")
    with pytest.raises(ValueError, match="wide, line 1: Vectors of 70,000 numbers; at most 65,536"):
        read_vectors(tmp_path / "wide", {"word"})


@pytest.mark.parametrize("kind", ["columns", "conllu"])
def test_corpora_take_less_than_ten_times_their_size(kind: str, tmp_path: Path) -> None:
    """Words and tags repeat, and a sentence is a small object; measured without the 64 MiB that are allowed as well."""
    words = [f"word{number % 997}" for number in range(40_000)]
    if kind == "columns":
        text = [f"{word} B-PER" + "\n" * (1 + (number % 20 == 19)) for number, word in enumerate(words)]
    else:
        tree = "{0}\t{1}\t{1}\tNOUN\t_\t_\t{2}\t{3}\t_\t_"
        rows = [
            tree.format(n % 20 + 1, word, n % 20 and 1, "dep" if n % 20 else "root") for n, word in enumerate(words)
        ]
        text = [row + "\n" * (1 + (number % 20 == 19)) for number, row in enumerate(rows)]
    path = tmp_path / "corpus.txt"
    path.write_text("".join(text))
    tracemalloc.start()
    try:
        found = READERS[kind](path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) == 2000
    assert peak < 10 * path.stat().st_size
