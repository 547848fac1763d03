"""Annotations in files: alignment by characters, weights, maps, and everything that is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structkd.data import TagAnnotation, TreeAnnotation, hidden, load_toy, sentence_dataset
from structkd.teachers import Annotations, load_annotated_text
from structkd.teachers.alignment import Misaligned, bounds, characters, words_of_labels, words_of_spans, words_of_tree
from structkd.training import training_text

ANNOTATION = TagAnnotation.of_spans(["PER", "LOC"], "BIO")
TREES = TreeAnnotation(("dep", "root", "case"))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def call(*lines: Any) -> str:
        path = tmp_path / "answers.jsonl"
        path.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines) + "\n")
        return str(path)

    return call


def tags(found: list[Any], annotation: TagAnnotation = ANNOTATION) -> list[tuple[float, str]]:
    return [(each.weight, " ".join(annotation.labels[number] for number in each.values)) for each in found]


def test_every_way_to_write_a_structure_is_the_same(write: Callable[..., str]) -> None:
    """Words with tags in any scheme, spans by word or character, in other words: all say the same."""
    words, text = ["Ada", "Lovelace", "doesn't", "know", "Paris", "."], "Ada Lovelace doesn't know Paris."
    other = ["Ada", "Lovelace", "does", "n't", "know", "Paris."]
    by_character = [(0, 12, "PERSON"), (26, 31, "LOC")]
    path = write(
        {"words": words, "tags": ["B-PERSON", "I-PERSON", "O", "O", "B-LOC", "O"], "id": "x", "source": "a"},
        {"text": text, "annotations": [
            {"spans": [{"start_char": start, "end_char": end, "label": label} for start, end, label in by_character]},
            {"words": other, "spans": [[0, 2, "PERSON"]], "weight": 0.5},
            {"words": other, "spans": [[5, 6, "LOC"]]},
            {"words": words, "text": text, "spans": [{"start": 1, "end": 2, "label": "DATE"}], "weight": 0},
        ]},
        {"words": [*words[:4], "Par", "is", "."], "spans": [[0, 2, "PERSON"], [4, 6, "LOC"]], "format": 1},
    )  # fmt: skip
    teacher = Annotations(path, map={"PERSON": "PER", "*": None}).open(ANNOTATION)
    dropped: Counter[str] = Counter()
    lines: dict[str, int] = {}
    found = teacher.found(words, dropped, lines)
    assert tags(found) == [
        (3.0, "B-PER I-PER O O B-LOC O"),
        (1.0, "O O O O B-LOC I-LOC"),
        (0.5, "B-PER I-PER O O O O"),
    ]
    assert not dropped
    found_elsewhere = teacher.found(other, dropped, lines)
    assert tags(found_elsewhere) == [(1.0, "O O O O O B-LOC"), (0.5, "B-PER I-PER O O O O")]
    assert dropped == {"a span begins or ends inside a word": 3}
    assert set(lines.values()) == {1}
    assert teacher.found(["Bob"]) == []
    inputs = teacher.encode([{"tokens": words}])
    distribution = teacher.distribution(teacher(**inputs), inputs["lengths"])
    assert distribution.weights.tolist()[0][:2] == pytest.approx([3 / 4.5, 1 / 4.5])
    assert teacher.decode(inputs, inputs["lengths"])["labels"].tolist() == [list(found[0].values)]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.data())
def test_alignment_is_that_of_characters(sizes: list[int], data: st.DataObject) -> None:
    """Against the definition: a span of words is a set of characters, and so is a label of every word."""
    own = bounds("x" * size for size in sizes)
    cuts = data.draw(st.sets(st.integers(1, own[-1]), max_size=own[-1])) | {0, own[-1]}
    target = sorted(cuts)
    start = data.draw(st.integers(0, own[-1] - 1))
    end = data.draw(st.integers(start + 1, own[-1]))
    if start in cuts and end in cuts:
        ((first, last, _),) = words_of_spans([(start, end, "X")], target)
        assert (target[first], target[last + 1]) == (start, end)
    else:
        with pytest.raises(Misaligned):
            words_of_spans([(start, end, "X")], target)
    labels = data.draw(st.lists(st.sampled_from("AB"), min_size=len(sizes), max_size=len(sizes)))
    of_characters = [label for label, size in zip(labels, sizes, strict=True) for _ in range(size)]
    expected = [set(of_characters[a:b]) for a, b in pairwise(target)]
    if all(len(each) == 1 for each in expected):
        assert words_of_labels(labels, own, target) == [each.pop() for each in expected]
    else:
        with pytest.raises(Misaligned):
            words_of_labels(labels, own, target)


def test_trees_over_other_words() -> None:
    own = bounds(["do", "n't", "go", "."])
    assert words_of_tree([3, 1, 0, 3], own, bounds(["don't", "go", "."])) == ([2, 0, 2], [0, 2, 3])
    assert words_of_tree([3, 1, 0, 3], own, own) == ([3, 1, 0, 3], [0, 1, 2, 3])
    assert words_of_tree([3, 1, 0, 3], own, bounds(["don'tgo", "."])) == ([0, 1], [2, 3])
    for words, said in ((["d", "o", "n't", "go", "."], "splits"), (["do", "n'tgo."], "several")):
        with pytest.raises(Misaligned, match=said):
            words_of_tree([3, 1, 0, 3], own, bounds(words))
    assert characters(["a b", " c\u00a0"]) == "abc"


def test_trees_and_labels_of_files(write: Callable[..., str]) -> None:
    path = write(
        {"words": ["to", "him"], "heads": [2, 0], "relations": ["prep", "ROOT"], "weight": 2},
        {"words": ["to", "him"], "heads": [0, 1], "relations": ["ROOT", "pobj"]},
    )
    teacher = Annotations(path, map={"ROOT": "root", "prep": "case", "*": "dep"}).open(TREES)
    found = teacher.found(["to", "him"])
    assert [tuple(each) for each in found] == [(2.0, (1, 1), (2, 1)), (1.0, (0, 0), (1, 0))]
    inputs = teacher.encode([{"tokens": ["to", "him"]}])
    assert teacher.distribution(inputs, inputs["lengths"]).kind == "heads"
    decoded = teacher.decode(inputs, inputs["lengths"])
    assert (decoded["heads"].tolist(), decoded["relations"].tolist()) == ([[2, 0]], [[2, 1]])
    bare = Annotations(write({"words": ["to", "him"], "heads": [2, 0]})).open(TREES)
    assert [tuple(each) for each in bare.found(["to", "him"])] == [(1.0, (1, 1), None)]
    upos = Annotations(write({"words": ["to", "him"], "tags": ["ADP", "PRON"]})).open(TagAnnotation(("PRON", "ADP")))
    assert upos.found(["to", "him"])[0].values == (1, 0)


GOOD = {"words": ["Ada", "met", "Bob"], "tags": ["B-PER", "O", "B-PER"]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{not json", "not JSON"),
        ("[1]", "Expected an object"),
        (GOOD | {"format": 2}, "format is 2"),
        ({"tags": []}, "sentence is missing"),
        ({"words": ["", " "], "tags": ["O", "O"]}, "no characters"),
        (GOOD | {"text": "Ada met Bo"}, "different sentences"),
        (GOOD | {"tags": ["O"]}, "1 tags for 3 words"),
        (GOOD | {"weight": -1}, "weight is -1"),
        (GOOD | {"weight": "1"}, "weight is '1'"),
        (GOOD | {"weight": float("nan")}, "weight is nan"),
        ({"text": "Ada met Bob", "tags": ["B-PER"]}, "need words"),
        (GOOD | {"tags": ["O", "I-PER", "O"]}, "repair=true"),
        ({"words": ["Ada"], "spans": [[0, 2, "PER"]]}, "1 words"),
        ({"text": "Ada", "spans": [{"start_char": 2, "end_char": 2, "label": "PER"}]}, "3 characters"),
        ({"words": ["Ada"], "spans": [{"start_char": 0, "end_char": 2, "label": "PER"}]}, "start_char"),
        ({"words": ["Ada"], "spans": [["PER"]]}, "not \\[start"),
        ({"words": ["Ada"], "heads": [0]}, "Expected spans or tags"),
        ({"words": ["Ada"], "spans": [[0, 1, "GPE"]]}, "no types GPE"),
        ({"words": ["Ada"], "annotations": []}, "list of objects"),
    ],
)
def test_lines_that_are_refused_with_their_number(write: Callable[..., str], line: Any, said: str) -> None:
    path = write(GOOD, "", line)
    with pytest.raises(ValueError, match=f"line 3: .*{said}"):
        Annotations(path).open(ANNOTATION)


def test_other_files_that_are_refused(write: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Annotations(str(tmp_path / "nowhere.jsonl")).open(ANNOTATION)
    with pytest.raises(ValueError, match="line 1: All annotations of the sentence have weight 0"):
        Annotations(write(GOOD | {"weight": 0}, GOOD | {"weight": 0})).open(ANNOTATION)
    assert Annotations(write(GOOD | {"weight": 0}, GOOD)).open(ANNOTATION)
    words = {"words": ["a", "b"]}
    for line, said in (
        ({"heads": [2, 1], "relations": ["dep", "dep"]}, "not a tree"),
        ({"heads": [3, 0]}, "0 \\(root\\) to 2"),
        ({"heads": [2, 0]}, "no relations, and others"),
    ):
        with pytest.raises(ValueError, match=f"line 2: .*{said}"):
            Annotations(write(words | {"heads": [0, 1], "relations": ["root", "dep"]}, words | line)).open(TREES)


def test_texts_that_are_annotated_in_part(write: Callable[..., str]) -> None:
    corpus = load_toy()
    train = corpus.splits["train"]
    annotation = corpus.annotation
    lines = [{"words": train[row]["tokens"], "spans": []} for row in (3, 5, 20)]
    overlapping = {"words": train[7]["tokens"], "spans": [[0, 2, "NP"], [1, 2, "NP"]]}
    teacher = Annotations(write(*lines, overlapping)).open(annotation)
    coverage = teacher.cover(train)
    assert coverage.rows == [3, 5, 20]
    assert "annotates 4 sentences, 3 of the 120" in coverage.notes[0]
    assert "1 annotations" in coverage.notes[1]
    assert "spans overlap (the first: line 4)" in coverage.notes[1]
    assert teacher.cover(train.select([5, 3])).rows is None
    # gold annotation stands in for labelled sentences alone
    text = training_text(annotation, train.select([0, 3]), hidden(train.select([5]), annotation))
    scores = teacher.of_text(text)
    assert "1 labelled sentences" in teacher.remarks[0]
    found = scores.distribution(scores.batch([0, 1, 2]), scores.lengths[[0, 1, 2]]).decode().tolist()
    assert [row[: len(tokens)] for row, tokens in zip(found, text["tokens"], strict=True)] == [
        train[0]["labels"],
        [0] * len(train[3]["tokens"]),
        [0] * len(train[5]["tokens"]),
    ]
    with pytest.raises(ValueError, match="annotates none"):
        teacher.of_text(training_text(annotation, train.select([0, 1])))
    text = load_annotated_text(write(*lines, lines[0]))
    assert text["tokens"][:] == [train[row]["tokens"] for row in (3, 5, 20)]
    with pytest.raises(ValueError, match=r"line 1: .*no words"):
        load_annotated_text(write({"text": "a b", "spans": []}))
    assert len(sentence_dataset([], ())) == 0


def test_a_command_with_annotations_of_its_own_text(run, write: Callable[..., str], tmp_path: Path) -> None:
    """No labels at all: the student learns from annotations of a text, and its figures are those of the corpus."""
    corpus = load_toy()
    train = corpus.splits["train"]
    lines = [
        {"words": row["tokens"], "tags": corpus.annotation.names({"labels": row["labels"]})["labels"], "weight": weight}
        for row in train.select(range(30))
        for weight in (1, 3)
    ]
    write(*lines)
    status, output, errors = run(
        *("teacher=annotations", "teacher.path=answers.jsonl", "+text@student.text=annotations", "student.labelled=0"),
        *("student.unlabelled=null", "+kd@baselines.pseudo=pseudo_labels", "scenario=case1a"),
    )
    assert status == 0, errors
    assert "teacher trains nothing: the annotations answers.jsonl (60 with weights, of 30 sentences" in output
    assert "| teacher | 0 | 0 |  |" in output
    (metrics,) = (tmp_path / "structkd-runs" / "runs").rglob("metrics.json")
    found = json.loads(metrics.read_text())
    rows = {row["method"]: row for row in found["results"]}
    assert rows["teacher"]["test"] == {}
    assert (rows["structural"]["labelled"], rows["structural"]["unlabelled"]) == (0, 30)
    assert not list((tmp_path / "structkd-runs").glob("targets-*")), "answers are looked up, not stored again"
    status, _, errors = run(
        "teacher=annotations",
        "teacher.path=answers.jsonl",
        "student.unlabelled=null",
        "+kd@baselines.emission=emission",
    )
    assert status == 1
    assert "baselines.emission.loss" in errors
    assert "~kd@baselines.emission" in errors
