"""The command, called in this process."""

import pytest
from called import caller


@pytest.fixture
def run(monkeypatch, tmp_path, capfd):
    """Call the command in this process, from an empty folder; returns (exit status, output, errors)."""
    return caller(monkeypatch, tmp_path, capfd)
