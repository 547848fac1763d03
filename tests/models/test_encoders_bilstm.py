"""The word-level encoder's character CNN, which reads words that are spelled alike once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from structkd.models import bilstm
from structkd.models.bilstm import CharacterCNN
from structkd.models.vocabulary import Vocabulary


def spellings() -> Tensor:
    """[4, 9, 7]: some twenty words, most of them several times, of one to seven characters; padding at the ends."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(1, 30, (20, 7), generator=generator)
    lengths = torch.randint(1, 8, (20, 1), generator=generator)
    words.masked_fill_(torch.arange(7) >= lengths, 0)
    batch = words[torch.randint(20, (4, 9), generator=generator)]
    batch[1, 5:] = 0
    return batch


@pytest.mark.parametrize("multiplier", [bilstm._MULTIPLIER, 1, 0], ids=["usual", "anagrams-alike", "all-alike"])
def test_words_spelled_alike_are_read_once(monkeypatch: pytest.MonkeyPatch, multiplier: int) -> None:
    """As if every word were read by itself, values and gradients, even where different words get one key."""
    monkeypatch.setattr(bilstm, "_MULTIPLIER", multiplier)
    monkeypatch.setattr(bilstm, "_FEW_WORDS", 0)
    torch.manual_seed(0)
    cnn, characters = CharacterCNN(30, 5, 6, 3).double(), spellings()
    characters[0, 0, :3], characters[0, 1, :3] = torch.tensor([1, 2, 3]), torch.tensor([3, 2, 1])
    read = []
    cnn.convolution.register_forward_hook(lambda module, arguments, result: read.append(len(result)))
    found = cnn(characters)
    assert read == [len(characters.flatten(0, 1).unique(dim=0))]
    alone = torch.stack([torch.cat([cnn(word[None, None]) for word in sentence], 1)[0] for sentence in characters])
    assert torch.allclose(found, alone, rtol=1e-12, atol=1e-14)
    weights = torch.randn(found.shape, dtype=found.dtype)
    parameters = list(cnn.parameters())
    for got, wanted in zip(
        torch.autograd.grad((found * weights).sum(), parameters),
        torch.autograd.grad((alone * weights).sum(), parameters),
        strict=True,
    ):
        assert torch.allclose(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("window", [1, 3, 5])
@pytest.mark.parametrize("known", [30, 3000], ids=["few-characters", "many-characters"])
def test_words_are_read_alike_with_and_without_gradients(known: int, window: int) -> None:
    """The vocabulary has fewer characters than the batch, or more; padded words are zero."""
    torch.manual_seed(0)
    cnn, characters = CharacterCNN(known, 5, 6, window).double(), spellings()
    expected = cnn(characters)
    with torch.no_grad():
        assert torch.allclose(cnn(characters), expected, rtol=1e-12, atol=1e-14)
        assert torch.allclose(cnn(characters[:1, :1]), expected[:1, :1], rtol=1e-12, atol=1e-14)
        assert torch.equal(cnn.float()(characters)[1, 5:], torch.zeros(4, 6))
    assert not expected[1, 5:].any()
    assert expected[0].any(-1).all()


def test_kept_spellings_change_nothing_and_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether words come again, are new, or are too long to be kept, their numbers and spellings are the same."""
    monkeypatch.setattr("structkd.models.vocabulary._KEPT_WORDS", 3)
    sentences = [["ana", "x" * 200, "sings", "ana"], ["Ben", "runs", "x" * 200], ["sings", "ana", "Ana", "Ben"]]
    vocabulary = Vocabulary(["ana", "sings"], list("abenrsu"))
    for _ in range(2):
        for sentence in sentences:
            found = vocabulary.encode([sentence])
            fresh = Vocabulary(["ana", "sings"], list("abenrsu")).encode([sentence])
            assert all(torch.equal(found[name], fresh[name]) for name in fresh)
            assert len(vocabulary._rows) <= 3
            assert max(map(len, vocabulary._rows)) <= 100
