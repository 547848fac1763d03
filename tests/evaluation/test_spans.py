"""Span figures against seqeval's strict mode, on legal and illegal tag sequences."""

import random
import warnings

import numpy as np
import pytest
from seqeval.metrics.v1 import precision_recall_fscore_support
from seqeval.scheme import IOB2, IOBES, Entities

from structkd.evaluation.metrics import precision_recall_f1
from structkd.evaluation.spans import span_counts, strict_spans, tag_counts

SEQEVAL = {"BIO": IOB2, "BIOES": IOBES}


def random_tags(generator: random.Random, scheme: str, length: int) -> list[str]:
    inventory = ["O"] + [f"{prefix}-{kind}" for prefix in scheme.replace("O", "") for kind in ("PER", "LOC-X")]
    return [generator.choice(inventory) for _ in range(length)]


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_spans_of_arbitrary_sequences_are_seqevals(scheme: str) -> None:
    generator = random.Random(7)
    sequences = [random_tags(generator, scheme, generator.randint(1, 9)) for _ in range(6000)]
    expected = Entities(sequences, scheme=SEQEVAL[scheme]).entities
    for tags, entities in zip(sequences, expected, strict=True):
        wanted = [(entity.start, entity.end - 1, entity.tag) for entity in entities]
        assert strict_spans(tags, scheme) == wanted, tags


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_micro_figures_are_seqevals(scheme: str) -> None:
    generator = random.Random(11)
    for _ in range(2000):
        lengths = [generator.randint(1, 12) for _ in range(generator.randint(1, 8))]
        gold = [random_tags(generator, scheme, length) for length in lengths]
        # Copy most of the gold tags so that many spans are right.
        predicted = [
            [tag if generator.random() < 0.8 else random_tags(generator, scheme, 1)[0] for tag in tags] for tags in gold
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                wanted = precision_recall_fscore_support(gold, predicted, average="micro", scheme=SEQEVAL[scheme])[:3]
            except ValueError:  # seqeval cannot average when there is no span on either side
                wanted = (0.0, 0.0, 0.0)
        np.testing.assert_allclose(precision_recall_f1(span_counts(gold, predicted, scheme)), wanted, atol=1e-12)


def test_a_sentence_counts_once_however_it_is_batched() -> None:
    gold, predicted = [["B-X", "E-X", "O"], ["S-X"]], [["B-X", "E-X", "S-X"], ["O"]]
    assert span_counts(gold, predicted, "BIOES").tolist() == [[1, 2, 1], [0, 0, 1]]
    assert tag_counts(gold, predicted).tolist() == [[2, 3, 3], [0, 1, 1]]


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"'IOBES2'.*BIO, BIOES"):
        strict_spans(["O"], "IOBES2")
    with pytest.raises(ValueError, match="'S-PER' is not of scheme BIO"):
        strict_spans(["S-PER"], "BIO")
    with pytest.raises(ValueError, match="'NOUN'"):
        strict_spans(["NOUN"], "BIOES")
    with pytest.raises(ValueError, match="Sentence 0 has 1 gold tags and 2"):
        tag_counts([["O"]], [["O", "O"]])
    with pytest.raises(ValueError, match="1 gold sentences and 2"):
        tag_counts([["O"]], [["O"], ["O"]])
