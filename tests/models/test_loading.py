"""Saved models: transformers finds their class, and no other class loads them."""

from itertools import permutations

import pytest
import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModel

from structkd.data import TagAnnotation, TreeAnnotation
from structkd.models import (
    BiaffineParser,
    BiLSTMRecipe,
    HeadLabeler,
    HeadLabelerRecipe,
    ParserRecipe,
    SecondOrderParser,
    SecondOrderRecipe,
    SpanModel,
    SpanRecipe,
    Tagger,
    TaggerRecipe,
)

ENCODER = BiLSTMRecipe(word_size=4, character_size=3, character_filters=3, hidden_size=3, layers=1)
TAGS, TREES = TagAnnotation.of_spans(["PER"], "BIO"), TreeAnnotation(("root", "dep"))
TEXT = Dataset.from_dict({"tokens": [["a", "b"], ["c"]], "heads": [[0, 1], [0]], "relations": [[0, 1], [0]]})
MODELS = {
    Tagger: (TaggerRecipe(encoder=ENCODER), TAGS),
    SpanModel: (SpanRecipe(encoder=ENCODER, size=3), TAGS),
    BiaffineParser: (ParserRecipe(encoder=ENCODER, arc_size=3, relation_size=3), TREES),
    SecondOrderParser: (SecondOrderRecipe(encoder=ENCODER, arc_size=3, relation_size=3, rank=2), TREES),
    HeadLabeler: (HeadLabelerRecipe(encoder=ENCODER), TREES),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folders = {}
    for kind, (recipe, annotation) in MODELS.items():
        folders[kind] = tmp_path_factory.mktemp(kind.__name__)
        recipe.create(annotation, TEXT, TEXT).save_pretrained(folders[kind])
    return folders


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)
def test_transformers_finds_the_class_of_a_model(kind, folders) -> None:
    assert type(AutoConfig.from_pretrained(folders[kind])) is kind.config_class
    found, known = AutoModel.from_pretrained(folders[kind]), kind.from_pretrained(folders[kind])
    assert type(found) is kind
    assert found.features == known.features
    for name, weights in known.state_dict().items():
        assert torch.equal(found.state_dict()[name], weights)


@pytest.mark.parametrize(("saved", "loading"), list(permutations(MODELS, 2)), ids=lambda kind: kind.__name__)
def test_a_model_of_another_class_is_refused(saved, loading, folders) -> None:
    expected = f"type '{saved.config_class.model_type}'; {loading.__name__} loads"
    with pytest.raises(ValueError, match=expected):
        loading.from_pretrained(folders[saved])
    with pytest.raises(ValueError, match=expected):
        loading.from_pretrained(folders[saved], config=AutoConfig.from_pretrained(folders[saved]))
    with pytest.raises(ValueError, match=expected):
        MODELS[loading][0].load(folders[saved])
