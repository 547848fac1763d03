"""Training text out of labelled and unlabelled sentences, whatever table they lie in."""

from pathlib import Path

import pytest
from datasets import Dataset, Features, List, Value

from structkd.data import TagAnnotation, hidden, load_toy
from structkd.training import training_text
from structkd.training.teacher_scores import sentence_lengths

CORPUS = load_toy("spans", train=30, dev=2, test=2)


@pytest.mark.parametrize("on_disk", [False, True])
def test_rows_and_lengths_are_those_of_the_sentences(on_disk: bool, tmp_path: Path) -> None:
    train = CORPUS.splits["train"]
    if on_disk:
        train.save_to_disk(tmp_path / "train")
        train = Dataset.load_from_disk(str(tmp_path / "train"))
    labelled = train.select([7, 3, 9])
    unlabelled = hidden(train.select(range(20, 30)), CORPUS.annotation).select([4, 0])
    text = training_text(CORPUS.annotation, labelled, unlabelled)
    expected = [*labelled["tokens"], *unlabelled["tokens"]]
    assert text["tokens"][:] == expected
    assert text["length"][:] == [len(tokens) for tokens in expected] == sentence_lengths(text).tolist()
    assert text["row"][:] == list(range(5))
    assert text["labelled"][:] == [True] * 3 + [False] * 2
    assert text["id"][3] == unlabelled["id"][0]


def test_parts_of_different_types_come_together() -> None:
    labelled = CORPUS.splits["train"].select(range(3))
    types = Features({"id": Value("large_string"), "tokens": List(Value("string")), "labels": List(Value("int32"))})
    unlabelled = Dataset.from_dict({"id": ["u"], "tokens": [["a", "b"]], "labels": [[-100, -100]]}, features=types)
    text = training_text(CORPUS.annotation, labelled, unlabelled)
    assert text.features["labels"] == labelled.features["labels"]
    assert text[3]["labels"] == [-100, -100]


def test_the_first_sentence_at_fault_is_named_wherever_it_lies() -> None:
    annotation = TagAnnotation(("A", "B"))
    rows = {"id": [str(row) for row in range(12_000)], "tokens": [["a", "b"]] * 12_000, "labels": [[0, 1]] * 12_000}
    rows["labels"][11_000] = [0]
    with pytest.raises(ValueError, match="Sentence '11000' has 1 labels for 2 words; expected 2"):
        training_text(annotation, Dataset.from_dict(rows))
    rows["labels"][11_000] = None
    with pytest.raises(ValueError, match="Sentence '11000' has 0 labels for 2 words; expected 2"):
        training_text(annotation, Dataset.from_dict(rows))
