"""Universal NER English-EWT: persons, organisations and locations in web text (Mayhew et al. 2024)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from structkd.data.columns import TaggedSentence, read_columns
from structkd.data.corpus import SPLITS, Corpus, drop_repeated, dropped_note, label_splits
from structkd.data.tagging import convert_tags, find_violation, tag_inventory

if TYPE_CHECKING:
    from datasets import Dataset

ENTITY_TYPES: tuple[str, ...] = ("PER", "ORG", "LOC")

_HUB = "universalner/universal_ner"
_HUB_CONFIG = "en_ewt"
_HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
_HUB_PARQUET = "hf://datasets/universalner/universal_ner@~parquet/en_ewt/{split}/*.parquet"
_FOLDER = "uner_ewt"
_FILE = "en_ewt-ud-{split}.iob2"
_WIDTHS = (3, 5)  # the pre-release train file leaves the last two columns out on most lines
_REPLACE = {"B-OTH": "O", "I-OTH": "O", "B-O": "O", "I-O": "O"}
_RELEASED_TRAIN_MENTIONS = {"LOC": 2712, "ORG": 1436, "PER": 2874}


def load_uner_ewt(task: str = "entities", scheme: str = "BIOES", folder: str | None = None) -> Corpus:
    """Universal NER English-EWT as a corpus, from a local folder or else from the Hugging Face hub.

    Files are ``uner_ewt/en_ewt-ud-{train,dev,test}.iob2``, plain or ``.gz``, in IOB2 with the columns
    ``id token tag - annotator`` (the last two may be missing). Two kinds of tags of the pre-release train file, which
    the release no longer has, are read as O: mentions of type OTH, and the document-level artefacts ``B-O``.

    Args:
        task: "entities", the only one.
        scheme: tag scheme, "BIOES" or "BIO".
        folder: the folder that holds ``uner_ewt``; None: the one that ``STRUCTKD_DATA`` names. Without such a folder
            the data set ``universalner/universal_ner``, config ``en_ewt``, is loaded from the hub.

    Raises:
        ValueError: unknown task or scheme; a file that is not what it should be (file and line named).
        FileNotFoundError: neither way leads to the data; says where it was looked for and both ways to get it.
    """
    if task != "entities":
        raise ValueError(f"unknown task {task!r} for Universal NER; known: entities")
    labels = tag_inventory(ENTITY_TYPES, scheme)
    index = {label: number for number, label in enumerate(labels)}
    root = folder or os.environ.get("STRUCTKD_DATA")
    local = Path(root).expanduser() / _FOLDER if root else None
    if local is not None and local.is_dir():
        sentences, source = _read_local(local), f"{_FOLDER}/{_FILE.format(split='{train,dev,test}')}"
    else:
        sentences, source = _read_hub(local), f"https://huggingface.co/datasets/{_HUB}, config {_HUB_CONFIG}"
    splits, dropped = drop_repeated(sentences)

    def row(sentence: TaggedSentence) -> tuple[str, tuple[str, ...], list[int]]:
        return sentence.id, sentence.tokens, [index[tag] for tag in convert_tags(sentence.tags, "BIO", scheme)]

    return Corpus(
        name="uner_ewt",
        task=task,
        splits=label_splits({split: map(row, kept) for split, kept in splits.items()}),
        labels=labels,
        types=list(ENTITY_TYPES),
        scheme=scheme,
        licence="CC BY-SA 4.0",
        source=source,
        notes=" ".join([*_train_notes(sentences["train"]), dropped_note(dropped)]),
    )


def _read_local(folder: Path) -> dict[str, list[TaggedSentence]]:
    splits = {}
    for split in SPLITS:
        plain = folder / _FILE.format(split=split)
        paths = [plain, plain.with_name(f"{plain.name}.gz")]
        found = [path for path in paths if path.exists()]
        if not found:
            raise FileNotFoundError(_how_to_get(f"Looked for {paths[0]} and {paths[1]}."))
        splits[split] = read_columns(found[0], ENTITY_TYPES, widths=_WIDTHS, replace=_REPLACE)
    return splits


def _read_hub(local: Path | None) -> dict[str, list[TaggedSentence]]:
    from datasets import load_dataset

    try:
        try:
            loaded = load_dataset(_HUB, _HUB_CONFIG)
        except RuntimeError as error:
            if "script" not in str(error):
                raise
            # datasets runs no loading scripts any more; the hub keeps its own conversion to parquet beside them.
            files = {theirs: _HUB_PARQUET.format(split=theirs) for theirs in _HUB_SPLITS.values()}
            loaded = load_dataset("parquet", data_files=files)
    except (OSError, RuntimeError, ValueError) as error:
        looked = f"Looked for the folder {local}" if local else "STRUCTKD_DATA names no folder; looked"
        joint = " and on" if local else " on"
        raise FileNotFoundError(
            _how_to_get(f"{looked}{joint} the Hugging Face hub ({_HUB}, {_HUB_CONFIG}: {error}).")
        ) from error
    return {split: _hub_sentences(split, loaded[theirs]) for split, theirs in _HUB_SPLITS.items()}


def _hub_sentences(split: str, rows: Dataset) -> list[TaggedSentence]:
    where = f"{_HUB}, {_HUB_CONFIG}, {split}"
    names = getattr(getattr(rows.features.get("ner_tags"), "feature", None), "names", None)
    if names is None or not {"idx", "tokens"} <= set(rows.column_names):
        raise ValueError(
            f"{where}: columns idx, tokens and ner_tags (with named labels) were expected; it has {rows.features}"
        )
    unknown = set(names) - set(tag_inventory(ENTITY_TYPES, "BIO")) - set(_REPLACE)
    if unknown:
        raise ValueError(
            f"{where}: unknown labels {', '.join(sorted(unknown))}; "
            f"the inventory is {' '.join(tag_inventory(ENTITY_TYPES, 'BIO'))}"
        )
    sentences = []
    for number, row in enumerate(rows, 1):
        tags = [names[tag] for tag in row["ner_tags"]]
        replaced = sum(tag in _REPLACE for tag in tags)
        kept = tuple(_REPLACE.get(tag, tag) for tag in tags)
        violation = find_violation(kept, "BIO")
        if violation is not None:
            raise ValueError(f"{where}, sentence {row['idx']!r}, word {violation[0]} (0-based): {violation[1]}")
        sentences.append(TaggedSentence(row["idx"], tuple(row["tokens"]), kept, replaced, number))
    return sentences


def _train_notes(train: list[TaggedSentence]) -> list[str]:
    notes = []
    mentions = Counter(tag[2:] for sentence in train for tag in sentence.tags if tag.startswith("B-"))
    if mentions != Counter(_RELEASED_TRAIN_MENTIONS):
        notes.append(
            f"Train is not the released file: it has {_counts(mentions)} mentions, the release "
            f"{_counts(_RELEASED_TRAIN_MENTIONS)}."
        )
    replaced = sum(sentence.replaced for sentence in train)
    if replaced:
        notes.append(f"{replaced} tags of train were read as O (type OTH and document-level B-O).")
    return notes


def _counts(mentions: Mapping[str, int]) -> str:
    return ", ".join(f"{mentions.get(kind, 0)} {kind}" for kind in ENTITY_TYPES)


def _how_to_get(looked: str) -> str:
    files = _FILE.format(split="{train,dev,test}")
    return (
        f"Universal NER English-EWT was not found. {looked} To get it, either set STRUCTKD_DATA to a folder that holds "
        f"{_FOLDER}/{files} (plain or .gz; from https://github.com/UniversalNER/UNER_English-EWT), or let "
        f'datasets reach the hub: load_dataset("{_HUB}", "{_HUB_CONFIG}")'
    )
