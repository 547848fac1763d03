"""Batches of sentences of like length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

__all__ = ["LengthBatches", "SharedBatches", "SortedSampler", "WordBatches"]


class LengthBatches(Sampler[list[int]]):
    """Shuffles, sorts pools of many batches by length, and shuffles the batches.

    The order depends on ``seed`` and the epoch alone, never on a global random state, so a training that resumes in
    the middle of an epoch sees exactly the batches it would have seen (transformers' LengthGroupedSampler draws
    from the global generator and does not).

    Args:
        lengths: words of every sentence.
        batch_size: sentences in a batch; the last of an epoch may have fewer.
        seed: of the shuffling.
        pool: batches sorted together; more means less padding and less randomness.
        drop_last: leave out that last batch.
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
        """Choose the batches of this epoch; called by the Trainer."""
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
    """Batches of about as many words each, in an order as that of :class:`LengthBatches`.

    An epoch always has the same number of batches, which is what a Trainer counts its steps by: as many as are needed
    if every batch is filled up. So the words of a batch are about the same, not strictly limited: at either end, half
    a sentence may be more. A sentence that is longer than a batch is one.

    Args:
        lengths: words of every sentence.
        words: in a batch.
        batch_size: sentences in a batch, about and at most; for short ones.
        seed: of the shuffling.
        pool: batches sorted together; more means less padding and less randomness.
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
        """Choose the batches of this epoch; called by the Trainer."""
        self.epoch = epoch

    def __len__(self) -> int:
        # Less a bit that the shares may be off by: 32 times 1/32 is one batch.
        return int(np.ceil(self.shares.sum() - 1e-6))

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order, count = generator.permutation(len(self.lengths)), len(self)
        pools = np.array_split(order, -(-count // self.pool))
        # Every other pool begins with its longest sentence, so that no batch has the ends of two that are unlike.
        pools = [pool[np.argsort(self.lengths[pool], kind="stable")][:: (1, -1)[n % 2]] for n, pool in enumerate(pools)]
        order = np.concatenate(pools)
        filled = np.cumsum(self.shares[order]) - self.shares[order] / 2
        cuts = np.searchsorted(filled, np.arange(1, count) * self.shares.sum() / count)
        # No batch is empty, where long sentences leave no other for it.
        cuts = np.maximum.accumulate(cuts - np.arange(1, count)) + np.arange(1, count)
        cuts = np.clip(cuts, np.arange(1, count), len(order) - np.arange(count - 1, 0, -1))
        batches = np.split(order, cuts)
        for number in generator.permutation(count):
            yield batches[number].tolist()


class SharedBatches(Sampler[list[int]]):
    """What one of several processes has of every batch: each as much, or one sentence less.

    Together they train on the batches that one process would train on alone, so that only the speed depends on their
    number. Where a batch has fewer sentences than there are processes, each gets all of it, and as the loss is a mean
    over the sentences of all processes it is the same as well (but for batches that are accumulated with others).

    Args:
        batches: of all processes.
        process: the number of this process.
        processes: how many there are.
    """

    def __init__(self, batches: LengthBatches | WordBatches, process: int, processes: int) -> None:
        self.batches = batches
        self.process = process
        self.processes = processes

    def set_epoch(self, epoch: int) -> None:
        """Choose the batches of this epoch; called by the Trainer."""
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            # Sorted by length, so that every n-th sentence is a fair share.
            yield batch[self.process :: self.processes] if len(batch) >= self.processes else batch


class SortedSampler(Sampler[int]):
    """Shortest sentence first: the least padding, for evaluation."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.order = np.argsort(np.asarray(lengths), kind="stable").tolist()

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)
