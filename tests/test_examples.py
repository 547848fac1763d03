"""The examples in docstrings give what they show."""

import doctest
import importlib

import pytest

MODULES = [
    "distributions",
    "distributions.base",
    "distributions.checks",
    "distributions.head_labeling",
    "distributions.head_selection",
    "distributions.linear_chain",
    "distributions.maxent",
    "distributions.mean_field",
    "distributions.mixture",
    "distributions.nonprojective",
    "distributions.projective",
    "distributions.relations",
    "distributions.span",
    "evaluation.attachment",
    "evaluation.metrics",
    "evaluation.spans",
    "reporting.settings",
    "reporting.significance",
    "training.collate",
    "training.pseudo_labels",
    "training.sampling",
    "training.splits",
    "training.teacher_scores",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"structkd.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
