"""The sign-flip test against enumeration by hand, the bootstrap against known cases."""

import itertools

import numpy as np
import pytest

from structkd.evaluation.statistics import paired_bootstrap, sign_flip_test, smallest_p


def test_sign_flip_test_equals_enumeration() -> None:
    differences = [0.4, -0.1, 0.3, 0.2]
    observed = abs(sum(differences))
    hits = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True))) >= observed - 1e-12
        for signs in itertools.product([1, -1], repeat=4)
    ]
    assert sign_flip_test(differences) == pytest.approx(sum(hits) / 16)


@pytest.mark.parametrize("pairs", [1, 2, 3, 6])
def test_the_smallest_p_is_reached_when_all_differences_agree(pairs: int) -> None:
    # 0.1 * 3 is not exactly representable: equal sums must still count as equal.
    assert sign_flip_test([0.1 + 0.01 * number for number in range(pairs)]) == pytest.approx(smallest_p(pairs))
    assert sign_flip_test([0.1] * pairs) == pytest.approx(smallest_p(pairs))


def test_no_difference_is_p_1() -> None:
    assert sign_flip_test([0.0, 0.0]) == 1.0
    with pytest.raises(ValueError, match="1 to 20"):
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


def test_bootstrap_of_identical_predictions_is_a_point() -> None:
    same = counts(np.random.default_rng(1), 0.7)
    interval = paired_bootstrap(same, same)
    assert (interval.low, interval.difference, interval.high) == (0.0, 0.0, 0.0)


def test_bootstrap_refuses_other_sentences() -> None:
    generator = np.random.default_rng(1)
    with pytest.raises(ValueError, match="same sentences"):
        paired_bootstrap(counts(generator, 0.7), counts(generator, 0.7, sentences=299))
