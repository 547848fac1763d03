"""Hostile configurations, models and text: each is tried by a test of tests/trust, which fails if it is obeyed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from cases import Case, Outcome

_ROOT = Path(__file__).resolve().parents[1]


def cases(place: Path, size: float) -> Iterator[Case]:
    """Yield a case for every file of tests; ``size`` changes nothing."""
    for tests in sorted((_ROOT / "tests" / "trust").glob("test_*.py")):
        name = tests.stem.removeprefix("test_")
        yield Case(f"payload: {name.replace('_', ' ')}", name, lambda tests=tests: _tries(tests, place))


def _tries(tests: Path, place: Path) -> Iterator[Outcome]:
    """Run the tests in a process of their own, and yield the outcome of each."""
    report = place / f"{tests.stem}.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", str(tests)]
    subprocess.run(command, cwd=_ROOT, capture_output=True, check=False)
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is not None:
            continue
        failed = case.find("failure") if case.find("failure") is not None else case.find("error")
        if failed is None:
            yield Outcome("noticed")
        else:
            yield Outcome("executed", f"{case.get('name')}: {failed.get('message')}")
