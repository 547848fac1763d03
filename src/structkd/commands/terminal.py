"""Output that does nothing to a terminal: names, labels and messages may come from files of anybody.

A control character of a text is printed as an escape, ``\\x1b`` for the one that begins a terminal's commands. Records
of a run get the same treatment, and paths in them are relative to the current folder or to the home folder.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from structkd.harmless import printable, without_folders

__all__ = ["guard_log", "guarded_output", "hide_folders"]

#: Progress bars return to the begin of a line and move up; they write nothing else in the same breath.
_MOVES = re.compile(r"(?:\n|\r|\x1b\[A)*")


class _Guarded:
    """A text stream that writes control characters as escapes; whatever else is asked of it, the stream does."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if not text.isprintable() and not _MOVES.fullmatch(text):
            text = "\r".join(map(printable, text.split("\r")))
        return self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    @property
    def for_data(self) -> TextIO:
        """The stream for results: as they are if a file or a program receives them, guarded on a terminal."""
        return self if self._stream.isatty() else self._stream  # type: ignore[return-value]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def guarded_output() -> Iterator[None]:
    """Guard the standard output and the standard error."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Guarded(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class _Formatter(logging.Formatter):
    """Formats as another formatter does, and makes the result harmless."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return printable(without_folders(self._inner.format(record)))


def guard_log() -> None:
    """Let the handlers of the log print control characters as escapes, and paths without folders of the user."""
    for handler in logging.getLogger().handlers:
        if not isinstance(handler.formatter, _Formatter):
            handler.setFormatter(_Formatter(handler.formatter or logging.Formatter()))


def hide_folders(path: Path) -> None:
    """Rewrite a record of text that Hydra made, without the folders of the user; leave it if that is impossible."""
    with contextlib.suppress(OSError, ValueError):
        text = path.read_text(encoding="utf-8")
        short = without_folders(text)
        if short != text:
            path.write_text(short, encoding="utf-8")
