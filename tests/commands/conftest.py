"""The command, called in this process."""

import socket

import huggingface_hub.constants
import pytest
from called import caller
from offline import no_network


@pytest.fixture
def run(monkeypatch, tmp_path, capfd):
    """Call the command in this process, from an empty folder; returns (exit status, output, errors)."""
    return caller(monkeypatch, tmp_path, capfd)


@pytest.fixture
def offline(monkeypatch):
    """Let a test pass only if this process tries to reach no host, with the hub's libraries in their defaults."""
    for constant in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setattr(huggingface_hub.constants, constant, False)
    with no_network() as attempts:
        with pytest.raises(OSError, match="this test has no network"):
            socket.create_connection(("127.0.0.1", 9))
        with socket.socket() as own, pytest.raises(OSError, match="this test has no network"):
            own.connect_ex(("127.0.0.1", 9))
        assert len(attempts) == 2
        yield
        assert attempts[2:] == []
