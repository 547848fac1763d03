"""The script behind `make bench`, at its smallest; no figure it measures is judged here."""

import json
from pathlib import Path

import pytest
from preloaded import run_program

SCRIPT = Path(__file__).parents[2] / "experiments" / "bench" / "run.py"


@pytest.mark.processes
def test_writes_the_report(tmp_path: Path) -> None:
    done = run_program(tmp_path, SCRIPT, "--quick", "--rounds", "1", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "bench.md").read_text()
    for expected in (
        "torch-struct 0.5",
        "factored chain",
        "non-projective trees",
        "half distilled",
        "A quick run",
        "spans -> chain BIOES",
    ):
        assert expected in text, expected
    results = json.loads((tmp_path / "bench.json").read_text())
    assert results["environment"]["threads"] == 1
    for case in results["losses"]:
        assert case["times"]["torch"]["cpu_ms"] > 0
        assert case["times"]["torch-struct"]["cpu_ms"] > 0
    assert (tmp_path / "bench.png").stat().st_size > 10_000
