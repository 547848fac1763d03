"""Data sets of the Hugging Face hub: columns of class labels, and treebanks in the form of ``universal_dependencies``.

`datasets` no longer runs loading scripts. If a data set consists of a script, the hub's own conversion of it to parquet
is read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structkd.configurable import configurable
from structkd.data.annotation import TagAnnotation, TreeAnnotation, tree_fault
from structkd.data.corpora.tagged import tagged_corpus
from structkd.data.corpora.treebank import relation_rule, treebank_annotation, treebank_corpus
from structkd.data.corpus import Corpus, check_task
from structkd.data.formats.columns import DOCUMENT_MARK, TaggedSentence, tag_hint
from structkd.data.formats.conllu import DependencySentence, RelationRule, root_hint, upos_fault
from structkd.data.formats.slips import BLANK_WORDS, check_option, option, without_blank_words
from structkd.data.formats.tag_schemes import FileScheme

if TYPE_CHECKING:
    from datasets import Dataset

HUB_SPLITS: dict[str, str] = {"train": "train", "dev": "validation", "test": "test"}
"""The names of the splits in most data sets of the hub."""

_PARQUET = "hf://datasets/{dataset}@~parquet/{config}/{split}/*.parquet"
HUB_OPTIONS: tuple[str, ...] = ("scheme", "separator", "replace", "repair", "blank_words")
"""The options of `hub_sentences` that its messages offer."""

#: owner/name, or the name alone of an old data set. datasets would take a folder or one of its own readers (json, csv).
_ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(?<!\.)")
_VERSION = re.compile(r"\w[\w .,+@=()-]*")
_NO_WORD = ("None", "_")


@configurable
def load_hub(
    dataset: str,
    config: str | None = None,
    *,
    task: str = "spans",
    scheme: str = "BIOES",
    hub_scheme: str = "BIO",
    separator: str = "-",
    token_column: str = "tokens",
    tag_column: str = "ner_tags",
    id_column: str | None = None,
    splits: Mapping[str, str] | None = None,
    revision: str | None = None,
    replace: Mapping[str, str] | None = None,
    repair: bool = False,
    blank_words: str = "refuse",
    name: str | None = None,
    licence: str = "see the data set's card on the hub",
) -> Corpus:
    """Load a data set of the hub in which every word has a class label, as ``conll2003`` and ``wikiann``.

    Args:
        dataset: the data set, as ``unimelb-nlp/wikiann``.
        config: its configuration, as ``pt``.
        task: "spans", labels that stand for flat typed spans; or "upos", labels taken as they are (parts of speech of
            any tag set).
        scheme: tag scheme wanted, "BIOES" or "BIO".
        hub_scheme, separator: tag scheme of the data set, as BIO, IOB1, BILOU or IO; the separator between the prefix
            and the type of a label; see `FileScheme`.
        token_column: the column of words (list of str).
        tag_column: the column of labels (list of ``ClassLabel``); its names are the inventory.
        id_column: the column of sentence ids; None: sentences are numbered.
        splits: the data set's names of train, dev and test; None: train, validation, test.
        revision: a commit, to fix the version that is loaded.
        replace: labels of the data set to read as other labels, before anything is checked.
        repair: read tags that are illegal in `hub_scheme` as the scorer of CoNLL-2000 does (an I that continues no span
            begins one), instead of refusing them.
        blank_words: treatment of a word that is empty or nothing but white space: "refuse" the data set, "skip" the
            sentence, or read the word as an "underscore". Sentences without words are left out, and counted in the
            notes.
        name: of the corpus; None: the last part of `dataset`, with the configuration.
        licence: terms under which the text may be used.

    Raises:
        FileNotFoundError: the hub, or the data set on it, cannot be reached.
        ValueError: unknown task; missing columns, or labels without names; illegal tags (split and sentence named);
            see `Corpus`.
    """
    name = name or "_".join([dataset.rpartition("/")[2], *([config] if config else [])])
    check_task(name, task, ("spans", "upos"))
    spelling = FileScheme(hub_scheme, separator) if task == "spans" else None
    loaded = fetch_hub(dataset, config, splits or HUB_SPLITS, revision)
    where = {split: f"{dataset}, {config or 'default'}, {split}" for split in loaded}
    labels = label_names(where["train"], loaded["train"], tag_column)
    labels = list(dict.fromkeys((replace or {}).get(label, label) for label in labels))
    if spelling is not None:
        own = [spelling.tag(label) or _refuse_label(where["train"], label, labels, spelling) for label in labels]
        labels = list(dict.fromkeys(tag[2:] for tag in own if tag != "O"))
        annotation = TagAnnotation.of_spans(labels, scheme)
    else:
        annotation = TagAnnotation(tuple(labels))
    changes: dict[str, Counter[str]] = {split: Counter() for split in loaded}
    return tagged_corpus(
        name,
        {
            split: hub_sentences(
                where[split],
                rows,
                labels,
                scheme=spelling,
                token_column=token_column,
                tag_column=tag_column,
                id_column=id_column,
                replace=replace,
                repair=repair,
                blank_words=blank_words,
                changes=changes[split],
            )
            for split, rows in loaded.items()
        },
        annotation,
        scheme=spelling.scheme if spelling is not None else None,
        task=task,
        licence=licence,
        source=hub_source(dataset, config),
        changes=changes,
    )


def _refuse_label(where: str, label: str, labels: Sequence[str], spelling: FileScheme) -> str:
    """Refuse a data set's inventory because of a label that is not a tag of its scheme."""
    raise ValueError(
        f"{where}: Label {label!r} is not a tag of {spelling.name}, whose tags are O and "
        f"{', '.join(spelling.inventory(['<type>'])[1:])}; the labels are {' '.join(labels)}. Name their scheme, say "
        f"{option('hub_scheme', 'IO')}, and what stands before the type, say {option('separator', '_')}."
    )


@configurable
def load_hub_treebank(
    dataset: str,
    config: str | None = None,
    *,
    task: str = "dependencies",
    scheme: str = "BIOES",
    relations: Sequence[str] | str | None = "universal",
    subtypes: bool = False,
    multiroot: bool = False,
    replace: Mapping[str, str] | None = None,
    splits: Mapping[str, str] | None = None,
    revision: str | None = None,
    name: str | None = None,
    licence: str = "see the data set's card on the hub",
) -> Corpus:
    """Load a treebank of the hub with the columns of ``universal_dependencies``.

    These are ``idx``, ``tokens``, ``upos`` (class labels), ``head`` and ``deprel`` (strings). Multiword tokens and
    empty nodes, which have no head, are passed over.

    Args:
        dataset: the data set.
        config: its configuration, as ``en_ewt``.
        task, scheme: see `treebank_annotation`.
        relations, subtypes, multiroot, replace: see `load_conllu`.
        splits, revision, name, licence: see `load_hub`.

    Raises:
        FileNotFoundError: the hub, or the data set on it, cannot be reached.
        ValueError: unknown task or scheme; missing columns; an impossible relation, part of speech or head (split
            and sentence named); see `Corpus`.
    """
    name = name or "_".join([dataset.rpartition("/")[2], *([config] if config else [])])
    annotation = treebank_annotation(name, task, scheme, multiroot)
    trees = isinstance(annotation, TreeAnnotation)
    rule = relation_rule(relations, subtypes, replace, ("relations", "subtypes", "multiroot", "replace"))
    read = rule if trees else RelationRule(replace=rule.replace)
    loaded = fetch_hub(dataset, config, splits or HUB_SPLITS, revision)
    sentences = {
        split: _trees(f"{dataset}, {config or 'default'}, {split}", rows, read, multiroot, upos=not trees)
        for split, rows in loaded.items()
    }
    if trees and rule.known is not None and not rule.open:
        annotation = TreeAnnotation(tuple(rule.known), multiroot)
    return treebank_corpus(name, sentences, annotation, licence=licence, source=hub_source(dataset, config), rule=rule)


def fetch_hub(
    dataset: str,
    config: str | None,
    splits: Mapping[str, str],
    revision: str | None = None,
    offers: Collection[str] = ("splits",),
) -> dict[str, Dataset]:
    """Return the splits of a data set of the hub, by the names train, dev and test; `offers` as in `hub_sentences`.

    Raises:
        FileNotFoundError: the hub, or the data set on it, cannot be reached.
        ValueError: the data set has no such split; those it has are named. A revision that only a script can read.
    """
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as readers

    # A reader's name, such as pandas, which unpickles, would be given all files of the current folder.
    if not _ON_HUB.fullmatch(dataset) or dataset in readers or Path(dataset).exists():
        raise ValueError(
            f"dataset={dataset[:200]!r}: Expected the name of a data set of the Hugging Face hub, as "
            "unimelb-nlp/wikiann. Files and folders of your own are read with data=columns or data=conllu."
        )
    for name, value in (("config", config), ("revision", revision)):
        if value is not None and not _VERSION.fullmatch(str(value)):
            raise ValueError(f"{name}={str(value)[:200]!r}: Expected a name of {dataset} on the Hugging Face hub.")
    from datasets import load_dataset

    pinned = {"revision": revision} if revision else {}
    try:
        try:
            loaded = load_dataset(dataset, *([config] if config else []), **pinned)
        except RuntimeError as error:
            if "script" not in str(error):
                raise
            files = {
                theirs: _PARQUET.format(dataset=dataset, config=config or "default", split=theirs)
                for theirs in splits.values()
            }
            # The hub's copy in parquet has no revisions. Another version than the one asked for is never loaded.
            loaded = None if revision else load_dataset("parquet", data_files=files)
    except (OSError, RuntimeError, ValueError) as error:
        where = f"{dataset}, {config}" if config else dataset
        raise FileNotFoundError(f"the Hugging Face hub ({where}: {error})") from error
    if loaded is None:
        raise ValueError(
            f"revision={revision!r}: {dataset} is read by a script at that revision, and scripts are not run. Name a "
            "revision with tables, such as parquet files, or leave the revision out: then the hub's copy is read."
        )
    missing = [theirs for theirs in splits.values() if theirs not in loaded]
    if missing:
        named = {ours: theirs if theirs in loaded else next(iter(loaded)) for ours, theirs in splits.items()}
        hint = f" Name them, say {option('splits', named)}." if "splits" in offers else ""
        raise ValueError(f"{dataset} has no split {missing[0]!r}; it has {', '.join(loaded)}.{hint}")
    return {ours: loaded[theirs] for ours, theirs in splits.items()}


def hub_source(dataset: str, config: str | None) -> str:
    """Return the address of a data set of the hub."""
    return f"https://huggingface.co/datasets/{dataset}" + (f", config {config}" if config else "")


def label_names(where: str, rows: Dataset, column: str) -> list[str]:
    """Return the names of the class labels of a column.

    Raises:
        ValueError: there is no such column of class labels; prints the columns there are.
    """
    names = getattr(getattr(rows.features.get(column), "feature", None), "names", None)
    if names is None:
        raise ValueError(f"{where}: A column {column} with named labels was expected; it has {rows.features}.")
    return list(names)


def hub_sentences(
    where: str,
    rows: Dataset,
    types: Sequence[str],
    *,
    scheme: FileScheme | None,
    token_column: str = "tokens",
    tag_column: str = "ner_tags",
    id_column: str | None = None,
    replace: Mapping[str, str] | None = None,
    repair: bool = False,
    blank_words: str = "refuse",
    changes: Counter[str] | None = None,
    offers: Collection[str] = HUB_OPTIONS,
) -> list[TaggedSentence]:
    """Return the tagged sentences of one split.

    Args:
        where: the split, for messages.
        rows: its rows.
        types: the span types that may occur, or the labels themselves if `scheme` is None.
        scheme: tag scheme of the labels.
        token_column, tag_column, id_column, replace, repair, blank_words: see `load_hub`.
        changes: is counted in, if given, see `changes_note`.
        offers: the options that messages may offer, by name.

    Raises:
        ValueError: missing columns; a label outside the inventory; illegal tags; `where` and the sentence are named.
    """
    check_option("blank_words", blank_words, BLANK_WORDS)
    changes = Counter() if changes is None else changes
    names = label_names(where, rows, tag_column)
    _check_columns(where, rows, [token_column, *([id_column] if id_column else [])])
    replace = replace or {}
    own = {name: scheme.tag(name) if scheme is not None else name for name in (replace.get(n, n) for n in names)}
    unknown = [n for n in names if not _known(own[replace.get(n, n)], types, scheme is not None)]
    if unknown:
        inventory = scheme.inventory(types) if scheme is not None else types
        raise ValueError(
            f"{where}: Unknown labels {', '.join(sorted(unknown))}; the inventory is {' '.join(inventory)}."
        )
    columns = rows.select_columns([token_column, tag_column, *([id_column] if id_column else [])]).to_dict()
    ids = columns[id_column] if id_column else range(1, len(rows) + 1)
    sentences = []
    for number, (name, tokens, numbers) in enumerate(
        zip(ids, columns[token_column], columns[tag_column], strict=True), 1
    ):
        place = f"{where}, sentence {str(name)!r}"
        if not tokens:
            changes["empty"] += 1
            continue
        if tokens == [DOCUMENT_MARK]:
            continue
        if len(tokens) != len(numbers):
            raise ValueError(f"{place}: {len(tokens)} {token_column} and {len(numbers)} {tag_column}.")
        words = without_blank_words(tokens, partial(_word_of, place), blank_words, changes, offers=offers)
        if words is None:
            continue
        missing = next((word for word, tag in enumerate(numbers) if tag is None or tag < 0), None)
        if missing is not None:
            raise ValueError(
                f"{_word_of(place, missing)}: The label is {numbers[missing]}, so the split is not annotated."
            )
        tags = [names[tag] for tag in numbers]
        kept = [replace.get(tag, tag) for tag in tags]
        if scheme is not None:
            violation = None if repair else scheme.violation(kept)
            if violation is not None:
                raise ValueError(
                    f"{place}, word {violation[0]} (0-based): {violation[1]}"
                    f"{tag_hint(kept, scheme, offers, 'hub_scheme')}"
                )
            kept, changed = scheme.read(kept, repair)
            changes["repaired"] += changed
        replaced = sum(tag in replace for tag in tags)
        sentences.append(TaggedSentence(str(name), tuple(words), tuple(kept), replaced, number))
    return sentences


def _word_of(place: str, word: int) -> str:
    return f"{place}, word {word} (0-based)"


def _known(own: str | None, types: Sequence[str], spans: bool) -> bool:
    """Return whether a label, in our spelling, is in the inventory."""
    return own is not None and ((own == "O" or own[2:] in types) if spans else own in types)


def _trees(where: str, rows: Dataset, rule: RelationRule, multiroot: bool, upos: bool) -> list[DependencySentence]:
    names = label_names(where, rows, "upos")
    wanted = ["idx", "tokens", "head", "deprel"]
    _check_columns(where, rows, wanted)
    columns = rows.select_columns([*wanted, "upos"]).to_dict()
    sentences = []
    for number, (name, tokens, head, relations, tags) in enumerate(
        zip(*(columns[column] for column in [*wanted, "upos"]), strict=True), 1
    ):
        words = [word for word, above in enumerate(head) if above is not None and str(above) not in _NO_WORD]
        place = f"{where}, sentence {name!r}"
        try:
            kept_relations = [rule.read(relations[word]) for word in words]
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        kept_upos = [names[tags[word]] for word in words]
        fault = next(filter(None, map(upos_fault, kept_upos)), None) if upos else None
        if fault:
            raise ValueError(f"{place}: {fault}")
        heads = [_head(place, head[word], len(words)) for word in words]
        fault = tree_fault(heads, multiroot=multiroot)
        if fault:
            hint = root_hint(list(zip(heads, kept_relations, strict=True)), rule.offers)
            raise ValueError(f"{place}: It is not a tree: {fault}.{hint}")
        sentences.append(
            DependencySentence(
                id=str(name),
                document=None,
                tokens=tuple(tokens[word] for word in words),
                upos=tuple(kept_upos),
                heads=tuple(heads),
                relations=tuple(kept_relations),
                line=number,
            )
        )
    return sentences


def _head(place: str, head: Any, length: int) -> int:
    text = str(head)
    if not text.isascii() or not text.isdigit() or int(text) > length:
        raise ValueError(f"{place}: Head {text!r} where 0 (root) to {length} was expected.")
    return int(text)


def _check_columns(where: str, rows: Dataset, wanted: Sequence[str]) -> None:
    missing = [column for column in wanted if column not in rows.column_names]
    if missing:
        raise ValueError(
            f"{where}: The columns {', '.join(wanted)} were expected; it lacks {', '.join(missing)} and has "
            f"{', '.join(rows.column_names)}."
        )
