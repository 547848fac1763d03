"""The command, called in this process."""

import sys

import pytest
from hydra.core.global_hydra import GlobalHydra

from structkd.commands.main import main


@pytest.fixture
def run(monkeypatch, tmp_path, capfd):
    """Call the command in this process, from an empty folder; returns (exit status, output, errors)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["structkd", *arguments])
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        GlobalHydra.instance().clear()
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STRUCTKD_WORK", raising=False)
    return call
