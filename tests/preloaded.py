"""Processes that have everything imported when they start: a forkserver imports it once for all tests."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

MODULES = ["structkd.runs.distil", "structkd.commands.main", "structkd.training", "pytest"]


def start(function: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Call a function in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    process: BaseProcess = context.Process(target=function, args=arguments)
    process.start()
    return process


def start_command(folder: Path, *arguments: str, log: str = "log.txt", **environment: str) -> BaseProcess:
    """Call the command in `folder`, in a process and a process group of its own; what it prints is in `log`."""
    return start(_command, str(folder), log, arguments, {**os.environ, **environment})


def _command(folder: str, log: str, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    from structkd.commands.main import main

    os.setsid()
    os.environ.clear()  # the forkserver's
    os.environ.update(environment)
    os.chdir(folder)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    sys.argv = ["structkd", *arguments]
    main()
