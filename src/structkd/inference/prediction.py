"""Files annotated by a trained model, as a stream."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from structkd.data import TagAnnotation, convert_tags
from structkd.files import check_output, replacing
from structkd.inference.formats import FORMATS, Item, lines_of, reader_of
from structkd.models import StructuredModel
from structkd.spelling import did_you_mean, no_such_file

__all__ = ["Progress", "predict_files"]

#: Schemes that tags can be written in.
_SCHEMES = ("BIO", "BIOES")
#: What writes a compressed file, by its suffix.
_COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
#: Characters that end a cell or a line, and halves of surrogate pairs, which no file in UTF-8 holds.
_UNWRITABLE = re.compile("[\t\n\r\ud800-\udfff]")


def predict_files(
    model: StructuredModel,
    files: Sequence[str],
    output: Path | None = None,
    *,
    given: str | None = None,
    wanted: str | None = None,
    token_column: int | None = None,
    scheme: str | None = None,
    scores: bool = False,
    batch_size: int = 32,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
) -> int:
    """Annotate files one after the other, in memory that does not grow with them.

    Args:
        model: a trained model.
        files: their paths; ``-`` is the standard input.
        output: the file to write, which is replaced when it is complete, or the one that a link leads to. A device or
            a pipe is written to directly. A file whose name ends in .gz, .bz2 or .xz is compressed. None writes to the
            standard output.
        given: name of the files' format; None goes by their suffixes.
        wanted: name of the format to write; None is the format that each file is read in.
        token_column: the column of the words of files in columns, from 0; None is the first one.
        scheme: the tag scheme to write, such as BIO; None is the model's.
        scores: whether to write exact marginals.
        batch_size: sentences in a batch.
        progress: told of every sentence.
        notice: told in a sentence if a file read as text looks like columns.

    Returns:
        The number of sentences.

    Raises:
        ValueError: for a scheme that the model's tags cannot be written in.
        FileNotFoundError, ValueError: for files that cannot be read, for words that the format to write cannot hold,
            and for an output that cannot be written or is one of the files; the output file stays as it was.
    """
    if output is not None:
        check_output(output, files)
    convert = _conversion(model, scheme, scores)
    missing = [file for file in files if file != "-" and not Path(file).exists()]
    if missing:
        raise FileNotFoundError(no_such_file(missing[0]))
    with _place(output) as temporary:
        out = _standard_output() if temporary is None else _opened(temporary)
        try:
            count = 0
            for file in files:
                source = reader_of(file, given, token_column)
                lines = lines_of(file, notice if source.name == "text" else None)
                pairs = _annotated(model, source.read(file, lines), scores, batch_size)
                target = FORMATS[wanted] if wanted else source
                for item, found in pairs:
                    if target.name != source.name:
                        _check_words(item.sentence.words, file, target.name)
                    out.write(target.write(item, convert(found), same=target.name == source.name))
                    count += 1
                    if progress is not None:
                        progress.add(len(item.sentence.words))
            return count
        finally:
            if temporary is not None:
                out.close()


@contextmanager
def _place(output: Path | None) -> Iterator[Path | None]:
    """Give the path to write to: a temporary one, which replaces a file in the end, or the device or pipe itself."""
    if output is None or (output.exists() and not output.is_file()):
        yield output
        return
    output = output.resolve()
    with replacing(output) as temporary:
        yield temporary
        if output.exists():
            shutil.copymode(output, temporary)


def _opened(path: Path) -> TextIO:
    """Open a file to write, compressed if its suffix says so."""
    opener: Callable[..., TextIO] = _COMPRESSED.get(path.suffix.lower(), open)
    return opener(path, "wt", encoding="utf-8", newline="")


def _check_words(words: Sequence[str], file: str, target: str) -> None:
    """Refuse words that a line of the format cannot hold; JSON lines hold all words."""
    if target == "jsonl":
        return
    for word in words:
        if not word or _UNWRITABLE.search(word):
            held = "is empty" if not word else "has a tab, a line break or a half of a surrogate pair"
            raise ValueError(
                f"{file}: The word {word!r:.60} {held}, which the format {target} cannot hold. Correct it, or leave "
                "--to out."
            )


def _standard_output() -> TextIO:
    # The command guards terminals against control characters; a program that reads the output gets the text as it is.
    stream: TextIO = getattr(sys.stdout, "for_data", sys.stdout)
    return stream


def _conversion(
    model: StructuredModel, scheme: str | None, scores: bool
) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Return the function that writes the tags of a result in another scheme."""
    if scheme is None:
        return lambda found: found
    own = model.annotation.scheme if isinstance(model.annotation, TagAnnotation) else None
    if own is None:
        raise ValueError(f"--scheme {scheme}: The model predicts no tags of spans. Leave --scheme out.")
    if scheme not in _SCHEMES:
        raise ValueError(
            f"--scheme {scheme}: Tags are written in {' or '.join(_SCHEMES)}.{did_you_mean(scheme, _SCHEMES)}"
        )
    if scheme == own:
        return lambda found: found
    if scores:
        raise ValueError(f"--scheme {scheme}: --scores are those of the model's tags, in {own}. Leave one of both out.")
    return lambda found: {**found, "tags": convert_tags(found["tags"], own, scheme) if found["tags"] else []}


def _annotated(
    model: StructuredModel, items: Iterable[Item], scores: bool, batch_size: int
) -> Iterator[tuple[Item, dict[str, Any]]]:
    """Yield items with their annotation; as many wait as the model takes sentences at a time."""
    waiting: deque[Item] = deque()
    for found in model.annotate_stream(_sentences(items, waiting), batch_size, scores):
        yield waiting.popleft(), found


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
