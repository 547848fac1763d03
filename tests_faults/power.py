"""Power cuts: writes that were never flushed are lost, and the same command still ends with the same files.

The file operations of a command are followed from within: a file's content is safe when it was flushed (fsync), and a
name in a folder when the folder was. Before every operation two disks are imagined, as a power cut might leave them:
one on which all names are there and the contents that were not flushed are gone, as of file systems that write names
first, and one on which only flushed names are there. Both are then what the same command begins with.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cases import Case, Outcome, digests
from interrupted import COMMANDS, _begin
from processes import finish, run

import structkd.files

__all__ = ["Recorder", "cases"]


class _File:
    """A file's content that is safe."""

    def __init__(self, content: bytes = b"") -> None:
        self.safe = content


class _Folder:
    """A folder's names that are safe: files, folders, and the targets of links."""

    def __init__(self) -> None:
        self.safe: dict[str, Any] = {}


class Recorder:
    """Follows the file operations below a folder, and keeps the disks that a power cut before each might leave.

    Args:
        root: the folder; all that is in it now is safe.
        images: folder for the disks, without those that are the same.
        wanted: which operations to imagine a power cut before, by their number from 1.
    """

    def __init__(self, root: Path, images: Path, wanted: Callable[[int], bool] = lambda number: True) -> None:
        self.root, self.images, self.wanted = root.resolve(), images, wanted
        self.count = 0
        self._objects: dict[int, Any] = {}
        self._seen: set[str] = set()
        self._busy = False
        self._flush_all(self.root)

    def _flush_all(self, folder: Path) -> None:
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                self._flush_all(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                self._of(entry.inode(), _File).safe = Path(entry.path).read_bytes()
        self._list(folder)

    def _of(self, inode: int, kind: Any) -> Any:
        if not isinstance(self._objects.get(inode), kind):
            self._objects[inode] = kind()
        return self._objects[inode]

    def _list(self, folder: Path) -> None:
        names: dict[str, Any] = {}
        for entry in os.scandir(folder):
            if entry.is_symlink():
                names[entry.name] = os.readlink(entry.path)
            else:
                names[entry.name] = self._of(entry.inode(), _Folder if entry.is_dir() else _File)
        self._of(os.stat(folder).st_ino, _Folder).safe = names

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Follow the operations of this process while the block runs."""
        kept: dict[tuple[Any, str], Any] = {}

        def replace(module: Any, name: str, make: Callable[[Any], Any]) -> None:
            kept[module, name] = getattr(module, name)
            setattr(module, name, make(getattr(module, name)))

        def fsync(original: Any) -> Any:
            def flush(descriptor: int) -> None:
                original(descriptor)
                path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
                if path == self.root or self.root in path.parents:
                    self._power_cut()
                    if path.is_dir():
                        self._list(path)
                    else:
                        self._of(os.fstat(descriptor).st_ino, _File).safe = path.read_bytes()

            return flush

        def watched(original: Any) -> Any:
            def operate(*arguments: Any, **options: Any) -> Any:
                self._power_cut()
                gone = []
                for path in arguments[:2]:
                    with contextlib.suppress(OSError, TypeError, ValueError):
                        gone.append((path, os.lstat(path, dir_fd=options.get("dir_fd")).st_ino))
                result = original(*arguments, **options)
                for path, inode in gone:  # a number is given to the next new file
                    with contextlib.suppress(OSError):
                        os.lstat(path, dir_fd=options.get("dir_fd"))
                        continue
                    if original.__name__ in ("unlink", "remove", "rmdir"):
                        self._objects.pop(inode, None)
                if original.__name__ in ("replace", "rename") and len(gone) == 2:
                    self._objects.pop(gone[1][1], None)
                return result

            return operate

        replace(os, "fsync", fsync)
        for name in ("replace", "rename", "mkdir", "unlink", "remove", "rmdir", "symlink"):
            replace(os, name, watched)

        def exchange(original: Any) -> Any:
            def swap(first: Path, second: Path) -> bool:
                self._power_cut()
                return bool(original(first, second))

            return swap

        replace(structkd.files, "_exchange", exchange)
        try:
            yield
            self._power_cut()
        finally:
            for (module, name), original in kept.items():
                setattr(module, name, original)

    def _power_cut(self) -> None:
        if self._busy:  # the disks are written by operations, too
            return
        self.count += 1
        if not self.wanted(self.count):
            return
        self._busy = True
        for name, make in (("contents", self._without_contents), ("names", self._without_names)):
            image = self.images / f"{self.count:05}-{name}"
            make(image)
            known = hashlib.sha256(repr(sorted(digests(image, ("",)).items())).encode()).hexdigest()
            if known in self._seen:
                shutil.rmtree(image)
            self._seen.add(known)
        self._busy = False

    def _without_contents(self, image: Path) -> None:
        """All names are there, and contents as they were flushed last."""
        for folder, _, names in os.walk(self.root):
            target = image / os.path.relpath(folder, self.root)
            target.mkdir(parents=True, exist_ok=True)
            for name in names:
                path = Path(folder, name)
                if path.is_symlink():
                    (target / name).symlink_to(os.readlink(path))
                else:
                    (target / name).write_bytes(self._of(path.stat().st_ino, _File).safe)
            for each in os.scandir(folder):
                if each.is_symlink() and not (target / each.name).is_symlink():
                    (target / each.name).symlink_to(os.readlink(each.path))

    def _without_names(self, image: Path) -> None:
        """Names are there as their folder was flushed last."""

        def write(folder: _Folder, target: Path) -> None:
            target.mkdir(parents=True)
            for name, entry in folder.safe.items():
                if isinstance(entry, _Folder):
                    write(entry, target / name)
                elif isinstance(entry, _File):
                    (target / name).write_bytes(entry.safe)
                else:
                    (target / name).symlink_to(entry)

        write(self._of(os.stat(self.root).st_ino, _Folder), image)


def _imagine(arguments: tuple[str, ...], folder: Path, images: Path, step: int, log: Path) -> None:
    """Run a command in a process of its own and keep the disks of power cuts before every n-th operation."""
    child = os.fork()
    if not child:
        status = 70
        try:
            from processes import _command

            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            os.chdir(folder)
            with Recorder(folder, images, lambda number: number % step == 0).following():
                status = _command([*arguments])
        finally:
            os._exit(status)
    ended = finish(child, log)
    if ended.status:
        raise RuntimeError(f"{arguments} failed while it was followed: {ended.printed[-2000:]}")


def cases(place: Path, size: float) -> Iterator[Case]:
    """Yield a case for every disk; ``size`` is the share of operations before which a power cut is imagined."""
    for command in COMMANDS:
        folder = place / "power" / command.name.replace(" ", "-")
        images = folder.with_name(f"{folder.name}-images")
        step = max(1, round(1 / size))
        arguments = _begin(command, place, folder)
        if not (images / f"done-{step}").exists():
            shutil.rmtree(images, ignore_errors=True)
            images.mkdir(parents=True)
            _imagine(arguments, folder, images, step, place / "power.log")
            (images / f"done-{step}").touch()
            (images / "wanted").write_text(repr(digests(folder, command.results)))
        for image in sorted(path for path in images.iterdir() if path.is_dir()):
            yield Case(
                f"power cut in: {command.name}",
                image.name,
                lambda command=command, image=image, images=images, arguments=arguments, folder=folder: iter(
                    [_tried(command.results, image, arguments, folder, (images / "wanted").read_text(), place)]
                ),
            )


def _tried(
    results: tuple[str, ...], image: Path, arguments: tuple[str, ...], folder: Path, wanted: str, place: Path
) -> Outcome:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(image, folder, symlinks=True)
    again = run(arguments, folder, place / "power.log")
    if again.status:
        return Outcome("manual", again.printed[-1500:])
    return Outcome("mended") if repr(digests(folder, results)) == wanted else Outcome("lost", "other files")
