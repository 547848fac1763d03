"""Files that are complete or absent: atomic writes, JSON, sha256 and manifests.

A file or folder is written under a temporary name beside its own, flushed to the disk, and then renamed. After a kill
or a power failure it is there with all of its content, or as it was before.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    "MANIFEST",
    "fault",
    "json_bytes",
    "move",
    "read_json",
    "read_manifest",
    "remove_unfinished",
    "replacing",
    "sha256",
    "write_bytes",
    "write_json",
    "write_manifest",
    "write_text",
]

#: Name of the file with the size and sha256 of every other file of a folder.
MANIFEST = "manifest.json"
_MANIFEST_FORMAT = 1


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, which replaces ``path`` when the block ends.

    The block creates a file or a folder. If it raises an error, ``path`` stays as it was and nothing is left behind.
    Processes that write the same path at the same time do not disturb each other: one of them wins.
    """
    temporary = path.with_name(f"{_prefix()}{os.getpid()}.{path.name}")
    try:
        yield temporary
        move(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


def move(written: Path, path: Path) -> None:
    """Flush a file, or a folder with all it holds, and rename it; an older one of that name is replaced.

    Args:
        written: its temporary path, on the same file system.
        path: its final path.
    """
    for part in (*written.rglob("*"), written):
        _flush(part)
    if written.is_dir():
        _remove(path)  # only a file can be replaced in one step
    os.replace(written, path)
    _flush(path.parent)


def remove_unfinished(folder: Path, *, locked: bool = False) -> None:
    """Remove the temporary files that :func:`replacing` left in a folder when its process was killed.

    Args:
        folder: where to look, subfolders aside.
        locked: the caller holds a lock, so that nobody else is writing there. Then everything unfinished is removed;
            otherwise only that of processes of this machine which no longer run.
    """
    prefix = _prefix()
    for path in folder.glob(".*"):
        process = path.name.removeprefix(prefix).partition(".")[0]
        ended = path.name.startswith(prefix) and process.isdecimal() and not _is_another_running(int(process))
        if ended or (locked and re.fullmatch(r"\..+-\d+\..+", path.name)):
            _remove(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a file atomically, in UTF-8 and with the line ends as given."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write plain data atomically."""
    write_bytes(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """Return plain data as :func:`write_json` writes them."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def read_json(path: Path, remedy: str = "Remove it and run the command again.") -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Args:
        path: of the file.
        remedy: the advice for a file that cannot be used, a sentence.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or holds something other than an object.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no {path}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}). {remedy}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected an object in braces. {remedy}")
    return content


def sha256(path: Path) -> str:
    """Return the sha256 of a file's content in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fault(path: Path, size: int, digest: str | None = None) -> str | None:
    """Describe the difference between a file and the content that was written; None if there is none.

    Args:
        path: of the file.
        size: bytes that were written.
        digest: sha256 of the content; None compares the size alone, without reading the file.
    """
    if not path.is_file():
        return "is missing"
    found = path.stat().st_size
    if found != size:
        return f"has {found} bytes, it was written with {size}: it was cut off or replaced"
    if digest is not None and (actual := sha256(path)) != digest:
        return f"has the sha256 {actual[:16]}..., it was written with {digest[:16]}...: it is damaged"
    return None


def write_manifest(folder: Path, **about: Any) -> None:
    """Write ``manifest.json`` with the size and sha256 of every file below a folder.

    Args:
        folder: complete, and nobody writes there any more.
        about: plain data to keep in the manifest.
    """
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    write_json(folder / MANIFEST, {"format": _MANIFEST_FORMAT, **about, "files": files})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a folder's manifest after comparing every file with it.

    Raises:
        FileNotFoundError: the folder has no manifest.
        ValueError: the manifest cannot be used, or a file is not as it was written; names the file.
    """
    path = folder / MANIFEST
    remedy = f"Remove {folder}."
    manifest = read_json(path, remedy)
    if manifest.get("format") != _MANIFEST_FORMAT:
        raise ValueError(f"{path} has format {manifest.get('format')}; expected {_MANIFEST_FORMAT}. {remedy}")
    try:
        written = [(folder / name, facts["size"], facts["sha256"]) for name, facts in manifest["files"].items()]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not list files with size and sha256 ({error!r}). {remedy}") from error
    for file, size, digest in written:
        if difference := fault(file, size, digest):
            raise ValueError(f"{file} {difference}. {remedy}")
    return manifest


def _prefix() -> str:
    """Begin of the temporary names of this machine: several may write to one folder."""
    return f".{platform.node()}-"


def _flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of files, is on the disk."""
    if path.is_dir() and os.name != "posix":
        return  # other systems do not open folders
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_another_running(process: int) -> bool:
    if process == os.getpid():
        return False
    if os.name != "posix":
        return True  # there, signal 0 would end the process
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
