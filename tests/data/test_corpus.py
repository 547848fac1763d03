"""The corpus object: its checks, its fingerprint, and the regimes drawn from it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError
from typing import Any, NamedTuple

import pytest
from datasets import Dataset, DatasetDict

from structkd.data import (
    UNLABELLED,
    Annotation,
    Corpus,
    TagAnnotation,
    Transfer,
    TreeAnnotation,
    drawn,
    drop_repeated,
    hidden,
    load_toy,
    load_transfer,
    sentence_dataset,
    sentence_splits,
    without_test_sentences,
)
from structkd.data.corpus import dropped_note

Row = tuple[str, Sequence[str], Sequence[int]]
TREES = TreeAnnotation(("dep", "root"))


def rows(split: str, count: int) -> list[Row]:
    return [(f"{split}-{i}", [f"{split}{i}", "café"], [1, 2]) for i in range(count)]


def long(name: str) -> list[Row]:
    """Three sentences that are long enough to be a leak, with ids of their own."""
    return [(f"{name}-{i}", [f"long{i}", "café", "au"], [1, 2, 0]) for i in range(3)]


def tagged(sentences: Sequence[Row]) -> list[dict[str, Any]]:
    return [{"id": name, "tokens": tokens, "labels": labels} for name, tokens, labels in sentences]


def corpus(**changes: Any) -> Corpus:
    splits: dict[str, Any] = {"train": rows("train", 20), "dev": rows("dev", 3), "test": rows("test", 3)}
    splits |= {split: changes.pop(split) for split in tuple(splits) if split in changes}
    arguments: dict[str, Any] = {
        "name": "made",
        "task": "entities",
        "splits": sentence_splits({split: tagged(sentences) for split, sentences in splits.items()}),
        "annotation": TagAnnotation.of_spans(["X"], "BIO"),
        "licence": "none",
        "source": "here",
    }
    return Corpus(**(arguments | changes))


def treebank(train: Sequence[tuple[str, list[str], list[int], list[int]]] = (), upos: bool = True) -> Corpus:
    """Two-word trees, with other sentences for train where they are given."""
    columns = [*TREES.columns, *(["upos"] if upos else [])]

    def sentence(name: str, tokens: list[str], heads: list[int], relations: list[int]) -> dict[str, Any]:
        return {"id": name, "tokens": tokens, "heads": heads, "relations": relations, "upos": ["X", "NOUN"]}

    plain = {split: [sentence(f"{split}-{i}", [split, str(i)], [2, 0], [0, 1]) for i in range(3)] for split in SPLITS}
    splits = plain | ({"train": [sentence(*row) for row in train]} if train else {})
    return Corpus("trees", "dependencies", sentence_splits(splits, columns), TREES, "none", "here")


SPLITS = ("train", "dev", "test")


def test_columns_and_attributes() -> None:
    made = corpus()
    assert list(made.splits) == ["train", "dev", "test"]
    assert made.splits["train"][0] == {"id": "train-0", "tokens": ["train0", "café"], "labels": [1, 2]}
    with pytest.raises(FrozenInstanceError):
        made.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": []}, "Split 'train' is empty"),
        ({"test": []}, "Split 'test' is empty"),
        (
            {"dev": long("a")[1:2], "test": long("test")},
            r"1 test sentences occur in dev, word for word: test-1 \(= a-1\)",
        ),
        ({"train": long("a"), "test": long("test")}, "3 test sentences occur in train.*drop_repeated"),
        ({"train": [("a", ["u"], [0]), ("a", ["v"], [0])]}, "train, sentence 'a': The id occurs twice"),
        ({"train": [("a", ["u", "v"], [0])]}, "sentence 'a': 2 tokens and 1 labels"),
        ({"train": [("a", [], [])]}, "sentence 'a': 0 tokens"),
        ({"train": [("a", ["u"], [3])]}, r"sentence 'a': Labels \[3\] are outside 0\.\.2\. To hide"),
        ({"train": [("a", ["u", "v"], [0, UNLABELLED])]}, "sentence 'a': Labels .*-100.* are outside"),
        ({"train": [("a", ["u", "v"], [0, 2])]}, "sentence 'a': I-X cannot follow O in BIO"),
        ({"train": [("a", ["u"], [2])]}, "sentence 'a': I-X cannot follow the edge of the sentence"),
        (
            {"splits": DatasetDict({"train": sentence_dataset(tagged(rows("train", 1)))})},
            "Splits must be train, dev, test",
        ),
        (
            {"splits": DatasetDict({s: Dataset.from_dict({"id": ["1"]}) for s in SPLITS})},
            "must have the columns id, tokens, labels; train has id",
        ),
        ({"annotation": TREES}, "must have the columns id, tokens, heads, relations; train has id, tokens, labels"),
    ],
)
def test_what_a_corpus_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        corpus(**changes)


def test_unlabelled_sentences_are_welcome() -> None:
    corpus(train=[("a", ["u", "v"], [UNLABELLED, UNLABELLED])])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a", ["u", "v"], [2, 1], [0, 0]), "sentence 'a': It is not a tree: it has no root"),
        (("a", ["u", "v"], [0, 0], [0, 0]), "sentence 'a': It is not a tree: it has 2 roots, words 1, 2"),
        (("a", ["u", "v"], [0, 2], [0, 0]), "sentence 'a': It is not a tree: words 2 -> 2 are a cycle"),
        (("a", ["u", "v"], [0, 3], [0, 0]), r"sentence 'a': Heads \[3\] are outside 0 \(root\) to 2"),
        (("a", ["u", "v"], [0, -1], [0, 0]), r"sentence 'a': Heads \[-1\]"),
        (("a", ["u", "v"], [0, 1], [2, 0]), r"sentence 'a': Relations \[2\] are outside 0\.\.1\."),
        (("a", ["u", "v"], [0, 1], [0]), "sentence 'a': 2 tokens and 1 relations"),
        (("a", ["u", "v"], [0, 1], [-100, -100]), "sentence 'a': Columns heads, relations must be hidden .* together"),
        (("a", ["u", "v", "w"], [0, 1, 1], [0, 0, 0]), "sentence 'a': 3 tokens and 2 upos"),
    ],
)
def test_what_a_treebank_refuses(row: tuple[str, list[str], list[int], list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=f"trees, train, {message}"):
        treebank(train=[row])


def test_trees_may_be_hidden_and_the_input_column_stays_apart() -> None:
    made = treebank(train=[("a", ["u", "v"], [UNLABELLED] * 2, [UNLABELLED] * 2)])
    assert made.splits["train"][0]["upos"] == ["X", "NOUN"]
    assert made.fingerprint != treebank().fingerprint != treebank(upos=False).fingerprint


def test_an_annotation_makes_its_values_readable() -> None:
    entities = TagAnnotation.of_spans(["PER", "LOC"], "BIO")
    assert entities.types == ("PER", "LOC")
    assert entities.names({"labels": [1, 2, 0]}) == {"labels": ["B-PER", "I-PER", "O"]}
    assert TagAnnotation(["NOUN", "VERB"]).types is None  # type: ignore[arg-type]
    names = {"heads": [2, 0], "relations": ["dep", "root"]}
    assert TREES.names({"heads": [2, 0], "relations": [0, 1]}) == names
    assert TREES.names({"heads": [UNLABELLED], "relations": [UNLABELLED]}) == {"heads": [None], "relations": [None]}
    assert TreeAnnotation(["dep", "root"]) == TREES  # type: ignore[arg-type]
    assert TreeAnnotation(TREES.relations, multiroot=True).fault({"heads": [0, 0], "relations": [1, 1]}) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TagAnnotation(("O", "I-X", "B-X"), "BIO"), r"Labels of BIO must be \['O', 'B-X', 'I-X'\]; got"),
        (lambda: TagAnnotation(("O", "O")), "Labels must be distinct"),
        (lambda: TagAnnotation(()), "Labels must be distinct and at least one"),
        (lambda: TagAnnotation(("O",), "BIO"), "Types must be distinct words"),
        (lambda: TagAnnotation(("O", "I-X", "B-X"), "IOB1"), "IOB1 is a scheme of files only"),
        (lambda: TreeAnnotation(("dep", "dep")), "Relations must be distinct"),
    ],
)
def test_what_an_annotation_refuses(make: Callable[[], Annotation], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_fingerprint_follows_content_alone() -> None:
    reference = corpus().fingerprint
    assert corpus(name="other", notes="other", source="elsewhere").fingerprint == reference
    changed = rows("train", 20)
    for row in [("train-0", ["other", "café"], [1, 2]), ("train-0", changed[0][1], [0, 0]), ("x", *changed[0][1:])]:
        assert corpus(train=[row, *changed[1:]]).fingerprint != reference
    assert corpus(dev=rows("dev", 2)).fingerprint != reference
    assert corpus(annotation=TagAnnotation.of_spans(["Y"], "BIO")).fingerprint != reference
    assert corpus(annotation=TagAnnotation(("O", "B-X", "I-X"))).fingerprint != reference


def test_fingerprint_is_the_same_in_every_process() -> None:
    # A constant, so that a change of the fingerprint's definition cannot pass unnoticed; stored results depend on it.
    assert corpus().fingerprint == "8beb45f33a632db687297f0800b5c261d875c9327fb91230e17292fea528680b"


class Sentence(NamedTuple):
    tokens: tuple[str, ...]
    number: int


def test_repeated_sentences_go_from_the_earlier_split() -> None:
    def sentences(*words: str) -> list[Sentence]:
        return [Sentence((word, "x", "y"), number) for number, word in enumerate(words)]

    kept, dropped = drop_repeated(
        {"train": sentences("a", "a", "b", "c", "d"), "dev": sentences("b", "e", "c"), "test": sentences("c", "c")}
    )
    assert {split: "".join(s.tokens[0] for s in kept[split]) for split in kept} == {
        "train": "aad",
        "dev": "be",
        "test": "cc",
    }
    assert dropped == {"train": 2, "dev": 1}


def test_short_sentences_repeat_by_nature() -> None:
    split = [Sentence(("-",), 0), Sentence(("Madrid", "."), 1), Sentence(("a", "b", "c"), 2)]
    kept, dropped = drop_repeated({"train": split, "dev": split, "test": split})
    assert [len(kept[name]) for name in SPLITS] == [2, 2, 3]
    assert dropped == {"train": 1, "dev": 1}
    assert "Sentences of 3 words or more that are repeated" in dropped_note(dropped)


def test_draws_are_reproducible_nested_and_in_order() -> None:
    train = corpus().splits["train"]

    def ids(count: int, seed: int) -> list[str]:
        return list(drawn(train, count, seed)["id"])

    assert ids(4, 1) == ids(4, 1) != ids(4, 2)
    assert set(ids(4, 1)) < set(ids(6, 1))
    assert ids(20, 1) == list(train["id"])
    assert ids(7, 3) == [name for name in train["id"] if name in ids(7, 3)]
    assert ids(0, 1) == []


@pytest.mark.parametrize(
    ("count", "error", "message"),
    [
        (21, ValueError, "21 sentences asked for; there are 20"),
        (-1, ValueError, "-1 sentences asked for"),
        (0.5, TypeError, "A number of sentences was expected; got 0.5"),
        (True, TypeError, "got True"),
    ],
)
def test_impossible_draws_are_refused(count: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        drawn(corpus().splits["train"], count, 0)


@pytest.mark.parametrize("task", ["spans", "upos", "dependencies"])
def test_hidden_sentences_keep_their_words_and_nothing_else(task: str) -> None:
    toy = load_toy(task)
    train = toy.splits["train"]
    masked = hidden(train, toy.annotation)
    assert masked.features == train.features
    for column in ("id", "tokens", *(["upos"] if task == "dependencies" else [])):
        assert list(masked[column]) == list(train[column])
    for column in toy.annotation.columns:
        assert list(masked[column]) == [[UNLABELLED] * len(tokens) for tokens in train["tokens"]]


def test_plain_text_gets_hidden_columns() -> None:
    text = Dataset.from_dict({"id": ["a"], "tokens": [["u", "v"]], "source": ["web"]})
    assert hidden(text, TREES)[0] == {
        "id": "a",
        "tokens": ["u", "v"],
        "heads": [UNLABELLED] * 2,
        "relations": [UNLABELLED] * 2,
    }
    assert len(hidden(text.select([]), TREES)) == 0


def test_test_sentences_leave_an_unlabelled_text() -> None:
    tokens = [["u"], ["long1", "café", "au"], ["v"], ["test1", "café"], ["long2 café", "au"]]
    text = Dataset.from_dict({"id": ["a", "b", "c", "d", "e"], "tokens": tokens})
    test = corpus(test=[*long("test"), ("short", ["test1", "café"], [1, 2])]).splits["test"]
    kept, dropped = without_test_sentences(text, test)
    assert (list(kept["id"]), dropped) == (["a", "c", "d"], 2), (
        "short ones stay; blanks inside words make no difference"
    )
    assert without_test_sentences(kept, test)[1] == 0


# Transfer


def other(**changes: Any) -> Corpus:
    """A corpus whose words are those of `corpus` with "x" before them."""
    splits = {split: [(n, [f"x{t[0]}", t[1]], v) for n, t, v in rows(split, 4)] for split in SPLITS}
    return corpus(**({"name": "other"} | splits | changes))


def test_transfer_takes_the_target_for_judge() -> None:
    transfer = Transfer(corpus(), other())
    assert (transfer.name, transfer.task) == ("made -> other", "entities")
    assert transfer.annotation == transfer.target.annotation
    assert len({transfer.fingerprint, Transfer(other(), corpus()).fingerprint, corpus().fingerprint}) == 3


@pytest.mark.parametrize("split", ["train", "dev"])
def test_transfer_refuses_test_sentences_in_the_teachers_text(split: str) -> None:
    leaking = corpus(**{split: [*rows(split, 3), ("leak", ["long2", "café", "au"], [0, 0, 0])]})
    target = other(test=long("test"))
    with pytest.raises(ValueError, match=rf"other: 1 test sentences occur in {split} of made, .*test-2 \(= leak\)"):
        Transfer(leaking, target)
    transfer = load_transfer(leaking, target)
    assert list(transfer.source.splits[split]["id"]) == [name for name, _, _ in rows(split, 3)]
    assert "3 words or more that occur word for word in dev or test of other were dropped: " in transfer.source.notes
    assert f"1 from {split}" in transfer.source.notes
    assert transfer.source.fingerprint != leaking.fingerprint


def test_transfer_without_shared_text_changes_nothing() -> None:
    source = corpus()
    assert load_transfer(source, other()).source is source


def test_transfer_needs_one_annotation() -> None:
    for make in (Transfer, load_transfer):
        with pytest.raises(ValueError, match=r"the same annotation; made has .*BIO.*, toy has .*BIOES"):
            make(corpus(), load_toy())


def test_importing_the_room_loads_no_datasets_library() -> None:
    code = "import sys, structkd.data; assert 'datasets' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
