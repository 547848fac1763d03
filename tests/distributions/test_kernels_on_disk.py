"""The files of compiled kernels: their folder, their lifetime, and the behavior without a usable disk."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")
import numba

import structkd
from structkd import cache, files
from structkd.distributions.kernels.compiled import disk, lanes


@pytest.fixture(autouse=True)
def kernels() -> None:
    """No path is to be chosen."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> disk.Store:
    """A store in a folder of the test's, which kernels use from now on."""
    monkeypatch.setenv("STRUCTKD_CACHE", str(tmp_path / "cache"))
    store = disk.Store()
    monkeypatch.setattr(disk, "STORE", store)
    return store


def double(x: float) -> float:
    return 2.0 * x


def compiled_anew() -> tuple[int, int]:
    """Kernels read from disk, and kernels compiled, when a function is made a kernel and called."""
    kernel = lanes.kernel(double)
    assert kernel(1.5) == 3.0
    return sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values())


def test_a_kernel_is_compiled_once(store: disk.Store) -> None:
    assert compiled_anew() == (0, 1)
    assert compiled_anew() == (1, 0)
    assert store.folder is not None
    assert store.folder.parent.name == "kernels"
    assert len(list(store.folder.iterdir())) == 1


def test_another_signature_is_another_file(store: disk.Store) -> None:
    assert compiled_anew() == (0, 1)
    assert lanes.kernel(double)(2) == 4.0
    assert compiled_anew() == (1, 0)


@pytest.mark.parametrize("damage", [b"", b"x", b"x" * 5000])
def test_a_damaged_file_is_written_again(store: disk.Store, damage: bytes) -> None:
    compiled_anew()
    assert store.folder is not None
    (file,) = store.folder.iterdir()
    whole = file.read_bytes()
    for content in (damage, whole[:-1], whole[:-1] + b"x"):
        file.write_bytes(content)
        assert compiled_anew() == (0, 1)
        assert compiled_anew() == (1, 0)


def test_a_file_of_another_user_is_compiled_again(
    store: disk.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiled_anew()
    monkeypatch.setattr(store, "_trusted", {os.geteuid() + 1})
    with caplog.at_level(logging.WARNING):
        assert compiled_anew() == compiled_anew() == (0, 1)
    (line,) = caplog.messages
    assert f"belong to user {os.geteuid()}, so they are not read but compiled again" in line
    assert {0, os.geteuid()} <= disk.Store()._trusted


def unwritable(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the cache folder impossible, or have every writing fail as a full or read-only disk has it."""
    if kind == "a file":
        folder.write_text("in the way")
        return
    (folder / "kernels").mkdir(parents=True)

    def refuse(*arguments: object, **settings: object) -> None:
        raise OSError(30, "Read-only file system", str(folder))

    monkeypatch.setattr(Path, "write_bytes" if kind == "full" else "mkdir", refuse)


@pytest.mark.parametrize("kind", ["a file", "read-only", "full"])
def test_without_a_folder_they_compile_in_memory_and_say_so_once(
    kind: str, store: disk.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unwritable(tmp_path / "cache", kind, monkeypatch)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert compiled_anew() == (0, 1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "STRUCTKD_CACHE" in caplog.text
    assert "every process compiles them again" in caplog.text


def test_a_read_only_folder_is_still_read(
    store: disk.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiled_anew()
    monkeypatch.setattr(disk, "STORE", disk.Store())

    def refuse(*arguments: object, **settings: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert compiled_anew() == (1, 0)
    assert not caplog.records


def test_old_generations_are_removed(store: disk.Store, tmp_path: Path) -> None:
    for age in range(disk.KEPT + 3):
        folder = tmp_path / "cache" / "kernels" / f"old-{age}"
        folder.mkdir(parents=True)
        (folder / "file").touch()
        os.utime(folder, (10_000 - age, 10_000 - age))
    assert store.folder is not None
    left = {folder.name for folder in (tmp_path / "cache" / "kernels").iterdir()}
    assert left == {store.folder.name, *(f"old-{age}" for age in range(disk.KEPT - 1))}


def test_a_folder_that_vanishes_is_no_failure(store: disk.Store, caplog: pytest.LogCaptureFixture) -> None:
    compiled_anew()
    assert store.folder is not None
    shutil.rmtree(store.folder)
    assert compiled_anew() == (0, 1)
    assert compiled_anew() == (0, 1)
    assert len(caplog.records) == 1


def test_compiled_code_lies_in_the_folder_that_names_a_generation() -> None:
    """The hash covers the folder `compiled`. So nothing outside is compiled, and nothing inside imports from outside.

    `disk` imports functions for paths and files, which are not compiled.
    """
    folder, package = Path(disk.__file__).parent, Path(structkd.__file__).parent
    for path in package.rglob("*.py"):
        modules = re.findall(r"^\s*(?:from|import)\s+(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        if path.parent != folder:
            assert not {module for module in modules if module.split(".")[0] in ("numba", "llvmlite")}, path
        elif path.name != "disk.py":
            assert not {module for module in modules if module.startswith(("..", "structkd"))}, path


def test_every_source_and_version_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel is in another file than the functions that it calls, so an edit of any file counts."""
    sources = tmp_path / "kernels"
    shutil.copytree(Path(disk.__file__).parent, sources, ignore=shutil.ignore_patterns("__pycache__"))
    names = [disk.generation(Path(disk.__file__).parent)]
    assert disk.generation(sources) == names[0]
    files_of_kernels = sorted(sources.glob("*.py"))
    for path in files_of_kernels:
        path.write_text(path.read_text() + "\n")
        names.append(disk.generation(sources))
    (sources / "new.py").touch()
    names.append(disk.generation(sources))
    monkeypatch.setattr(numba, "__version__", "0.0")
    names.append(disk.generation(sources))
    assert len(files_of_kernels) > 10
    assert len(set(names)) == len(names) == len(files_of_kernels) + 3


PROGRAM = """
import numpy
from copied.distributions.kernels.compiled import disk, lanes
lanes.probe(numpy.zeros(8))
print(disk.STORE.folder.name, *lanes.probe.stats.cache_hits.values())
"""


def test_an_edited_helper_is_noticed_and_nothing_lies_beside_the_source(tmp_path: Path) -> None:
    """In processes of their own, on a copy of the files that a kernel needs."""
    folder = tmp_path / "copied" / "distributions" / "kernels" / "compiled"
    folder.mkdir(parents=True)
    for module, place in ((cache, tmp_path / "copied"), (files, tmp_path / "copied"), (disk, folder), (lanes, folder)):
        shutil.copy(module.__file__, place)
    environment = os.environ | {"STRUCTKD_CACHE": str(tmp_path / "cache")}

    def run() -> list[str]:
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    (first,) = run()
    assert run() == [first, "1"]
    helper = folder / "lanes.py"
    helper.write_text(helper.read_text().replace("2.7639850353088152e-06", "2.7639850353088153e-06"))
    (edited,) = run()
    assert edited != first
    assert not list((tmp_path / "copied").rglob("*.nb?"))


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_processes_that_start_at_once_or_are_killed_do_not_hinder_each_other(store: disk.Store) -> None:
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            status = 1
            try:
                status = int(compiled_anew() not in ((0, 1), (1, 0)))
            finally:
                os._exit(status)
        children.append(child)
    os.kill(children[0], signal.SIGKILL)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children][1:] == [0, 0, 0]
    assert compiled_anew() == (1, 0)
