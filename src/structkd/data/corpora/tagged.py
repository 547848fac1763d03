"""Corpora of tagged sentences, from any reader or from column files."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from structkd.configurable import configurable
from structkd.data.annotation import TagAnnotation
from structkd.data.corpus import Corpus, check_task, drop_repeated, dropped_note, sentence_splits, with_drawn_splits
from structkd.data.formats.columns import TaggedSentence, read_columns
from structkd.data.formats.slips import changes_note, check_files, option
from structkd.data.formats.tag_schemes import FileScheme
from structkd.tags import convert_tags


def tagged_corpus(
    name: str,
    splits: Mapping[str, Sequence[TaggedSentence]],
    annotation: TagAnnotation,
    *,
    scheme: str | None,
    task: str,
    licence: str,
    source: str,
    notes: str = "",
    changes: Mapping[str, Counter[str]] | None = None,
) -> Corpus:
    """Return a corpus of tagged sentences, without those that a later split repeats.

    Args:
        name: of the corpus.
        splits: sentences of train, dev and test.
        annotation: the tags wanted; if it has a scheme, tags are converted to it.
        scheme: tag scheme of the sentences; None if the tags do not stand for spans.
        task: the kind of annotation, as ``entities``.
        licence, source, notes: see `Corpus`; the number of dropped sentences is added to the notes.
        changes: counts of the changes that the readers made to the splits, for the notes.

    Raises:
        ValueError: a tag that the inventory lacks or that is illegal in `scheme` (split and sentence named); see
            `Corpus`.
    """
    kept, dropped = drop_repeated(splits)

    def row(split: str, sentence: TaggedSentence) -> dict[str, Any]:
        try:
            tags: Sequence[str] = sentence.tags
            if scheme is not None and annotation.scheme not in (None, scheme):
                tags = convert_tags(tags, scheme, str(annotation.scheme))
            labels = [annotation.index[tag] for tag in tags]
        except KeyError as error:
            raise ValueError(
                f"{name}, {split}, sentence {sentence.id!r}: Unknown label {error.args[0]!r}; the inventory is "
                f"{' '.join(annotation.labels)}."
            ) from None
        except ValueError as error:
            raise ValueError(f"{name}, {split}, sentence {sentence.id!r}: {error}") from None
        return {"id": sentence.id, "tokens": sentence.tokens, "labels": labels}

    return Corpus(
        name=name,
        task=task,
        splits=sentence_splits({split: map(functools.partial(row, split), kept[split]) for split in kept}),
        annotation=annotation,
        licence=licence,
        source=source,
        notes=" ".join(filter(None, [notes, changes_note(changes or {}), dropped_note(dropped)])),
    )


@configurable
def load_columns(
    train: str | PathLike[str],
    dev: str | PathLike[str] | None = None,
    test: str | PathLike[str] | None = None,
    *,
    task: str = "spans",
    types: Sequence[str] | None = None,
    scheme: str = "BIOES",
    file_scheme: str = "BIO",
    separator: str = "-",
    token_column: int = 0,
    tag_column: int = -1,
    widths: Sequence[int] | None = None,
    delimiter: str | None = None,
    comment: str | None = None,
    replace: Mapping[str, str] | None = None,
    repair: bool = False,
    blank_words: str = "refuse",
    repeated_ids: str = "refuse",
    encoding: str = "utf-8",
    name: str = "columns",
    licence: str = "not stated",
    source: str | None = None,
) -> Corpus:
    """Load a corpus of column files.

    Args:
        train, dev, test: the files, plain or compressed; sentences that a later split repeats are dropped. A tenth of
            train is drawn for a split without a file, and the notes say so.
        task: "spans", tags that stand for flat typed spans; or "upos", tags taken as they are (parts of speech of any
            tag set).
        types: the span types (the tags, for "upos") in order; None: those of train, in alphabetical order.
        scheme: tag scheme wanted, "BIOES" or "BIO".
        file_scheme, separator: tag scheme of the files, as BIO, IOB1, BILOU or IO; the separator between the prefix
            and the type of a tag; see `FileScheme`.
        token_column, tag_column, widths, delimiter, comment, replace, repair, blank_words, repeated_ids, encoding: see
            `read_columns`. The defaults are those of CoNLL-2000 to 2003: blanks between columns, the word first, the
            tag last, no comments.
        name: of the corpus.
        licence: terms under which the text may be used.
        source: where the text comes from; None: the files.

    Raises:
        FileNotFoundError, ValueError: see `read_columns` and `Corpus`; a tag of dev or test that train lacks is named
            with file and line.
    """
    check_files({"train": train, "dev": dev, "test": test})
    check_task(name, task, ("spans", "upos"))
    spelling = FileScheme(file_scheme, separator) if task == "spans" else None
    changes: dict[str, Counter[str]] = {"train": Counter(), "dev": Counter(), "test": Counter()}
    read = functools.partial(
        read_columns,
        token_column=token_column,
        tag_column=tag_column,
        widths=widths,
        delimiter=delimiter,
        comment=comment,
        scheme=file_scheme if task == "spans" else None,
        separator=separator,
        replace=replace,
        repair=repair,
        blank_words=blank_words,
        repeated_ids=repeated_ids,
        encoding=encoding,
    )
    sentences = {"train": read(train, types, changes=changes["train"])}
    if types is None:
        tags = {tag for sentence in sentences["train"] for tag in sentence.tags}
        types = sorted({tag[2:] for tag in tags if tag != "O"} if task == "spans" else tags)
        if not types:
            raise ValueError(
                f"{train}: No span in any sentence; is {tag_column} the column of the tags? If not, name it: "
                f"{option('tag_column', 1)}."
            )
    annotation = TagAnnotation.of_spans(types, scheme) if task == "spans" else TagAnnotation(tuple(types))
    for split, path in (("dev", dev), ("test", test)):
        if path is not None:
            sentences[split] = read(path, types, changes=changes[split])
    sentences, note = with_drawn_splits(sentences)
    return tagged_corpus(
        name,
        sentences,
        annotation,
        scheme=spelling.scheme if spelling is not None else None,
        task=task,
        licence=licence,
        source=source or ", ".join(str(path) for path in (train, dev, test) if path is not None),
        notes=note,
        changes=changes,
    )
