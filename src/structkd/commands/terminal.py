"""Output that does nothing to a terminal: names, labels and messages may come from files of anybody.

A control character of a text is printed as an escape, ``\\x1b`` for the one that begins a terminal's commands. Records
of a run get the same treatment, and paths in them are relative to the current folder or to the home folder.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from structkd.files import write_text
from structkd.harmless import printable, without_folders, without_places

__all__ = ["guard_log", "guard_process", "guarded_output", "hide_folders", "print_traceback"]

#: Progress bars return to the begin of a line and move up; they write nothing else in the same breath.
_MOVES = re.compile(r"(?:\n|\r|\x1b\[A)*")


class _Guarded:
    """A text stream that writes control characters as escapes; whatever else is asked of it, the stream does.

    Args:
        stream: written to.
        has_bars: progress bars may move the cursor there.
    """

    def __init__(self, stream: TextIO, has_bars: bool = False) -> None:
        self._stream, self._has_bars = stream, has_bars

    def write(self, text: str) -> int:
        if not text.isprintable():
            # A return inside of a text would let a name write over the line that it stands in.
            found = _MOVES.match(text) if self._has_bars else None
            begin = found[0] if found else ""
            moves = begin if begin == text else begin[: len(begin) - len(begin.lstrip("\r"))]
            text = moves + printable(text[len(moves) :])
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
    """Guard the standard output and the standard error, and the handlers of logging that write there."""
    before = sys.stdout, sys.stderr
    guarded = guard_process()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for handler, stream in guarded:
            handler.setStream(stream)


def guard_process() -> list[tuple[logging.StreamHandler[Any], Any]]:
    """Guard both streams for good, as in a process that a launcher started; return the handlers that were changed."""
    if isinstance(sys.stderr, _Guarded):
        return []
    streams = {id(sys.stdout): _Guarded(sys.stdout), id(sys.stderr): _Guarded(sys.stderr, has_bars=True)}
    sys.stdout, sys.stderr = streams[id(sys.stdout)], streams[id(sys.stderr)]
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = dict.fromkeys(handler for logger in loggers for handler in getattr(logger, "handlers", ()))
    changed = []
    for handler in handlers:
        # Libraries made theirs when they were loaded, with the streams of that time.
        if isinstance(handler, logging.StreamHandler) and id(handler.stream) in streams:
            changed.append((handler, handler.stream))
            handler.setStream(streams[id(handler.stream)])
    return changed


def print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an exception as the interpreter does (``sys.excepthook``), with its control characters as escapes."""
    print(printable("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


class _Formatter(logging.Formatter):
    """Formats as another formatter does, and makes the result harmless.

    A terminal shows where files are; a file is a record, which may be published.
    """

    def __init__(self, inner: logging.Formatter, shorten: Callable[[str], str]) -> None:
        super().__init__()
        self._inner, self._shorten = inner, shorten

    def format(self, record: logging.LogRecord) -> str:
        return printable(self._shorten(self._inner.format(record)))


def guard_log() -> None:
    """Let the handlers of the log print control characters as escapes, and paths without folders of the user."""
    for handler in logging.getLogger().handlers:
        if not isinstance(handler.formatter, _Formatter):
            shorten = without_places if isinstance(handler, logging.FileHandler) else without_folders
            handler.setFormatter(_Formatter(handler.formatter or logging.Formatter(), shorten))


def hide_folders(path: Path) -> None:
    """Rewrite a record of text that Hydra made, without absolute paths; leave it if that is impossible."""
    with contextlib.suppress(OSError, ValueError):
        text = path.read_text(encoding="utf-8")
        short = without_places(text)
        if short != text:
            write_text(path, short)
