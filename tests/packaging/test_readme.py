"""The Python of the README and of the guides in docs/ runs as it stands."""

import re
from pathlib import Path

import pytest

from structkd.testing import ConformanceTests

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.S | re.M), 1
    )
]


def block(name: str) -> str:
    """Return a block by its page and number."""
    return next(str(parameter.values[0]) for parameter in BLOCKS if parameter.id == name)


def test_the_pages_have_examples() -> None:
    assert {"README.md-2", "extending.md-6"} <= {parameter.id for parameter in BLOCKS}


@pytest.mark.parametrize("block", BLOCKS)
def test_example_runs(block: str) -> None:
    exec(compile(block, "example", "exec"), {})


def test_the_distribution_of_the_guide_is_the_tested_one() -> None:
    assert block("extending.md-1") == (ROOT / "tests" / "segment_crf.py").read_text(encoding="utf-8")


def test_the_distribution_of_the_guide_passes_the_conformance_tests() -> None:
    names: dict[str, type[ConformanceTests]] = {}
    exec(block("extending.md-3"), names)
    tests = names["TestSegmentCRF"]()
    for name in dir(tests):
        if name.startswith("test_"):
            getattr(tests, name)()
