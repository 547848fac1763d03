"""Corpora: fixed train, dev and test splits of annotated sentences, checked, fingerprinted and without overlap."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from structkd.configurable import configurable
from structkd.data.annotation import Annotation
from structkd.data.formats.packed import chosen
from structkd.numbering import UNLABELLED

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

SPLITS: tuple[str, ...] = ("train", "dev", "test")
#: Sentences of fewer words ("-", "publicatie", a byline) repeat by nature and are no leak. In CoNLL-2002 Dutch they are
#: 96 % of the sentences of train that occur in dev or test.
SHORTEST_LEAK = 3
_SHOWN = 5
_NOTED = "structkd"
#: Sentences that are Python objects at a time.
_PIECE = 10_000
#: Their words.
_WORDS = 300_000


@dataclass(frozen=True, eq=False)
class Corpus:
    """Annotated sentences, in three splits.

    Attributes:
        name: the corpus, as ``petrogold``.
        task: the kind of annotation, as ``base_phrases``.
        splits: ``datasets.DatasetDict`` with ``train``, ``dev`` and ``test``, of columns ``id`` (str), ``tokens``
            (list of str), the columns of `annotation` (list of int; -100 throughout a sentence that is unlabelled)
            and, if the corpus has them, ``upos`` (list of str: an input, never hidden).
        annotation: kind of the annotation, with its inventories.
        licence: terms under which the text may be used.
        source: where the text comes from.
        notes: remarks for readers of the results.
        fingerprint: sha256, in hex, of the annotation's description and of every sentence; computed, never given.
            The same on every machine, and another one as soon as a word or a label changes.

    Raises:
        ValueError: on construction, if a split is missing or empty, a column is missing, columns differ in length,
            an id occurs twice in a split, the annotation of a sentence is not well formed (a label outside the
            inventory, illegal tags, not a tree), or a test sentence of three words or more occurs in train or dev.
            Sentence ids are named.
    """

    name: str
    task: str
    splits: DatasetDict
    annotation: Annotation
    licence: str
    source: str
    notes: str = ""
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.annotation, Annotation):
            raise TypeError(f"{self.name}: The annotation must be an Annotation; got {type(self.annotation).__name__}.")
        if set(self.splits) != set(SPLITS):
            raise ValueError(f"{self.name}: Splits must be {', '.join(SPLITS)}; got {', '.join(self.splits)}.")
        digest = hashlib.sha256(_canonical(self.annotation.description()))
        words: dict[str, dict[str, str]] = {}
        for split in SPLITS:
            if not len(self.splits[split]):
                raise ValueError(f"{self.name}: Split {split!r} is empty. {self.notes}".rstrip())
            words[split] = {}
            seen: set[str] | None = set() if _has_repeated_ids(self.splits[split]) else None
            for columns in self._pieces(split):
                self._check_sentences(split, columns, seen)
                for row in zip(*columns.values(), strict=True):
                    digest.update(_canonical([split, *row]))
                words[split].update(_texts(columns))
        for split in ("train", "dev"):
            _check_no_overlap(self.name, split, words[split], self.name, words["test"])
        object.__setattr__(self, "fingerprint", digest.hexdigest())

    def _pieces(self, split: str) -> Iterator[dict[str, list[Any]]]:
        dataset = self.splits[split]
        required = ("id", "tokens", *self.annotation.columns)
        if not set(required) <= set(dataset.column_names):
            raise ValueError(
                f"{self.name}: A split must have the columns {', '.join(required)}; {split} has "
                f"{', '.join(dataset.column_names)}."
            )
        wanted = [*required, *(["upos"] if "upos" in dataset.column_names else [])]
        yield from dataset.with_format(None).select_columns(wanted).iter(_PIECE)

    def _check_sentences(self, split: str, columns: Mapping[str, list[Any]], seen: set[str] | None) -> None:
        names = [name for name in columns if name not in ("id", "tokens")]
        for sentence_id, tokens, *rest in zip(
            columns["id"], columns["tokens"], *(columns[name] for name in names), strict=True
        ):
            values = dict(zip(names, rest, strict=True))
            where = f"{self.name}, {split}, sentence {sentence_id!r}"
            if seen is not None:
                if sentence_id in seen:
                    raise ValueError(f"{where}: The id occurs twice.")
                seen.add(sentence_id)
            if "upos" in values and len(values["upos"]) != len(tokens):
                raise ValueError(
                    f"{where}: {len(tokens)} tokens and {len(values['upos'])} upos; one per token expected."
                )
            try:
                self.annotation.check(tokens, values)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None


@dataclass(frozen=True, eq=False)
class Transfer:
    """Two corpora of the same annotation: one for the teacher, another for the student and its evaluation.

    The teacher learns from ``source`` train and dev; the student's unlabelled text is ``target`` train with the
    annotation hidden; both are evaluated on ``target`` dev and test. `load_transfer` makes one of any two corpora.

    Attributes:
        source: the teacher's corpus.
        target: the student's.
        fingerprint: sha256, in hex, of the two fingerprints; computed, never given.

    Raises:
        ValueError: on construction, if the annotations differ (both are printed), or a test sentence of the target
            occurs in train or dev of either corpus.
    """

    source: Corpus
    target: Corpus
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        _check_same_annotation(self.source, self.target)
        test = _texts(self.target.splits["test"])
        for split in ("train", "dev"):  # those of the target were checked when the target was made
            _check_no_overlap(self.source.name, split, _texts(self.source.splits[split]), self.target.name, test)
        digest = hashlib.sha256(_canonical([self.source.fingerprint, self.target.fingerprint]))
        object.__setattr__(self, "fingerprint", digest.hexdigest())

    @property
    def name(self) -> str:
        """Both names, as ``petrogold -> porttinari``."""
        return f"{self.source.name} -> {self.target.name}"

    @property
    def task(self) -> str:
        """The kind of annotation."""
        return self.target.task

    @property
    def annotation(self) -> Annotation:
        """The annotation of both corpora."""
        return self.target.annotation


@configurable
def load_transfer(source: Corpus, target: Corpus) -> Transfer:
    """Return the `Transfer` between two corpora, without the text that they share.

    Sentences of three words or more of source train and dev that occur word for word in target dev or test are dropped,
    and the notes of the source say how many.

    Raises:
        ValueError: the annotations differ; nothing is left of a split.
    """
    _check_same_annotation(source, target)
    judged = {**_texts(target.splits["dev"]), **_texts(target.splits["test"])}
    splits = source.splits.copy()
    dropped = {}
    for split in ("train", "dev"):
        splits[split], dropped[split] = _without(source.splits[split], judged)
    if not any(dropped.values()):
        return Transfer(source, target)
    note = (
        f"Sentences of {SHORTEST_LEAK} words or more that occur word for word in dev or test of {target.name} were "
        f"dropped: {dropped['train']} from "
        f"train, {dropped['dev']} from dev."
    )
    return Transfer(dataclasses.replace(source, splits=splits, notes=f"{source.notes} {note}".strip()), target)


def sentence_dataset(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ("labels",)) -> Dataset:
    """Return a ``datasets.Dataset`` in the form that `Corpus` takes.

    Args:
        rows: sentences with the keys ``id`` and ``tokens`` and those of `columns`.
        columns: columns beside these two: those of an annotation (lists of int), and ``upos`` (lists of str).
    """
    from datasets import Dataset, Features, List, Value, concatenate_datasets

    features = Features({"id": Value("string"), "tokens": List(Value("string"))})
    for column in columns:
        features[column] = List(Value("string" if column == "upos" else "int64"))
    pieces: list[Dataset] = []
    # Arrow needs a tenth of the memory of Python objects. Only one piece of the text exists as objects at a time.
    for piece in _in_pieces(rows):
        data: dict[str, list[Any]] = {"id": [row["id"] for row in piece]}
        for column in ("tokens", *columns):
            data[column] = [list(row[column]) for row in piece]
        pieces.append(Dataset.from_dict(data, features=features))
    return concatenate_datasets(pieces) if len(pieces) > 1 else pieces[0]


def sentence_splits(
    splits: Mapping[str, Iterable[Mapping[str, Any]]], columns: Sequence[str] = ("labels",)
) -> DatasetDict:
    """Return `sentence_dataset` of every split, in the order train, dev, test."""
    from datasets import DatasetDict

    return DatasetDict({split: sentence_dataset(splits[split], columns) for split in SPLITS})


def drop_repeated(splits: Mapping[str, Iterable[Any]]) -> tuple[dict[str, Sequence[Any]], dict[str, int]]:
    """Drop the sentences of train that occur in dev or test, and those of dev that occur in test.

    Sentences of fewer than three words stay: they repeat by nature.

    Args:
        splits: for train, dev and test, sentences with an attribute `tokens`; two are the same if their text is.
            Repetitions inside one split are kept.

    Returns:
        The splits that remain and, for train and dev, how many sentences were dropped.
    """
    given = {split: each if isinstance(each, Sequence) else list(each) for split, each in splits.items()}
    kept: dict[str, Sequence[Any]] = {"test": given["test"]}
    dropped: dict[str, int] = {}
    later: set[str] = set()
    for split, before in (("dev", "test"), ("train", "dev")):
        later.update(text for sentence in given[before] if (text := _text(sentence.tokens)))
        sentences = given[split]
        rows = (row for row, sentence in enumerate(sentences) if _text(sentence.tokens) not in later)
        kept[split] = chosen(sentences, rows)
        dropped[split] = len(sentences) - len(kept[split])
    return kept, dropped


def with_drawn_splits(splits: Mapping[str, Sequence[Any]], share: float = 0.1) -> tuple[dict[str, Sequence[Any]], str]:
    """Draw missing splits from train, by the hashes of sentences' text, so that repeated sentences stay together.

    Args:
        splits: sentences with an attribute `tokens`; "dev" and "test" may be missing.
        share: of train that a missing split gets, at least one sentence.

    Returns:
        All three splits, and a sentence for `Corpus.notes`, empty if none was missing.

    Raises:
        ValueError: train has too few different sentences to draw from.
    """
    missing = [split for split in ("dev", "test") if split not in splits]
    if not missing:
        return dict(splits), ""
    train = splits["train"]
    hashes = bytearray()
    for sentence in train:
        hashes += hashlib.sha256(" ".join(sentence.tokens).encode()).digest()
    each = np.frombuffer(hashes, "S32")
    order = np.unique(each)  # in the order of bytes
    size = max(1, round(share * len(order)))
    if len(order) <= size * len(missing):
        raise ValueError(
            f"{' and '.join(missing)} would be drawn from train, which has {len(order)} different sentences: too few. "
            "Name files for them."
        )
    # The first hashes are the first missing split's, the next ones the second's.
    part = np.minimum(np.searchsorted(order, each) // size, len(missing))
    drawn = {split: chosen(train, np.flatnonzero(part == n).tolist()) for n, split in enumerate([*missing, "train"])}
    counts = " and ".join(f"{len(drawn[split])} sentences for {split}" for split in missing)
    note = f"No file was named for {' and '.join(missing)}: {counts} were drawn from the {len(train)} of train."
    return {split: drawn.get(split, splits.get(split, ())) for split in SPLITS}, note


def dropped_note(dropped: Mapping[str, int]) -> str:
    """Return a sentence for `Corpus.notes` on the sentences that `drop_repeated` dropped."""
    return (
        f"Sentences of {SHORTEST_LEAK} words or more that are repeated word for word were dropped: {dropped['train']} "
        f"from train that occur in dev or test, {dropped['dev']} from dev that occur in test."
    )


def without_test_sentences(text: Dataset, test: Dataset) -> tuple[Dataset, int]:
    """Drop from a text, labelled or not, the sentences of three words or more that occur in a test split.

    Two sentences are the same if their words are, regardless of the blanks between or inside words.

    Args:
        text: with a column ``tokens``.
        test: likewise.

    Returns:
        The remaining text, and the number of sentences dropped. O(words) time.
    """
    return _without(text, _texts(test))


def drawn(sentences: Dataset, count: int, seed: int) -> Dataset:
    """Draw `count` sentences by the hashes of seed and sentence id, kept in the order of `sentences`.

    The draw is the same on every machine, and a larger `count` with the same seed only adds sentences.

    Raises:
        TypeError: `count` is not a whole number.
        ValueError: `count` is negative, or larger than the number of sentences; says how many there are.
    """
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"A number of sentences was expected; got {count!r}.")
    if not 0 <= count <= len(sentences):
        raise ValueError(f"{count} sentences asked for; there are {len(sentences)}.")
    keys = [hashlib.sha256(f"{seed}\t{sentence_id}".encode()).digest() for sentence_id in sentences["id"][:]]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return sentences.select(sorted(order[:count]))


def hidden(sentences: Dataset, annotation: Annotation) -> Dataset:
    """Return the sentences with every column of `annotation` at -100, as unlabelled text.

    Args:
        sentences: with columns ``id`` and ``tokens``; ``upos`` is kept if there is one; all other columns are dropped.
        annotation: says which columns to hide; `sentences` need not have them.
    """
    kept = ["upos"] if "upos" in sentences.column_names else []
    given = sentences.select_columns(["id", "tokens", *kept])

    def rows() -> Iterator[dict[str, Any]]:
        for piece in given.iter(_PIECE):
            for values in zip(*piece.values(), strict=True):
                row = dict(zip(piece, values, strict=True))
                yield row | {column: [UNLABELLED] * len(row["tokens"]) for column in annotation.columns}

    return sentence_dataset(rows(), [*annotation.columns, *kept])


def with_note(text: Dataset, note: str) -> Dataset:
    """Attach a note on omitted sentences to a text, for `note_of`."""
    text.info.description, text.info.homepage = note, _NOTED
    return text


def note_of(text: Dataset) -> str:
    """Return the note that `with_note` attached to a text, or an empty string."""
    return text.info.description if text.info.homepage == _NOTED else ""


def check_task(name: str, task: str, known: Sequence[str] | Mapping[str, str]) -> None:
    """Raise ValueError unless a corpus offers a task."""
    if task not in known:
        raise ValueError(f"Unknown task {task!r} for {name}; known: {', '.join(known)}.")


def _in_pieces(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Yield rows in lists of bounded size, at least one, which may be empty."""
    piece: list[Mapping[str, Any]] = []
    words = pieces = 0
    for row in rows:
        piece.append(row)
        words += len(row["tokens"])
        if len(piece) >= _PIECE or words >= _WORDS:
            yield piece
            piece, words, pieces = [], 0, pieces + 1
    if piece or not pieces:
        yield piece


def _has_repeated_ids(sentences: Dataset) -> bool:
    """Return whether an id may occur twice. Arrow needs a tenth of the memory of a set of ids."""
    if "id" not in sentences.column_names:
        return False
    ids = sentences.select_columns(["id"]).with_format("arrow")[:]["id"]
    return len(ids.unique()) < len(ids)


def _text(tokens: Sequence[str]) -> str | None:
    """Return the text of a sentence, to find it in other splits; None if it is too short to be a leak."""
    text = " ".join(tokens)
    return text if text.count(" ") + 1 >= SHORTEST_LEAK else None


def _texts(sentences: Mapping[str, Any] | Dataset) -> dict[str, str]:
    """Return the sentence ids by the text of the sentences, without short sentences."""
    pairs = zip(sentences["id"], sentences["tokens"], strict=True)
    return {text: sentence_id for sentence_id, tokens in pairs if (text := _text(tokens)) is not None}


def _without(text: Dataset, sentences: Mapping[str, str]) -> tuple[Dataset, int]:
    tokens = (each for piece in text.select_columns("tokens").iter(_PIECE) for each in piece["tokens"])
    kept = [number for number, each in enumerate(tokens) if _text(each) not in sentences]
    dropped = len(text) - len(kept)
    return (text.select(kept) if dropped else text), dropped


def _check_no_overlap(name: str, split: str, texts: Mapping[str, str], test_name: str, test: Mapping[str, str]) -> None:
    common = [text for text in test if text in texts]
    if not common:
        return
    shown = ", ".join(f"{test[text]} (= {texts[text]})" for text in common[:_SHOWN])
    more = f" and {len(common) - _SHOWN} more" if len(common) > _SHOWN else ""
    if name == test_name:
        where, remedy = split, "structkd.data.drop_repeated"
    else:
        where, remedy = f"{split} of {name}", "structkd.data.load_transfer"
    raise ValueError(
        f"{test_name}: {len(common)} test sentences occur in {where}, word for word: {shown}{more}. Drop them from "
        f"{split} ({remedy} does)."
    )


def _check_same_annotation(source: Corpus, target: Corpus) -> None:
    if source.annotation != target.annotation:
        raise ValueError(
            f"Teacher and student need the same annotation; {source.name} has {source.annotation.description()}, "
            f"{target.name} has {target.annotation.description()}."
        )


def _canonical(value: object) -> bytes:
    """Return one line of JSON without blanks, in ASCII, so that it does not depend on locale or normalization."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"
