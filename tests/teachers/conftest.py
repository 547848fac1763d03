"""Teachers that train nothing: small ones, and a run of the command with them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from structkd.commands.main import main

#: A student that is trained in a moment.
SMALL = (
    *("data=toy", "encoder@student.model.encoder=bilstm_tiny", "student.labelled=15", "student.unlabelled=40"),
    *("student.trainer.max_steps=2", "student.trainer.eval_steps=2", "~kd@baselines.none", "~kd@baselines.token"),
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any) -> Callable[..., tuple[int, str, str]]:
    """Call the command in this process, from an empty folder, on small data: (exit status, output, errors)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["structkd", *SMALL, *arguments])
        GlobalHydra.instance().clear()
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STRUCTKD_WORK", raising=False)
    return call
