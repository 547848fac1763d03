"""Files are complete or absent, and a manifest notices every change."""

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from structkd import files


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_write_replaces_and_a_failed_one_leaves_the_old(kind: str, tmp_path: Path) -> None:
    def write(content: str, fail: bool = False) -> None:
        with files.replacing(tmp_path / "it") as temporary:
            assert not temporary.exists()
            if kind == "folder":
                temporary.mkdir()
            (temporary / content if kind == "folder" else temporary).write_text(content)
            if fail:
                raise KeyError

    def read() -> str:
        return (next((tmp_path / "it").iterdir()) if kind == "folder" else tmp_path / "it").read_text()

    write("first")
    with pytest.raises(KeyError):
        write("second", fail=True)
    assert read() == "first"
    write("third")
    assert read() == "third"
    assert names(tmp_path) == {"it"}


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, str]] = []
    replace = os.replace
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: events.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
    )
    monkeypatch.setattr(
        os, "replace", lambda source, target: events.append(("name", str(target))) or replace(source, target)
    )
    with files.replacing(tmp_path / "it") as temporary:
        (temporary / "inner").mkdir(parents=True)
        (temporary / "inner" / "file").write_text("content")
    assert set(events[:3]) == {
        ("fsync", str(path)) for path in (temporary, temporary / "inner", temporary / "inner" / "file")
    }
    assert events[3:] == [("name", str(tmp_path / "it")), ("fsync", str(tmp_path))]


def test_json_keeps_its_bytes(tmp_path: Path) -> None:
    content = {"b": [1, 0.1], "a": {"ä": None}}
    files.write_json(tmp_path / "it.json", content)
    assert (tmp_path / "it.json").read_bytes() == '{\n "b": [\n  1,\n  0.1\n ],\n "a": {\n  "ä": null\n }\n}\n'.encode()
    assert files.read_json(tmp_path / "it.json") == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a"', r"it\.json cannot be read as JSON .*Ask again\.$"),
        (b"\xff\xfe", r"it\.json cannot be read as JSON .*Ask again\.$"),
        (b"[" * 100_000, r"it\.json cannot be read as JSON .*Ask again\.$"),
        (b"[1]", r"it\.json holds a list; expected an object in braces\. Ask again\.$"),
        (None, r"it\.json cannot be read as JSON .*Ask again\.$"),
    ],
)
def test_json_that_cannot_be_used_is_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is None:
        (tmp_path / "it.json").mkdir()
    else:
        (tmp_path / "it.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        files.read_json(tmp_path / "it.json", "Ask again.")
    with pytest.raises(FileNotFoundError, match=r"There is no .*other\.json\."):
        files.read_json(tmp_path / "other.json")


class TestManifest:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "it"
        (self.folder / "inner").mkdir(parents=True)
        (self.folder / "inner" / "b").write_bytes(b"second")
        (self.folder / "a").write_bytes(b"first")
        files.write_manifest(self.folder, processes=2)

    def test_holds_size_and_sha256_of_every_file(self) -> None:
        manifest = files.read_manifest(self.folder)
        assert list(manifest) == ["format", "processes", "files"]
        assert (manifest["format"], manifest["processes"]) == (2, 2)
        assert {name: facts["size"] for name, facts in manifest["files"].items()} == {"a": 5, "inner/b": 6}
        digest = hashlib.sha256(b"first").hexdigest()
        assert manifest["files"]["a"]["sha256"] == digest == files.sha256(self.folder / "a")

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("inner/b", b"sec", r"inner/b has 3 bytes, it was written with 6: it was cut off or replaced\. Remove"),
            (
                "inner/b",
                b"secomd",
                r"inner/b has the sha256 \w{16}\.\.\., it was written with .*: it is damaged\. Remove",
            ),
            ("inner/b", None, r"inner/b is missing\. Remove"),
            ("manifest.json", b"{", r"manifest\.json cannot be read as JSON .*Remove"),
            ("manifest.json", b'{"format": 3}', r"manifest\.json has format 3; expected 2, with a seal\. Remove"),
            ("manifest.json", b'{"format": 2}', r"manifest\.json has format 2; expected 2, with a seal\. Remove"),
            ("manifest.json", b'{"format": 2, "seal": ""}', r"manifest\.json is not as it was written: its seal"),
            ("manifest.json", b'{"format": 1, "files": {"../x": {}}}', r"names '\.\./x', which is not a file below"),
            ("manifest.json", b'{"format": 1}', r"manifest\.json does not list files .*Remove"),
            ("manifest.json", b'{"format": 1, "files": {"a": {"size": 5}}}', r"does not list files .*sha256.*Remove"),
        ],
    )
    def test_names_what_has_changed(self, name: str, content: bytes | None, message: str) -> None:
        (self.folder / name).unlink()
        if content is not None:
            (self.folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            files.read_manifest(self.folder)


def test_unfinished_files_of_processes_that_ended_are_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    machine = os.uname().nodename
    running, killed, elsewhere = (
        f".{machine}-{os.getppid()}.a-1.json",
        f".{machine}-{ended.pid}.a-1.json",
        f".another-{ended.pid}.folder",
    )
    (tmp_path / running).touch()
    (tmp_path / killed).touch()
    (tmp_path / elsewhere).mkdir()
    others = {"a-1.json", ".gitignore", ".hydra"}
    for name in others:
        (tmp_path / name).touch()
    files.remove_unfinished(tmp_path)
    assert names(tmp_path) == {running, elsewhere, *others}
    files.remove_unfinished(tmp_path, locked=True)
    assert names(tmp_path) == others


def _write_for_ever(path: Path) -> None:
    for number in range(1 << 30):
        files.write_json(path, {"number": number, "content": "x" * 10_000})


@pytest.mark.processes
def test_a_writer_killed_at_any_moment_leaves_a_complete_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for delay in (0.0, 0.001, 0.003, 0.007):
        writer = context.Process(target=_write_for_ever, args=(tmp_path / "it.json",))
        writer.start()
        while not (tmp_path / "it.json").exists():
            time.sleep(0.001)
        time.sleep(delay)
        writer.kill()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        assert len(json.loads((tmp_path / "it.json").read_text())["content"]) == 10_000
    files.remove_unfinished(tmp_path)
    assert names(tmp_path) == {"it.json"}
