"""The corpus object: its checks, its fingerprint, and the regimes drawn from it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError
from typing import Any, NamedTuple, cast

import pytest
from datasets import Dataset, DatasetDict

from structkd.data import (
    UNLABELLED,
    Corpus,
    drop_repeated,
    label_dataset,
    label_splits,
    student_regime,
    tag_inventory,
    teacher_regime,
)

Row = tuple[str, Sequence[str], Sequence[int]]


def rows(split: str, count: int) -> list[Row]:
    return [(f"{split}-{i}", [f"{split}{i}", "café"], [1, 2]) for i in range(count)]


def corpus(**changes: Any) -> Corpus:
    splits: dict[str, Any] = {"train": rows("train", 20), "dev": rows("dev", 3), "test": rows("test", 3)}
    splits |= {split: changes.pop(split) for split in tuple(splits) if split in changes}
    arguments: dict[str, Any] = {
        "name": "made",
        "task": "entities",
        "splits": label_splits(splits),
        "labels": tag_inventory(["X"], "BIO"),
        "types": ["X"],
        "scheme": "BIO",
        "licence": "none",
        "source": "here",
    }
    return Corpus(**(arguments | changes))


def test_columns_and_attributes() -> None:
    made = corpus()
    assert list(made.splits) == ["train", "dev", "test"]
    assert made.splits["train"][0] == {"id": "train-0", "tokens": ["train0", "café"], "labels": [1, 2]}
    with pytest.raises(FrozenInstanceError):
        made.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": []}, "split 'train' is empty"),
        ({"test": []}, "split 'test' is empty"),
        ({"dev": [("a", ["test1", "café"], [0, 0])]}, r"1 test sentences occur in dev, word for word: test-1 \(= a\)"),
        ({"train": rows("test", 3)}, "3 test sentences occur in train.*drop_repeated"),
        ({"train": [("a", ["u"], [0]), ("a", ["v"], [0])]}, "train, sentence 'a': the id occurs twice"),
        ({"train": [("a", ["u", "v"], [0])]}, "sentence 'a': 2 tokens and 1 labels"),
        ({"train": [("a", [], [])]}, "sentence 'a': 0 tokens"),
        ({"train": [("a", ["u"], [3])]}, r"sentence 'a': labels \[3\] are no indices of the 3 labels"),
        ({"train": [("a", ["u", "v"], [0, UNLABELLED])]}, "sentence 'a': labels .*-100.* are no indices"),
        ({"train": [("a", ["u", "v"], [0, 2])]}, "sentence 'a': I-X cannot follow O in BIO"),
        ({"train": [("a", ["u"], [2])]}, "sentence 'a': I-X cannot follow the edge of the sentence"),
        ({"labels": ["O", "I-X", "B-X"]}, "labels of BIO must be"),
        ({"labels": ["O", "O"], "types": None, "scheme": None}, "labels must be distinct"),
        ({"types": None}, "types and scheme go together"),
        ({"splits": DatasetDict({"train": label_dataset(rows("train", 1))})}, "splits must be train, dev, test"),
        ({"splits": DatasetDict({s: Dataset.from_dict({"id": ["1"]}) for s in ("train", "dev", "test")})}, "columns"),
    ],
)
def test_what_a_corpus_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        corpus(**changes)


def test_unlabelled_sentences_are_welcome() -> None:
    corpus(train=[("a", ["u", "v"], [UNLABELLED, UNLABELLED])])


def test_fingerprint_follows_content_alone() -> None:
    reference = corpus().fingerprint
    assert corpus(name="other", notes="other", source="elsewhere").fingerprint == reference
    changed = rows("train", 20)
    for row in [("train-0", ["other", "café"], [1, 2]), ("train-0", changed[0][1], [0, 0]), ("x", *changed[0][1:])]:
        assert corpus(train=[row, *changed[1:]]).fingerprint != reference
    assert corpus(dev=rows("dev", 2)).fingerprint != reference
    assert corpus(labels=tag_inventory(["Y"], "BIO"), types=["Y"]).fingerprint != reference


def test_fingerprint_is_the_same_in_every_process() -> None:
    # A constant, so that a change of the fingerprint's definition cannot pass unnoticed; stored results depend on it.
    assert corpus().fingerprint == "ad13a77d80400235f9962b8ba5e7064019af80bc25be1c25e4ab2c39e8344636"


class Sentence(NamedTuple):
    tokens: tuple[str, ...]
    number: int


def test_repeated_sentences_go_from_the_earlier_split() -> None:
    def sentences(*words: str) -> list[Sentence]:
        return [Sentence((word,), number) for number, word in enumerate(words)]

    kept, dropped = drop_repeated(
        {"train": sentences("a", "a", "b", "c", "d"), "dev": sentences("b", "e", "c"), "test": sentences("c", "c")}
    )
    assert {split: "".join(s.tokens[0] for s in kept[split]) for split in kept} == {
        "train": "aad",
        "dev": "be",
        "test": "cc",
    }
    assert dropped == {"train": 2, "dev": 1}


def test_the_student_sees_few_labels_and_other_words() -> None:
    made = corpus()
    labelled, unlabelled = student_regime(made, labelled=4, unlabelled=7, seed=1)
    assert len(labelled) == 4
    assert len(unlabelled) == 7
    assert not set(labelled["id"]) & set(unlabelled["id"])
    assert all(labels == [1, 2] for labels in labelled["labels"])
    assert all(labels == [UNLABELLED] * 2 for labels in unlabelled["labels"])
    assert labelled.features == unlabelled.features
    assert made.splits["train"][0]["labels"] == [1, 2]


def test_regimes_are_reproducible_and_nested() -> None:
    def drawn(labelled: int, unlabelled: int, seed: int) -> list[list[str]]:
        return [list(part["id"]) for part in student_regime(corpus(), labelled, unlabelled, seed)]

    assert drawn(4, 7, 1) == drawn(4, 7, 1)
    assert drawn(4, 7, 1) != drawn(4, 7, 2)
    assert set(drawn(4, 7, 1)[0]) < set(drawn(6, 7, 1)[0])
    assert set(drawn(4, 7, 1)[0]) < set(teacher_regime(corpus(), 9, seed=1)["id"])
    assert drawn(20, 0, 1)[1] == []
    assert teacher_regime(corpus())["id"][:] == corpus().splits["train"]["id"][:]


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda c: student_regime(c, 15, 6, 0), ValueError, "15 labelled and 6 unlabelled .* 21 in all; train has 20"),
        (lambda c: student_regime(c, 0, 6, 0), ValueError, "labelled must be at least 1; got 0"),
        (lambda c: student_regime(c, 1, -1, 0), ValueError, "unlabelled must be at least 0; got -1"),
        (
            lambda c: student_regime(c, cast(int, 0.5), 1, 0),
            TypeError,
            "labelled must be a number of sentences; got 0.5",
        ),
        (lambda c: teacher_regime(c, 21), ValueError, "21 labelled sentences asked for, train has 20"),
    ],
)
def test_impossible_regimes_are_refused(draw: Callable[[Corpus], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        draw(corpus())


def test_importing_the_room_loads_no_datasets_library() -> None:
    code = "import sys, structkd.data; assert 'datasets' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
