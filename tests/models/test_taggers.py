"""Taggers with a BiLSTM: shapes, distributions, decoding, padding, dropout, and exact saving."""

import itertools
import json

import pytest
import torch
from datasets import Dataset

from structkd import LinearChainCRF, MaxEnt
from structkd.data import TagAnnotation, TreeAnnotation
from structkd.models import BiLSTMRecipe, Tagger, TaggerConfig, TaggerRecipe, Vocabulary

ANNOTATION = TagAnnotation.of_spans(["X"], "BIOES")
LABELS = list(ANNOTATION.labels)
SENTENCES = [["The", "cat", "sat"], ["Dogs"], ["It", "rained", "all", "day", "."]]
EXAMPLES = [
    {"id": f"s{number}", "tokens": tokens, "labels": [0] * len(tokens)} for number, tokens in enumerate(SENTENCES)
]
TEXT = Dataset.from_list(EXAMPLES)


def small(head: str = "crf", annotation: TagAnnotation = ANNOTATION, **settings) -> Tagger:
    sizes = {"word_size": 8, "character_size": 5, "character_filters": 6, "hidden_size": 7, "layers": 1} | settings
    torch.manual_seed(0)
    return TaggerRecipe(encoder=BiLSTMRecipe(**sizes), head=head).create(annotation, TEXT, TEXT)


@pytest.mark.parametrize("head", ["crf", "maxent"])
@pytest.mark.parametrize("settings", [{}, {"layers": 2}, {"character_filters": 0}])
def test_shapes_and_distribution(head: str, settings: dict) -> None:
    model = small(head, **settings).eval()
    batch = model.encode(EXAMPLES)
    output = model(**batch)
    assert output.emissions.shape == (3, 5, len(LABELS))
    distribution = model.distribution(output, batch["lengths"])
    assert isinstance(distribution, LinearChainCRF if head == "crf" else MaxEnt)
    assert list(distribution.labels) == LABELS
    assert torch.equal(distribution.lengths, batch["lengths"])
    same = model.distribution(model.scores(output), batch["lengths"])
    assert torch.equal(distribution.partition, same.partition)


def test_transitions_read_next_then_previous() -> None:
    model = small("crf").eval()
    with torch.no_grad():
        model.emission.weight.zero_()
        model.emission.bias.zero_()
        model.start[1] = 50.0  # B-X first,
        model.transitions[2, 1] = 50.0  # I-X after B-X,
        model.transitions[3, 2] = 50.0  # and E-X after I-X
        model.end[3] = 50.0
    batch = model.encode(EXAMPLES[:1])
    assert model.distribution(model(**batch), batch["lengths"]).decode().tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("head", ["crf", "maxent"])
def test_padding_changes_nothing(head: str) -> None:
    model = small(head, layers=2).eval()
    batch = model.encode(EXAMPLES)
    together = model(**batch).emissions
    for item, tokens in enumerate(SENTENCES):
        alone = model(**model.features.encode([tokens])).emissions
        torch.testing.assert_close(together[item, : len(tokens)], alone[0])


def test_decoding_finds_the_best_legal_sequence_and_marks_the_padding() -> None:
    model = small("crf").eval()
    with torch.no_grad():
        for parameter in (model.transitions, model.start, model.end):
            parameter.normal_()
        batch = model.encode(EXAMPLES)
        output = model(**batch)
    emissions, transitions, start, end = (value.detach() for value in model.scores(output).values())
    decoded = model.decode(model.scores(output), batch["lengths"])
    assert decoded.keys() == {"labels"}
    follows = {"O": "OBS", "B": "IE", "I": "IE", "E": "OBS", "S": "OBS"}
    for item, tokens in enumerate(SENTENCES):
        found = decoded["labels"][item].tolist()
        assert found[len(tokens) :] == [-100] * (5 - len(tokens))
        legal = [
            tags
            for tags in itertools.product(range(len(LABELS)), repeat=len(tokens))
            if LABELS[tags[0]][0] in "OBS"
            and LABELS[tags[-1]][0] in "OES"
            and all(LABELS[after][0] in follows[LABELS[before][0]] for before, after in itertools.pairwise(tags))
        ]

        def score(tags: tuple[int, ...], item: int = item) -> float:
            total = start[tags[0]] + end[tags[-1]]
            total = total + sum(emissions[item, place, tag] for place, tag in enumerate(tags))
            return float(total + sum(transitions[after, before] for before, after in itertools.pairwise(tags)))

        assert tuple(found[: len(tokens)]) == max(legal, key=score)


def test_tags_that_are_no_spans_follow_each_other_freely() -> None:
    model = small("maxent", TagAnnotation(("NOUN", "VERB", "DET"))).eval()
    batch = model.encode(EXAMPLES)
    output = model(**batch)
    best = model.decode(model.scores(output), batch["lengths"])["labels"]
    assert torch.equal(best[2], output.emissions[2].argmax(-1))
    assert model.annotation == TagAnnotation(("NOUN", "VERB", "DET"))


def test_gold_labels_are_padded_and_hidden_ones_are_any_label() -> None:
    rows = [{"tokens": ["a", "b"], "labels": [3, 1]}, {"tokens": ["a", "b", "c"], "labels": [-100] * 3}]
    assert small().encode_gold(rows).tolist() == [[3, 1, 0], [0, 0, 0]]


def test_an_annotation_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="one label per word"):
        TaggerRecipe(encoder=BiLSTMRecipe()).create(TreeAnnotation(("root",)), TEXT, TEXT)


def test_a_model_without_vocabulary_says_so() -> None:
    model = Tagger(small().config)
    with pytest.raises(ValueError, match="cannot read text"):
        model.encode(EXAMPLES)


@pytest.mark.parametrize("head", ["crf", "maxent"])
def test_saved_model_comes_back_exactly(head: str, tmp_path) -> None:
    model = small(head, layers=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    written = {"config.json", "model.safetensors", "vocabulary.json", "structkd.json", "README.md"}
    assert {path.name for path in tmp_path.iterdir()} == written
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["encoder"]["model_type"] == "structkd_bilstm"
    assert not {"auto_map", "_target_"} & (config.keys() | config["encoder"].keys())
    torch.manual_seed(99)
    loaded = TaggerRecipe(encoder=BiLSTMRecipe()).load(tmp_path)
    assert loaded.features == model.features
    assert loaded.config.labels == LABELS
    assert loaded.annotation == ANNOTATION
    assert loaded.config.head == head
    assert loaded.config.encoder.to_dict() == model.config.encoder.to_dict()
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    batch = model.encode(EXAMPLES)
    # The weights are the same bit by bit; the last bit of a product may depend on where they lie in memory.
    torch.testing.assert_close(model.eval()(**batch).emissions, loaded.eval()(**batch).emissions)


def test_missing_weights_are_initialised_and_the_others_kept(tmp_path) -> None:
    maxent = small("maxent")
    maxent.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"head": "crf"}))
    (tmp_path / "structkd.json").unlink()  # an edited configuration is refused as damaged
    loaded = Tagger.from_pretrained(tmp_path)
    for name, value in maxent.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert not loaded.transitions.any()
    assert not loaded.start.any()


def test_building_the_head_leaves_an_encoder_that_is_ready_alone() -> None:
    torch.manual_seed(0)
    encoder = BiLSTMRecipe(hidden_size=7, layers=1).create(SENTENCES)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    tagger = Tagger(TaggerConfig(encoder=encoder.config, head="maxent", id2label=dict(enumerate(LABELS))), encoder)
    for name, value in tagger.encoder.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_initial_weights() -> None:
    model = small("crf", layers=2)
    assert not model.encoder.embedding.weight[0].any()
    assert model.encoder.embedding.weight[1].any()
    hidden = model.config.encoder.hidden_size
    for name, parameter in model.encoder.lstm.named_parameters():
        if name.startswith("bias_ih"):
            assert (parameter[hidden : 2 * hidden] == 1).all()
            assert (parameter[:hidden] == 0).all()
    assert not model.transitions.any()


def test_dropout_is_for_training_alone_and_locked_over_the_sentence() -> None:
    model = small("maxent", locked_dropout=0.5, word_dropout=0.5)
    batch = model.encode(EXAMPLES)
    model.eval()
    assert torch.equal(model(**batch).emissions, model(**batch).emissions)
    model.train()
    assert not torch.equal(model(**batch).emissions, model(**batch).emissions)
    dropped = model.encoder.dropout(torch.ones(2, 4, 100))
    assert torch.equal(dropped[:, :1].expand_as(dropped), dropped)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(dropped[0], dropped[1])


def test_bad_settings_are_refused_before_any_text_is_read() -> None:
    with pytest.raises(ValueError, match="Unknown head 'CRF': expected one of crf, maxent"):
        TaggerRecipe(encoder=BiLSTMRecipe(), head="CRF")
    with pytest.raises(ValueError, match="hidden_size must be at least 1"):
        BiLSTMRecipe(hidden_size=0)
    with pytest.raises(ValueError, match="word_dropout"):
        BiLSTMRecipe(word_dropout=1.0)
    with pytest.raises(ValueError, match="odd"):
        BiLSTMRecipe(character_window=2)


def test_a_folder_without_a_model_is_refused(tmp_path) -> None:
    with pytest.raises(OSError, match=r"config\.json|no file"):
        Tagger.from_pretrained(tmp_path)


class TestVocabulary:
    def test_encodes_and_pads(self) -> None:
        vocabulary = Vocabulary.build(SENTENCES)
        batch = vocabulary.encode([["the", "CAT"], ["zzz"]])
        assert batch["lengths"].tolist() == [2, 1]
        assert batch["words"].shape == (2, 2)
        # "the" and "cat" are known in any case, "zzz" is not, the rest is padding
        assert batch["words"][1].tolist() == [1, 0]
        assert (batch["words"][0] > 1).all()
        # characters keep their case: C is unknown in "CAT", and a word is enclosed in its boundaries
        assert batch["characters"][0, 1].tolist() == [2, 1, 1, vocabulary.characters.index("T") + 4, 3]
        assert not batch["characters"][1, 1].any()

    def test_build_does_not_depend_on_the_order(self) -> None:
        assert Vocabulary.build(SENTENCES) == Vocabulary.build([tokens[::-1] for tokens in SENTENCES[::-1]])

    def test_rare_words_are_unknown_and_their_characters_known(self) -> None:
        vocabulary = Vocabulary.build([["a", "a", "xyz"]], minimum_count=2)
        assert vocabulary.words == ["a"]
        assert set(vocabulary.characters) == set("axyz")

    def test_long_words_keep_both_ends(self) -> None:
        vocabulary = Vocabulary.build([list("abcdef")], max_characters=4)
        spelled = vocabulary.encode([["abccccef"]])["characters"][0, 0]
        assert spelled[1:-1].tolist() == [vocabulary.characters.index(character) + 4 for character in "abef"]

    def test_comes_back_from_disk(self, tmp_path) -> None:
        vocabulary = Vocabulary.build([["Ação", "ß", "日本"]], lowercase=False, max_characters=7)
        vocabulary.save_pretrained(tmp_path)
        assert Vocabulary.from_pretrained(tmp_path) == vocabulary
        assert [path.name for path in tmp_path.iterdir()] == ["vocabulary.json"]

    def test_bad_input(self, tmp_path) -> None:
        with pytest.raises(ValueError, match="at least one training sentence"):
            Vocabulary.build([])
        with pytest.raises(ValueError, match="at least one word"):
            Vocabulary.build(SENTENCES).encode([["a"], []])
        with pytest.raises(ValueError, match="distinct"):
            Vocabulary(["a", "a"], [])
        with pytest.raises(FileNotFoundError, match=r"vocabulary\.json"):
            Vocabulary.from_pretrained(tmp_path)
        (tmp_path / "vocabulary.json").write_text('{"words": ["a"')
        with pytest.raises(ValueError, match="cannot be read as JSON"):
            Vocabulary.from_pretrained(tmp_path)

    @pytest.mark.parametrize("cells", [1 << 24, 1])
    def test_cached_sentences_come_back_the_same(self, cells: int, monkeypatch) -> None:
        """Batches of any composition, whatever was encoded before and however little is cached."""
        monkeypatch.setattr("structkd.models.vocabulary._CACHED_CELLS", cells)
        vocabulary = Vocabulary.build(SENTENCES)
        alone = [Vocabulary.build(SENTENCES).encode([tokens]) for tokens in SENTENCES]
        for order in ([0, 1, 2], [2, 0], [1], [2, 1, 0, 2]):
            batch = vocabulary.encode([SENTENCES[row] for row in order])
            for row, number in enumerate(order):
                for name in ("words", "characters"):
                    own = alone[number][name][0]
                    padded = torch.zeros_like(batch[name][row])
                    padded[tuple(slice(size) for size in own.shape)] = own
                    assert torch.equal(batch[name][row], padded)
            assert batch["lengths"].tolist() == [len(SENTENCES[row]) for row in order]
