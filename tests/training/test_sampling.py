"""Batches: every sentence once an epoch, of like length, as many whatever the epoch, divided among processes."""

import numpy as np
import pytest
import torch

from structkd.training import LengthBatches, WordBatches
from structkd.training.sampling import SharedBatches


def lengths(count: int, longest: int = 40) -> list[int]:
    return torch.randint(1, longest, (count,), generator=torch.Generator().manual_seed(0)).tolist()


BATCHES = {
    "sentences": lambda count, seed=1: LengthBatches(lengths(count), 8, seed),
    "words": lambda count, seed=1: WordBatches(lengths(count), 160, 12, seed),
}


@pytest.mark.parametrize("kind", BATCHES)
def test_every_epoch_has_every_sentence_in_an_order_of_its_own(kind: str) -> None:
    batches = BATCHES[kind](1003)
    orders = []
    for epoch in range(3):
        batches.set_epoch(epoch)
        torch.manual_seed(epoch)
        orders.append(list(batches))
        torch.manual_seed(77)
        assert list(batches) == orders[-1]
        assert sorted(row for batch in orders[-1] for row in batch) == list(range(1003))
        assert len(orders[-1]) == len(batches)
    assert len({str(order) for order in orders}) == 3
    assert list(BATCHES[kind](1003, seed=2)) != orders[0]


@pytest.mark.parametrize("kind", BATCHES)
def test_batches_hold_sentences_of_like_length(kind: str) -> None:
    words = np.array(lengths(8000))
    batches = [words[batch] for batch in BATCHES[kind](8000)]
    assert sum(len(batch) * batch.max() for batch in batches) < 1.1 * words.sum()
    means = [batch.mean() for batch in batches]
    assert means != sorted(means)
    # Nor do those of one length follow each other.
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.15


@pytest.mark.parametrize("count", [1, 2, 7, 60, 2000])
def test_batches_of_words(count: int) -> None:
    words = np.array(lengths(count, 60))
    batches = WordBatches(words, 200, 12, seed=3)
    filled = [words[batch] for batch in batches]
    assert all(batch.sum() <= 200 + 60 and 1 <= len(batch) <= 13 for batch in filled)
    # As few as can be.
    assert len(filled) == np.ceil(sum(max(length / 200, 1 / 12) for length in words) - 1e-6)


def test_sentences_longer_than_a_batch() -> None:
    words = [500, 3, 3, 700, 120, 90, 900, 2]
    batches = list(WordBatches(words, 100, 32, seed=0))
    assert sorted(row for batch in batches for row in batch) == list(range(8))
    assert len(batches) == 5
    assert all(batches)


def test_the_last_batch_can_be_left_out() -> None:
    batches = LengthBatches(lengths(21), 8, drop_last=True)
    assert [len(batch) for batch in batches] == [8] * len(batches) == [8, 8]


@pytest.mark.parametrize("kind", BATCHES)
def test_processes_share_every_batch(kind: str) -> None:
    alone = BATCHES[kind](1001)
    shared = [SharedBatches(BATCHES[kind](1001), process, 3) for process in range(3)]
    for batches in (alone, *shared):
        batches.set_epoch(2)
    for batch, *parts in zip(alone, *shared, strict=True):
        if len(batch) < 3:
            assert parts == [batch] * 3
        else:
            assert sorted(row for part in parts for row in part) == sorted(batch)
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        LengthBatches([3], 0)
    with pytest.raises(ValueError, match="words must be at least 1, got 0"):
        WordBatches([3], 0, 8)
