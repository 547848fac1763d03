"""transformers' pipeline runs our models from their folders."""

import pytest
from transformers import pipeline

import structkd.models.pipeline  # noqa: F401  (registers it)
from structkd.data import load_toy
from structkd.models import BiLSTMRecipe, TaggerRecipe


def test_a_pipeline_annotates_as_the_model_does(tmp_path) -> None:
    corpus = load_toy()
    text = corpus.splits["train"]
    encoder = BiLSTMRecipe(word_size=4, character_size=3, character_filters=3, hidden_size=3, layers=1)
    model = TaggerRecipe(encoder=encoder).create(corpus.annotation, text, text)
    model.save_pretrained(tmp_path)
    run = pipeline("structkd", model=str(tmp_path), device="cpu")
    for given in ("Ana runs. Ben sits.", ["Ana runs.", "Ben sits."], [["Ana", "runs"], []]):
        assert run(given) == model.annotate(given)
    assert run("Ana runs.", scores=True) == model.annotate("Ana runs.", scores=True)
    with pytest.raises(TypeError, match="no argument 'top_k'; it takes batch_size and scores"):
        pipeline("structkd", model=str(tmp_path), device="cpu", top_k=3)
