"""The sign-flip test against enumeration by hand, the bootstrap against known cases."""

import itertools

import numpy as np
import pytest
from scipy import stats

from structkd.reporting.significance import holm, paired_bootstrap, sign_flip_test, smallest_p


@pytest.mark.parametrize(
    "differences", [[0.4, -0.1, 0.3, 0.2], [-0.3], [0.1, 0.1, -0.1, -0.3, 0.0], [0.3, -0.2, 0.1] * 3]
)
def test_sign_flip_test_equals_enumeration(differences: list[float]) -> None:
    observed = abs(sum(differences))
    hits = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True))) >= observed - 1e-12
        for signs in itertools.product([1, -1], repeat=len(differences))
    ]
    assert sign_flip_test(differences) == pytest.approx(sum(hits) / len(hits), rel=1e-12)


@pytest.mark.parametrize("pairs", [1, 2, 3, 6, 21, 40])
def test_the_smallest_p_is_reached_when_all_differences_agree(pairs: int) -> None:
    # 0.1 * 3 is not exactly representable: equal sums must still count as equal.
    assert sign_flip_test([0.1 + 0.01 * number for number in range(pairs)]) == pytest.approx(smallest_p(pairs))
    assert sign_flip_test([0.1] * pairs) == pytest.approx(smallest_p(pairs))


def test_holm_equals_values_computed_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.04; the last must not fall below the third
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.2]) == [0.2]
    assert holm([0.5, 0.5, 0.001]) == pytest.approx([1.0, 1.0, 0.003])
    assert holm([]) == []


def test_no_difference_is_p_1() -> None:
    assert sign_flip_test([0.0, 0.0]) == 1.0
    with pytest.raises(ValueError, match="1 to 40"):
        sign_flip_test([])


def counts(generator: np.random.Generator, accuracy: float, sentences: int = 300) -> np.ndarray:
    gold = generator.integers(1, 6, size=sentences)
    correct = generator.binomial(gold, accuracy)
    return np.stack([correct, gold, gold], axis=-1)[None]


def test_bootstrap_separates_a_real_difference_from_none() -> None:
    generator = np.random.default_rng(0)
    better, worse = counts(generator, 0.8), counts(generator, 0.6)
    interval = paired_bootstrap(better, worse, resamples=500)
    f1 = [2 * c[0, :, 0].sum() / (c[0, :, 1].sum() + c[0, :, 2].sum()) for c in (better, worse)]
    assert interval.difference == pytest.approx(f1[0] - f1[1])
    assert 0 < interval.low < interval.difference < interval.high
    same = paired_bootstrap(counts(generator, 0.7), counts(generator, 0.7), resamples=500)
    assert same.low < 0 < same.high
    assert paired_bootstrap(better, worse, resamples=500) == interval


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_bootstrap_equals_that_of_scipy(confidence: float) -> None:
    """The same resamples, so the same numbers; scipy's way leaves out one sentence at a time by recomputing all."""
    generator = np.random.default_rng(3)
    gold = np.repeat(generator.integers(1, 6, size=(1, 60)), 3, axis=0)
    first, second = (
        np.stack([generator.binomial(gold, rate), gold, generator.poisson(gold)], axis=-1) for rate in (0.6, 0.5)
    )

    def statistic(chosen: np.ndarray, axis: int = -1) -> np.ndarray:
        chosen = np.moveaxis(np.asarray(chosen, dtype=int), axis, -1)
        correct, predicted, annotated = (
            np.stack([side[:, :, part][:, chosen].sum(axis=-1) for side in (first, second)]) for part in range(3)
        )
        means = (2 * correct / (predicted + annotated)).mean(axis=1)
        return means[0] - means[1]

    expected = stats.bootstrap(
        (np.arange(60),),
        statistic,
        vectorized=True,
        n_resamples=600,
        batch=256,
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    interval = paired_bootstrap(first, second, confidence=confidence, resamples=600)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_one_sentence_that_makes_all_the_difference_has_a_percentile_interval() -> None:
    first = np.array([[[1, 1, 1]] * 5])
    second = first.copy()
    second[0, 2, 0] = 0
    interval = paired_bootstrap(first, second)
    assert 0 == interval.low < interval.difference < interval.high


def test_bootstrap_of_identical_predictions_is_a_point() -> None:
    same = counts(np.random.default_rng(1), 0.7)
    interval = paired_bootstrap(same, same)
    assert (interval.low, interval.difference, interval.high) == (0.0, 0.0, 0.0)


def test_bootstrap_refuses_other_sentences() -> None:
    generator = np.random.default_rng(1)
    with pytest.raises(ValueError, match="same sentences"):
        paired_bootstrap(counts(generator, 0.7), counts(generator, 0.7, sentences=299))
