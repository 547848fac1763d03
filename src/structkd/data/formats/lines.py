"""Lines of a text file, plain or compressed, and their words, with errors that name the file and the line."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

_COMPRESSED: dict[bytes, tuple[str, Callable[[Path], Any]]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"BZh": ("bzip2", bz2.open),
    b"\xfd7zXZ\x00": ("xz", lzma.open),
}
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
    """Yield (line number from 1, line without its line end) of a text file.

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
    path = Path(path)
    utf8 = codecs.lookup(encoding).name == "utf-8"
    number = 0
    packed, unpack = "", None
    try:
        with path.open("rb") as raw:
            magic = raw.read(6)
        if not magic:
            raise ValueError(f"{path}: The file is empty.")
        for begin, (what, command) in _REFUSED.items():
            if magic.startswith(begin) and utf8:
                raise ValueError(f"{path}: The file is {what} first (`{command}`).")
        packed, unpack = next((each for begin, each in _COMPRESSED.items() if magic.startswith(begin)), ("", None))
        with path.open("rb") if unpack is None else unpack(path) as lines:
            for line in lines:
                number += 1
                text = line.decode("utf-8-sig" if number == 1 and utf8 else encoding).rstrip("\r\n")
                if "\r" in text:
                    raise ValueError(
                        f"{path}, line {number}: A carriage return stands inside the line. If the line ends are those "
                        "of old Macs, convert them: tr '\\r' '\\n'."
                    )
                yield number, text
    except FileNotFoundError:
        here = "" if Path(path).is_absolute() else f" (looked for in {Path.cwd()})"
        raise FileNotFoundError(f"{path}: No such file{here}.") from None
    except UnicodeDecodeError as error:
        name = "UTF-8" if utf8 else encoding
        remedy = f", or read it with another encoding, say {offer}" if offer else ""
        raise ValueError(
            f"{path}, line {number}: Not {name} ({error.reason}). Convert the file to UTF-8{remedy}."
        ) from error
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if unpack is not None and (not isinstance(error, OSError) or error.errno is None):
            raise ValueError(
                f"{path}, line {number + 1}: The {packed} data are damaged or cut off ({error}). Fetch the file again."
            ) from error
        raise ValueError(f"{path}: The file cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    if number == 0:
        raise ValueError(f"{path}: The file is empty.")


def split_words(line: str) -> list[str]:
    """Split a line at blanks and tabs, and at no other white space: ``10\\u00a0000`` is one word."""
    words = line.replace("\t", " ").split(" ")
    return [word for word in words if word] if "" in words else words


def line_of(path: str | PathLike[str], rows: Sequence[tuple[int, Any]], word: int) -> str:
    """Return where a word of a sentence stands; `rows` are (line number, line) of its words."""
    return f"{path}, line {rows[word][0]}"
