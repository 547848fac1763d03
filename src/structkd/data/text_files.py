"""Lines of a text file, plain or gzip, with errors that name the file and the line."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

_GZIP_MAGIC = b"\x1f\x8b"


def numbered_lines(path: str | PathLike[str], encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its line end) of a text file.

    gzip is told by its first two bytes, not by the file's name.

    Raises:
        FileNotFoundError: there is no such file.
        LookupError: an encoding that Python does not know.
        ValueError: the file cannot be read, is empty, is not in `encoding`, or is gzip that is damaged or cut off.
    """
    path = Path(path)
    utf8 = codecs.lookup(encoding).name == "utf-8"
    number = 0
    try:
        with path.open("rb") as raw:
            magic = raw.read(2)
        if not magic:
            raise ValueError(f"{path}: the file is empty")
        with gzip.open(path) if magic == _GZIP_MAGIC else path.open("rb") as lines:
            for line in lines:
                number += 1
                text = line.decode("utf-8-sig" if number == 1 and utf8 else encoding)
                yield number, text.rstrip("\r\n")
    except FileNotFoundError:
        here = "" if Path(path).is_absolute() else f" (looked for in {Path.cwd()})"
        raise FileNotFoundError(f"{path}: no such file{here}") from None
    except UnicodeDecodeError as error:
        name = "UTF-8" if utf8 else encoding
        raise ValueError(f"{path}, line {number}: not {name} ({error.reason}); convert the file to UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path}, line {number + 1}: the gzip data are damaged or cut off ({error}); fetch the file again"
        ) from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
    if number == 0:
        raise ValueError(f"{path}: the file is empty")
