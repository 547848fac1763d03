"""Corpora of tagged sentences: from any reader, and from column files of one's own."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from structkd.data.annotation import TagAnnotation
from structkd.data.columns import TaggedSentence, read_columns
from structkd.data.corpus import Corpus, check_task, drop_repeated, dropped_note, sentence_splits
from structkd.data.tagging import convert_tags


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
) -> Corpus:
    """A corpus of tagged sentences, without those that a later split repeats.

    Args:
        name: of the corpus.
        splits: sentences of train, dev and test.
        annotation: the tags wanted; where it has a scheme, tags are converted to it.
        scheme: tag scheme of the sentences; None where the tags are no spans.
        task: what the annotation is, as ``entities``.
        licence, source, notes: see `Corpus`; to the notes is added how many sentences were dropped and tags repaired.

    Raises:
        ValueError: a tag that the inventory lacks or that is illegal in `scheme` (split and sentence named); see
            `Corpus`.
    """
    repaired = {split: sum(sentence.repaired for sentence in splits[split]) for split in splits}
    repaired_note = ""
    if any(repaired.values()):
        counts = ", ".join(f"{count} of {split}" for split, count in repaired.items())
        repaired_note = f"I tags that continue no span were read as B: {counts}."
    kept, dropped = drop_repeated(splits)

    def row(split: str, sentence: TaggedSentence) -> dict[str, Any]:
        try:
            tags: Sequence[str] = sentence.tags
            if scheme is not None and annotation.scheme not in (None, scheme):
                tags = convert_tags(tags, scheme, str(annotation.scheme))
            labels = [annotation.index[tag] for tag in tags]
        except KeyError as error:
            raise ValueError(
                f"{name}, {split}, sentence {sentence.id!r}: unknown label {error.args[0]!r}; the inventory is "
                f"{' '.join(annotation.labels)}"
            ) from None
        except ValueError as error:
            raise ValueError(f"{name}, {split}, sentence {sentence.id!r}: {error}") from None
        return {"id": sentence.id, "tokens": sentence.tokens, "labels": labels}

    return Corpus(
        name=name,
        task=task,
        splits=sentence_splits({split: [row(split, sentence) for sentence in kept[split]] for split in kept}),
        annotation=annotation,
        licence=licence,
        source=source,
        notes=" ".join(filter(None, [notes, repaired_note, dropped_note(dropped)])),
    )


def load_columns(
    train: str | PathLike[str],
    dev: str | PathLike[str],
    test: str | PathLike[str],
    *,
    task: str = "spans",
    types: Sequence[str] | None = None,
    scheme: str = "BIOES",
    file_scheme: str = "BIO",
    token_column: int = 0,
    tag_column: int = -1,
    widths: Sequence[int] | None = None,
    delimiter: str | None = None,
    comment: str | None = None,
    replace: Mapping[str, str] | None = None,
    repair: bool = False,
    encoding: str = "utf-8",
    name: str = "columns",
    licence: str = "not stated",
    source: str | None = None,
) -> Corpus:
    """A corpus of three column files of one's own.

    Args:
        train, dev, test: the files, plain or gzip; sentences that a later split repeats are dropped.
        task: "spans", tags that stand for flat typed spans; or "upos", tags taken as they are (parts of speech of any
            tag set).
        types: the span types (the tags, for "upos") in order; None: those of train, in alphabetical order.
        scheme: tag scheme wanted, "BIOES" or "BIO".
        file_scheme: tag scheme of the files, "BIO", "IOB1" or "BIOES".
        token_column, tag_column, widths, delimiter, comment, replace, repair, encoding: see `read_columns`. The
            defaults are those of CoNLL-2000 to 2003: blanks between columns, the word first, the tag last, no comments.
        name: of the corpus.
        licence: terms under which the text may be used.
        source: where the text comes from; None: the files.

    Raises:
        FileNotFoundError, ValueError: see `read_columns` and `Corpus`; a tag of dev or test that train lacks is named
            with file and line.
    """
    check_task(name, task, ("spans", "upos"))
    read = functools.partial(
        read_columns,
        token_column=token_column,
        tag_column=tag_column,
        widths=widths,
        delimiter=delimiter,
        comment=comment,
        scheme=file_scheme if task == "spans" else None,
        replace=replace,
        repair=repair,
        encoding=encoding,
    )
    sentences = {"train": read(train, types)}
    if types is None:
        tags = {tag for sentence in sentences["train"] for tag in sentence.tags}
        types = sorted({tag[2:] for tag in tags if tag != "O"} if task == "spans" else tags)
        if not types:
            raise ValueError(f"{train}: no span in any sentence; is {tag_column} the column of the tags?")
    annotation = TagAnnotation.of_spans(types, scheme) if task == "spans" else TagAnnotation(tuple(types))
    sentences |= {"dev": read(dev, types), "test": read(test, types)}
    return tagged_corpus(
        name,
        sentences,
        annotation,
        scheme=file_scheme if task == "spans" else None,
        task=task,
        licence=licence,
        source=source or ", ".join(str(path) for path in (train, dev, test)),
    )
