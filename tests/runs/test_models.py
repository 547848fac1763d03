"""Remarks on the models of a run."""

from types import SimpleNamespace

from structkd.runs.models import gap_lines


def test_dev_and_test_that_are_far_apart() -> None:
    """A teacher that trains nothing may have no figure on one of both."""
    figures = [({"f1": 0.80}, {"f1": 0.61}), ({"f1": 0.50}, {"f1": 0.71}), ({"f1": 0.9}, {}), ({}, {"f1": 0.1})]
    results = [
        SimpleNamespace(role="student", method=f"m{number}", dev=dev, test=test)
        for number, (dev, test) in enumerate(figures)
    ]
    (line,) = gap_lines(SimpleNamespace(metric="f1", results=results))  # type: ignore[arg-type]
    assert line.startswith("student m1: f1 is 50.00 on dev and 71.00 on test, more than 20 points apart.")
