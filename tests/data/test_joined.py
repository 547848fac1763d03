"""Several corpora as one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from structkd.data import Corpus, load_joined, load_toy, load_transfer, sentence_splits

SPLITS = ("train", "dev", "test")


def part(seed: int, task: str = "spans") -> Corpus:
    return load_toy(task, train=12, dev=5, test=5, seed=seed)


@pytest.mark.parametrize("task", ["spans", "dependencies"])
def test_splits_follow_each_other_with_ids_of_their_own(task: str) -> None:
    one, other = part(1, task), replace(part(2, task), licence="ours")
    joined = load_joined("both", de=one, en=other)
    assert (joined.name, joined.task, joined.annotation) == ("both", one.task, one.annotation)
    for split in SPLITS:
        ids = [f"{key}:{each}" for key, corpus in (("de", one), ("en", other)) for each in corpus.splits[split]["id"]]
        assert list(joined.splits[split]["id"]) == ids
        for column in ("tokens", *one.annotation.columns, *(["upos"] if task == "dependencies" else [])):
            expected = [*one.splits[split][column], *other.splits[split][column]]
            assert list(joined.splits[split][column]) == expected
    assert joined.licence == f"de: {one.licence}; en: ours"
    assert joined.source.startswith("de: ")
    assert "dropped" not in joined.notes
    assert joined.fingerprint != load_joined("both", en=other, de=one).fingerprint
    assert load_transfer(joined, part(3, task)).source.name == "both"


def test_sentences_of_another_corpus_dev_and_test_are_dropped() -> None:
    one, other = part(1), part(2)
    splits = {split: list(one.splits[split]) for split in SPLITS}
    stolen = [
        {**other.splits["test"][0], "id": "test"},
        {**other.splits["test"][1], "id": "more"},
        {**other.splits["dev"][0], "id": "dev"},
    ]
    splits["train"] += stolen
    splits["dev"].append(stolen[0])
    joined = load_joined("both", one=replace(one, splits=sentence_splits(splits)), other=other)
    for split in SPLITS:
        assert list(joined.splits[split]["tokens"]) == [*one.splits[split]["tokens"], *other.splits[split]["tokens"]]
    assert "3 sentences of train and 1 of dev occur in a later split" in joined.notes


def test_what_cannot_be_joined() -> None:
    with pytest.raises(ValueError, match="none: Name at least one corpus"):
        load_joined("none")
    with pytest.raises(ValueError, match=r"both: .* the same annotation; toy has .*, toy has "):
        load_joined("both", one=part(1), other=part(2, "upos"))
