"""Counts and figures by kind of annotation."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from structkd.data.annotation import UNLABELLED, Annotation, TagAnnotation, TreeAnnotation
from structkd.evaluation import compute_metrics, counts, metric_rule, metric_title, precision_recall_f1

SPANS = TagAnnotation.of_spans(["X"], "BIOES")
TREES = TreeAnnotation(("root", "nsubj", "nsubj:pass", "punct"))


def labels(*sentences: list[int]) -> list[dict[str, list[int]]]:
    return [{"labels": sentence} for sentence in sentences]


def test_spans_come_before_tags() -> None:
    o, b, _, e, s = range(5)
    gold, predicted = labels([b, e, o], [s]), labels([b, e, s], [o])
    found = counts(SPANS, gold, predicted)
    assert list(found) == ["f1", "accuracy"]
    assert found["f1"].tolist() == [[1, 2, 1], [0, 0, 1]]
    assert found["accuracy"].tolist() == [[2, 3, 3], [0, 1, 1]]
    assert compute_metrics(found) == pytest.approx({"f1": 0.5, "precision": 0.5, "recall": 0.5, "accuracy": 0.5})


def test_tags_without_a_scheme_have_an_accuracy() -> None:
    found = counts(TagAnnotation(("NOUN", "VERB")), labels([0, 1, 1], [0]), labels([0, 0, 1], [0]))
    assert {name: table.tolist() for name, table in found.items()} == {"accuracy": [[2, 3, 3], [1, 1, 1]]}
    assert compute_metrics(found) == {"accuracy": 0.75}


def test_trees_have_attachment_scores() -> None:
    gold = [{"heads": [2, 0, 2], "relations": [1, 0, 3]}, {"heads": [0], "relations": [0]}]
    # a subtype that is off, a wrong head of a punctuation mark; a wrong relation
    predicted = [{"heads": [2, 0, 1], "relations": [2, 0, 3]}, {"heads": [0], "relations": [3]}]
    found = counts(TREES, gold, predicted)
    assert list(found) == ["las", "uas"]
    assert found["las"].tolist() == [[2, 3, 3], [0, 1, 1]]
    assert found["uas"].tolist() == [[2, 3, 3], [1, 1, 1]]
    assert compute_metrics(found) == {"las": 0.5, "uas": 0.75}


@pytest.mark.parametrize("annotation", [SPANS, TREES], ids=["tags", "trees"])
def test_no_sentences_still_name_the_figures(annotation: Annotation) -> None:
    found = counts(annotation, [], [])
    assert all(table.shape == (0, 3) and table.dtype == np.int64 for table in found.values())
    assert set(compute_metrics(found).values()) == {0.0}
    assert set(compute_metrics(found)) >= set(found)


def test_a_figure_without_a_denominator_is_zero() -> None:
    assert precision_recall_f1(np.array([[0, 0, 3]])) == (0.0, 0.0, 0.0)
    assert precision_recall_f1(np.array([[0, 2, 0]])) == (0.0, 0.0, 0.0)
    assert precision_recall_f1(np.array([[1, 2, 1]])) == (0.5, 1.0, pytest.approx(2 / 3))


def test_another_annotation_registers_its_own() -> None:
    @dataclass(frozen=True)
    class Sentiment(Annotation):
        columns: ClassVar[tuple[str, ...]] = ("mood",)

        def description(self):
            return {}

        def names(self, values):
            return values

        def fault(self, values):
            return None

    with pytest.raises(NotImplementedError, match=r"Sentiment.*counts\.register"):
        counts(Sentiment(), [], [])

    @counts.register
    def _(annotation: Sentiment, gold, predicted):
        pairs = zip(gold, predicted, strict=True)
        return {"agreement": np.array([[one["mood"] == other["mood"], 1, 1] for one, other in pairs])}

    assert compute_metrics(counts(Sentiment(), [{"mood": [1]}], [{"mood": [1]}])) == {"agreement": 1.0}


def test_names_for_tables() -> None:
    assert [metric_title(name) for name in ("f1", "las", "uas", "accuracy", "mine")] == [
        "span F1", "LAS", "UAS", "accuracy", "mine",
    ]  # fmt: skip
    assert "punctuation counted, relation subtypes dropped" in metric_rule("las")
    assert metric_rule("las") == metric_rule("uas")
    assert metric_rule("f1") is None


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="1 gold sentences and 2"):
        counts(SPANS, labels([0]), labels([0], [0]))
    with pytest.raises(ValueError, match="Sentence 1 has 1 gold labels and 2"):
        counts(SPANS, labels([0], [0]), labels([0], [0, 0]))
    tree = {"heads": [0], "relations": [0]}
    with pytest.raises(ValueError, match="Sentence 0 has 1 gold relations and 0"):
        counts(TREES, [tree], [{"heads": [0], "relations": []}])
    with pytest.raises(ValueError, match="Sentence 1 has no gold annotation"):
        counts(TREES, [tree, {"heads": [UNLABELLED], "relations": [UNLABELLED]}], [tree, tree])
