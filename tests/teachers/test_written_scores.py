"""Scores that another program writes: the distributions are those of the scores, and stores are checked."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import structkd
from structkd.data import TagAnnotation, TreeAnnotation, hidden, load_toy
from structkd.files import sealed
from structkd.teachers import Scores
from structkd.training import ScoreWriter, WrittenScores, training_text

LABELS = ["O", "B-NP", "I-NP"]
SENTENCES = [["a", "b", "c"], ["d"], ["e", "f"]]


def random_scores(structure: str, words: int, names: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "words": {"emissions": (words, names)},
        "chain": {"emissions": (words, names)},
        "spans": {"spans": (words, words, names)},
    }.get(structure, {"arcs": (words, words), "relations": (words, words, names)})
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("structure", ["words", "chain", "head_selection", "projective", "nonprojective", "spans"])
def test_distributions_are_those_of_the_scores(tmp_path: Path, structure: str, dtype: str) -> None:
    shared = {"transitions": torch.eye(3), "end": torch.tensor([0.0, 1.0, 2.0])} if structure == "chain" else None
    given = [random_scores(structure, len(words), 3, seed) for seed, words in enumerate(SENTENCES)]
    with ScoreWriter(tmp_path / "s", structure, LABELS, shared=shared, dtype=dtype, shard_sentences=2) as writer:
        for words, scores in zip(SENTENCES, given, strict=True):
            writer.add(words, **scores)
    store = WrittenScores.open(tmp_path / "s")
    assert (store.manifest.divergence.max > 0) == (dtype == "float16")
    assert store.manifest.divergence.max < 1e-4
    classes: dict[str, Any] = {
        "head_selection": structkd.HeadSelection,
        "projective": structkd.DependencyCRF,
        "nonprojective": structkd.NonProjectiveDependencyCRF,
    }
    for row, (words, scores) in enumerate(zip(SENTENCES, given, strict=True)):
        batched = {name: value.unsqueeze(0) for name, value in scores.items()}
        if structure == "words":
            expected: Any = structkd.MaxEnt(batched["emissions"])
        elif structure == "chain":
            assert shared is not None
            expected = structkd.LinearChainCRF.from_scores(
                batched["emissions"], shared["transitions"], end=shared["end"]
            )
        elif structure == "spans":
            expected = structkd.SpanCRF(batched["spans"])
        else:
            expected = classes[structure](batched["arcs"]).with_relations(batched["relations"])
        found = store.distribution(store.batch([row]), torch.tensor([len(words)]))
        tolerance = 1e-5 if dtype == "float32" else 2e-2
        torch.testing.assert_close(found.partition, expected.partition, atol=tolerance, rtol=0)
        if len(words) > 1:
            torch.testing.assert_close(found.marginals, expected.marginals, atol=tolerance, rtol=0)


def test_a_teacher_finds_its_sentences(tmp_path: Path) -> None:
    corpus = load_toy(scheme="BIO")
    train, annotation = corpus.splits["train"], corpus.annotation
    names = ["O", "B-NX", "I-NX", "B-VP", "I-VP"]
    with ScoreWriter(tmp_path / "s", "words", names, teacher="a tagger") as writer:
        for row in (5, 0, 9):
            gold = torch.nn.functional.one_hot(torch.tensor(train[row]["labels"]), 5)
            writer.add(train[row]["tokens"], emissions=20.0 * gold)
    with pytest.raises(ValueError, match="no types NX"):
        Scores(str(tmp_path / "s")).open(annotation)
    teacher = Scores(str(tmp_path / "s"), map={"NX": "NP"}).open(annotation)
    assert "a tagger (words, 3 sentences, float32); NX read as NP" in teacher.title
    assert teacher.cover(train).rows == [0, 5, 9]
    text = training_text(annotation, train.select([9]), hidden(train.select([0, 5]), annotation))
    scores = teacher.of_text(text)
    lengths = torch.tensor([len(tokens) for tokens in text["tokens"]])
    student = structkd.MaxEnt(torch.zeros(3, int(lengths.max()), 5), lengths=lengths, labels=list(annotation.labels))
    target = structkd.project(scores.distribution(scores.batch([0, 1, 2]), lengths), student)
    for row, number in enumerate((9, 0, 5)):
        assert target[row, : lengths[row]].argmax(-1).tolist() == train[number]["labels"]
    found = teacher.encode([{"tokens": train[5]["tokens"]}])
    decoded = teacher.decode(teacher.scores(teacher(**found)), found["lengths"])
    assert decoded["labels"].tolist() == [train[5]["labels"]]
    with pytest.raises(ValueError, match="no scores of sentence"):
        teacher.of_text(training_text(annotation, train.select([1])))
    with pytest.raises(ValueError, match="annotated otherwise"):
        Scores(str(tmp_path / "s")).open(TreeAnnotation(("root",)))


def test_trees_with_relations_of_their_own(tmp_path: Path) -> None:
    scores = random_scores("nonprojective", 3, 2, 0)
    with ScoreWriter(tmp_path / "s", "nonprojective", ["top", "mod"]) as writer:
        writer.add(["a", "b", "c"], **scores)
    annotation = TreeAnnotation(("case", "dep", "root"))
    teacher = Scores(str(tmp_path / "s"), map={"top": "root", "mod": "dep"}).open(annotation)
    inputs = teacher.encode([{"tokens": ["a", "b", "c"]}])
    student = structkd.HeadSelection(torch.zeros(1, 3, 3)).with_relations(torch.zeros(1, 3, 3, 3))
    target = structkd.project(teacher.distribution(inputs, inputs["lengths"]), student)
    own = structkd.NonProjectiveDependencyCRF(scores["arcs"].unsqueeze(0)).with_relations(
        scores["relations"].unsqueeze(0)
    )
    torch.testing.assert_close(target[..., [2, 1]], own.marginals)
    assert target[..., 0].abs().max() == 0
    decoded = teacher.decode(inputs, inputs["lengths"])
    assert annotation.fault({name: values[0].tolist() for name, values in decoded.items()}) is None


def test_writers_and_stores_that_are_refused(tmp_path: Path) -> None:
    for arguments, said in (
        (("chains", LABELS), "Unknown structure"),
        (("words", None), "needs the names"),
        (("words", ["O", "O"]), "distinct"),
        (("chain", LABELS), "transitions"),
    ):
        with pytest.raises(ValueError, match=said):
            ScoreWriter(tmp_path / "a", *arguments)
    good = torch.zeros(2, 3)
    with ScoreWriter(tmp_path / "a", "words", LABELS) as writer:
        for words, scores, said in (
            ([], {"emissions": good}, "its words"),
            (["a"], {"emissions": good}, r"shape \[1, 3\]"),
            (["a", "b"], {"arcs": good}, "Expected the scores emissions"),
            (["a", "b"], {"emissions": good / 0}, "'s7': emissions has cells"),
        ):
            with pytest.raises(ValueError, match=said):
                writer.add(words, id="s7", **scores)
        writer.add(["a", "b"], emissions=good)
    with pytest.raises(ValueError, match="complete store"):
        ScoreWriter(tmp_path / "a", "words", LABELS)
    with contextlib.suppress(RuntimeError), ScoreWriter(tmp_path / "b", "words", LABELS) as writer:
        writer.add(["a", "b"], emissions=good)
        raise RuntimeError
    with pytest.raises(FileNotFoundError, match="manifest"):
        WrittenScores.open(tmp_path / "b")
    text = tmp_path / "a" / "sentences.jsonl"
    content = text.read_text()
    text.write_text(content.replace('"a"', '"x"'))
    with pytest.raises(ValueError, match=r"sentences\.jsonl"):
        Scores(str(tmp_path / "a")).open(TagAnnotation.of_spans(["NP"], "BIO"))
    text.unlink()
    with pytest.raises(FileNotFoundError, match=r"sentences\.jsonl"):
        WrittenScores.open(tmp_path / "a")
    text.write_text(content)
    manifest = tmp_path / "a" / "manifest.json"
    manifest.write_text(json.dumps(sealed(json.loads(manifest.read_text()) | {"fingerprint": {}})))
    with pytest.raises(ValueError, match="no ScoreWriter"):
        WrittenScores.open(tmp_path / "a")
