"""Batches of sentences of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

__all__ = ["LengthBatches", "SharedBatches", "SortedSampler", "WordBatches"]


class LengthBatches(Sampler[list[int]]):
    """Shuffle sentences, sort pools of many batches by length, and shuffle the batches.

    The order depends on ``seed`` and the epoch alone and not on a global random state. So a training that resumes in
    the middle of an epoch sees the batches that it would have seen. (transformers' LengthGroupedSampler draws from the
    global generator and does not promise that.)

    Args:
        lengths: words of every sentence.
        batch_size: sentences in a batch; the last batch of an epoch may have fewer.
        seed: of the shuffling.
        pool: batches that are sorted together; more of them mean less padding and less randomness.
        drop_last: leave out a last batch with fewer sentences.

    >>> lengths = [3, 9, 3, 9]
    >>> sorted([lengths[row] for row in batch] for batch in LengthBatches(lengths, batch_size=2))
    [[3, 3], [9, 9]]
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int = 0, pool: int = 50, drop_last: bool = False
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.pool = pool
        self.drop_last = drop_last
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the batches of this epoch; the Trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths) // self.batch_size if self.drop_last else -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.lengths))
        batches = []
        size = self.batch_size * self.pool
        for begin in range(0, len(order), size):
            pool = order[begin : begin + size]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += [pool[cut : cut + self.batch_size] for cut in range(0, len(pool), self.batch_size)]
        full = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size and not self.drop_last]
        for batch in [full[number] for number in generator.permutation(len(full))] + rest:
            yield batch.tolist()


class WordBatches(Sampler[list[int]]):
    """Form batches of about the same number of words each, in an order like that of :class:`LengthBatches`.

    Every epoch has the same number of batches, since a Trainer counts its steps by it: as many as are needed if every
    batch is full. Therefore the number of words is not a strict limit: a batch may have half a sentence more at either
    end. A sentence that is longer than a batch is a batch of its own.

    Args:
        lengths: words of every sentence.
        words: in a batch.
        batch_size: most sentences in a batch, about; it limits batches of short sentences.
        seed: of the shuffling.
        pool: batches that are sorted together; more of them mean less padding and less randomness.

    >>> lengths = [5, 5, 10, 20]
    >>> sorted(sum(lengths[row] for row in batch) for batch in WordBatches(lengths, words=20, batch_size=8))
    [20, 20]
    """

    def __init__(self, lengths: Sequence[int], words: int, batch_size: int, seed: int = 0, pool: int = 50) -> None:
        for name, value in (("words", words), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        self.lengths = np.asarray(lengths)
        #: The share of a batch that each sentence fills.
        self.shares = np.clip(self.lengths / words, 1 / batch_size, 1.0)
        self.seed = seed
        self.pool = pool
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the batches of this epoch; the Trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        # Sums of shares are rounded: 32 times 1/32 is one batch and not two.
        return int(np.ceil(self.shares.sum() - 1e-6))

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order, count = generator.permutation(len(self.lengths)), len(self)
        pools = np.array_split(order, -(-count // self.pool))
        # Every second pool is in descending order: a batch that spans two pools then has sentences of similar length.
        pools = [pool[np.argsort(self.lengths[pool], kind="stable")][:: (1, -1)[n % 2]] for n, pool in enumerate(pools)]
        order = np.concatenate(pools)
        filled = np.cumsum(self.shares[order]) - self.shares[order] / 2
        cuts = np.searchsorted(filled, np.arange(1, count) * self.shares.sum() / count)
        # Long sentences could leave a batch empty: every batch gets at least one sentence.
        cuts = np.maximum.accumulate(cuts - np.arange(1, count)) + np.arange(1, count)
        cuts = np.clip(cuts, np.arange(1, count), len(order) - np.arange(count - 1, 0, -1))
        batches = np.split(order, cuts)
        for number in generator.permutation(count):
            yield batches[number].tolist()


class SharedBatches(Sampler[list[int]]):
    """Give one of several processes its part of every batch: equal parts, or one sentence less.

    Together the processes train on the batches that one process would train on alone, so that only the speed depends
    on their number. If a batch has fewer sentences than there are processes, each gets all of it. The loss is a mean
    over the sentences of all processes, so it is the same then, too (except for batches that are accumulated).

    Args:
        batches: of all processes together.
        process: the number of this process.
        processes: their number.

    >>> parts = [SharedBatches(LengthBatches([4] * 6, batch_size=6), process, processes=2) for process in (0, 1)]
    >>> [[len(batch) for batch in part] for part in parts]
    [[3], [3]]
    """

    def __init__(self, batches: LengthBatches | WordBatches, process: int, processes: int) -> None:
        self.batches = batches
        self.process = process
        self.processes = processes

    def set_epoch(self, epoch: int) -> None:
        """Choose the batches of this epoch; the Trainer calls it."""
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            # Batches are sorted by length, so that every n-th sentence is a fair part.
            yield batch[self.process :: self.processes] if len(batch) >= self.processes else batch


class SortedSampler(Sampler[int]):
    """Give the shortest sentence first, which needs the least padding in evaluation.

    >>> list(SortedSampler([3, 1, 2]))
    [1, 2, 0]
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self.order = np.argsort(np.asarray(lengths), kind="stable").tolist()

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)
