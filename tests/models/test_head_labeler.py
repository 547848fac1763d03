"""Parsing as sequence labelling: inventory, candidate heads, gold and decoded trees, learning, saving."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor

import structkd
from structkd.data import UNLABELLED, TagAnnotation, TreeAnnotation, hidden, load_toy
from structkd.data.annotation import tree_fault
from structkd.models import head_labeler, tensor_cache
from structkd.models.bilstm import BiLSTMRecipe
from structkd.models.head_encodings import head_encoding
from structkd.models.head_labeler import HeadLabeler, HeadLabelerConfig, HeadLabelerRecipe

RELATIONS = ("root", "det", "nsubj", "obj", "advmod", "punct")
ANNOTATION = TreeAnnotation(RELATIONS)
# In the first sentence "on the issue" belongs to "hearing": the tree is not projective.
ROWS: list[dict[str, Any]] = [
    {
        "id": "s1",
        "tokens": ["A", "hearing", "is", "scheduled", "on", "the", "issue", "today", "."],
        "heads": [2, 4, 4, 0, 7, 7, 2, 4, 4],
        "relations": [1, 2, 4, 0, 4, 1, 3, 4, 5],
        "upos": ["DET", "NOUN", "AUX", "VERB", "ADP", "DET", "NOUN", "NOUN", "PUNCT"],
    },
    {
        "id": "s2",
        "tokens": ["The", "cat", "sat", "."],
        "heads": [2, 3, 0, 3],
        "relations": [1, 2, 0, 5],
        "upos": ["DET", "NOUN", "VERB", "PUNCT"],
    },
    {"id": "s3", "tokens": ["Dogs"], "heads": [0], "relations": [0], "upos": ["NOUN"]},
    {
        "id": "s4",
        "tokens": ["It", "saw", "the", "cat", "today"],
        "heads": [2, 0, 4, 2, 2],
        "relations": [2, 0, 1, 3, 4],
        "upos": ["PRON", "VERB", "DET", "NOUN", "NOUN"],
    },
]
SENTENCES = Dataset.from_list(ROWS)
ENCODINGS = ["relative_offset", "relative_pos", "absolute_position"]
every_encoding = pytest.mark.parametrize("encoding", ENCODINGS)


def recipe(**options: Any) -> HeadLabelerRecipe:
    sizes = {"word_size": 12, "character_size": 5, "character_filters": 6, "hidden_size": 14, "layers": 1}
    return HeadLabelerRecipe(encoder=BiLSTMRecipe(**sizes, word_dropout=0.0, locked_dropout=0.0), **options)


def labeler(annotated: Dataset = SENTENCES, **options: Any) -> HeadLabeler:
    torch.manual_seed(0)
    return recipe(**options).create(ANNOTATION, SENTENCES, annotated).eval()


def certain(model: HeadLabeler, gold: Tensor, candidates: Tensor) -> Mapping[str, Tensor]:
    """Scores of a model that is nearly sure of these labels."""
    logits = torch.nn.functional.one_hot(gold.clamp(min=0), len(model.config.labels)) * 30.0
    return {"logits": logits, "heads": candidates.index_select(2, model._inventory.symbols)}


def test_the_inventory_is_what_the_treebank_has_most_frequent_first() -> None:
    config = labeler().config
    assert config.labels[:4] == [["+1", "det"], ["root", "root"], ["+1", "nsubj"], ["+1", "advmod"]]
    assert config.labels[4:] == sorted(config.labels[4:])
    assert len(config.labels) == len({tuple(label) for label in config.labels}) == 12
    assert config.symbols == ["+1", "root", "+2", "-1", "-2", "-3", "-4", "-5"]
    assert labeler(SENTENCES.select([3, 1, 0, 2])).config.labels == config.labels
    assert labeler(minimum_count=3).config.labels == [["+1", "det"], ["root", "root"]]


def test_without_relations_a_label_is_a_symbol_with_its_usual_relation() -> None:
    model = labeler(relations=False)
    assert model.config.labels[:3] == [["+1", "det"], ["root", "root"], ["+2", "advmod"]]
    assert len({symbol for symbol, _ in model.config.labels}) == len(model.config.labels)
    batch = model.encode(ROWS)
    output = model(**batch)
    assert model.distribution(output, batch["lengths"]).relations is None
    decoded = model.decode(certain(model, model.encode_gold(ROWS), batch["candidates"]), batch["lengths"])
    assert decoded["heads"][3].tolist()[:5] == ROWS[3]["heads"]


@every_encoding
def test_gold_trees_come_back_from_their_labels(encoding: str) -> None:
    """Non-projective ones included; the numbers of labels are those of the encoder's own symbols."""
    model = labeler(encoding=encoding)
    batch, gold = model.encode(ROWS), model.encode_gold(ROWS)
    decoded = model.decode(certain(model, gold, batch["candidates"]), batch["lengths"])
    for item, row in enumerate(ROWS):
        length = len(row["tokens"])
        symbols = head_encoding(encoding).encode(row["heads"], row["upos"])
        labels = [
            model.config.labels.index([symbol, RELATIONS[relation]])
            for symbol, relation in zip(symbols, row["relations"], strict=True)
        ]
        assert gold[item].tolist() == labels + [UNLABELLED] * (9 - length)
        for column in ("heads", "relations"):
            assert decoded[column][item].tolist() == row[column] + [UNLABELLED] * (9 - length)


def test_words_without_a_label_and_hidden_words_have_no_gold() -> None:
    model = labeler(SENTENCES.select([1, 2]))
    gold = model.encode_gold(ROWS)
    assert (gold[1, :4] >= 0).all()
    # of the fourth sentence the inventory has "It" and the root and the determiner, but neither object nor adverb
    assert (gold[3, :5] == UNLABELLED).tolist() == [False, False, False, True, True]
    assert (model.encode_gold([hidden(SENTENCES, ANNOTATION)[0]]) == UNLABELLED).all()


def test_hidden_sentences_add_no_labels() -> None:
    kept, concealed = SENTENCES.select([1, 2]), hidden(SENTENCES.select([0, 3]), ANNOTATION)
    both = Dataset.from_list([*kept, *concealed])
    assert labeler(both).config.labels == labeler(kept).config.labels
    with pytest.raises(ValueError, match="2 annotated sentences have no label that occurs 1 times"):
        labeler(concealed)


@every_encoding
def test_shapes_and_distribution(encoding: str) -> None:
    model = labeler(encoding=encoding)
    batch = model.encode(ROWS)
    output = model(**batch)
    assert output.logits.shape == (4, 9, len(model.config.labels))
    assert output.heads.shape == (4, 9, len(model.config.symbols))
    distribution = model.distribution(output, batch["lengths"])
    assert isinstance(distribution, structkd.HeadLabeling)
    assert [RELATIONS[number] for number in distribution.relations] == [name for _, name in model.config.labels]
    for item, row in enumerate(ROWS):
        symbols = [symbol for symbol, _ in model.config.labels]
        expected = head_encoding(encoding).candidates(symbols, len(row["tokens"]), row["upos"])
        assert torch.equal(distribution.heads[item, : len(row["tokens"])], expected)
        assert (distribution.heads[item, len(row["tokens"]) :] == -1).all()
    # scores that an earlier version stored name a head for every label
    stored = {"logits": output.logits, "heads": distribution.heads}
    assert torch.equal(model.distribution(stored, batch["lengths"]).heads, distribution.heads)
    for column, values in model.decode(stored, batch["lengths"]).items():
        assert torch.equal(values, model.decode(model.scores(output), batch["lengths"])[column])


@every_encoding
def test_padding_changes_nothing(encoding: str) -> None:
    model = labeler(encoding=encoding)
    batch = model.encode(ROWS)
    together = model(**batch)
    decoded = model.decode(model.scores(together), batch["lengths"])
    for item, row in enumerate(ROWS):
        length = len(row["tokens"])
        alone = model.encode([row])
        output = model(**alone)
        torch.testing.assert_close(together.logits[item, :length], output.logits[0])
        assert torch.equal(together.heads[item, :length], output.heads[0])
        for column, values in model.decode(model.scores(output), alone["lengths"]).items():
            assert torch.equal(decoded[column][item, :length], values[0])


@pytest.mark.parametrize("minimum_count", [1, 3])
def test_whatever_the_scores_a_tree_with_one_root_comes_out(minimum_count: int) -> None:
    model = labeler(minimum_count=minimum_count)
    batch = model.encode(ROWS)
    for seed in range(20):
        output = model(**batch)
        output.logits = torch.randn(output.logits.shape, generator=torch.Generator().manual_seed(seed)) * 5
        decoded = model.decode(model.scores(output), batch["lengths"])
        for item, row in enumerate(ROWS):
            length = len(row["tokens"])
            values = {column: decoded[column][item, :length].tolist() for column in ("heads", "relations")}
            model.annotation.check(row["tokens"], values)
            assert tree_fault(values["heads"]) is None
            assert (decoded["heads"][item, length:] == UNLABELLED).all()


def test_candidates_are_worked_out_once_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    model = labeler(encoding="relative_pos")
    calls: list[Any] = []
    inner = type(model._encoding).words_named

    def counted(self: Any, symbols: Sequence[str], length: int, upos: Sequence[str]) -> Tensor:
        calls.append(tuple(upos))
        return inner(self, symbols, length, upos)

    monkeypatch.setattr(type(model._encoding), "words_named", counted)
    for _ in range(3):
        model.encode(ROWS)
        model.encode_gold(ROWS)
    assert sorted(calls) == sorted(tuple(row["upos"]) for row in ROWS)
    by_length = labeler()
    by_length.encode([*ROWS, {"tokens": ["other", "four", "words", "here"]}])
    assert sorted(by_length._candidates.tensors) == [1, 4, 5, 9]


def test_the_cached_candidates_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_labeler, "_CACHED_CELLS", 100)
    model = labeler()
    for length in range(1, 30):
        assert model.encode([{"tokens": ["x"] * length}])["candidates"].shape[1] == length
        known = model._candidates.tensors.values()
        assert sum(heads.numel() + tensor_cache._OVERHEAD for heads in known) == model._candidates.cells
    assert list(model._candidates.tensors) == [29]


@pytest.mark.parametrize("encoding", ["relative_offset", "relative_pos"])
def test_it_learns_a_small_language(encoding: str) -> None:
    corpus = load_toy("dependencies")
    sentences = corpus.splits["train"].select(range(12))
    torch.manual_seed(0)
    model = recipe(encoding=encoding).create(corpus.annotation, sentences, sentences)
    rows = list(sentences)
    batch, gold = model.encode(rows), model.encode_gold(rows)
    assert ((gold >= 0).sum(1) == batch["lengths"]).all()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(40):
        optimizer.zero_grad()
        structkd.supervised_loss(model.distribution(model(**batch), batch["lengths"]), gold).backward()
        optimizer.step()
    model.eval()
    decoded = model.decode(model.scores(model(**batch)), batch["lengths"])
    for item, row in enumerate(rows):
        for column in ("heads", "relations"):
            assert decoded[column][item, : len(row["tokens"])].tolist() == row[column]


@every_encoding
def test_saved_model_comes_back_exactly(encoding: str, tmp_path: Any) -> None:
    model = labeler(encoding=encoding)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        "vocabulary.json",
        "README.md",
        "structkd.json",
    }
    content = json.loads((tmp_path / "config.json").read_text())
    assert (content["encoding"], content["labels"]) == (encoding, model.config.labels)
    torch.manual_seed(99)
    loaded = recipe().load(tmp_path).eval()
    assert loaded.annotation == ANNOTATION
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    batch = model.encode(ROWS)
    ours, theirs = model(**batch), loaded(**loaded.encode(ROWS))
    torch.testing.assert_close(ours.logits, theirs.logits)
    assert torch.equal(ours.heads, theirs.heads)
    assert torch.equal(loaded.encode_gold(ROWS), model.encode_gold(ROWS))
    ours, theirs = (m.decode(m.scores(m(**batch)), batch["lengths"]) for m in (model, loaded))
    assert all(torch.equal(ours[column], theirs[column]) for column in ANNOTATION.columns)


@pytest.mark.parametrize("relations", [True, False])
def test_several_roots(relations: bool, tmp_path: Any) -> None:
    """If the data have them, the student can give them; a model saved without the setting has single roots."""
    row = {"id": "r", "tokens": ["x", "y", "z"], "heads": [0, 0, 2], "relations": [0, 0, 1], "upos": ["NOUN"] * 3}
    rows = Dataset.from_list([row])
    model = recipe(relations=relations).create(TreeAnnotation(RELATIONS, multiroot=True), rows, rows).eval()
    assert model.annotation == TreeAnnotation(RELATIONS, multiroot=True)
    batch = model.encode([row])
    scores = certain(model, model.encode_gold([row]), batch["candidates"])
    model.save_pretrained(tmp_path)
    for each in (model, recipe().load(tmp_path)):
        assert each.decode(scores, batch["lengths"])["heads"].tolist() == [[0, 0, 2]]
    content = json.loads((tmp_path / "config.json").read_text())
    del content["multiroot"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    (tmp_path / "structkd.json").unlink()  # an edited configuration is refused as damaged
    single = recipe().load(tmp_path).decode(scores, batch["lengths"])["heads"][0]
    assert single.eq(0).sum() == 1


def test_distils_what_the_labels_cover_of_a_parser() -> None:
    model = labeler()
    batch = model.encode(ROWS)
    teacher = structkd.NonProjectiveDependencyCRF(torch.zeros(4, 9, 9, len(RELATIONS)), lengths=batch["lengths"])
    loss = structkd.structural_kd_loss(teacher, model.distribution(model(**batch), batch["lengths"]))
    loss.backward()
    assert math.isfinite(loss.item())
    assert model.label.weight.grad.abs().sum() > 0


def test_bad_settings_and_data_are_refused() -> None:
    with pytest.raises(ValueError, match="Unknown head encoding 'offset': expected one of relative_offset"):
        recipe(encoding="offset")
    with pytest.raises(ValueError, match="minimum_count must be at least 1, got 0"):
        recipe(minimum_count=0)
    with pytest.raises(ValueError, match="predicts dependency trees; the data are annotated otherwise"):
        recipe().create(TagAnnotation(("a", "b")), SENTENCES, SENTENCES)
    with pytest.raises(ValueError, match=r"reads parts of speech, and the data have no column upos"):
        recipe(encoding="relative_pos").create(ANNOTATION, SENTENCES, SENTENCES.remove_columns("upos"))
    with pytest.raises(ValueError, match="Sentence 's2' has no parts of speech"):
        labeler(encoding="relative_pos").encode([{"id": "s2", "tokens": ["a"]}])
    with pytest.raises(ValueError, match=r"relations \['x'\], which are not among"):
        HeadLabelerConfig(labels=[("root", "x")], relations=["root"])
