"""Teachers that train nothing: small ones, and a run of the command with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from called import caller

#: A student that is trained in a moment.
SMALL = (
    *("data=toy", "encoder@student.model.encoder=bilstm_tiny", "student.labelled=15", "student.unlabelled=40"),
    *("student.trainer.max_steps=2", "student.trainer.eval_steps=2", "~kd@baselines.none", "~kd@baselines.token"),
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any) -> Callable[..., tuple[int, str, str]]:
    """Call the command in this process, from an empty folder, on small data: (exit status, output, errors)."""
    return caller(monkeypatch, tmp_path, capfd, *SMALL)
