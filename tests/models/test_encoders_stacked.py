"""Encoders side by side: what each part sees and says, what is trained, and exact saving."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from stand_ins import SENTENCES, small_bert, word_vectors

from structkd.data import TagAnnotation
from structkd.models import (
    BiLSTMRecipe,
    StackedEncoder,
    StackedRecipe,
    Tagger,
    TaggerConfig,
    TaggerRecipe,
    TransformerRecipe,
)

SIZES = {"hidden_size": 5, "locked_dropout": 0.0}
WORDS = {
    "word_size": 3,
    "character_size": 2,
    "character_filters": 4,
    "hidden_size": 3,
    "locked_dropout": 0.0,
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    small_bert(folder / "bert")
    word_vectors(folder / "words.vec")
    return folder


def recipe(sources: Path, *, freeze: bool = True, limit: int | None = None, **settings: Any) -> StackedRecipe:
    """What a tagger of named entities is made of, and a part with context of its own."""
    parts = {
        "subwords": TransformerRecipe(name=str(sources / "bert"), freeze=freeze, dropout=0.0, limit=limit),
        "words": BiLSTMRecipe(
            **WORDS, layers=0, word_dropout=0.0, vectors=str(sources / "words.vec"), freeze_vectors=freeze
        ),
        "context": BiLSTMRecipe(**WORDS, layers=1, word_dropout=0.0),
    }
    return StackedRecipe(parts=parts, **(SIZES | settings))


def tagger(sources: Path, **settings: Any) -> Tagger:
    text = Dataset.from_dict({"id": list("abc"), "tokens": SENTENCES, "labels": [[0] * len(s) for s in SENTENCES]})
    torch.manual_seed(0)
    return TaggerRecipe(encoder=recipe(sources, **settings)).create(TagAnnotation(("A", "B")), text, text)


@torch.no_grad()
def test_every_part_says_what_it_says_alone(sources: Path) -> None:
    encoder = recipe(sources, layers=0).create(SENTENCES).eval()
    assert encoder.dimension == 12 + (3 + 4) + 2 * 3
    batch = encoder.features.encode(SENTENCES)
    vectors = encoder(**batch)
    assert vectors.shape == (len(SENTENCES), max(map(len, SENTENCES)), encoder.dimension)
    # in the order of their names, which is the only one that a saved configuration keeps
    parts = [encoder.parts[name] for name in ("context", "subwords", "words")]
    alone = [part(**part.features.encode(SENTENCES)) for part in parts]
    assert torch.equal(vectors, torch.cat(alone, -1))
    assert torch.equal(encoder.parts["words"].embedding.weight[2], torch.tensor([1.0, 2.0, 3.0]))


@pytest.mark.parametrize("layers", [0, 1, 2])
@torch.no_grad()
def test_neighbours_in_a_batch_change_nothing(sources: Path, layers: int) -> None:
    encoder = recipe(sources, layers=layers).create(SENTENCES).eval()
    together = encoder(**encoder.features.encode(SENTENCES))
    for item, tokens in enumerate(SENTENCES):
        alone = encoder(**encoder.features.encode([tokens]))[0]
        torch.testing.assert_close(together[item, : len(tokens)], alone, rtol=1e-4, atol=1e-5)
        assert not together[item, len(tokens) :].any()
    if layers:
        changed = [*SENTENCES[0][:-1], "dogs"]
        first = encoder(**encoder.features.encode([changed]))[0, 0]
        assert (first - together[0, 0]).abs().max() > 1e-5, "the last word is part of the first one's context"


@pytest.mark.parametrize("freeze", [False, True])
def test_gradients_reach_what_is_not_frozen(sources: Path, freeze: bool) -> None:
    model = tagger(sources, freeze=freeze).train()
    batch = model.encode([{"tokens": tokens} for tokens in SENTENCES])
    model(**batch).emissions.square().sum().backward()
    frozen = ("parts.subwords.backbone", "parts.words.embedding") if freeze else ()
    for name, weight in model.encoder.named_parameters():
        assert weight.requires_grad is not name.startswith(frozen or ("none",)), name
        assert (weight.grad is not None) == weight.requires_grad, name
    assert model.encoder.lstm.weight_ih_l0.grad.any()
    assert model.encoder.parts["context"].lstm.weight_ih_l0.grad.any()
    assert model.encoder.parts["subwords"].backbone.training is not freeze


@pytest.mark.parametrize("freeze", [False, True])
def test_a_saved_model_comes_back_exactly_without_its_sources(sources: Path, tmp_path: Path, freeze: bool) -> None:
    own = shutil.copytree(sources, tmp_path / "sources")
    model = tagger(own, freeze=freeze, layers=2, locked_dropout=0.25, limit=40).eval()
    saved = tmp_path / "saved"
    model.save_pretrained(saved)
    shutil.rmtree(own)
    assert {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()} == {
        "config.json",
        "model.safetensors",
        "README.md",
        "structkd.json",
        "subwords/tokenizer.json",
        "subwords/subwords.json",
        "words/vocabulary.json",
        "context/vocabulary.json",
    }
    config = (saved / "config.json").read_text()
    assert json.loads(config)["encoder"]["parts"].keys() == {"subwords", "words", "context"}
    assert str(tmp_path) not in config
    loaded = Tagger.from_pretrained(saved)
    assert not loaded.training
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    for one, other in zip(model.parameters(), loaded.parameters(), strict=True):
        assert one.requires_grad is other.requires_grad
    assert loaded.encoder.dropout.rate == 0.25
    examples = [{"tokens": tokens} for tokens in SENTENCES]
    batch, again = model.encode(examples), loaded.encode(examples)
    assert batch.keys() == again.keys()
    for name, value in batch.items():
        assert torch.equal(value, again[name]), name
    torch.testing.assert_close(loaded(**again).emissions, model(**batch).emissions)


@pytest.mark.processes
def test_a_process_that_only_imports_the_models_can_load_one(sources: Path, tmp_path: Path) -> None:
    """One that has an encoder of every kind in it."""
    tagger(sources).save_pretrained(tmp_path)
    program = (
        "import sys, structkd.models as models\n"
        "model = models.Tagger.from_pretrained(sys.argv[1])\n"
        "print(type(model.encoder).__name__, *model.features.parts)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["StackedEncoder", "context", "subwords", "words"]


def test_weights_alone_build_from_the_configuration(sources: Path) -> None:
    model = tagger(sources)
    fresh = Tagger(TaggerConfig.from_dict(json.loads(model.config.to_json_string())))
    assert fresh.state_dict().keys() == model.state_dict().keys()
    # An open forget gate, as in any LSTM of ours: the outer one is initialised by the same rule as the inner ones.
    for lstm in (fresh.encoder.lstm, fresh.encoder.parts["context"].lstm):
        assert (lstm.bias_ih_l0[lstm.hidden_size : 2 * lstm.hidden_size] == 1).all()
        assert not lstm.bias_hh_l0.any()
    with pytest.raises(ValueError, match="cannot read text"):
        fresh.encode([{"tokens": ["dogs"]}])


def test_building_leaves_pretrained_weights_alone(sources: Path) -> None:
    backbone = TransformerRecipe(name=str(sources / "bert")).create([]).backbone.state_dict()
    for name, value in tagger(sources).encoder.parts["subwords"].backbone.state_dict().items():
        assert torch.equal(value, backbone[name]), name


def test_dropout_is_for_training_alone(sources: Path) -> None:
    model = tagger(sources, locked_dropout=0.5)
    batch = model.encode([{"tokens": tokens} for tokens in SENTENCES])
    assert torch.equal(model.eval()(**batch).emissions, model(**batch).emissions)
    assert not torch.equal(model.train()(**batch).emissions, model(**batch).emissions)


def test_sentences_that_a_part_cannot_take_are_refused(sources: Path) -> None:
    encoder = recipe(sources, limit=10).create(SENTENCES)
    assert isinstance(encoder, StackedEncoder)
    fine = {"id": "s0", "tokens": ["dogs"]}
    encoder.check([fine])
    with pytest.raises(ValueError, match=r"The sentence 'doc-7' has \d+ subwords"):
        encoder.check(iter([fine, {"id": "doc-7", "tokens": ["cats"] * 12}]))


def test_bad_settings_are_refused_before_any_text_is_read() -> None:
    part = BiLSTMRecipe()
    with pytest.raises(ValueError, match="at least one part"):
        StackedRecipe(parts={})
    for name in ("two words", "a.b", "forward"):
        with pytest.raises(ValueError, match=rf"name of a part .*{name}"):
            StackedRecipe(parts={name: part})
    with pytest.raises(ValueError, match="hidden_size must be at least 1, got 0"):
        StackedRecipe(parts={"words": part}, hidden_size=0)
    with pytest.raises(ValueError, match="layers must be at least 0, got -1"):
        StackedRecipe(parts={"words": part}, layers=-1)
    with pytest.raises(ValueError, match=r"locked_dropout.*got 1\.0"):
        StackedRecipe(parts={"words": part}, locked_dropout=1.0)
