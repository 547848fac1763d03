"""Processes that have everything imported when they start: a forkserver imports it once for all tests.

A program started here has a process, a process group, arguments, a folder and an environment of its own. It ends as an
interpreter ends, and signals reach it. Python programs that it starts in its turn (by subprocess and sys.executable)
are forked off it. The tests of a real start are few: torchrun's, joblib's, and those of `python -m structkd`.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import logging
import multiprocessing
import multiprocessing.forkserver
import os
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

#: Seconds after which a process that a test waits for is killed, and the test fails.
LIMIT = 240.0


@dataclass
class Death:
    """Ends a process from within at a chosen moment, which does not depend on how busy the machine is.

    The moment is the one at which it creates, opens for writing, renames or removes something whose path matches
    `pattern`, for the `count`-th time, or so many seconds of its own work later. Then it ends as by SIGKILL.
    """

    pattern: str
    count: int
    seconds: float = 0.0
    signal: int = signal.SIGKILL

    def watch(self) -> None:
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "open") and arguments:
            path = arguments[event == "os.rename"]  # the new name
            if event == "open" and not set(str(arguments[1])) & set("wax+"):
                return
            if isinstance(path, (str, os.PathLike)) and re.search(self.pattern, str(path)):
                self.pass_by()

    def pass_by(self) -> None:
        """Count one more moment."""
        self.count -= 1
        if self.count == 0 and self.seconds:
            signal.setitimer(signal.ITIMER_PROF, self.seconds)  # SIGPROF ends it at once, wherever it is
        elif self.count == 0:
            os.kill(os.getpid(), self.signal)


def start(
    function: Callable[..., Any],
    *arguments: Any,
    log: Path | None = None,
    errors: Path | None = None,
    death: Death | None = None,
    **environment: str,
) -> BaseProcess:
    """Call a function in a process and a process group of its own; what it prints is in `log` (and `errors`)."""
    context = multiprocessing.get_context("forkserver")
    _ensure_forkserver()
    files = [path and os.path.abspath(path) for path in (log, errors or log)]
    inherited = {name: value for name, value in os.environ.items() if name not in ("STRUCTKD_WORK", "HYDRA_FULL_ERROR")}
    given = (function, arguments, files, death, {**inherited, **environment})
    process: BaseProcess = context.Process(target=_call, args=given)
    process.start()
    return process


@functools.cache
def _ensure_forkserver() -> None:
    """Start the forkserver. It imports everything.py, which it finds by PYTHONPATH alone."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["everything"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        patch.setenv("OMP_NUM_THREADS", "1")
        multiprocessing.forkserver.ensure_running()


def start_connected(function: Callable[..., Any], *arguments: Any, **settings: Any) -> list[BaseProcess]:
    """Call a function in two processes, with the environment that torchrun gives its processes."""
    # The store by which they find each other is here, as torchrun has it in its own process: nobody takes its port.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    settings |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    settings |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    started = [start(function, *arguments, RANK=rank, LOCAL_RANK=rank, **settings) for rank in ("0", "1")]
    started[0].store = store  # type: ignore[attr-defined]
    return started


def start_command(folder: Path, *arguments: str, log: str = "log.txt", **settings: Any) -> BaseProcess:
    """Call the command `structkd` in `folder`."""
    return start_program(folder, "-m", "structkd", *arguments, log=log, **settings)


def start_program(folder: Path, *arguments: str | Path, log: str = "log.txt", **settings: Any) -> BaseProcess:
    """Call Python in `folder`: `-m module` or a script, and its arguments."""
    return start(_program, [*map(str, arguments)], str(folder), log=folder / log, **settings)


def run_program(folder: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call Python in `folder` and wait for its end."""
    words = [*map(str, arguments)]
    with tempfile.TemporaryDirectory() as place:
        log, errors = Path(place, "log"), Path(place, "errors")
        process = start(_program, words, str(folder), log=log, errors=errors, **environment)
        wait(process)
        assert process.exitcode is not None
        return subprocess.CompletedProcess(words, process.exitcode, log.read_text(), errors.read_text())


def wait(*processes: BaseProcess, log: Path | None = None) -> None:
    """Wait for the end of all; after LIMIT seconds kill them and fail."""
    deadline = time.monotonic() + LIMIT
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    late = [process for process in processes if process.exitcode is None]
    for process in late:
        kill(process)
    if late:
        pytest.fail(f"{len(late)} processes had not ended after {LIMIT} s. " + (log.read_text() if log else ""))


def wait_until(happened: Callable[[], bool], process: BaseProcess, seconds: float = 0.005) -> None:
    """Return when something happened or the process ended."""
    deadline = time.monotonic() + LIMIT
    while process.is_alive() and not happened():
        if time.monotonic() > deadline:
            kill(process)
            pytest.fail(f"It did not happen within {LIMIT} s.")
        time.sleep(seconds)


def kill(process: BaseProcess) -> None:
    """Kill a process and all that it started (SIGKILL)."""
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError):  # it has no group yet, or has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _call(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    files: list[str | None],
    death: Death | None,
    environment: Mapping[str, str],
) -> None:
    assert "everything" in sys.modules, "the forkserver could not import it"
    os.setsid()
    os.environ.clear()  # the forkserver's
    os.environ.update(environment)
    for number, path in enumerate(files, start=1):
        if path is not None:
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    multiprocessing.set_start_method(None, force=True)  # data loaders start their processes as ever
    if death is not None:
        death.watch()
    # What it starts by subprocess is forked too.
    subprocess._fork_exec = _fork_exec  # type: ignore[attr-defined]
    _end(_status(function, *arguments))


def _status(function: Callable[..., Any], *arguments: Any) -> int:
    """Call a function; return the exit status of a program that ends as it does."""
    try:
        function(*arguments)
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException as error:
        sys.last_value = error  # lives as long as the interpreter, with all that its frames hold
        traceback.print_exc()
        return 1
    return 0


def _end(status: int) -> None:
    """End as an interpreter ends, but for the death of its objects, half a million one by one."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def end_with_all_objects(function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function, and end as an interpreter ends."""
    ctypes.pythonapi.Py_Exit(_status(function, *arguments))


def _program(arguments: list[str], folder: str) -> None:
    os.chdir(folder)
    while arguments[0] in ("-u", "-W"):
        del arguments[: 1 if arguments[0] == "-u" else 2]
    for path in reversed([path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]):
        sys.path.insert(0, path)
    if arguments[0] == "-m":
        sys.path.insert(0, folder)
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(arguments[0])))
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


_EXEC = subprocess._fork_exec  # type: ignore[attr-defined]


def _fork_exec(arguments: Any, *rest: Any) -> int:
    """In place of subprocess's: a Python program is forked off this process, which has imported what it needs."""
    words = [os.fsdecode(word) for word in arguments]
    if words[0] != sys.executable or words[1] == "-c":
        return int(_EXEC(arguments, *rest))
    _, _, _, cwd, environment, read, _, _, written, _, errors, _, done, _, new_session, *_ = rest
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.close(done)  # there is nothing that could fail to be executed
        for source, target in ((read, 0), (written, 1), (errors, 2)):
            if source != -1:
                os.dup2(source, target)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        if new_session:
            os.setsid()
        if environment is not None:
            os.environ.clear()
            os.environ.update(os.fsdecode(each).split("=", 1) for each in environment)
        _forget()
        if words[1:3] == ["-m", "submitit.local._local"]:
            # It opens its log in a folder that the process above makes next. An interpreter takes longer to start.
            deadline = time.monotonic() + LIMIT
            while not Path(words[3].replace("%j", str(os.getpid()))).is_dir() and time.monotonic() < deadline:
                time.sleep(0.005)
        status = _status(_program, words[1:], os.fsdecode(cwd) if cwd is not None else os.getcwd())
    finally:
        _end(status)
    raise AssertionError


def _forget() -> None:
    """Leave behind what the process that forked this one has set up."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    # Temporary folders belong to the process that made them, and would be removed at the end of this one.
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.detach()
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None
    logging.root.handlers.clear()
