"""Orders of a data set that put sentences of like length into one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

__all__ = ["LengthBucketSampler", "SortedSampler"]


class LengthBucketSampler(Sampler[int]):
    """Shuffles, sorts pools of many batches by length, and shuffles the batches.

    The order depends on ``seed`` and the epoch alone, never on a global random state, so a training that resumes in
    the middle of an epoch sees exactly the batches it would have seen (transformers' LengthGroupedSampler draws
    from the global generator and does not).

    Args:
        lengths: words of every sentence.
        batch_size: sentences that end up in one batch.
        seed: of the shuffling.
        pool: batches sorted together; more means less padding and less randomness.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int = 0, pool: int = 50) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.pool = pool
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch; called by the Trainer."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.lengths))
        batches = []
        size = self.batch_size * self.pool
        for begin in range(0, len(order), size):
            pool = order[begin : begin + size]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += [pool[cut : cut + self.batch_size] for cut in range(0, len(pool), self.batch_size)]
        # The sampler yields sentences, not batches: a smaller batch anywhere but at the end would shift all others.
        full = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]
        shuffled = [full[number] for number in generator.permutation(len(full))] + rest
        return iter(np.concatenate(shuffled).tolist() if shuffled else [])


class SortedSampler(Sampler[int]):
    """Shortest sentence first: the least padding, for evaluation."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.order = np.argsort(np.asarray(lengths), kind="stable").tolist()

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)
