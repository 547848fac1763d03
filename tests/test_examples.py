"""The examples in docstrings give what they show."""

import doctest
import importlib

import pytest

import structkd
from structkd.projections import registry

MODULES = [
    "distributions",
    "distributions.base",
    "distributions.checks",
    "distributions.empirical",
    "distributions.head_labeling",
    "distributions.head_selection",
    "distributions.legality",
    "distributions.linear_chain",
    "distributions.maxent",
    "distributions.mean_field",
    "distributions.mixture",
    "distributions.nonprojective",
    "distributions.projective",
    "distributions.relabelled",
    "distributions.relations",
    "distributions.second_order_chain",
    "distributions.span",
    "evaluation.attachment",
    "evaluation.metrics",
    "evaluation.spans",
    "export.folder",
    "integrations.parsers",
    "integrations.taggers",
    "integrations.words",
    "projections.empirical",
    "projections.registry",
    "reporting.settings",
    "reporting.significance",
    "training.collate",
    "training.mixin",
    "training.pseudo_labels",
    "training.sampling",
    "training.splits",
    "training.teacher_scores",
    "training.token_columns",
]


def keep_projections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let examples that register a projection do so for themselves."""
    monkeypatch.setattr(registry, "_PROJECTIONS", dict(registry._PROJECTIONS))
    monkeypatch.setattr(registry, "_FUSED", set(registry._FUSED))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_projections(monkeypatch)
    result = doctest.testmod(importlib.import_module(f"structkd.{name}"))
    assert result.attempted > 0
    assert result.failed == 0


NAMES = [name for name in structkd.__all__ if not isinstance(getattr(structkd, name), float)]


@pytest.mark.parametrize("name", NAMES)
def test_public_names_have_an_example(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_projections(monkeypatch)
    named = getattr(structkd, name)
    names = dict(vars(importlib.import_module(named.__module__)))
    (example,) = doctest.DocTestFinder(recurse=False).find(named, name, module=False, globs=names)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0
