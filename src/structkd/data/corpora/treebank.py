"""Corpora of treebanks: base phrases, parts of speech or dependency trees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from typing import Any

from structkd.configurable import configurable
from structkd.data.annotation import Annotation, TagAnnotation, TreeAnnotation
from structkd.data.base_phrases import BASE_PHRASE_TYPES, base_phrases
from structkd.data.corpus import Corpus, check_task, drop_repeated, dropped_note, sentence_splits, with_drawn_splits
from structkd.data.formats.conllu import (
    TREE_OPTIONS,
    UNIVERSAL_RELATIONS,
    UPOS,
    DependencySentence,
    RelationRule,
    has_upos,
    read_conllu,
)
from structkd.data.formats.slips import changes_note, check_files
from structkd.tags import tag_spans

TREEBANK_TASKS: dict[str, str] = {"spans": "base_phrases", "upos": "upos", "dependencies": "dependencies"}
"""The tasks of a treebank by the names that loaders take, with the names that corpora give them."""


def treebank_annotation(name: str, task: str, scheme: str = "BIOES", multiroot: bool = False) -> Annotation:
    """Return the annotation of a Universal Dependencies treebank for one task.

    Args:
        name: of the treebank, for messages.
        task: "spans", base phrases by the rule of `structkd.data.base_phrases`; "upos", the universal part of speech
            of every word; "dependencies", trees with the universal relations (no subtypes).
        scheme: tag scheme of the spans, "BIOES" or "BIO"; of no effect for the other two.
        multiroot: whether a tree may have several roots.

    Raises:
        ValueError: unknown task or scheme.
    """
    check_task(name, task, TREEBANK_TASKS)
    if task == "dependencies":
        return TreeAnnotation(UNIVERSAL_RELATIONS, multiroot)
    return TagAnnotation(UPOS) if task == "upos" else TagAnnotation.of_spans(BASE_PHRASE_TYPES, scheme)


def relation_rule(
    relations: Sequence[str] | str | None,
    subtypes: bool,
    replace: Mapping[str, str] | None = None,
    offers: Collection[str] = TREE_OPTIONS,
) -> RelationRule:
    """Return the rule by which the relations of a treebank are read.

    Args:
        relations: "universal", the 37 universal relations, and with `subtypes` those of their subtypes that the files
            have; the relations that may occur; or None, those of the files.
        subtypes: whether the relations keep their subtypes (``aux:pass``).
        replace: relations of the files to read as other relations.
        offers: the options that messages may offer, by name.

    Raises:
        ValueError: another word than "universal".
    """
    if relations == "universal":
        return RelationRule(UNIVERSAL_RELATIONS, subtypes, replace or {}, subtypes, offers)
    if isinstance(relations, str):
        raise ValueError(f"relations={relations!r}: Expected universal, a list of relations, or null for the files'.")
    return RelationRule(None if relations is None else tuple(relations), subtypes, replace or {}, offers=offers)


def read_treebank(
    path: str | PathLike[str],
    annotation: Annotation,
    *,
    rule: RelationRule | None = None,
    multiroot: bool = False,
    blank_words: str = "refuse",
    repeated_ids: str = "refuse",
    changes: Counter[str] | None = None,
) -> Sequence[DependencySentence]:
    """Read the columns of a CoNLL-U file that an annotation needs.

    Args:
        path: the file, plain or compressed.
        annotation: trees need heads and relations, base phrases these and universal parts of speech, parts of speech
            only themselves.
        rule: how the relations of trees are read; None: the universal ones, without subtypes. Base phrases are read
            off the relations as they are, after its `replace`.
        multiroot: whether a sentence may have several roots.
        blank_words, repeated_ids, changes: see `read_conllu`.

    Raises:
        FileNotFoundError, ValueError: see `read_conllu`; for trees also a relation that the inventory lacks.
    """
    rule = rule or relation_rule("universal", False, offers=())
    trees = isinstance(annotation, TreeAnnotation)
    spans = isinstance(annotation, TagAnnotation) and annotation.scheme is not None
    return read_conllu(
        path,
        heads=trees or spans,
        upos=not trees,
        multiroot=multiroot,
        rule=rule if trees else RelationRule(replace=rule.replace, offers=rule.offers),
        blank_words=blank_words,
        repeated_ids=repeated_ids,
        changes=changes,
    )


def treebank_corpus(
    name: str,
    splits: Mapping[str, Sequence[DependencySentence]],
    annotation: Annotation,
    *,
    licence: str,
    source: str,
    notes: str = "",
    rule: RelationRule | None = None,
    changes: Mapping[str, Counter[str]] | None = None,
) -> Corpus:
    """Return a corpus of the sentences of a treebank, without those that a later split repeats.

    Args:
        name: of the corpus.
        splits: sentences of train, dev and test.
        annotation: the target: trees (with the parts of speech, if every word has one, as a further column
            ``upos``); spans, by the rule for base phrases; other tags, the parts of speech.
        licence, source, notes: see `Corpus`; the number of dropped sentences is added to the notes.
        rule: the rule by which relations were read; if it leaves the inventory open, the trees have the relations
            of all splits, in alphabetical order, and the notes name those that train lacks.
        changes: counts of the changes that the readers made to the splits, for the notes.

    Raises:
        ValueError: see `Corpus`.
    """
    tree = isinstance(annotation, TreeAnnotation)
    spans = isinstance(annotation, TagAnnotation) and annotation.scheme is not None
    lines = [notes, changes_note(changes or {})]
    if isinstance(annotation, TreeAnnotation) and rule is not None and (rule.known is None or rule.open):
        found = {split: Counter(r for s in splits[split] for r in s.relations or ()) for split in splits}
        annotation = TreeAnnotation(tuple(sorted(set().union(*found.values()))), annotation.multiroot)
        lines += [
            f"Relations of {split} that train lacks: "
            + ", ".join(f"{relation} ({found[split][relation]})" for relation in sorted(missing))
            + "."
            for split in ("dev", "test")
            if (missing := found[split].keys() - found["train"].keys())
        ]
    upos = tree and all(has_upos(sentences) for sentences in splits.values())
    if tree and not upos:
        lines.append("Not every word has a part of speech, so there is no column upos.")
    kept, dropped = drop_repeated(splits)
    columns = [*annotation.columns, *(["upos"] if upos else [])]
    return Corpus(
        name=name,
        task=TREEBANK_TASKS["dependencies" if tree else "spans" if spans else "upos"],
        splits=sentence_splits(
            {split: (_row(sentence, annotation) for sentence in kept[split]) for split in kept}, columns
        ),
        annotation=annotation,
        licence=licence,
        source=source,
        notes=" ".join(filter(None, [*lines, dropped_note(dropped)])),
    )


@configurable
def load_conllu(
    train: str | PathLike[str],
    dev: str | PathLike[str] | None = None,
    test: str | PathLike[str] | None = None,
    *,
    task: str = "dependencies",
    scheme: str = "BIOES",
    relations: Sequence[str] | str | None = "universal",
    subtypes: bool = False,
    multiroot: bool = False,
    replace: Mapping[str, str] | None = None,
    blank_words: str = "refuse",
    repeated_ids: str = "refuse",
    name: str = "conllu",
    licence: str = "not stated",
    source: str | None = None,
) -> Corpus:
    """Load a corpus of CoNLL-U files, as of any treebank of Universal Dependencies, or of CoNLL-X files.

    Parts of speech must be universal ones for the tasks "upos" and "spans" only.

    Args:
        train, dev, test: the files, plain or compressed; sentences that a later split repeats are dropped. A tenth of
            train is drawn for a split without a file, and the notes say so.
        task, scheme: see `treebank_annotation`.
        relations: relations of the trees: "universal"; a list, in order; or None, those of the files, in alphabetical
            order (CoNLL-X, other conversions).
        subtypes: whether the relations keep their subtypes (``aux:pass``); with "universal" those that the files have.
        multiroot: whether a tree may have several roots.
        replace: relations of the files to read as other relations.
        blank_words, repeated_ids: see `read_conllu`.
        name: of the corpus.
        licence: terms under which the text may be used.
        source: where the text comes from; None: the files.

    Raises:
        FileNotFoundError, ValueError: see `read_conllu` and `Corpus`; a relation that the inventory lacks is named with
            file and line.
    """
    check_files({"train": train, "dev": dev, "test": test})
    annotation = treebank_annotation(name, task, scheme, multiroot)
    rule = relation_rule(relations, subtypes, replace)
    files = {split: path for split, path in (("train", train), ("dev", dev), ("test", test)) if path is not None}
    changes: dict[str, Counter[str]] = {split: Counter() for split in ("train", "dev", "test")}
    sentences = {
        split: read_treebank(
            path,
            annotation,
            rule=rule,
            multiroot=multiroot,
            blank_words=blank_words,
            repeated_ids=repeated_ids,
            changes=changes[split],
        )
        for split, path in files.items()
    }
    if isinstance(annotation, TreeAnnotation) and rule.known is not None and not rule.open:
        annotation = TreeAnnotation(tuple(rule.known), multiroot)
    sentences, note = with_drawn_splits(sentences)
    return treebank_corpus(
        name,
        sentences,
        annotation,
        notes=note,
        licence=licence,
        source=source or ", ".join(map(str, files.values())),
        rule=rule,
        changes=changes,
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
        raise NotImplementedError(f"A treebank has no annotation {type(annotation).__name__}.")
    tags: Sequence[str] = sentence.upos
    if annotation.scheme is not None:
        tags = tag_spans(base_phrases(sentence.upos, heads, relations), len(sentence.tokens), annotation.scheme)
    return row | {"labels": [annotation.index[tag] for tag in tags]}
