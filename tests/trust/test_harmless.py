"""Text of other people in every output: terminals, logs, reports, spreadsheets, records."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from pathlib import Path

import pytest

from structkd.commands.terminal import guard_log, guarded_output, hide_folders, print_traceback
from structkd.harmless import (
    cell,
    check_text,
    is_file_name,
    is_name,
    printable,
    printable_data,
    printable_json,
    without_folders,
    without_places,
)
from structkd.records import Failure

HOSTILE = "a\x1b]0;title\x07\x1b[2J\x00\x9b31m\x7f\u202e\u2066\ud800\u2028z"


def test_control_characters_are_printed_as_escapes() -> None:
    shown = printable(HOSTILE)
    assert shown.isascii()
    assert shown.isprintable()
    assert shown.startswith("a\\x1b]0;title\\x07\\x1b[2J\\x00\\x9b31m")
    assert printable("ção\tx\ny — 日本 🎉") == "ção\tx\ny — 日本 🎉"
    assert printable_data({"\x1b": ["\x00", {"x": "\x9b"}, 3, None]}) == {"\\x1b": ["\\x00", {"x": "\\x9b"}, 3, None]}
    for written in (printable_json({HOSTILE: [HOSTILE, 1]}), printable_json({HOSTILE: [HOSTILE, 1]}, indent=1)):
        assert written.replace("\n", "").isprintable()
        assert json.loads(written) == {HOSTILE: [HOSTILE, 1]}
    for content in (HOSTILE, ["x", {"y": HOSTILE}], {"\x1b[2J": 1}):
        with pytest.raises(ValueError, match=r"character|key"):
            check_text(content)


def test_cells_are_no_formulas() -> None:
    for text in ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "  =1"):
        assert cell(text)[0] == "'"
    for value in (3, -0.5, None, "structural", "-0.5", "+1e-5", "1-2", "a=b"):
        assert cell(value) == value


def test_names_are_parts_of_paths() -> None:
    assert all(map(is_name, ("structural", "my-method_1", "top-k (k=3)", "Português", "v1.2", "a+b", "日本語")))
    assert all(map(is_file_name, ("a b*", ".x", "日本語" * 20)))
    assert not any(map(is_file_name, ("", ".", "..", "a/b", "a\\b", "a\0", "x" * 201, "é" * 101)))


def test_a_terminal_and_a_log_get_no_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(logging.Formatter("#1  %(message)s"))
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    library = logging.StreamHandler(err)
    monkeypatch.setattr(logging.getLogger("a library"), "handlers", [library])
    monkeypatch.setattr(logging.getLogger("a library"), "propagate", False)
    with guarded_output():
        logging.getLogger("a library").warning("\x1b[2J")
        print("x\x1b[2Jy\rz", end="")
        sys.stdout.writelines(["\x07"])
        sys.stderr.write("\rloss 3\x1b[A\r4")
        sys.stderr.write("\n\x1b[A")
        sys.stdout.for_data.write("\x1b")  # type: ignore[attr-defined] - read by a program
        guard_log()
        guard_log()
        logging.getLogger("structkd").error("Written to %s: %s", Path.cwd() / "runs" / "x", "\x1b[2J")
    assert (sys.stdout, out.getvalue()) == (out, "x\\x1b[2Jy\\rz\\x07\x1b")
    assert err.getvalue() == "\\x1b[2J\n\rloss 3\\x1b[A\\r4\n\x1b[A"
    assert handler.stream.getvalue() == "#1  Written to ./runs/x: \\x1b[2J\n"
    assert library.stream is err
    try:
        raise RuntimeError("a line of a file: \x1b[2J")
    except RuntimeError as error:
        print_traceback(RuntimeError, error, error.__traceback__)
    assert err.getvalue().endswith("RuntimeError: a line of a file: \\x1b[2J\n")


def test_records_have_no_folders_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, here = tmp_path / "home", tmp_path / "home" / "work"
    here.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    text = f"data.train={here}/x.txt other={home}/y '{here}' {here}2 a{here}/x"
    assert without_folders(text) == f"data.train=./x.txt other=~/y '.' ~/work2 a{here}/x"
    record = tmp_path / "hydra.yaml"
    record.write_text(f"cwd: {here}\noutput_dir: /scratch/ana/runs/x\n")
    hide_folders(record)
    hide_folders(tmp_path / "absent")
    assert record.read_text() == "cwd: .\noutput_dir: .../x\n"
    assert json.dumps(without_folders(os.sep)) == '"/"'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/corpora/of ana/my train.conll", ".../my train.conll"),
        ("a=/a/b/c.txt b='/a/b/d.txt' path:/a/b/g", "a=.../c.txt b='.../d.txt' path:.../g"),
        ("[/a/b/e, /a/f] {k: /a/h}", "[.../e, .../f] {k: .../h}"),
        ('File "/usr/lib/python3.11/json/decoder.py", line 3', 'File ".../decoder.py", line 3'),
        ('File "/x/.venv/lib/python3.11/site-packages/torch/nn/x.py"', 'File "torch/nn/x.py"'),
        ("file:///home/ana/x.html C:\\Users\\ana\\x.txt", "file://.../x.html .../x.txt"),
        ("https://example.org/a/b and/or 1/2 / /NN ~/x ./y ../z a//b", None),
    ],
)
def test_published_records_have_no_absolute_paths(text: str, shown: str | None) -> None:
    assert without_places(text) == (text if shown is None else shown)
    assert without_places([{text: (text, 3, None)}]) == [{shown or text: [shown or text, 3, None]}]


def test_paths_by_which_results_are_compared_stay_distinct() -> None:
    first, second = (without_places({"settings": {"vectors": f"/corpora/{name}/en.vec"}}) for name in "ab")
    assert first != second
    assert first["settings"]["vectors"].startswith(".../")
    assert "corpora" not in str(first)


def test_a_log_file_is_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = logging.FileHandler(tmp_path / "structkd.log")
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    guard_log()
    logging.getLogger("structkd").error("Written to /scratch/ana/runs/x")
    handler.close()
    assert (tmp_path / "structkd.log").read_text() == "Written to .../x\n"
    record = Failure(
        error="E", message="/data/ana/x: no", traceback="", overrides=["a=/data/ana/y"], sweep=None, time=""
    )
    record.write(tmp_path / "failed.json")
    assert "ana" not in (tmp_path / "failed.json").read_text()
