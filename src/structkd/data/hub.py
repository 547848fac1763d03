"""Data sets of the Hugging Face hub: columns of class labels, and treebanks in the form of ``universal_dependencies``.

`datasets` runs no loading scripts any more. Where a data set still consists of one, the hub's own conversion of it to
parquet is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from structkd.data.annotation import Annotation, TagAnnotation, TreeAnnotation
from structkd.data.columns import DOCUMENT_MARK, TaggedSentence, tag_hint
from structkd.data.conllu import UPOS, DependencySentence
from structkd.data.corpus import Corpus, check_task
from structkd.data.tagged_text import tagged_corpus
from structkd.data.tagging import find_violation, repair_bio, tag_inventory
from structkd.data.treebank import treebank_annotation, treebank_corpus

if TYPE_CHECKING:
    from datasets import Dataset

HUB_SPLITS: dict[str, str] = {"train": "train", "dev": "validation", "test": "test"}
"""What most data sets of the hub call the splits."""

_PARQUET = "hf://datasets/{dataset}@~parquet/{config}/{split}/*.parquet"
_NO_WORD = ("None", "_")


def load_hub(
    dataset: str,
    config: str | None = None,
    *,
    task: str = "spans",
    scheme: str = "BIOES",
    hub_scheme: str = "BIO",
    token_column: str = "tokens",
    tag_column: str = "ner_tags",
    id_column: str | None = None,
    splits: Mapping[str, str] | None = None,
    revision: str | None = None,
    replace: Mapping[str, str] | None = None,
    repair: bool = False,
    name: str | None = None,
    licence: str = "see the data set's card on the hub",
) -> Corpus:
    """A data set of the hub in which every word has a class label, as ``conll2003`` and ``wikiann``.

    Args:
        dataset: the data set, as ``unimelb-nlp/wikiann``.
        config: its configuration, as ``pt``.
        task: "spans", labels that stand for flat typed spans; or "upos", labels taken as they are (parts of speech of
            any tag set).
        scheme: tag scheme wanted, "BIOES" or "BIO".
        hub_scheme: tag scheme of the data set, "BIO", "IOB1" or "BIOES".
        token_column: the column of words (list of str).
        tag_column: the column of labels (list of ``ClassLabel``); its names are the inventory.
        id_column: the column of sentence ids; None: sentences are numbered.
        splits: what the data set calls train, dev and test; None: train, validation, test.
        revision: a commit, to fix what is loaded.
        replace: labels of the data set to read as other labels, before anything is checked.
        repair: read as B an I of BIO that continues no span of its type, instead of refusing it.
        name: of the corpus; None: the last part of `dataset`, with the configuration.
        licence: terms under which the text may be used.

    Raises:
        FileNotFoundError: the hub, or the data set on it, cannot be reached.
        ValueError: unknown task; missing columns, or labels without names; illegal tags (split and sentence named);
            see `Corpus`.
    """
    name = name or "_".join([dataset.rpartition("/")[2], *([config] if config else [])])
    check_task(name, task, ("spans", "upos"))
    tag_scheme = hub_scheme if task == "spans" else None
    loaded = fetch_hub(dataset, config, splits or HUB_SPLITS, revision)
    labels = label_names(f"{dataset}, {config or 'default'}, train", loaded["train"], tag_column)
    labels = list(dict.fromkeys((replace or {}).get(label, label) for label in labels))
    if task == "spans":
        types = list(dict.fromkeys(label[2:] for label in labels if label != "O"))
        annotation = TagAnnotation.of_spans(types, scheme)
        labels = tag_inventory(types, "BIO" if hub_scheme == "IOB1" else hub_scheme)
    else:
        annotation = TagAnnotation(tuple(labels))
    return tagged_corpus(
        name,
        {
            split: hub_sentences(
                f"{dataset}, {config or 'default'}, {split}",
                loaded[split],
                labels,
                scheme=tag_scheme,
                token_column=token_column,
                tag_column=tag_column,
                id_column=id_column,
                replace=replace,
                repair=repair,
            )
            for split in loaded
        },
        annotation,
        scheme=tag_scheme,
        task=task,
        licence=licence,
        source=hub_source(dataset, config),
    )


def load_hub_treebank(
    dataset: str,
    config: str | None = None,
    *,
    task: str = "dependencies",
    scheme: str = "BIOES",
    splits: Mapping[str, str] | None = None,
    revision: str | None = None,
    name: str | None = None,
    licence: str = "see the data set's card on the hub",
) -> Corpus:
    """A treebank of the hub with the columns of ``universal_dependencies``.

    These are ``idx``, ``tokens``, ``upos`` (class labels), ``head`` and ``deprel`` (strings). Multiword tokens and
    empty nodes, which have no head, are passed over.

    Args:
        dataset: the data set.
        config: its configuration, as ``en_ewt``.
        task, scheme: see `treebank_annotation`.
        splits, revision, name, licence: see `load_hub`.

    Raises:
        FileNotFoundError: the hub, or the data set on it, cannot be reached.
        ValueError: unknown task or scheme; missing columns; a relation, part of speech or head that cannot be (split
            and sentence named); see `Corpus`.
    """
    name = name or "_".join([dataset.rpartition("/")[2], *([config] if config else [])])
    annotation = treebank_annotation(name, task, scheme)
    loaded = fetch_hub(dataset, config, splits or HUB_SPLITS, revision)
    sentences = {
        split: _trees(f"{dataset}, {config or 'default'}, {split}", rows, annotation) for split, rows in loaded.items()
    }
    return treebank_corpus(name, sentences, annotation, licence=licence, source=hub_source(dataset, config))


def fetch_hub(
    dataset: str, config: str | None, splits: Mapping[str, str], revision: str | None = None
) -> dict[str, Dataset]:
    """The splits of a data set of the hub, by our names for them.

    Raises:
        FileNotFoundError: the hub, or the data set on it, cannot be reached.
        ValueError: the data set has no such split; those it has are named.
    """
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
            loaded = load_dataset("parquet", data_files=files)
    except (OSError, RuntimeError, ValueError) as error:
        where = f"{dataset}, {config}" if config else dataset
        raise FileNotFoundError(f"the Hugging Face hub ({where}: {error})") from error
    missing = [theirs for theirs in splits.values() if theirs not in loaded]
    if missing:
        raise ValueError(f"{dataset} has no split {missing[0]!r}; it has {', '.join(loaded)}. Name them with splits")
    return {ours: loaded[theirs] for ours, theirs in splits.items()}


def hub_source(dataset: str, config: str | None) -> str:
    """Where a data set of the hub is to be found."""
    return f"https://huggingface.co/datasets/{dataset}" + (f", config {config}" if config else "")


def label_names(where: str, rows: Dataset, column: str) -> list[str]:
    """The names of the class labels of a column.

    Raises:
        ValueError: there is no such column of class labels; prints the columns there are.
    """
    names = getattr(getattr(rows.features.get(column), "feature", None), "names", None)
    if names is None:
        raise ValueError(f"{where}: a column {column} with named labels was expected; it has {rows.features}")
    return list(names)


def hub_sentences(
    where: str,
    rows: Dataset,
    labels: Sequence[str],
    *,
    scheme: str | None,
    token_column: str = "tokens",
    tag_column: str = "ner_tags",
    id_column: str | None = None,
    replace: Mapping[str, str] | None = None,
    repair: bool = False,
) -> list[TaggedSentence]:
    """The tagged sentences of one split; `labels` is the inventory after `replace`, in `scheme`.

    Raises:
        ValueError: missing columns; a label outside the inventory; illegal tags; `where` and the sentence are named.
    """
    names = label_names(where, rows, tag_column)
    _check_columns(where, rows, [token_column, *([id_column] if id_column else [])])
    replace = replace or {}
    unknown = [name for name in names if replace.get(name, name) not in labels]
    if unknown:
        raise ValueError(f"{where}: unknown labels {', '.join(sorted(unknown))}; the inventory is {' '.join(labels)}")
    columns = rows.select_columns([token_column, tag_column, *([id_column] if id_column else [])]).to_dict()
    ids = columns[id_column] if id_column else range(1, len(rows) + 1)
    sentences = []
    for number, (name, tokens, numbers) in enumerate(
        zip(ids, columns[token_column], columns[tag_column], strict=True), 1
    ):
        if tokens == [DOCUMENT_MARK]:
            continue
        tags = [names[tag] for tag in numbers]
        kept, repaired = [replace.get(tag, tag) for tag in tags], 0
        if repair and scheme == "BIO":
            kept, repaired = repair_bio(kept)
        violation = find_violation(kept, scheme) if scheme is not None else None
        if violation is not None:
            raise ValueError(
                f"{where}, sentence {str(name)!r}, word {violation[0]} (0-based): {violation[1]}; {tag_hint(scheme)}"
            )
        replaced = sum(tag in replace for tag in tags)
        sentences.append(TaggedSentence(str(name), tuple(tokens), tuple(kept), replaced, number, repaired))
    return sentences


def _trees(where: str, rows: Dataset, annotation: Annotation) -> list[DependencySentence]:
    names = label_names(where, rows, "upos")
    wanted = ["idx", "tokens", "head", "deprel"]
    _check_columns(where, rows, wanted)
    columns = rows.select_columns([*wanted, "upos"]).to_dict()
    known = annotation.relations if isinstance(annotation, TreeAnnotation) else None
    sentences = []
    for number, (name, tokens, head, relations, upos) in enumerate(
        zip(*(columns[column] for column in [*wanted, "upos"]), strict=True), 1
    ):
        words = [word for word, above in enumerate(head) if above is not None and str(above) not in _NO_WORD]
        place = f"{where}, sentence {name!r}"
        kept_relations = [relations[word] if known is None else relations[word].partition(":")[0] for word in words]
        for relation in kept_relations:
            if known is not None and relation not in known:
                raise ValueError(f"{place}: unknown relation {relation!r}; known: {' '.join(known)}")
        kept_upos = [names[upos[word]] for word in words]
        for tag in kept_upos:
            if tag not in UPOS:
                raise ValueError(f"{place}: unknown part of speech {tag!r}; known: {' '.join(UPOS)}")
        sentences.append(
            DependencySentence(
                id=str(name),
                document=None,
                tokens=tuple(tokens[word] for word in words),
                upos=tuple(kept_upos),
                heads=tuple(_head(place, head[word], len(words)) for word in words),
                relations=tuple(kept_relations),
                line=number,
            )
        )
    return sentences


def _head(place: str, head: Any, length: int) -> int:
    text = str(head)
    if not text.isascii() or not text.isdigit() or int(text) > length:
        raise ValueError(f"{place}: head {text!r} where 0 (root) to {length} was expected")
    return int(text)


def _check_columns(where: str, rows: Dataset, wanted: Sequence[str]) -> None:
    missing = [column for column in wanted if column not in rows.column_names]
    if missing:
        raise ValueError(
            f"{where}: the columns {', '.join(wanted)} were expected; it lacks {', '.join(missing)} and has "
            f"{', '.join(rows.column_names)}"
        )
