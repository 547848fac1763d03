"""The spaCy component sets what the exported model finds."""

import pytest
import torch
from datasets import Dataset

from structkd.data import TagAnnotation, TreeAnnotation
from structkd.models import BiLSTMRecipe, HeadLabelerRecipe, TaggerRecipe

spacy = pytest.importorskip("spacy")
pytest.importorskip("onnxruntime")

import structkd.export.spacy_pipe  # noqa: E402, F401  (an installed structkd is found by its entry point)
from structkd.export import annotate, export  # noqa: E402

ENCODER = BiLSTMRecipe(word_size=4, character_size=3, character_filters=3, hidden_size=3, layers=1)
WORDS = [["Ana", "runs", "home"], ["Ben"], ["Cy", "sees", "Ana", "run"]]
TEXT = Dataset.from_dict(
    {"tokens": WORDS, "heads": [[2, 0, 2], [0], [2, 0, 2, 3]], "relations": [[1, 0, 2], [0], [1, 0, 2, 1]]}
)
MODELS = {
    "spans": (TaggerRecipe(encoder=ENCODER), TagAnnotation.of_spans(["P", "L"], "BIO")),
    "upos": (TaggerRecipe(encoder=ENCODER), TagAnnotation(("NOUN", "VERB", "PROPN"))),
    "trees": (HeadLabelerRecipe(encoder=ENCODER), TreeAnnotation(("root", "subj", "obj"))),
}
GIVEN = "Ana runs home. Cy sees  Ben!\n\nSo Ana and Ben run."


@pytest.mark.parametrize("name", MODELS)
def test_documents(name, tmp_path) -> None:
    recipe, annotation = MODELS[name]
    model = recipe.create(annotation, TEXT, TEXT)
    for weight in model.parameters():
        weight.data.normal_(std=1.5)
    model.encoder.embedding.weight.data[0] = 0.0
    folder = export(model, tmp_path / "exported")
    nlp = spacy.blank("en")
    nlp.add_pipe("structkd", config={"model": str(folder)})
    nlp.to_disk(tmp_path / "pipeline")
    folder.rename(tmp_path / "moved")
    loaded = spacy.load(tmp_path / "pipeline")  # its config names a folder that is gone; it brings its own
    document, empty = loaded.pipe([GIVEN, " "])
    assert len(empty) == 1
    tokens = [token for token in document if not token.is_space]
    words = [["Ana", "runs", "home", "."], ["Cy", "sees", "Ben", "!"], ["So", "Ana", "and", "Ben", "run", "."]]
    assert [token.text for token in tokens] == [word for sentence in words for word in sentence]
    expected = annotate.load(tmp_path / "moved").annotate(words, scores=True)
    before = [0, 4, 8]
    if name == "trees":
        heads = [
            before[row] + (head - 1 if head else place)
            for row, result in enumerate(expected)
            for place, head in enumerate(result["heads"])
        ]
        assert [tokens.index(token.head) for token in tokens] == heads
        relations = [relation for result in expected for relation in result["relations"]]
        assert [token.dep_.replace("ROOT", "root") for token in tokens] == relations
        assert [len([t for t in sentence if not t.is_space]) for sentence in document.sents] == [4, 4, 6]
    elif name == "upos":
        tags = [tag for result in expected for tag in result["tags"]]
        assert [token.tag_ for token in tokens] == [token.pos_ for token in tokens] == tags
    else:
        spans = [
            (before[row] + span["start"], before[row] + span["end"], span["label"], span["score"])
            for row, result in enumerate(expected)
            for span in result["spans"]
        ]
        assert spans
        group = document.spans["structkd"]
        found = [
            (tokens.index(span[0]), tokens.index(span[-1]) + 1, span.label_, score)
            for span, score in zip(document.ents, group.attrs["scores"].tolist(), strict=True)
        ]
        assert [span[:3] for span in found] == [span[:3] for span in spans]
        torch.testing.assert_close([span[3] for span in found], [span[3] for span in spans], atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="needs an exported model"):
        nlp.add_pipe("structkd", name="other")
