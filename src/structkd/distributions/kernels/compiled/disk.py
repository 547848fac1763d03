"""Files of compiled kernels, which later processes read from the user's cache folder instead of compiling again.

numba's own cache is unsuitable for three reasons. It lies beside the sources, so it remains after the package is
uninstalled. It checks the file of the function that Python calls, but not the files of the functions called from there.
Its index loses entries if two processes write it at once.

Here, the files of one state of the sources lie in one folder, a *generation*. Its name is a hash of all Python files
in this folder and of the versions of numba, llvmlite and Python. The hash covers all code that is compiled: only files
in this folder use numba, and compiled functions call only functions from here. A change to any of these files
therefore leads to a new generation. (`disk` itself imports from outside, but nothing that is compiled.)

The name of a file gives the function, its signature and the processor. Files are written under another name and moved
into place, so processes need not wait for each other. If several compile the same kernel at once, the last file stays.

The files are code, as the sources are. If several users may write to the folder, a file is read only if it belongs to
the user, to root, or to the owner of the cache folder.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import shutil
import sys
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import FunctionCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from ....cache import cache_folder
from ....files import remove_unfinished, write_bytes

_logger = logging.getLogger(__name__)

#: Number of generations to keep, the most recently used ones. Other environments may use them.
KEPT = 8


def generation(sources: Path) -> str:
    """Return a hash of all Python files in a folder and of the versions that compile them."""
    digest = hashlib.sha256(repr((numba.__version__, llvmlite.__version__, sys.version)).encode())
    for path in sorted(sources.rglob("*.py")):
        digest.update(b"\0".join((path.relative_to(sources).as_posix().encode(), path.read_bytes(), b"")))
    return digest.hexdigest()[:32]


class Store:
    """The files of one generation. If the disk is not usable, nothing is stored, and one warning is logged."""

    def __init__(self) -> None:
        self._writable = True
        self._warned_of: set[int] = set()

    @cached_property
    def folder(self) -> Path | None:
        """The generation's folder, created if necessary and marked as used; None if it cannot be created."""
        try:
            folder = cache_folder() / "kernels" / generation(Path(__file__).parent)
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                self._remove_others(folder.parent)
            with suppress(OSError):  # the folder may belong to another user
                os.utime(folder)
                remove_unfinished(folder)
        except (OSError, RuntimeError) as error:
            self._give_up(error)
            return None
        return folder

    @cached_property
    def _trusted(self) -> set[int]:
        """The users whose files are read. On Windows, all files belong to user 0."""
        own = os.geteuid() if hasattr(os, "geteuid") else 0
        return {0, own, cache_folder().stat().st_uid}

    @staticmethod
    def _remove_others(kernels: Path) -> None:
        """Remove the least recently used generations. A process that still uses one continues in memory."""
        with suppress(OSError):
            by_use = sorted(kernels.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
            for folder in by_use[KEPT:]:
                shutil.rmtree(folder, ignore_errors=True)

    def _give_up(self, error: Exception) -> None:
        self._writable = False
        _logger.warning(
            "Compiled kernels are not kept on disk, so every process compiles them again: %s. To use another folder, "
            "name it in STRUCTKD_CACHE.",
            error,
        )

    def read(self, name: str) -> bytes | None:
        """Return the content written under a name; None if the file is missing, damaged or another user's."""
        if self.folder is None:
            return None
        try:
            with (self.folder / name).open("rb") as file:
                owner = os.fstat(file.fileno()).st_uid
                if owner not in self._trusted:
                    self._warn_of(owner)
                    return None
                content = file.read()
        except OSError:
            return None
        return content[32:] if hashlib.sha256(content[32:]).digest() == content[:32] else None

    def _warn_of(self, owner: int) -> None:
        if owner not in self._warned_of:
            self._warned_of.add(owner)
            _logger.warning(
                "Compiled kernels in %s belong to user %d, so they are not read but compiled again. To use a folder of "
                "your own, name it in STRUCTKD_CACHE.",
                self.folder,
                owner,
            )

    def write(self, name: str, content: bytes) -> None:
        """Write a file with its checksum. Other processes see either the whole file or none."""
        if self.folder is None or not self._writable:
            return
        try:
            write_bytes(self.folder / name, hashlib.sha256(content).digest() + content)
        except OSError as error:
            self._give_up(error)


STORE = Store()


class KernelCache(FunctionCache):
    """The cache of one kernel, which replaces the cache that numba would give it."""

    def __init__(self, function: Any) -> None:
        # The base class is not initialized, because it would choose a folder beside the source.
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self.enable()

    @property
    def cache_path(self) -> str:
        return str(STORE.folder)

    def flush(self) -> None:
        """Do nothing: the files stay valid as long as the sources do not change."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        content = STORE.read(self._file(sig, target_context.codegen()))
        return None if content is None else CompileResult._rebuild(target_context, *pickle.loads(content))

    def save_overload(self, sig: Any, data: Any) -> None:
        if not (data.lifted or data.library.has_dynamic_globals):
            STORE.write(self._file(sig, data.codegen), dumps(data._reduce()))

    def _file(self, sig: Any, codegen: Any) -> str:
        compiled_for = repr((str(sig), codegen.magic_tuple()))
        return f"{self._name}-{hashlib.sha256(compiled_for.encode()).hexdigest()[:16]}"
