"""Commands in processes of their own, forked off this one, with a fault at a chosen file operation."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Ended", "Fault", "begin", "finish", "run"]

#: Seconds after which a process is killed.
LIMIT = 300.0
_ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EROFS": errno.EROFS}


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    Attributes:
        kind: "kill" (SIGKILL), "EIO", "ENOSPC" or "EROFS" (an error of the system), or "size" (no file may be longer).
        at: the operation that changes the disk, from 1, at which the process is killed or from which all fail; the
            most bytes of a file for "size".
    """

    kind: str
    at: int


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status (negative: the signal), what it printed, and how many operations it made."""

    status: int
    printed: str
    operations: int


class _Operations:
    """Counts the operations of this process that change the disk below a folder, and makes one of them go wrong."""

    def __init__(self, folder: Path, fault: Fault | None, counter: Path) -> None:
        self.folder, self.fault, self.counter, self.count = str(folder), fault, counter, 0

    def install(self) -> None:
        sys.addaudithook(self._hook)
        flush = os.fsync

        def fsync(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if path.startswith(self.folder):
                self._pass(path)
            flush(descriptor)

        os.fsync = fsync

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.truncate"):
            path = arguments[event in ("os.rename", "os.symlink")]
        else:
            return
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(self.folder):
            self._pass(os.path.abspath(path))

    def _pass(self, path: str) -> None:
        self.count += 1
        if self.fault is None or self.fault.kind == "size" or self.count < self.fault.at:
            return
        if self.fault.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = _ERRORS[self.fault.kind]
        raise OSError(number, os.strerror(number), path)


def begin(arguments: Sequence[str], folder: Path, log: Path, fault: Fault | None = None) -> int:
    """Start the command in a folder; return the number of its process."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        os.setsid()
        os.chdir(folder)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.environ.pop("STRUCTKD_WORK", None)
        operations = _Operations(folder, fault, log)
        if fault is not None and fault.kind == "size":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.at, fault.at))
        operations.install()
        status = _command([*arguments])
        sys.stdout.flush()
        sys.stderr.flush()
        if fault is None:
            log.with_suffix(".count").write_text(str(operations.count))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
    raise AssertionError


def _command(arguments: list[str]) -> int:
    from hydra.core.global_hydra import GlobalHydra

    from structkd.commands.main import main

    GlobalHydra.instance().clear()
    sys.argv = ["structkd", *arguments]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def finish(process: int, log: Path) -> Ended:
    """Wait for the end of a process that :func:`begin` started; one that takes too long is killed."""
    deadline = time.monotonic() + LIMIT
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return Ended(-signal.SIGALRM, log.read_text(errors="replace"), 0)
        time.sleep(0.01)
    counted = log.with_suffix(".count")
    operations = int(counted.read_text()) if counted.exists() else 0
    counted.unlink(missing_ok=True)
    printed = log.read_text(errors="replace") if log.exists() else ""
    return Ended(os.waitstatus_to_exitcode(status), printed, operations)


def run(arguments: Sequence[str], folder: Path, log: Path, fault: Fault | None = None) -> Ended:
    """Run the command in a folder to its end."""
    return finish(begin(arguments, folder, log, fault), log)
