"""Files that are complete or absent: atomic writes, JSON, sha256 and manifests.

A file or folder is written under a temporary name beside its own, flushed to the disk, and then renamed. After a kill
or a power failure it is there with all of its content, or as it was before.

A finished folder has a manifest with the size and sha256 of its files. Whoever uses the folder compares the files with
it. A manifest also has a *seal*, the sha256 of its own content, so that a change to the manifest is noticed, too.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from structkd.cache import cache_folder

__all__ = [
    "MANIFEST",
    "MOST_UNPACKED",
    "aside_of",
    "check_output",
    "fault",
    "forget_digests",
    "inside",
    "is_set_aside",
    "json_bytes",
    "make_folder",
    "most_unpacked",
    "move",
    "read_json",
    "read_manifest",
    "remove_unfinished",
    "replacing",
    "sealed",
    "set_aside",
    "sha256",
    "unfinished_prefix",
    "unsealed",
    "write_bytes",
    "write_json",
    "write_manifest",
    "write_text",
]

#: Name of the file with the size and sha256 of every other file of a folder.
MANIFEST = "manifest.json"
#: A compressed file may unpack to this many times its size.
MOST_UNPACKED = 50
#: Bytes that a compressed file may unpack to whatever its size.
_FREELY_UNPACKED = 2**23
#: Format 1, of the version before, has no seal.
_MANIFEST_FORMAT = 2
_SEAL = "seal"
_ASIDE = ".damaged"
#: A file that was changed so short a time ago may change again without a new time stamp.
_SETTLED_NANOSECONDS = 2_000_000_000
#: Bytes of a file from which on its sha256 is noted in the cache folder.
_LARGE = 8_000_000


def most_unpacked(size: int) -> int:
    """Return the number of bytes that a compressed file of this size may unpack to: more is made to fill a memory.

    >>> most_unpacked(1_000), most_unpacked(1_000_000)
    (8388608, 50000000)
    """
    return max(_FREELY_UNPACKED, MOST_UNPACKED * size)


def check_output(path: Path, inputs: Iterable[str | Path] = (), option: str = "--output") -> None:
    """Refuse a file to write that cannot be written, or that would replace a file that is read.

    Args:
        path: to write.
        inputs: files that are read. Links to them count, too; ``-`` and those that are missing do not.
        option: that names the file to write, for messages.

    Raises:
        FileNotFoundError: there is no folder for the file.
        ValueError: the path is a folder, its folder is a file, or it is one of the inputs.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder. Name a file for {option}, such as {path / 'predictions.txt'}.")
    if not path.parent.is_dir():
        if path.parent.exists():
            raise ValueError(f"{path.parent} is a file, and a folder is needed there. Name another file for {option}.")
        raise FileNotFoundError(f"There is no folder {path.parent}. Make it, or name another file for {option}.")
    for name in inputs:
        if os.path.exists(name) and path.exists() and os.path.samefile(name, path):
            raise ValueError(f"{name} is read; name another file for {option}.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, which replaces ``path`` when the block ends.

    The block creates a file or a folder. If it raises an error, ``path`` stays as it was and nothing is left behind.
    Processes that write the same path at the same time do not disturb each other: one of them wins.
    """
    temporary = path.with_name(f"{unfinished_prefix()}{os.getpid()}.{path.name}")
    _remove_leftovers(path)
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
    if written.is_dir() and path.exists():
        _replace_folder(written, path)
    else:
        os.replace(written, path)
    _flush(path.parent)


def make_folder(path: Path) -> None:
    """Create a folder and its parents if need be, and flush the folders that list the new ones."""
    missing = [each for each in (path, *path.parents) if not each.is_dir()]
    path.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        _flush(each.parent)


def set_aside(path: Path) -> Path:
    """Rename a file or folder that is damaged to :func:`aside_of` it, and return that."""
    aside = aside_of(path)
    os.rename(path, aside)
    _flush(path.parent)
    return aside


def aside_of(path: Path) -> Path:
    """Return the name under which something damaged is kept, so that another can be made in its place.

    It ends in ``.damaged``, or in ``.damaged-2`` and so on if there is one. See :func:`is_set_aside`.
    """
    names = (path.with_name(f"{path.name}{_ASIDE}{'' if number == 1 else f'-{number}'}") for number in count(1))
    return next(aside for aside in names if not os.path.lexists(aside))


def is_set_aside(path: Path) -> bool:
    """Return whether a path is, or lies in, something that :func:`set_aside` renamed."""
    return any(re.search(rf"{re.escape(_ASIDE)}(-\d+)?$", part) for part in path.parts)


def inside(folder: Path, name: Any) -> Path:
    """Return the path of a file of a folder, by the name that a file in this folder states.

    Raises:
        ValueError: the name is not that of a file below the folder.
    """
    parts = name.replace(os.sep, "/").split("/") if isinstance(name, str) else []
    drive = bool(parts) and re.match("[A-Za-z]:", parts[0])
    if not parts or drive or any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise ValueError(f"names {name!r:.80}, which is not a file below {folder}")
    return folder.joinpath(*parts)


def remove_unfinished(folder: Path, *, locked: bool = False) -> None:
    """Remove the temporary files that :func:`replacing` left in a folder when its process was killed.

    Args:
        folder: where to look, subfolders aside.
        locked: the caller holds a lock, so that nobody else is writing there. Then everything unfinished is removed;
            otherwise only that of processes of this machine which no longer run.
    """
    prefix = unfinished_prefix()
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
    """Return plain data as :func:`write_json` writes them.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot hold.
    """
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain data with a seal: the sha256 of everything else in them."""
    plain = {key: value for key, value in content.items() if key != _SEAL}
    return {**plain, _SEAL: hashlib.sha256(json_bytes(plain)).hexdigest()}


def unsealed(content: Mapping[str, Any], path: Path, remedy: str) -> dict[str, Any]:
    """Return plain data without their seal, which the version before did not write.

    Raises:
        ValueError: the data are not those that were sealed.
    """
    plain = {key: value for key, value in content.items() if key != _SEAL}
    if _SEAL in content:
        try:
            as_written = sealed(plain)[_SEAL]
        except ValueError:  # NaN, which nobody sealed
            as_written = None
        if content[_SEAL] != as_written:
            raise ValueError(f"{path} is not as it was written: its seal does not match. {remedy}")
    return plain


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
    """Return the sha256 of a file's content in hex.

    A file is read once, as long as its size, its times (that of the last change of its state among them) and its number
    stay the same: this process remembers that, and of large files the user's cache folder does.
    """
    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        place = os.path.abspath(path)
        key = (place, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_dev)
        known = _digests.get(key) or (_remembered(key) if state.st_size >= _LARGE else None)
        if known is not None:
            return known
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) > _SETTLED_NANOSECONDS:
        if len(_digests) > 10_000:
            _digests.clear()
        _digests[key] = digest
        if state.st_size >= _LARGE:
            _remember(key, digest)
    return digest


def _note(place: str) -> Path:
    return cache_folder() / "digests" / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.json"


def _remembered(key: tuple[Any, ...]) -> str | None:
    """Return the sha256 that was noted for a file in this state."""
    try:
        note = _note(key[0])
        found = unsealed(read_json(note), note, "")
        return str(found["sha256"]) if found["state"] == list(key) else None
    except (OSError, RuntimeError, ValueError, KeyError):
        return None


def _remember(key: tuple[Any, ...], digest: str) -> None:
    with suppress(OSError, RuntimeError):  # without a cache folder the file is read again
        note = _note(key[0])
        note.parent.mkdir(parents=True, exist_ok=True)
        write_json(note, sealed({"state": list(key), "sha256": digest}))


def forget_digests() -> None:
    """Let this process read files again whose sha256 it knows."""
    _digests.clear()


_digests: dict[tuple[Any, ...], str] = {}


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


def write_manifest(
    folder: Path, names: Iterable[str] | None = None, pending: Mapping[str, bytes] | None = None, **about: Any
) -> None:
    """Flush the files of a folder, and write ``manifest.json`` with the size and sha256 of each.

    Args:
        folder: complete, and nobody writes there any more.
        names: of the files, relative to the folder; None for all files below it, hidden ones included.
        pending: content of files that are written next, by their names. A folder is finished when the last of them is
            there, so the manifest has to precede it.
        about: plain data to keep in the manifest.
    """
    if names is None:
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    files = {}
    for name in sorted({*names} - {MANIFEST, *(pending or {})}):
        _flush(folder / name)
        files[name] = {"size": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
    for inner in {(folder / name).parent for name in files}:
        _flush(inner)
    for name, content in (pending or {}).items():
        files[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_json(folder / MANIFEST, sealed({"format": _MANIFEST_FORMAT, **about, "files": files}))


def read_manifest(folder: Path, remedy: str | None = None) -> dict[str, Any]:
    """Return a folder's manifest after comparing every file with it.

    Args:
        folder: that :func:`write_manifest` was given.
        remedy: the advice for a folder that cannot be used, a sentence; None advises to remove it.

    Raises:
        FileNotFoundError: the folder has no manifest.
        ValueError: the manifest cannot be used, or a file is not as it was written; names the file.
    """
    path = folder / MANIFEST
    remedy = f"Remove {folder}." if remedy is None else remedy
    content = read_json(path, remedy)
    manifest = unsealed(content, path, remedy)
    version = manifest.get("format")
    if version not in (1, _MANIFEST_FORMAT) or (version == _MANIFEST_FORMAT and _SEAL not in content):
        raise ValueError(f"{path} has format {version}; expected {_MANIFEST_FORMAT}, with a seal. {remedy}")
    try:
        written = [(inside(folder, name), facts["size"], facts["sha256"]) for name, facts in manifest["files"].items()]
    except ValueError as error:
        raise ValueError(f"{path} {error}. {remedy}") from None
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not list files with size and sha256 ({error!r}). {remedy}") from error
    for file, size, digest in written:
        if difference := fault(file, size, digest):
            raise ValueError(f"{file} {difference}. {remedy}")
    return manifest


def unfinished_prefix() -> str:
    """Return the begin of the temporary names of this machine: several may write to one folder."""
    return f".{platform.node()}-"


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files for the same path, of processes of this machine that were killed."""
    prefix, suffix = unfinished_prefix(), f".{path.name}"
    try:
        names = [name for name in os.listdir(path.parent) if name.startswith(prefix) and name.endswith(suffix)]
    except OSError:  # the caller's write says why
        return
    for name in names:
        process = name.removeprefix(prefix).removesuffix(suffix)
        if process.isdecimal() and not _is_another_running(int(process)):
            _remove(path.with_name(name))


def _replace_folder(written: Path, path: Path) -> None:
    """Put a folder in the place of another, in one step if the system can exchange two names."""
    if _exchange(written, path):
        _flush(path.parent)
        _remove(written)
        return
    old = path.with_name(f"{unfinished_prefix()}{os.getpid()}.old.{path.name}")
    _remove(old)
    os.rename(path, old)
    os.rename(written, path)
    _flush(path.parent)
    _remove(old)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names; False if the system or the file system cannot."""
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError):
        return False
    anywhere, exchange = 0, 2  # absolute paths need no folder to start from; RENAME_EXCHANGE
    done: int = rename(anywhere, os.fsencode(first.absolute()), anywhere, os.fsencode(second.absolute()), exchange)
    return done == 0


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
