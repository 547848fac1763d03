"""A corpus: fixed train, dev and test splits of labelled sentences, checked and fingerprinted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from structkd.data.tagging import legal_pairs, tag_inventory

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

SPLITS: tuple[str, ...] = ("train", "dev", "test")
UNLABELLED = -100
"""Label of every word of a sentence whose labels are not to be used; PyTorch's and transformers' ignore index."""

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Corpus:
    """Sentences for one sequence-labelling task, in three splits.

    Attributes:
        name: the corpus, as ``petrogold``.
        task: what the labels are, as ``base_phrases``.
        splits: ``datasets.DatasetDict`` with ``train``, ``dev`` and ``test``, of columns ``id`` (str), ``tokens``
            (list of str) and ``labels`` (list of int: indices into `labels`, or -100 throughout a sentence that is
            unlabelled).
        labels: label inventory in order.
        types: span types in order where the labels are tags of spans, else None.
        scheme: "BIO" or "BIOES" where the labels are tags of spans, else None.
        licence: terms under which the text may be used.
        source: where the text comes from.
        notes: what a reader of the results has to know.
        fingerprint: sha256, in hex, of ids, tokens, labels and inventory; computed, never given. The same on every
            machine, and another one as soon as a word or a label changes.

    Raises:
        ValueError: on construction, where a split is missing or empty, columns differ in length, an id occurs twice
            in a split, a label lies outside the inventory, tags are illegal in the scheme, or a test sentence occurs
            in train or dev; sentence ids are named.
    """

    name: str
    task: str
    splits: DatasetDict
    labels: list[str]
    types: list[str] | None
    scheme: str | None
    licence: str
    source: str
    notes: str = ""
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        self._check_inventory()
        if set(self.splits) != set(SPLITS):
            raise ValueError(f"{self.name}: splits must be {', '.join(SPLITS)}; got {', '.join(self.splits)}")
        digest = hashlib.sha256(_canonical([self.labels, self.types, self.scheme]))
        tokens_of: dict[str, dict[tuple[str, ...], str]] = {}
        for split in SPLITS:
            rows = _rows(self.splits[split])
            if not rows:
                raise ValueError(f"{self.name}: split {split!r} is empty")
            self._check_rows(split, rows)
            for row in rows:
                digest.update(_canonical([split, *row]))
            tokens_of[split] = {tuple(tokens): sentence_id for sentence_id, tokens, _ in rows}
        for split in ("train", "dev"):
            self._check_disjoint(split, tokens_of[split], tokens_of["test"])
        object.__setattr__(self, "fingerprint", digest.hexdigest())

    def _check_inventory(self) -> None:
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"{self.name}: labels must be distinct and at least one; got {self.labels}")
        if (self.types is None) != (self.scheme is None):
            raise ValueError(f"{self.name}: types and scheme go together; got {self.types} and {self.scheme!r}")
        if self.types is not None and self.scheme is not None:
            expected = tag_inventory(self.types, self.scheme)
            if self.labels != expected:
                raise ValueError(f"{self.name}: labels of {self.scheme} must be {expected}; got {self.labels}")

    def _check_rows(self, split: str, rows: Sequence[tuple[str, list[str], list[int]]]) -> None:
        indices = set(range(len(self.labels)))
        legal = legal_pairs(self.labels, self.scheme) if self.scheme else None
        seen: set[str] = set()
        for sentence_id, tokens, labels in rows:
            where = f"{self.name}, {split}, sentence {sentence_id!r}"
            if sentence_id in seen:
                raise ValueError(f"{where}: the id occurs twice")
            seen.add(sentence_id)
            if not tokens or len(tokens) != len(labels):
                raise ValueError(
                    f"{where}: {len(tokens)} tokens and {len(labels)} labels; one label per token expected"
                )
            used = set(labels)
            if used == {UNLABELLED}:
                continue
            if not used <= indices:
                raise ValueError(
                    f"{where}: labels {sorted(used - indices)} are no indices of the {len(self.labels)} labels "
                    f"(nor is the whole sentence {UNLABELLED}, which stands for unlabelled)"
                )
            if legal is not None:
                edge = len(self.labels)
                for pair in zip([edge, *labels], [*labels, edge], strict=True):
                    if pair not in legal:
                        names = [*self.labels, "the edge of the sentence"]
                        raise ValueError(f"{where}: {names[pair[1]]} cannot follow {names[pair[0]]} in {self.scheme}")

    def _check_disjoint(
        self, split: str, here: Mapping[tuple[str, ...], str], test: Mapping[tuple[str, ...], str]
    ) -> None:
        common = [tokens for tokens in test if tokens in here]
        if common:
            shown = ", ".join(f"{test[tokens]} (= {here[tokens]})" for tokens in common[:_SHOWN])
            more = f" and {len(common) - _SHOWN} more" if len(common) > _SHOWN else ""
            raise ValueError(
                f"{self.name}: {len(common)} test sentences occur in {split}, word for word: {shown}{more}; drop "
                f"them from {split} (structkd.data.drop_repeated does)"
            )


def label_dataset(sentences: Iterable[tuple[str, Sequence[str], Sequence[int]]]) -> Dataset:
    """A ``datasets.Dataset`` with the columns of `Corpus`, from (id, tokens, label indices)."""
    from datasets import Dataset, Features, List, Value

    rows = list(sentences)
    return Dataset.from_dict(
        {
            "id": [sentence_id for sentence_id, _, _ in rows],
            "tokens": [list(tokens) for _, tokens, _ in rows],
            "labels": [list(labels) for _, _, labels in rows],
        },
        features=Features({"id": Value("string"), "tokens": List(Value("string")), "labels": List(Value("int64"))}),
    )


def label_splits(splits: Mapping[str, Iterable[tuple[str, Sequence[str], Sequence[int]]]]) -> DatasetDict:
    """`label_dataset` for every split, in the order train, dev, test."""
    from datasets import DatasetDict

    return DatasetDict({split: label_dataset(splits[split]) for split in SPLITS})


def drop_repeated(splits: Mapping[str, Iterable[Any]]) -> tuple[dict[str, list[Any]], dict[str, int]]:
    """Keep text apart: drop from train what occurs in dev or test, and from dev what occurs in test.

    Args:
        splits: for train, dev and test, sentences with an attribute `tokens`; two are the same if their words are.
            Repetitions inside one split are kept.

    Returns:
        The splits that remain and, for train and dev, how many sentences were dropped.
    """
    test = list(splits["test"])
    later = {tuple(sentence.tokens) for sentence in test}
    kept: dict[str, list[Any]] = {"test": test}
    dropped: dict[str, int] = {}
    for split in ("dev", "train"):
        sentences = list(splits[split])
        kept[split] = [sentence for sentence in sentences if tuple(sentence.tokens) not in later]
        dropped[split] = len(sentences) - len(kept[split])
        later |= {tuple(sentence.tokens) for sentence in sentences}
    return kept, dropped


def dropped_note(dropped: Mapping[str, int]) -> str:
    """One sentence for `Corpus.notes` on what `drop_repeated` dropped."""
    return (
        f"Sentences repeated word for word were dropped: {dropped['train']} from train that occur in dev or test, "
        f"{dropped['dev']} from dev that occur in test."
    )


def teacher_regime(corpus: Corpus, labelled: int | None = None, seed: int = 0) -> Dataset:
    """The teacher's training sentences: `labelled` sentences of train, all of them where None.

    Sentences are drawn in the same order as by `student_regime`: with one seed, the student's labelled sentences are
    among the teacher's.

    Raises:
        ValueError: fewer than 1, or more sentences than train has; says how many there are.
    """
    train = corpus.splits["train"]
    if labelled is None:
        return train
    _check_size(corpus, "labelled", labelled, 1)
    if labelled > len(train):
        raise ValueError(f"{corpus.name}: {labelled} labelled sentences asked for, train has {len(train)}")
    return train.select(sorted(_draw_order(train, seed)[:labelled]))


def student_regime(corpus: Corpus, labelled: int, unlabelled: int, seed: int) -> tuple[Dataset, Dataset]:
    """The student's training sentences: few with labels, and others of which it sees the words only.

    Sentences are drawn by the hash of seed and sentence id: the same on every machine, and a larger `labelled` only
    adds sentences.

    Returns:
        `labelled` sentences of train with their labels, and `unlabelled` other ones with every label -100; each in
        the order of train.

    Raises:
        ValueError: fewer than 1 labelled or 0 unlabelled, or more in all than train has; says how many there are.
    """
    train = corpus.splits["train"]
    _check_size(corpus, "labelled", labelled, 1)
    _check_size(corpus, "unlabelled", unlabelled, 0)
    if labelled + unlabelled > len(train):
        raise ValueError(
            f"{corpus.name}: {labelled} labelled and {unlabelled} unlabelled sentences asked for, "
            f"{labelled + unlabelled} in all; train has {len(train)}"
        )
    order = _draw_order(train, seed)
    rows = _rows(train.select(sorted(order[labelled : labelled + unlabelled])))
    return (
        train.select(sorted(order[:labelled])),
        label_dataset((sentence_id, tokens, [UNLABELLED] * len(tokens)) for sentence_id, tokens, _ in rows),
    )


def _check_size(corpus: Corpus, what: str, size: int, least: int) -> None:
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"{corpus.name}: {what} must be a number of sentences; got {size!r}")
    if size < least:
        raise ValueError(f"{corpus.name}: {what} must be at least {least}; got {size}")


def _draw_order(train: Dataset, seed: int) -> list[int]:
    keys = [hashlib.sha256(f"{seed}\t{sentence_id}".encode()).digest() for sentence_id in train["id"]]
    return sorted(range(len(keys)), key=keys.__getitem__)


def _rows(dataset: Dataset) -> list[tuple[str, list[str], list[int]]]:
    missing = {"id", "tokens", "labels"} - set(dataset.column_names)
    if missing:
        raise ValueError(
            f"a split must have the columns id, tokens and labels; it has {', '.join(dataset.column_names)}"
        )
    columns = dataset.to_dict()
    return list(zip(columns["id"], columns["tokens"], columns["labels"], strict=True))


def _canonical(value: object) -> bytes:
    """One line of JSON without blanks; ASCII, so that no locale or normalisation has a say."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"
