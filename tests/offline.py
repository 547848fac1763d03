"""No network, for as long as a test wants it: attempts are refused and told."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_EVENTS = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")
_watching: list[list[str]] = []
_installed: list[bool] = []


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse, as an audit hook of the interpreter, to reach hosts or to look them up, by sockets of any class."""
    if not _watching or event not in _EVENTS:
        return
    if isinstance(arguments[0], socket.SocketType) and arguments[0].family == socket.AF_UNIX:
        return
    _watching[-1].append(f"{event}{arguments!r:.200}")
    raise OSError(f"{event} is refused: this test has no network.")


@contextmanager
def no_network() -> Iterator[list[str]]:
    """Refuse all traffic but that of Unix sockets, in this process; gives the list of the attempts."""
    if not _installed:
        # A hook stays for as long as the interpreter does.
        sys.addaudithook(_refuse)
        _installed.append(True)
    attempts: list[str] = []
    _watching.append(attempts)
    try:
        yield attempts
    finally:
        _watching.remove(attempts)
