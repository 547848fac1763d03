"""Mutated inputs for every reader of files: an answer, or an error with a message of its own, and never a hang.

The seeds are the files in seeds/, by reader. ``--engine atheris`` mutates by coverage if the package is installed.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cases import Case, Outcome

from structkd.data.formats.columns import read_columns
from structkd.data.formats.conllu import read_conllu
from structkd.files import read_json, read_manifest
from structkd.inference.formats import FORMATS
from structkd.models import Vocabulary
from structkd.models.loading import check_files
from structkd.models.vectors import read_vectors
from structkd.records import (
    Failure,
    RunMetrics,
    RunRecord,
    ScoreFile,
    StoreManifest,
    SweepRecord,
    Timing,
    TrainingConfig,
    TrainingMetrics,
)
from structkd.teachers.annotations import read_answers

__all__ = ["READERS", "cases", "try_reader"]

SEEDS = Path(__file__).with_name("seeds")
#: Seconds that one small input may take.
_LIMIT = 5
#: Letters of a message beyond those of the input, which it may quote.
_LONGEST = 5_000
_INTERESTING = [
    *(b"", b"\0", b"\t", b"\n", b"\n\n", b"\r", b"\r\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xc3", b" "),
    *(b"-1", b"0", b"1.5", b"1e999", b"NaN", b"Infinity", b"null", b"true", b"{}", b"[]", b"[" * 500, b"9" * 5000),
    *(b"_", b"#", b":", b",", b"\\", b'"', b"B-", b"I-PER", b"../x", b"/etc/passwd", b"\xe2\x80\xae", b"\x1b[2J"),
]


def _exhaust(values: Any) -> None:
    for _ in values:
        pass


def _of_format(name: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        from structkd.data.formats.lines import raw_lines

        _exhaust(FORMATS[name].read(str(path), raw_lines(str(path))))

    return read


def _folder(name: str, use: Callable[[Path], object]) -> Callable[[Path], None]:
    """A reader of a folder whose file of this name is mutated."""

    def read(path: Path) -> None:
        (path.parent / name).write_bytes(path.read_bytes())
        use(path.parent)

    return read


#: The readers of files, by the names of their seeds.
READERS: dict[str, Callable[[Path], object]] = {
    "columns": lambda path: read_columns(path, None),
    "conllu": read_conllu,
    "vectors": lambda path: read_vectors(path, {"house", "a"}, most_frequent=1),
    "answers-spans": lambda path: read_answers(path, "spans"),
    "answers-trees": lambda path: read_answers(path, "trees"),
    **{f"predict-{name}": _of_format(name) for name in FORMATS},
    "json": read_json,
    "manifest": _folder("manifest.json", read_manifest),
    "structkd": _folder("structkd.json", check_files),
    "vocabulary": _folder("vocabulary.json", Vocabulary.from_pretrained),
    "training-config": TrainingConfig.read,
    "training-metrics": TrainingMetrics.read,
    "timing": Timing.read,
    "run-metrics": RunMetrics.read,
    "run-record": RunRecord.read,
    "failure": Failure.read,
    "sweep-record": SweepRecord.read,
    "store-manifest": StoreManifest.read,
    "store-file": ScoreFile.read,
}


class _TooLong(BaseException):
    pass


def mutated(seed: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """Return a mutation of a seed."""
    content = bytearray(seed)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        place = draw.randrange(len(content) + 1)
        way = draw.randrange(8)
        end = min(len(content), place + draw.choice((1, 1, 2, 5, 20, 200)))
        if way == 0 and content:
            content[min(place, len(content) - 1)] ^= 1 << draw.randrange(8)
        elif way == 1:
            content[place:place] = draw.choice(_INTERESTING)
        elif way == 2:
            content[place:end] = draw.choice(_INTERESTING)
        elif way == 3:
            del content[place:end]
        elif way == 4:
            content[place:place] = content[place:end] * draw.choice((1, 2, 30))
        elif way == 5:
            del content[place:]
        elif way == 6:
            other = draw.choice(others)
            begin = draw.randrange(len(other) + 1)
            content[place:end] = other[begin : begin + 50]
        else:
            content[place:end] = bytes(draw.randrange(256) for _ in range(end - place))
    return bytes(content[:20_000])


def try_reader(read: Callable[[Path], object], path: Path, content: bytes) -> Outcome:
    """Give a reader one input."""
    path.write_bytes(content)
    signal.setitimer(signal.ITIMER_REAL, _LIMIT)
    try:
        read(path)
    except (ValueError, TypeError, FileNotFoundError, NotImplementedError) as error:
        foreign = not (type(error).__module__ == "builtins" or type(error).__module__.startswith("structkd"))
        if (
            foreign
            or isinstance(error, UnicodeError)
            or len(str(error)) > _LONGEST + 2 * len(content)
            or not str(error)
        ):
            return Outcome("unclear", f"{error!r:.300} for {content!r:.300}")
    except _TooLong:
        return Outcome("hung", f"{content!r:.300}")
    except Exception as error:  # everything else is what this part looks for
        return Outcome("unclear", f"{error!r:.300} for {content!r:.300}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return Outcome("noticed")


def cases(place: Path, size: float) -> Iterator[Case]:
    """Yield a case for every reader and thousand of inputs; ``size`` 1 is about a million inputs in all."""
    portions = max(1, math.ceil(1_000_000 * size / 1000 / len(READERS)))
    for name in READERS:
        for portion in range(portions):
            yield Case(
                f"fuzzed: {name}", f"thousand {portion}", lambda name=name, portion=portion: _tries(name, portion)
            )


def _tries(name: str, portion: int, count: int = 1000) -> Iterator[Outcome]:
    draw = random.Random(f"{name} {portion}")
    seeds = [path.read_bytes() for path in sorted((SEEDS / name).iterdir())]
    others = [path.read_bytes() for path in sorted(SEEDS.rglob("*")) if path.is_file()]

    def too_long(number: int, frame: Any) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, too_long)
    logging.disable(logging.CRITICAL)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            path = Path(folder) / "input"
            for _ in range(count):
                yield try_reader(READERS[name], path, mutated(draw.choice(seeds), others, draw))
    finally:
        signal.signal(signal.SIGALRM, before)
        logging.disable(logging.NOTSET)


def by_coverage(name: str, runs: int) -> None:
    """Fuzz one reader by atheris in this process, which ends with it."""
    import atheris

    path = Path(tempfile.mkdtemp()) / "input"

    def one(content: bytes) -> None:
        outcome = try_reader(READERS[name], path, content)
        if not outcome.good:
            raise AssertionError(outcome.detail)

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-runs={runs}", "-max_len=4000", str(SEEDS / name)], one)
    begun = time.perf_counter()
    print(f"{name}: {runs} inputs from {begun:.0f}")
    atheris.Fuzz()
