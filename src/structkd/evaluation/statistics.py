"""Is a difference between two methods more than chance? Exact over seeds, bootstrap over test sentences."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["Interval", "paired_bootstrap", "sign_flip_test", "smallest_p"]


def smallest_p(pairs: int) -> float:
    """The smallest p that the two-sided sign-flip test can reach with this many pairs: 2 / 2^n."""
    return min(1.0, 2.0 / 2**pairs)


def sign_flip_test(differences: Sequence[float]) -> float:
    """Exact two-sided paired permutation test of "the mean difference is 0".

    Under the null hypothesis each pair's two results could be swapped, which flips the sign of its difference. p is
    the share of all 2^n sign patterns whose mean is at least as far from 0 as the observed one.

    Args:
        differences: one per paired seed.

    Raises:
        ValueError: without differences, or with more than 20 (2^20 patterns are enumerated at most).
    """
    values = np.asarray(differences, dtype=np.float64)
    if not 1 <= len(values) <= 20:
        raise ValueError(f"The exact sign-flip test takes 1 to 20 paired differences, got {len(values)}.")
    patterns = (np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1
    sums = np.abs((1 - 2 * patterns) @ values)
    # Sums that are equal in exact arithmetic may differ in their last bit.
    return float(np.mean(sums >= np.abs(values.sum()) - 1e-9 * np.abs(values).sum()))


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
    """Bias-corrected and accelerated (BCa) interval of F1(first) - F1(second), resampling test sentences in pairs.

    Args:
        first, second: per-sentence counts [seeds, sentences, 3] of the same test sentences, as from
            :func:`~structkd.evaluation.counts`; F1 is averaged over the seeds. The interval speaks of
            other test sentences, not of other seeds.
        confidence: coverage.
        resamples: bootstrap samples.
        seed: of the resampling.
    """
    if first.ndim != 3 or second.ndim != 3 or first.shape[1:] != second.shape[1:] or first.shape[2] != 3:
        raise ValueError(
            f"Expected two arrays [seeds, sentences, 3] over the same sentences, got {first.shape} and {second.shape}."
        )
    sentences = first.shape[1]

    def f1(counts: NDArray[np.int64], chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        """Mean F1 over seeds for index arrays [..., sentences]."""
        # Counting how often a sentence was drawn turns the resampling into one matrix product.
        drawn = np.apply_along_axis(np.bincount, -1, chosen, minlength=sentences)
        totals = np.einsum("...s,ksc->...kc", drawn.astype(np.float64), counts.astype(np.float64))
        denominator = totals[..., 1] + totals[..., 2]
        return np.divide(2 * totals[..., 0], denominator, out=np.zeros_like(denominator), where=denominator > 0).mean(
            axis=-1
        )

    def difference(chosen: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        chosen = np.moveaxis(np.asarray(chosen), axis, -1).astype(np.int64)
        return f1(first, chosen) - f1(second, chosen)

    everything = np.arange(sentences)
    observed = float(difference(everything))
    if np.array_equal(first.sum(axis=0), second.sum(axis=0)) or sentences < 2:
        # BCa is undefined without any spread.
        return Interval(observed, observed, observed, confidence)
    low = high = np.nan
    for method in ("BCa", "percentile"):
        # BCa needs a jackknife with some spread; where a single sentence makes all the difference it has none.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            low, high = stats.bootstrap(
                (everything,),
                difference,
                vectorized=True,
                n_resamples=resamples,
                batch=256,
                confidence_level=confidence,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if np.isfinite([low, high]).all():
            break
    return Interval(observed, float(low), float(high), confidence)
