"""Universal NER: persons, organisations and locations over Universal Dependencies treebanks (Mayhew et al. 2024)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from structkd.configurable import configurable
from structkd.data.annotation import TagAnnotation
from structkd.data.corpora.hub import HUB_SPLITS, fetch_hub, hub_sentences, hub_source
from structkd.data.corpora.tagged import tagged_corpus
from structkd.data.corpus import SPLITS, Corpus, check_task
from structkd.data.formats.columns import TaggedSentence, read_columns
from structkd.data.formats.tag_schemes import FileScheme
from structkd.data.locate import data_folder, how_to_get, split_files

ENTITY_TYPES: tuple[str, ...] = ("PER", "ORG", "LOC")

_HUB = "universalner/universal_ner"
_PATTERN = "{treebank}-ud-{{split}}.iob2"
_WIDTHS = (3, 5)  # the pre-release train file of English-EWT leaves the last two columns out on most lines
_REPLACE = {"B-OTH": "O", "I-OTH": "O", "B-O": "O", "I-O": "O"}
_RELEASED_TRAIN_MENTIONS = {"en_ewt": {"LOC": 2712, "ORG": 1436, "PER": 2874}}
_LICENCES = {"en_pud": "CC BY-SA 3.0", "pt_pud": "CC BY-SA 3.0"}


@configurable
def load_uner(
    treebank: str,
    task: str = "spans",
    scheme: str = "BIOES",
    test: str | None = None,
    repair: bool = False,
    folder: str | None = None,
    name: str | None = None,
) -> Corpus:
    """Load a treebank of Universal NER, from a local folder or else from the Hugging Face hub.

    Files are ``<treebank>-ud-{train,dev,test}.iob2``, plain or ``.gz``, in IOB2 with the columns
    ``id token tag - annotator`` (the last two may be missing). Two kinds of tags of the pre-release train file of
    English-EWT, which the release no longer has, are read as O: mentions of type OTH, and the document-level
    artefacts ``B-O``.

    Args:
        treebank: language and treebank, as ``pt_bosque``, ``sv_talbanken``, ``da_ddt``.
        task: "spans", the only one: entities.
        scheme: tag scheme, "BIOES" or "BIO".
        test: another treebank whose test split is taken in place of its own, as ``pt_pud`` (the same 1,000 sentences
            of news and Wikipedia in many languages; these treebanks have a test split only).
        repair: read as B an I that continues no span of its type, instead of refusing it (``da_ddt`` has seven;
            ``hr_set`` and ``sr_set`` have some after a B of type OTH).
        folder: the folder that holds the files, or folders of theirs; None: the one that ``STRUCTKD_DATA`` names.
            Without such files the data set ``universalner/universal_ner`` is loaded from the hub.
        name: of the corpus; None: ``uner_<treebank>``, with `test` if it is given.

    Raises:
        ValueError: unknown task or scheme; a malformed file (file and line named).
        FileNotFoundError: neither has the data; the message names the places searched and both ways to get the data.
    """
    check_task("Universal NER", task, ("spans",))
    annotation = TagAnnotation.of_spans(ENTITY_TYPES, scheme)
    where = data_folder(folder)
    sources: list[str] = []
    changes: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    if test is None:
        sentences = _read(treebank, SPLITS, where, repair, sources, changes)
    else:
        sentences = _read(treebank, ("train", "dev"), where, repair, sources, changes)
        sentences |= _read(test, ("test",), where, repair, sources, changes)
    notes = _notes(treebank, sentences)
    if test is not None:
        notes.insert(0, f"The test split is that of {test}.")
    return tagged_corpus(
        name or "_".join(["uner", treebank, *([test] if test else [])]),
        sentences,
        annotation,
        scheme="BIO",
        task="entities",
        licence="CC BY-SA 4.0" + (f" (test: {_LICENCES[test]})" if test in _LICENCES else ""),
        source="; ".join(sources),
        notes=" ".join(notes),
        changes=changes,
    )


@configurable
def load_uner_ewt(
    task: str = "spans", scheme: str = "BIOES", repair: bool = False, folder: str | None = None
) -> Corpus:
    """Load Universal NER English-EWT, web text: `load_uner` of ``en_ewt``."""
    return load_uner("en_ewt", task, scheme, repair=repair, folder=folder, name="uner_ewt")


def _read(
    treebank: str,
    splits: tuple[str, ...],
    folder: Path | None,
    repair: bool,
    sources: list[str],
    changes: Mapping[str, Counter[str]],
) -> dict[str, Sequence[TaggedSentence]]:
    pattern = _PATTERN.format(treebank=treebank)
    files = split_files(folder, pattern, splits)
    if files is not None:
        sources.append(pattern.format(split=splits[0] if len(splits) == 1 else f"{{{','.join(splits)}}}"))
        return {
            split: read_columns(
                path,
                ENTITY_TYPES,
                widths=_WIDTHS,
                replace=_REPLACE,
                repair=repair,
                changes=changes[split],
                offers=("repair",),
            )
            for split, path in files.items()
        }
    try:
        loaded = fetch_hub(_HUB, treebank, {split: HUB_SPLITS[split] for split in splits}, offers=())
    except FileNotFoundError as error:
        what = f"Universal NER {treebank}"
        raise FileNotFoundError(how_to_get(what, folder, pattern, _HUB, treebank, str(error))) from error
    sources.append(hub_source(_HUB, treebank))
    return {
        split: hub_sentences(
            f"{_HUB}, {treebank}, {split}",
            rows,
            ENTITY_TYPES,
            scheme=FileScheme("BIO"),
            id_column="idx",
            replace=_REPLACE,
            repair=repair,
            changes=changes[split],
            offers=("repair",),
        )
        for split, rows in loaded.items()
    }


def _notes(treebank: str, splits: Mapping[str, Sequence[TaggedSentence]]) -> list[str]:
    notes = []
    train = splits["train"]
    released = _RELEASED_TRAIN_MENTIONS.get(treebank)
    mentions = Counter(tag[2:] for sentence in train for tag in sentence.tags if tag.startswith("B-"))
    if released is not None and mentions != Counter(released):
        notes.append(
            f"Train is not the released file: it has {_counts(mentions)} mentions, the release {_counts(released)}."
        )
    replaced = {split: sum(sentence.replaced for sentence in sentences) for split, sentences in splits.items()}
    if any(replaced.values()):
        counts = ", ".join(f"{count} of {split}" for split, count in replaced.items())
        notes.append(f"Tags of type OTH and document-level B-O were read as O: {counts}.")
    return notes


def _counts(mentions: Mapping[str, int]) -> str:
    return ", ".join(f"{mentions.get(kind, 0)} {kind}" for kind in ENTITY_TYPES)
