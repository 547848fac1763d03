"""Suggestions for misspelled names."""

import doctest

from structkd import spelling


def test_the_closest_name_is_suggested_and_a_far_one_is_not() -> None:
    assert spelling.did_you_mean("warmup_step", ["warmup_ratio", "warmup_steps"]) == " Did you mean 'warmup_steps'?"
    assert spelling.did_you_mean("seed", ["labels"]) == ""
    assert doctest.testmod(spelling).failed == 0
