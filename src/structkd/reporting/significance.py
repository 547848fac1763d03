"""Significance of differences between methods: an exact test over seeds, a bootstrap over test sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

__all__ = [
    "Interval",
    "equivalence_test",
    "holm",
    "minimal_effect",
    "paired_bootstrap",
    "sign_flip_test",
    "smallest_p",
    "t_interval",
    "tarone",
]


def smallest_p(pairs: int) -> float:
    """Return the smallest p that the two-sided sign-flip test can reach with n pairs: 2 / 2^n.

    >>> smallest_p(5)
    0.0625
    """
    return min(1.0, 2.0 ** (1 - pairs))


def sign_flip_test(differences: Sequence[float]) -> float:
    """Return p of the exact two-sided paired permutation test of "the mean difference is 0".

    Under the null hypothesis each pair's two results could be swapped, which flips the sign of its difference. p is
    the share of all 2^n sign patterns whose mean is at least as far from 0 as the observed one. The patterns of the
    two halves of the pairs are enumerated separately and combined by sorting: O(n 2^(n/2)) time, O(2^(n/2)) memory.

    Args:
        differences: one per paired seed.

    Raises:
        ValueError: there are no differences, or more than 40.

    >>> sign_flip_test([0.2, 0.1, 0.3, 0.1, 0.2])
    0.0625
    """
    values = np.asarray(differences, dtype=np.float64)
    if not 1 <= len(values) <= 40:
        raise ValueError(f"The exact sign-flip test takes 1 to 40 paired differences, got {len(values)}.")
    # Sums that are equal in exact arithmetic may differ in their last bit.
    threshold = np.abs(values.sum()) - 1e-9 * np.abs(values).sum()
    if threshold <= 0:
        return 1.0
    half = len(values) // 2
    one, other = _signed_sums(values[:half]), np.sort(_signed_sums(values[half:]))
    # Sums are distributed symmetrically around 0: as many lie beyond -threshold as beyond +threshold.
    beyond = len(other) - np.searchsorted(other, threshold - one, side="left")
    return float(2 * beyond.sum() / 2 ** len(values))


def _signed_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of values under every pattern of signs, [2^n]."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's (1979) step-down method.

    The hypotheses whose adjusted p is below a level may be rejected at that level, however the tests depend on each
    other. The smallest of m p-values is multiplied by m, the next by m - 1, and so on; none becomes smaller than the
    one before it, nor larger than 1.

    Args:
        p_values: of one family of tests.

    Returns:
        Adjusted p-values, in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def tarone(p_values: Sequence[float], smallest: Sequence[float], level: float) -> tuple[list[float], int]:
    """Adjust p-values of discrete tests step by step, counting only tests that can be significant (Tarone, 1990).

    A test whose smallest possible p is too large for the correction cannot be significant, so it costs the others no
    power. Of the tests that are left, let K be the smallest number for which at most K can reach level / K. The least p
    among these is multiplied by K, the test is taken out, and so on (Hommel and Krummenauer, 1998); none becomes
    smaller than the one before it. If every test can be significant, this is Holm's method.

    Args:
        p_values: of all tests.
        smallest: the smallest p that each could reach, whatever the data.
        level: of significance, such as 0.05.

    Returns:
        Adjusted p-values in the order given, and K at the beginning. A test that cannot be significant gets an adjusted
        p above the level.

    >>> tarone([0.002, 0.03, 0.5], smallest=[0.002, 0.002, 0.5], level=0.05)
    ([0.004, 0.03, 0.5], 2)
    """
    adjusted, largest, left = [0.0] * len(p_values), 0.0, list(range(len(p_values)))
    counted = _tarone_bound([smallest[index] for index in left], level)
    while left:
        bound = _tarone_bound([smallest[index] for index in left], level)
        able = [index for index in left if smallest[index] <= level / bound]
        if not able:
            adjusted = [
                max(largest, min(1.0, bound * p)) if index in left else adjusted[index]
                for index, p in enumerate(p_values)
            ]
            break
        best = min(able, key=lambda index: p_values[index])
        adjusted[best] = largest = max(largest, min(1.0, bound * p_values[best]))
        left.remove(best)
    return adjusted, counted


def _tarone_bound(smallest: Sequence[float], level: float) -> int:
    """Return the smallest K for which at most K tests can reach level / K."""
    return next((k for k in range(1, len(smallest)) if sum(p <= level / k for p in smallest) <= k), len(smallest))


def equivalence_test(differences: Sequence[float], margin: float) -> float:
    """Return p of the test of "the mean difference is at least as large as the margin", in either direction.

    Two one-sided exact sign-flip tests (Schuirmann, 1987): the differences plus the margin lie above 0, and the
    differences less the margin lie below. p is the larger of the two. If it is small, the difference is shown to be
    smaller than the margin. With n pairs it cannot be below 1/2^n.

    Args:
        differences: one per pair.
        margin: positive, in the units of the differences; to be declared before the data are seen.

    >>> equivalence_test([0.01, -0.02, 0.0, 0.01, -0.01], margin=0.1)
    0.03125
    """
    if not margin > 0:
        raise ValueError(f"The margin of an equivalence test must be positive, got {margin}.")
    above, below = (np.asarray(differences, dtype=np.float64) * sign + margin for sign in (1, -1))
    return max(_one_sided(above), _one_sided(below))


def _one_sided(values: NDArray[np.float64]) -> float:
    """Return the share of all sign patterns whose sum is at least the observed one."""
    half = len(values) // 2
    one, other = _signed_sums(values[:half]), np.sort(_signed_sums(values[half:]))
    threshold = values.sum() - 1e-9 * np.abs(values).sum()
    return float((len(other) - np.searchsorted(other, threshold - one, side="left")).sum() / 2 ** len(values))


def t_interval(differences: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the interval of Student's t for the mean of paired differences; None for fewer than two.

    >>> [round(limit, 3) for limit in t_interval([0.1, 0.3])]
    [-1.071, 1.471]
    """
    if len(differences) < 2:
        return None
    values = np.asarray(differences, dtype=np.float64)
    reach = float(stdtrit(len(values) - 1, (1 + confidence) / 2) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean() - reach), float(values.mean() + reach)


def minimal_effect(differences: Sequence[float], level: float, power: float = 0.8) -> float | None:
    """Return the smallest mean difference that so many pairs with this spread would show in most repetitions.

    It is (t at 1 - level / 2 + t at `power`) times the standard error, with n - 1 degrees of freedom, before correction
    for several tests.

    Returns:
        None for fewer than two pairs, or if so few pairs cannot be significant at all.

    >>> round(minimal_effect([0.1, 0.3, 0.2, 0.2, 0.1, 0.3], level=0.05), 3)
    0.127
    """
    if len(differences) < 2 or smallest_p(len(differences)) >= level:
        return None
    values, freedom = np.asarray(differences, dtype=np.float64), len(differences) - 1
    quantiles = stdtrit(freedom, 1 - level / 2) + stdtrit(freedom, power)
    return float(quantiles * values.std(ddof=1) / np.sqrt(len(values)))


@dataclass(frozen=True)
class Interval:
    """A difference and its confidence interval, in the units of F1 (0 to 1)."""

    difference: float
    low: float
    high: float
    confidence: float


def paired_bootstrap(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the bias-corrected and accelerated (BCa) bootstrap interval of F1(first) - F1(second).

    Test sentences are resampled in pairs. The interval is about other test sentences and not about other seeds.

    Args:
        first, second: per-sentence counts [seeds, sentences, 3] of the same test sentences, as from
            :func:`~structkd.evaluation.counts`; F1 is averaged over the seeds.
        confidence: coverage.
        resamples: bootstrap samples.
        seed: of the resampling.

    Raises:
        ValueError: the counts are not of the same sentences, or not [seeds, sentences, 3].

    >>> one = np.array([[[1, 1, 1]] * 30 + [[0, 1, 1]] * 10])
    >>> other = np.array([[[1, 1, 1]] * 20 + [[0, 1, 1]] * 20])
    >>> interval = paired_bootstrap(one, other)
    >>> interval.difference, interval.low > 0
    (0.25, True)
    """
    if first.ndim != 3 or second.ndim != 3 or first.shape[1:] != second.shape[1:] or first.shape[2] != 3:
        raise ValueError(
            f"Expected counts [seeds, sentences, 3] of the same sentences twice, got {first.shape} and {second.shape}."
        )
    sentences = first.shape[1]
    # [sentences, 2 * seeds * 3]: resampling is then one matrix product.
    table = np.concatenate([np.moveaxis(side, 0, 1).reshape(sentences, -1) for side in (first, second)], axis=1)
    table = table.astype(np.float64)

    def difference(totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the difference of the seeds' mean F1, for sums of counts [samples, 2 * seeds * 3]."""
        correct, predicted, gold = np.moveaxis(totals.reshape(len(totals), -1, 3), -1, 0)
        f1 = np.divide(2 * correct, predicted + gold, out=np.zeros_like(correct), where=predicted + gold > 0)
        gaps: NDArray[np.float64] = f1[:, : len(first)].mean(axis=1) - f1[:, len(first) :].mean(axis=1)
        return gaps

    total = table.sum(axis=0, keepdims=True)
    observed = float(difference(total)[0])
    if np.array_equal(first.sum(axis=0), second.sum(axis=0)) or sentences < 2:
        # BCa is undefined without any spread.
        return Interval(observed, observed, observed, confidence)
    generator = np.random.default_rng(seed)
    drawn = [
        difference(_drawn(generator, min(_BATCH, resamples - start), sentences) @ table)
        for start in range(0, resamples, _BATCH)
    ]
    levels = _bca_levels(observed, np.concatenate(drawn), difference(total - table), confidence)
    low, high = np.quantile(np.concatenate(drawn), levels)
    return Interval(observed, float(low), float(high), confidence)


#: Bootstrap samples drawn at once; each takes 8 bytes per sentence.
_BATCH = 256


def _drawn(generator: np.random.Generator, samples: int, sentences: int) -> NDArray[np.float64]:
    """Draw how often each sentence occurs in each bootstrap sample, [samples, sentences]."""
    chosen = generator.integers(0, sentences, (samples, sentences))
    chosen += sentences * np.arange(samples)[:, None]
    counted = np.bincount(chosen.ravel(), minlength=samples * sentences)
    return counted.reshape(samples, sentences).astype(np.float64)


def _bca_levels(
    observed: float, drawn: NDArray[np.float64], left_out: NDArray[np.float64], confidence: float
) -> tuple[float, float]:
    """Return the quantiles of the bootstrap distribution that bound the interval (Efron, 1987, section 3).

    Args:
        observed: the statistic.
        drawn: the statistic of every bootstrap sample.
        left_out: the statistic with one sentence left out at a time.
        confidence: coverage.
    """
    tail = (1 - confidence) / 2
    bias = ndtri((np.mean(drawn < observed) + np.mean(drawn <= observed)) / 2)
    influence = left_out.mean() - left_out
    spread = np.sum(influence**2)
    if spread == 0 or not np.isfinite(bias):
        # If the difference rests on a single sentence, no correction is defined: use plain percentiles.
        return tail, 1 - tail
    acceleration = np.sum(influence**3) / (6 * spread**1.5)
    shifted = bias + np.array([ndtri(tail), ndtri(1 - tail)])
    low, high = ndtr(bias + shifted / (1 - acceleration * shifted))
    return float(low), float(high)
