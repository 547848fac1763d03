"""What a treebank is used for: base phrases, parts of speech or dependency trees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from structkd.data.annotation import Annotation, TagAnnotation, TreeAnnotation
from structkd.data.base_phrases import BASE_PHRASE_TYPES, base_phrases
from structkd.data.conllu import UNIVERSAL_RELATIONS, UPOS, DependencySentence, read_conllu
from structkd.data.corpus import Corpus, check_task, drop_repeated, dropped_note, sentence_splits
from structkd.data.tagging import tag_spans

TREEBANK_TASKS: dict[str, str] = {"spans": "base_phrases", "upos": "upos", "dependencies": "dependencies"}
"""What a loader calls the tasks of a treebank, and what their corpora call them."""


def treebank_annotation(name: str, task: str, scheme: str = "BIOES") -> Annotation:
    """The annotation of a Universal Dependencies treebank for one task.

    Args:
        name: of the treebank, for messages.
        task: "spans", base phrases by the rule of `structkd.data.base_phrases`; "upos", the universal part of speech
            of every word; "dependencies", trees with the universal relations (no subtypes).
        scheme: tag scheme of the spans, "BIOES" or "BIO"; of no effect for the other two.

    Raises:
        ValueError: unknown task or scheme.
    """
    check_task(name, task, TREEBANK_TASKS)
    if task == "dependencies":
        return TreeAnnotation(UNIVERSAL_RELATIONS)
    return TagAnnotation(UPOS) if task == "upos" else TagAnnotation.of_spans(BASE_PHRASE_TYPES, scheme)


def read_treebank(
    path: str | PathLike[str],
    annotation: Annotation,
    *,
    subtypes: bool = False,
    replace: Mapping[str, str] | None = None,
) -> list[DependencySentence]:
    """Read of a CoNLL-U file what an annotation needs.

    Args:
        path: the file, plain or gzip.
        annotation: trees need heads and relations, spans too, parts of speech do not.
        subtypes: whether the relations of a tree keep their subtypes.
        replace: relations of the file to read as other relations.

    Raises:
        FileNotFoundError, ValueError: see `read_conllu`; for trees also a relation that the inventory lacks.
    """
    if isinstance(annotation, TreeAnnotation):
        return read_conllu(
            path,
            multiroot=annotation.multiroot,
            subtypes=subtypes,
            relations=annotation.relations,
            replace=replace,
        )
    spans = isinstance(annotation, TagAnnotation) and annotation.scheme is not None
    return read_conllu(path, heads=spans, replace=replace)


def treebank_corpus(
    name: str,
    splits: Mapping[str, Sequence[DependencySentence]],
    annotation: Annotation,
    *,
    licence: str,
    source: str,
    notes: str = "",
) -> Corpus:
    """A corpus of the sentences of a treebank, without those that a later split repeats.

    Args:
        name: of the corpus.
        splits: sentences of train, dev and test.
        annotation: what to make of them: trees (with the parts of speech as a further column ``upos``); spans, by the
            rule for base phrases; other tags, the parts of speech.
        licence, source, notes: see `Corpus`; to the notes is added how many sentences were dropped.

    Raises:
        ValueError: see `Corpus`.
    """
    kept, dropped = drop_repeated(splits)
    tree = isinstance(annotation, TreeAnnotation)
    spans = isinstance(annotation, TagAnnotation) and annotation.scheme is not None
    columns = [*annotation.columns, *(["upos"] if tree else [])]
    return Corpus(
        name=name,
        task=TREEBANK_TASKS["dependencies" if tree else "spans" if spans else "upos"],
        splits=sentence_splits(
            {split: [_row(sentence, annotation) for sentence in kept[split]] for split in kept}, columns
        ),
        annotation=annotation,
        licence=licence,
        source=source,
        notes=f"{notes} {dropped_note(dropped)}".strip(),
    )


def load_conllu(
    train: str | PathLike[str],
    dev: str | PathLike[str],
    test: str | PathLike[str],
    *,
    task: str = "dependencies",
    scheme: str = "BIOES",
    relations: Sequence[str] | None = UNIVERSAL_RELATIONS,
    subtypes: bool = False,
    multiroot: bool = False,
    replace: Mapping[str, str] | None = None,
    name: str = "conllu",
    licence: str = "not stated",
    source: str | None = None,
) -> Corpus:
    """A corpus of three CoNLL-U files, as those of any treebank of Universal Dependencies.

    Args:
        train, dev, test: the files, plain or gzip; sentences that a later split repeats are dropped.
        task, scheme: see `treebank_annotation`.
        relations: relations of the trees, in order; None: those of train, in alphabetical order.
        subtypes: whether the relations keep their subtypes (``aux:pass``); then give `relations`, or None.
        multiroot: whether a tree may have several roots.
        replace: relations of the files to read as other relations.
        name: of the corpus.
        licence: terms under which the text may be used.
        source: where the text comes from; None: the files.

    Raises:
        FileNotFoundError, ValueError: see `read_conllu` and `Corpus`; a relation of dev or test that the inventory
            lacks is named with file and line.
    """
    annotation = treebank_annotation(name, task, scheme)
    sentences = {}
    if isinstance(annotation, TreeAnnotation):
        if relations is None:
            sentences["train"] = read_conllu(train, multiroot=multiroot, subtypes=subtypes, replace=replace)
            relations = sorted({relation for sentence in sentences["train"] for relation in sentence.relations or ()})
        annotation = TreeAnnotation(tuple(relations), multiroot)
    for split, path in (("train", train), ("dev", dev), ("test", test)):
        if split not in sentences:
            sentences[split] = read_treebank(path, annotation, subtypes=subtypes, replace=replace)
    return treebank_corpus(
        name,
        sentences,
        annotation,
        licence=licence,
        source=source or ", ".join(str(path) for path in (train, dev, test)),
    )


def _row(sentence: DependencySentence, annotation: Annotation) -> dict[str, Any]:
    row: dict[str, Any] = {"id": sentence.id, "tokens": sentence.tokens}
    heads, relations = sentence.heads or (), sentence.relations or ()
    if isinstance(annotation, TreeAnnotation):
        return row | {
            "heads": heads,
            "relations": [annotation.index[relation] for relation in relations],
            "upos": sentence.upos,
        }
    if not isinstance(annotation, TagAnnotation):
        raise NotImplementedError(f"a treebank has no annotation {type(annotation).__name__}")
    tags: Sequence[str] = sentence.upos
    if annotation.scheme is not None:
        tags = tag_spans(base_phrases(sentence.upos, heads, relations), len(sentence.tokens), annotation.scheme)
    return row | {"labels": [annotation.index[tag] for tag in tags]}
