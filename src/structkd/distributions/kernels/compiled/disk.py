"""What numba compiled, kept in the user's cache folder for later processes.

numba's own cache lies beside the sources, where it outlives an uninstallation. It looks at the file of the function
that Python calls but not at the files of its helpers, and its index is overwritten by processes that start at once.
Here a folder, a *generation*, is named by a hash of the kernels' sources and of the versions that matter, and a file by
the function, its signature and the processor. A file appears whole or not at all, so that no process waits for another:
those that start at once may compile the same kernel, and the last file stays.
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

#: So many generations are kept, the most recently used: those of other environments and states of the sources.
KEPT = 8


def generation(sources: Path) -> str:
    """Return a hash of all Python files in a folder and of the versions that compile them."""
    digest = hashlib.sha256(repr((numba.__version__, llvmlite.__version__, sys.version)).encode())
    for path in sorted(sources.rglob("*.py")):
        digest.update(b"\0".join((path.relative_to(sources).as_posix().encode(), path.read_bytes(), b"")))
    return digest.hexdigest()[:32]


class Store:
    """Files of one generation; or none, if the disk takes nothing, which is logged once."""

    def __init__(self) -> None:
        self._writable = True

    @cached_property
    def folder(self) -> Path | None:
        """The generation's folder, which exists and is marked as used; None if it cannot be made."""
        try:
            folder = cache_folder() / "kernels" / generation(Path(__file__).parent)
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                self._remove_others(folder.parent)
            with suppress(OSError):  # it may be another user's
                os.utime(folder)
                remove_unfinished(folder)
        except (OSError, RuntimeError) as error:
            self._give_up(error)
            return None
        return folder

    @staticmethod
    def _remove_others(kernels: Path) -> None:
        """Remove the generations that were not used for longest. A process that uses one goes on in memory."""
        with suppress(OSError):
            by_use = sorted(kernels.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
            for folder in by_use[KEPT:]:
                shutil.rmtree(folder, ignore_errors=True)

    def _give_up(self, error: Exception) -> None:
        self._writable = False
        _logger.warning(
            "Compiled kernels are not kept on disk, so every process compiles them again: %s. STRUCTKD_CACHE can name "
            "another folder.",
            error,
        )

    def read(self, name: str) -> bytes | None:
        """Return what was written under this name, None if nothing was or if it is damaged."""
        if self.folder is None:
            return None
        try:
            content = (self.folder / name).read_bytes()
        except OSError:
            return None
        return content[32:] if hashlib.sha256(content[32:]).digest() == content[:32] else None

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all."""
        if self.folder is None or not self._writable:
            return
        try:
            write_bytes(self.folder / name, hashlib.sha256(content).digest() + content)
        except OSError as error:
            self._give_up(error)


STORE = Store()


class KernelCache(FunctionCache):
    """The cache of one kernel, in the place of the one that numba would give it."""

    def __init__(self, function: Any) -> None:
        # the base class would choose a folder beside the source
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self.enable()

    @property
    def cache_path(self) -> str:
        return str(STORE.folder)

    def flush(self) -> None:
        """Leave the files, which are right as long as the sources are the same."""

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
