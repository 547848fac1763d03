"""Pretrained word vectors: the file formats, what is kept, what is trained, and what is saved."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from structkd.data import TagAnnotation
from structkd.models import BiLSTMEncoder, BiLSTMRecipe, Tagger, TaggerRecipe, read_vectors

LINES = ["the 1 2 3", "Cat 4 5 6", "cat 7 8 9", "Lima 1.5 -2 3e-1", "sat 0 0 1", "at name@host 1 1 1", "sat 9 9 9"]
SENTENCES = [["The", "cat", "lima"], ["The", "cat", "slept"]]


def write(path: Path, lines: list[str], ending: str = "\n") -> Path:
    content = "".join(line + ending for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "vectors.txt", LINES)


@pytest.mark.parametrize("name", ["a.vec", "a.txt.gz"])
@pytest.mark.parametrize("header", [[], ["7 3"]])
@pytest.mark.parametrize("ending", ["\n", " \n", "\r\n"])
def test_every_form_of_file_gives_the_same_vectors(tmp_path: Path, name: str, header: list[str], ending: str) -> None:
    path = write(tmp_path / name, header + LINES, ending)
    vectors = read_vectors(path, {"cat", "Lima", "sat", "at name@host", "absent"})
    assert vectors.words == ["cat", "Lima", "sat", "at name@host"]
    table = dict(zip(vectors.words, vectors.values.tolist(), strict=True))
    assert table["cat"] == [7, 8, 9]
    assert table["Lima"] == pytest.approx([1.5, -2, 0.3])
    assert table["sat"] == [0, 0, 1]  # the first of the two
    assert table["at name@host"] == [1, 1, 1]
    assert vectors.values.dtype == torch.float32


def test_lower_case_prefers_the_lower_cased_word(file: Path) -> None:
    vectors = read_vectors(file, {"cat", "lima"}, lowercase=True)
    table = dict(zip(vectors.words, vectors.values.tolist(), strict=True))
    assert table == {"cat": [7, 8, 9], "lima": pytest.approx([1.5, -2, 0.3])}


def test_the_most_frequent_words_are_kept_too(file: Path) -> None:
    assert set(read_vectors(file, {"sat"}, most_frequent=2).words) == {"the", "Cat", "sat"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["the 1 2 3", "cat 4 5"], r"line 2: Expected a word and 3 numbers, got 2"),
        (["2 4", "the 1 2 3"], r"line 2: Expected a word and 4 numbers"),
        (["the 1 2 3", "", "cat 4 5 6"], r"line 2: Expected a word and 3 numbers, got 0"),
        (["the 1 2 3", "cat 4 x 6"], r"line 2: Expected 3 numbers after the word, and 'x' is none"),
        (["the 1 2 3", "cat 4 nan 6"], r"line 2: .* not finite"),
        (["the", "cat 4 5 6"], r"line 1: Expected a word and its numbers, separated by spaces"),
        (["the 1 2 3"], r"None of the 1 words of the text"),
    ],
)
def test_bad_files_are_refused_with_their_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=rf"bad\.vec.*{message}"):
        read_vectors(write(tmp_path / "bad.vec", lines), {"cat"})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.vec"):
        read_vectors(tmp_path / "absent.vec", {"cat"})


def embedded(encoder: BiLSTMEncoder, word: str) -> list[float]:
    return encoder.embedding.weight[encoder.features.number(word)].tolist()


SIZES = {"word_size": 3, "character_size": 2, "character_filters": 2, "hidden_size": 2, "layers": 1}


def test_trained_vectors_start_from_the_file_and_other_words_at_random(file: Path) -> None:
    encoder = BiLSTMRecipe(**SIZES, vectors=str(file), minimum_count=2).create(SENTENCES)
    # "lima" is rare but has a vector; "slept" is rare and has none
    assert set(encoder.features.words) == {"the", "cat", "lima"}
    assert embedded(encoder, "the") == [1, 2, 3]
    assert embedded(encoder, "LIMA") == pytest.approx([1.5, -2, 0.3])
    assert encoder.embedding.weight.requires_grad
    all_words = BiLSTMRecipe(**SIZES, vectors=str(file), frequent_vectors=5).create(SENTENCES)
    assert set(all_words.features.words) == {"the", "cat", "lima", "slept", "sat"}
    assert embedded(all_words, "sat") == [0, 0, 1]
    assert any(embedded(all_words, "slept"))


def test_frozen_vectors_take_no_gradient_and_words_without_one_are_unknown(file: Path, tmp_path: Path) -> None:
    encoder = BiLSTMRecipe(**SIZES, vectors=str(file), freeze_vectors=True).create(SENTENCES)
    assert set(encoder.features.words) == {"the", "cat", "lima"}
    mean = (torch.tensor([[1.0, 2, 3], [7, 8, 9], [1.5, -2, 0.3]])).mean(0)
    torch.testing.assert_close(torch.tensor(embedded(encoder, "slept")), mean)
    assert [name for name, weight in encoder.named_parameters() if not weight.requires_grad] == ["embedding.weight"]
    encoder(**encoder.features.encode(SENTENCES)).sum().backward()
    assert encoder.embedding.weight.grad is None
    assert all(weight.grad is not None for name, weight in encoder.named_parameters() if name != "embedding.weight")


@pytest.mark.parametrize("freeze", [False, True])
def test_a_saved_model_needs_no_file(file: Path, tmp_path: Path, freeze: bool) -> None:
    text = Dataset.from_dict({"id": ["a", "b"], "tokens": SENTENCES, "labels": [[0] * 3] * 2})
    recipe = TaggerRecipe(encoder=BiLSTMRecipe(**SIZES, vectors=str(file), freeze_vectors=freeze))
    model = recipe.create(TagAnnotation(("A", "B")), text, text)
    assert embedded(model.encoder, "the") == [1, 2, 3]  # building the head has left them alone
    model.save_pretrained(tmp_path / "model")
    file.unlink()
    loaded = Tagger.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded.encoder.embedding.weight, model.encoder.embedding.weight)
    assert loaded.features == model.features
    for side in (model, loaded, loaded.train()):
        assert side.encoder.embedding.weight.requires_grad is not freeze


def test_bad_settings_are_refused(file: Path) -> None:
    with pytest.raises(ValueError, match=r"vectors of 3 numbers, word_size is 100: set word_size=3"):
        BiLSTMRecipe(vectors=str(file)).create(SENTENCES)
    with pytest.raises(ValueError, match="need vectors"):
        BiLSTMRecipe(freeze_vectors=True)
