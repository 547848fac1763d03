"""Files annotated by a trained model, as a stream."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

from structkd.data import raw_lines
from structkd.files import check_output, replacing
from structkd.inference.formats import FORMATS, Item, reader_of
from structkd.models import StructuredModel

__all__ = ["Progress", "predict_files"]


def predict_files(
    model: StructuredModel,
    files: Sequence[str],
    output: Path | None = None,
    *,
    given: str | None = None,
    wanted: str | None = None,
    token_column: int | None = None,
    scores: bool = False,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> int:
    """Annotate files one after the other, in memory that does not grow with them.

    Args:
        model: a trained model.
        files: their paths; ``-`` is the standard input.
        output: the file to write, which is replaced when it is complete; None writes to the standard output.
        given: name of the files' format; None goes by their suffixes.
        wanted: name of the format to write; None is the format that each file is read in.
        token_column: the column of the words of files in columns, from 0; None is the first one.
        scores: whether to write exact marginals.
        batch_size: sentences in a batch.
        progress: told of every sentence.

    Returns:
        The number of sentences.

    Raises:
        FileNotFoundError, ValueError: for files that cannot be read, and for an output that cannot be written or is one
            of the files; the output file stays as it was.
    """
    if output is not None:
        check_output(output, files)
    missing = [file for file in files if file != "-" and not Path(file).exists()]
    if missing:
        here = "" if Path(missing[0]).is_absolute() else f" (looked for in {Path.cwd()})"
        raise FileNotFoundError(f"{missing[0]}: No such file{here}.")
    place = nullcontext(None) if output is None else replacing(output)
    with place as temporary:
        out = _standard_output() if temporary is None else temporary.open("w", encoding="utf-8", newline="")
        try:
            return _predict(model, files, out, given, wanted, token_column, scores, batch_size, progress)
        finally:
            if temporary is not None:
                out.close()


def _standard_output() -> TextIO:
    # The command guards terminals against control characters; a program that reads the output gets the text as it is.
    stream: TextIO = getattr(sys.stdout, "for_data", sys.stdout)
    return stream


def _predict(
    model: StructuredModel,
    files: Sequence[str],
    out: TextIO,
    given: str | None,
    wanted: str | None,
    token_column: int | None,
    scores: bool,
    batch_size: int,
    progress: Progress | None,
) -> int:
    count = 0
    for file in files:
        source = reader_of(file, given, token_column)
        target = FORMATS[wanted] if wanted else source
        # As many items wait here as the model takes sentences at a time.
        waiting: deque[Item] = deque()
        sentences = _sentences(source.read(file, raw_lines(file)), waiting)
        for found in model.annotate_stream(sentences, batch_size, scores):
            item = waiting.popleft()
            out.write(target.write(item, found, same=target.name == source.name))
            count += 1
            if progress is not None:
                progress.add(len(item.sentence.words))
    return count


def _sentences(items: Iterable[Item], waiting: deque[Item]) -> Iterator[Any]:
    for item in items:
        waiting.append(item)
        yield item.sentence


class Progress:
    """Tells a stream how many sentences are done: now and then on a terminal, and at the end.

    Args:
        stream: to write to.
        every: seconds between two lines on a terminal.
    """

    def __init__(self, stream: TextIO, every: float = 0.5) -> None:
        self.stream, self.every = stream, every
        self.sentences = self.words = 0
        self.begun = self.told = time.monotonic()

    def add(self, words: int) -> None:
        """Count a sentence of so many words."""
        self.sentences += 1
        self.words += words
        now = time.monotonic()
        if now - self.told >= self.every and self.stream.isatty():
            self.told = now
            self.stream.write(f"\r{self._line()}")
            self.stream.flush()

    def end(self) -> None:
        """Tell the last numbers."""
        self.stream.write(f"\r{self._line()}\n" if self.stream.isatty() else f"{self._line()}\n")
        self.stream.flush()

    def _line(self) -> str:
        seconds = max(time.monotonic() - self.begun, 1e-9)
        return (
            f"{self.sentences:,} sentences, {self.words:,} words in {seconds:,.1f} s "
            f"({self.words / seconds:,.0f} words/s)"
        )
