"""Transformers as encoders of words: alignment, pooling, long sentences, freezing, and exact saving.

All but one test build a tiny backbone with random weights and a tokenizer of their own; the oracle tokenises word by
word and pools in a Python loop.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import yaml
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
)

from structkd.data import PackageFolder, TagAnnotation
from structkd.models import Subwords, Tagger, TaggerConfig, TaggerRecipe, TransformerEncoder, TransformerRecipe

ZERO_WIDTH = "\u200b"
SENTENCES = [
    ["the", "unbelievable", "cats", "sat"],
    ["dogs"],
    ["a", ZERO_WIDTH, "rainy", "day", ZERO_WIDTH, "untidy", "[SEP]", "zzz", "."],
]
LIMIT = 22


def wordpiece() -> Tokenizer:
    specials, words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"], ["the", "cat", "##s", "sat", "un", "##believ", "##able"]
    pieces = [*specials, *words, "##tid", "##y", "a", "rain", "day", "dog", "[", "sep", "]", "."]
    tokenizer = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    # As some published tokenizers do; following it would lose words without a word.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=7)
    return tokenizer


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the unbelievable cats sat on a rainy day"] * 5, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


SIZES = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture(scope="module", params=["bert", "roberta"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(1)
    if request.param == "bert":
        tokenizer, names = wordpiece(), ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
        config = BertConfig(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=LIMIT, **SIZES)
        backbone = BertModel(config)
    else:
        tokenizer, names = byte_level(), ("<pad>", "<unk>", "<s>", "</s>")
        # RoBERTa counts positions from 2, behind the padding's
        config = RobertaConfig(
            vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=LIMIT + 2, pad_token_id=1, **SIZES
        )
        backbone = RobertaModel(config)
    for weight in backbone.parameters():  # positions and context must be seen in the result
        weight.data.normal_(std=0.4)
    roles = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), names, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(path)
    backbone.save_pretrained(path)
    return path


def recipe(folder: Path, **settings) -> TransformerRecipe:
    return TransformerRecipe(name=str(folder), **settings)


def by_hand(encoder: TransformerEncoder, tokens: list[str], pooling: str) -> torch.Tensor:
    """Word vectors of a sentence, tokenised word by word: [N, D]."""
    features = encoder.features
    byte = features.tokenizer.token_to_id("<s>") is not None
    before, after = ([0], [2]) if byte else ([2], [3])
    unknown = 3 if byte else 1
    words = [
        features.tokenizer.encode(" " + token if byte else token, add_special_tokens=False).ids or [unknown]
        for token in tokens
    ]
    flat = [number for word in words for number in word]
    room = LIMIT - 2
    begins = [0] if len(flat) <= room else [*range(0, len(flat) - room, room - room // 4), len(flat) - room]
    hidden, distance = torch.empty(len(flat), encoder.dimension), [-1.0] * len(flat)
    for begin in begins:
        end = min(begin + room, len(flat))
        window = torch.tensor([before + flat[begin:end] + after])
        states = encoder.backbone(input_ids=window).last_hidden_state[0, 1:-1]
        for place in range(begin, end):
            to_edge = min(
                float("inf") if begin == 0 else place - begin, float("inf") if end == len(flat) else end - 1 - place
            )
            if to_edge >= distance[place]:
                distance[place], hidden[place] = to_edge, states[place - begin]
    vectors, here = [], 0
    for word in words:
        own = hidden[here : here + len(word)]
        vectors.append(own[0] if pooling == "first" else own.mean(0))
        here += len(word)
    return torch.stack(vectors)


@pytest.mark.parametrize("pooling", ["first", "mean"])
@torch.no_grad()
def test_words_get_the_vectors_of_their_subwords(folder: Path, pooling: str) -> None:
    encoder = recipe(folder, pooling=pooling, long_sentences="split").create(SENTENCES).eval()
    together = encoder(**encoder.features.encode(SENTENCES))
    assert together.shape == (3, 9, 12)
    for item, tokens in enumerate(SENTENCES):
        expected = by_hand(encoder, tokens, pooling)
        torch.testing.assert_close(together[item, : len(tokens)], expected, rtol=1e-4, atol=1e-5)
        alone = encoder(**encoder.features.encode([tokens]))[0]
        torch.testing.assert_close(together[item, : len(tokens)], alone, rtol=1e-4, atol=1e-5)
        assert not together[item, len(tokens) :].any()


@pytest.mark.parametrize("pooling", ["first", "mean"])
@torch.no_grad()
def test_splitting_loses_no_word(folder: Path, pooling: str) -> None:
    encoder = recipe(folder, pooling=pooling, long_sentences="split").create(SENTENCES).eval()
    text = ["the", "unbelievable", "cats", ZERO_WIDTH, "untidy", "a", "unbelievableuntidycats" * 4, "dogs", "."]
    batch = [(text * 9)[:length] for length in (1, 5, 7, 20, 33, 80)]
    encoded = encoder.features.encode(batch)
    assert encoded["subwords"].shape[1] <= LIMIT
    assert len(encoded["subwords"]) > len(batch)
    numbers = [sum(1 for _ in subwords) for subwords, _ in encoder.features.split(batch)]
    counted = encoded["words"] < len(batch) * 80
    assert int(counted.sum()) == (sum(numbers) if pooling == "mean" else sum(map(len, batch)))
    vectors = encoder(**encoded)
    for item, tokens in enumerate(batch):
        assert (encoded["pieces"][item, : len(tokens)] > 0).all()
        expected = by_hand(encoder, tokens, pooling)
        torch.testing.assert_close(vectors[item, : len(tokens)], expected, rtol=1e-4, atol=1e-5)


def test_windows_cover_every_subword_once_and_with_context(folder: Path) -> None:
    features = recipe(folder, long_sentences="split").create(SENTENCES).features
    room = LIMIT - 2
    for count in range(1, 150):
        windows = features._windows(count)
        read = [place for _, _, first, last in windows for place in range(first, last)]
        assert read == list(range(count))
        for begin, end, first, last in windows:
            assert 0 <= begin <= first <= last <= end <= count
            assert end - begin == min(count, room)
            assert begin == 0 or first - begin >= room // 8
            assert end == count or end - last >= room // 8


def test_a_sentence_that_is_too_long_is_refused_with_what_to_do(folder: Path) -> None:
    encoder = recipe(folder).create(SENTENCES)
    long = ["the", "unbelievable"] * 20
    with pytest.raises(ValueError, match=r"begins with 'the unbelievable the .* takes 20 at once.*split"):
        encoder.features.encode([["dogs"], long])
    fine = [{"id": f"s{number}", "tokens": ["dogs"]} for number in range(300)]
    encoder.check(fine)
    with pytest.raises(ValueError, match=r"The sentence 'doc-7' has \d+ subwords; .*long_sentences=split"):
        encoder.check([*fine, {"id": "doc-7", "tokens": long}])
    recipe(folder, long_sentences="split").create(SENTENCES).check([{"id": "doc-7", "tokens": long}])


@pytest.mark.parametrize("folder", ["bert"], indirect=True)  # bytes leave no word without subwords
def test_a_word_without_subwords_is_unknown_and_shifts_nothing(folder: Path) -> None:
    encoder = recipe(folder).create(SENTENCES)
    encoded = encoder.features.encode([["cats", ZERO_WIDTH, "", "sat"]])
    assert encoded["subwords"].tolist() == [[2, 5, 6, 1, 1, 7, 3]]
    assert encoded["words"].tolist() == [[4, 0, 4, 1, 2, 3, 4]]
    # nor is a word that is spelled like a special token one
    assert encoder.features.encode([["[SEP]"]])["subwords"].tolist() == [[2, 17, 18, 19, 3]]


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_sentencepiece_tokenizers_keep_the_alignment(scheme: str) -> None:
    pieces = ["<unk>", "▁the", "▁cat", "▁sat", "s", "▁", "un", "believ", "able", "the", "cat", "sat"]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(rank)) for rank, piece in enumerate(pieces, 1)], unk_id=0))
    tokenizer.normalizer = normalizers.Replace(ZERO_WIDTH, "")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme=scheme)]
    )
    tokenizer.add_tokens(["<new>"])
    features = Subwords(tokenizer, unknown=0, padding=0, limit=60, pooling="mean")
    tokens = ["the", "cats", ZERO_WIDTH, "unbelievable", "<new>", " ", "sat"]
    expected = [tokenizer.encode(token, add_special_tokens=False).ids or [0] for token in tokens]
    encoded = features.encode([tokens])
    assert encoded["subwords"].tolist() == [[number for word in expected for number in word]]
    assert encoded["words"].tolist() == [[place for place, word in enumerate(expected) for _ in word]]
    assert encoded["pieces"].tolist() == [[len(word) for word in expected]]


def tagger(folder: Path, head: str = "crf", **settings) -> Tagger:
    text = Dataset.from_dict({"id": list("abc"), "tokens": SENTENCES, "labels": [[0] * len(s) for s in SENTENCES]})
    torch.manual_seed(0)
    return TaggerRecipe(encoder=recipe(folder, **settings), head=head).create(TagAnnotation(("A", "B")), text, text)


def test_pretrained_weights_are_read_and_kept(folder: Path) -> None:
    backbone = AutoModel.from_pretrained(folder)
    model = tagger(folder)
    state = model.encoder.backbone.state_dict()
    assert state.keys() == {name for name in backbone.state_dict() if not name.startswith("pooler")}
    for name, value in state.items():
        assert torch.equal(value, backbone.state_dict()[name]), name


@pytest.mark.parametrize("freeze", [False, True])
def test_gradients_reach_the_backbone_unless_it_is_frozen(folder: Path, freeze: bool) -> None:
    model = tagger(folder, freeze=freeze, pooling="mean", long_sentences="split").train()
    batch = model.encode([{"tokens": tokens} for tokens in SENTENCES])
    model(**batch).emissions.square().sum().backward()
    for name, weight in model.encoder.named_parameters():
        assert weight.requires_grad is not freeze
        # padding and unseen subwords have rows of their own; every tensor as a whole is reached
        assert (weight.grad is None) if freeze else weight.grad.any() or name.endswith("key.bias"), name
    assert model.emission.weight.grad.any()
    assert model.encoder.backbone.training is not freeze
    if freeze:
        model.encoder.dropout.p = 0.0
        assert torch.equal(model(**batch).emissions, model(**batch).emissions)


def test_the_dtype_is_the_backbones(folder: Path) -> None:
    encoder = recipe(folder, pooling="mean", long_sentences="split").create(SENTENCES)
    batch = encoder.features.encode(SENTENCES)
    assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}
    assert encoder.to(torch.bfloat16)(**batch).dtype == torch.bfloat16
    assert encoder.to(torch.float64)(**batch).dtype == torch.float64


@pytest.mark.parametrize("freeze", [False, True])
def test_a_saved_model_comes_back_exactly_without_its_source(folder: Path, tmp_path: Path, freeze: bool) -> None:
    source = shutil.copytree(folder, tmp_path / "source")
    model = tagger(source, pooling="mean", long_sentences="split", limit=20, dropout=0.25, freeze=freeze).eval()
    with torch.no_grad():
        model.transitions.normal_()
    saved = tmp_path / "saved"
    model.save_pretrained(saved)
    shutil.rmtree(source)
    names = {"config.json", "model.safetensors", "tokenizer.json", "subwords.json", "README.md", "structkd.json"}
    assert {path.name for path in saved.iterdir()} == names
    config = (saved / "config.json").read_text()
    assert json.loads(config)["encoder"]["backbone"]["model_type"] in ("bert", "roberta")
    assert str(tmp_path) not in config
    assert "auto_map" not in config
    loaded = Tagger.from_pretrained(saved)
    assert not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert loaded.encoder.dropout.p == 0.25
    assert {weight.requires_grad for weight in loaded.encoder.parameters()} == {not freeze}
    examples = [{"tokens": tokens} for tokens in [*SENTENCES, SENTENCES[0] * 9]]
    batch, again = model.encode(examples), loaded.encode(examples)
    assert batch.keys() == again.keys()
    for name, value in batch.items():
        assert torch.equal(value, again[name]), name
    torch.testing.assert_close(loaded(**again).emissions, model(**batch).emissions)


def test_weights_alone_build_from_the_configuration(folder: Path) -> None:
    model = tagger(folder, head="maxent")
    config = TaggerConfig.from_dict(json.loads(model.config.to_json_string()))
    fresh = Tagger(config)
    assert fresh.state_dict().keys() == model.state_dict().keys()
    with pytest.raises(ValueError, match="cannot read text"):
        fresh.encode([{"tokens": ["dogs"]}])


class TestBadInput:
    def test_settings(self, folder: Path) -> None:
        with pytest.raises(ValueError, match="Unknown pooling 'max': expected one of first, mean"):
            recipe(folder, pooling="max")
        with pytest.raises(ValueError, match="Unknown long_sentences 'cut': expected one of error, split"):
            recipe(folder, long_sentences="cut")
        with pytest.raises(ValueError, match="dropout"):
            recipe(folder, dropout=1.0)
        with pytest.raises(ValueError, match=rf"limit must lie in 1\.\.{LIMIT}"):
            recipe(folder, limit=LIMIT + 1).create(SENTENCES)
        with pytest.raises(ValueError, match="no room"):
            recipe(folder, limit=2).create(SENTENCES)

    def test_sentences(self, folder: Path) -> None:
        features = recipe(folder).create(SENTENCES).features
        for sentences in ([], [["a"], []]):
            with pytest.raises(ValueError, match="at least one word"):
                features.encode(sentences)

    @pytest.mark.parametrize("name", ["nobody/has-this-encoder", "no/such/folder", "/no/such/folder"])
    def test_models_that_are_not_there(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(FileNotFoundError, match=rf"'{name}' cannot be loaded .*HF_HOME.*encoder=minilm"):
            TransformerRecipe(name=name).create(SENTENCES)

    def test_what_is_no_encoder(self, tmp_path: Path) -> None:
        T5Config(d_model=8, num_layers=1, num_heads=1, d_ff=8, vocab_size=10).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="is a t5, which does not give one vector per subword"):
            recipe(tmp_path).create(SENTENCES)

    def test_damaged_features(self, folder: Path, tmp_path: Path) -> None:
        recipe(folder).create(SENTENCES).features.save_pretrained(tmp_path)
        (tmp_path / "tokenizer.json").write_text("{")
        with pytest.raises(ValueError, match="damaged tokenizer"):
            Subwords.from_pretrained(tmp_path)
        (tmp_path / "subwords.json").unlink()
        with pytest.raises(FileNotFoundError, match=r"No subwords\.json"):
            Subwords.from_pretrained(tmp_path)


@pytest.mark.corpus
def test_the_encoder_in_a_wheel() -> None:
    """all-MiniLM-L6-v2 as conf/encoder/minilm.yaml names it: neighbours in meaning are neighbours in space."""
    configuration = Path(__file__).parents[2] / "conf" / "encoder" / "minilm.yaml"
    name = yaml.safe_load(configuration.read_text())["name"]
    name.pop("_target_")
    try:
        encoder = TransformerRecipe(name=PackageFolder(**name), pooling="mean").create([]).eval()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert (encoder.dimension, encoder.features.limit) == (384, 512)
    sentences = [["A", "cat", "sleeps"], ["A", "kitten", "sleeps"], ["The", "parliament", "votes"]]
    with torch.no_grad():
        cat, kitten, parliament = encoder(**encoder.features.encode(sentences))[:, 1]
    similarity = torch.nn.functional.cosine_similarity
    assert similarity(cat, kitten, dim=0) > similarity(cat, parliament, dim=0) + 0.2
