"""The command, called in the process of a test."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from structkd.commands.main import main


def caller(
    monkeypatch: pytest.MonkeyPatch, folder: Path, capfd: Any, *always: str
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that calls the command in `folder`; it returns (exit status, output, errors).

    The arguments `always` come before those of every call.
    """

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["structkd", *always, *arguments])
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        GlobalHydra.instance().clear()
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    monkeypatch.chdir(folder)
    monkeypatch.delenv("STRUCTKD_WORK", raising=False)
    return call
