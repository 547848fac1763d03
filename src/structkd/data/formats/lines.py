"""Lines of a text file, plain or compressed, and their words, with errors that name the file and the line."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import sys
import zlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from structkd.files import MOST_UNPACKED, most_unpacked
from structkd.spelling import no_such_file

_COMPRESSED: dict[bytes, tuple[str, Callable[[Path], Any]]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"BZh": ("bzip2", bz2.open),
    b"\xfd7zXZ\x00": ("xz", lzma.open),
}
#: Bytes of a line. A corpus has a sentence or a word a line; a file without line ends would fill the memory.
LONGEST_LINE = 2**21
#: Words of a sentence: a file without blank lines between sentences would be one.
_MOST_WORDS = 100_000
_MOST_SHARED = 50_000
_Value = TypeVar("_Value", bound=Hashable)
_REFUSED = {
    b"PK\x03\x04": ("a zip archive; unpack it", "unzip"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd; decompress it", "zstd -d"),
    b"7z\xbc\xaf": ("a 7z archive; unpack it", "7z x"),
    b"\x1f\x9d": ("compressed by compress; decompress it", "uncompress"),
    b"\xff\xfe": ("UTF-16; convert it", "iconv -f UTF-16 -t UTF-8"),
    b"\xfe\xff": ("UTF-16; convert it", "iconv -f UTF-16 -t UTF-8"),
}


def numbered_lines(
    path: str | PathLike[str], encoding: str = "utf-8", offer: str | None = None
) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its line end) of a text file, which is not empty.

    gzip, bzip2 and xz are recognized by the first bytes of the file, not by its name.

    Args:
        path: the file.
        encoding: the encoding of the file.
        offer: the caller's option for another encoding, as it is typed. The message about a wrong encoding names it.

    Raises:
        FileNotFoundError: there is no such file.
        LookupError: Python does not know the encoding.
        ValueError: the file cannot be read, is empty, is not in `encoding`, or is compressed and damaged, cut off or
            packed in another way.
    """
    number = 0
    for number, text in raw_lines(path, encoding, offer):
        stripped = text.rstrip("\r\n")
        if "\r" in stripped:
            raise ValueError(
                f"{path}, line {number}: A carriage return stands inside the line. If the line ends are those "
                "of old Macs, convert them: tr '\\r' '\\n'."
            )
        yield number, stripped
    if number == 0:
        raise ValueError(f"{path}: The file is empty.")


def raw_lines(
    path: str | PathLike[str], encoding: str = "utf-8", offer: str | None = None
) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line with its line end) of a text file, or of the standard input.

    Args:
        path: the file; ``-`` is the standard input, which is not decompressed.
        encoding, offer: see :func:`numbered_lines`.

    Raises:
        FileNotFoundError, LookupError, ValueError: see :func:`numbered_lines`; an empty file has no lines. A ValueError
            also for what is not a file (a pipe, a device), for a line of more than 2 MiB, and for a compressed file
            that grows to more than 50 times its size.
    """
    utf8 = codecs.lookup(encoding).name == "utf-8"
    number = 0
    packed, unpack = "", None
    from_input = str(path) == "-"
    name = "the standard input" if from_input else str(path)
    try:
        if not from_input:
            packed, unpack = _packing(Path(path), utf8)
        with _opened(path, from_input, unpack) as lines:
            unpacked, most = 0, float("inf")
            if unpack is not None:
                most = most_unpacked(Path(path).stat().st_size)
            while line := lines.readline(LONGEST_LINE + 1):
                number += 1
                unpacked += len(line)
                _check_sizes(name, number, len(line), unpacked, most)
                yield number, line.decode("utf-8-sig" if number == 1 and utf8 else encoding)
    except FileNotFoundError:
        raise FileNotFoundError(no_such_file(path)) from None
    except UnicodeDecodeError as error:
        wanted = "UTF-8" if utf8 else encoding
        remedy = f", or read it with another encoding, say {offer}" if offer else ""
        raise ValueError(
            f"{name}, line {number}: Not {wanted} ({error.reason}). Convert the file to UTF-8{remedy}."
        ) from error
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        if unpack is not None and (not isinstance(error, OSError) or error.errno is None):
            raise ValueError(
                f"{path}, line {number + 1}: The {packed} data are damaged or cut off ({error}). Fetch the file again."
            ) from error
        raise ValueError(f"{name}: The file cannot be read ({getattr(error, 'strerror', None) or error}).") from error


def _check_sizes(name: str, number: int, length: int, unpacked: int, most: float) -> None:
    if length > LONGEST_LINE:
        raise ValueError(
            f"{name}, line {number}: The line has more than {LONGEST_LINE:,} bytes. Expected a sentence or a word a "
            "line; break the line."
        )
    if unpacked > most:
        raise ValueError(
            f"{name}, line {number}: The file unpacks to more than {MOST_UNPACKED} times its size, as files "
            "do that are made to fill the memory. If you trust it, unpack it and give the unpacked file."
        )


def _packing(path: Path, utf8: bool) -> tuple[str, Callable[[Path], Any] | None]:
    """Return how a file is compressed, and the function that opens it; refuse other ways."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(
            f"{path} is a pipe or a device, which would be waited for, and not a file. Write its content to "
            "a file first."
        )
    with path.open("rb") as raw:
        magic = raw.read(6)
    for begin, (what, command) in _REFUSED.items():
        if magic.startswith(begin) and utf8:
            raise ValueError(f"{path}: The file is {what} first (`{command}`).")
    return next((each for begin, each in _COMPRESSED.items() if magic.startswith(begin)), ("", None))


def _opened(path: str | PathLike[str], from_input: bool, unpack: Callable[[Path], Any] | None) -> Any:
    if from_input:
        return nullcontext(sys.stdin.buffer)
    return Path(path).open("rb") if unpack is None else unpack(Path(path))


def split_words(line: str) -> list[str]:
    """Split a line at blanks and tabs, and at no other white space: ``10\\u00a0000`` is one word."""
    words = line.replace("\t", " ").split(" ")
    return [word for word in words if word] if "" in words else words


def sharing() -> Callable[[_Value], _Value]:
    """Return a function that gives equal values as one object: a corpus has few words and tags, many times each."""
    known: dict[Any, Any] = {}

    def shared(value: _Value) -> _Value:
        found: _Value = known.setdefault(value, value) if len(known) < _MOST_SHARED else known.get(value, value)
        return found

    return shared


def check_length(path: str | PathLike[str], rows: Sequence[tuple[int, Any]]) -> None:
    """Refuse a sentence to which no further word can be added; `rows` are (line number, line) of its words."""
    if len(rows) >= _MOST_WORDS:
        raise ValueError(
            f"{path}, line {rows[0][0]}: The sentence has more than {_MOST_WORDS:,} words. Expected a blank line "
            "between sentences; are they missing?"
        )


def line_of(path: str | PathLike[str], rows: Sequence[tuple[int, Any]], word: int) -> str:
    """Return where a word of a sentence stands; `rows` are (line number, line) of its words."""
    return f"{path}, line {rows[word][0]}"
