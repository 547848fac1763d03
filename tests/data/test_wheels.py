"""Fetching a file out of a wheel: verified, cached whole or not at all, by one process at a time."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from structkd.data import PackageFile, cached_package_file, wheels

CONTENT = "1\tOlá\t_\tINTJ\t_\t_\t0\troot\t_\t_\n".encode()
WHEEL = "made_corpora-1.0-py3-none-any.whl"
CACHED = "made-corpora-1.0/made_data_annotated.conllu"


class Index:
    """Stands for pip and the package index behind it."""

    def __init__(self, wheel: Path) -> None:
        self.wheel, self.downloads, self.fails = wheel, 0, False

    def run(self, command: Sequence[str], **_: object) -> SimpleNamespace:
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert {"--no-deps", "made-corpora==1.0"} <= set(command)
        self.downloads += 1
        if self.fails:
            return SimpleNamespace(returncode=1, stderr="WARNING: retrying\nERROR: no matching distribution\n")
        folder = Path(command[command.index("--dest") + 1])
        (folder / WHEEL).write_bytes(self.wheel.read_bytes())
        return SimpleNamespace(returncode=0, stderr="")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STRUCTKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    wheel = tmp_path / WHEEL
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(zipfile.ZipInfo("made/data/annotated.conllu"), CONTENT)
    made = Index(wheel)
    monkeypatch.setattr(wheels.subprocess, "run", made.run)
    return made


@pytest.fixture
def file(index: Index) -> PackageFile:
    return PackageFile(
        requirement="made-corpora==1.0",
        wheel_sha256=hashlib.sha256(index.wheel.read_bytes()).hexdigest(),
        member="made/data/annotated.conllu",
        member_sha256=hashlib.sha256(CONTENT).hexdigest(),
        megabytes=1,
    )


def files_in(cache: Path) -> list[str]:
    found = sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())
    return [name for name in found if not name.endswith(".lock")]


def test_a_file_is_fetched_once(cache: Path, index: Index, file: PackageFile) -> None:
    assert cached_package_file(file) == cached_package_file(file) == cache / CACHED
    assert (cache / CACHED).read_bytes() == CONTENT
    assert index.downloads == 1
    assert files_in(cache) == [CACHED]


def test_a_damaged_copy_is_fetched_again(cache: Path, index: Index, file: PackageFile) -> None:
    cached_package_file(file).write_bytes(CONTENT[:-5])
    assert cached_package_file(file).read_bytes() == CONTENT
    assert index.downloads == 2


def test_a_damaged_copy_is_not_used_when_fetching_fails(cache: Path, index: Index, file: PackageFile) -> None:
    cached_package_file(file).write_bytes(b"")
    index.fails = True
    with pytest.raises(FileNotFoundError):
        cached_package_file(file)


def test_without_an_index_the_error_says_where_it_looked_and_what_to_do(
    cache: Path, index: Index, file: PackageFile
) -> None:
    index.fails = True
    with pytest.raises(FileNotFoundError) as caught:
        cached_package_file(file)
    message = str(caught.value)
    for part in (
        f"Looked in the cache ({cache / CACHED})",
        "package index (exit status 1: ERROR: no matching distribution)",
        "pip download --no-deps made-corpora==1.0",
        "PIP_FIND_LINKS",
        "made/data/annotated.conllu",
    ):
        assert part in message
    assert files_in(cache) == []


@pytest.mark.parametrize("changed", ["wheel_sha256", "member_sha256"])
def test_what_is_not_the_expected_file_is_refused(cache: Path, file: PackageFile, changed: str) -> None:
    values: dict[str, Any] = {changed: "0" * 64}
    other = dataclasses.replace(file, **values)
    with pytest.raises(ValueError, match=f"sha256 .*, but {'0' * 64} was expected"):
        cached_package_file(other)
    assert files_in(cache) == []


def test_a_wheel_without_the_file_is_refused(cache: Path, file: PackageFile) -> None:
    with pytest.raises(ValueError, match="holds no readable made/absent"):
        cached_package_file(dataclasses.replace(file, member="made/absent"))
    assert files_in(cache) == []


def test_an_interrupted_write_leaves_nothing(cache: Path, file: PackageFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            cached_package_file(file)
    assert files_in(cache) == []
    assert cached_package_file(file).read_bytes() == CONTENT


def test_of_many_at_once_one_fetches(cache: Path, index: Index, file: PackageFile) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: cached_package_file(file), range(8)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert index.downloads == 1


def test_pip_itself_fetches_from_a_folder_of_wheels(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real command, on a made wheel in a local folder."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = "made_corpora-1.0.dist-info"
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr("made/data/annotated.conllu", CONTENT)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: made-corpora\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("this environment has no pip")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    fetched = cached_package_file(
        PackageFile(
            requirement="made-corpora==1.0",
            wheel_sha256=hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest(),
            member="made/data/annotated.conllu",
            member_sha256=hashlib.sha256(CONTENT).hexdigest(),
            megabytes=1,
        )
    )
    assert fetched.read_bytes() == CONTENT
