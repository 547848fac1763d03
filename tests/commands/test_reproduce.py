"""The script behind `make reproduce`, on a made-up language."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "experiments" / "reproduce.py"


def test_writes_the_report_and_repeats_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--profile", "tiny", "--work", str(tmp_path / "work")]
    command += ["--output", str(tmp_path / "results")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    first = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    assert "train 21 models in 2 processes" in first.stdout
    assert "21 trainings done" in first.stdout
    assert len(list((tmp_path / "work").glob("*-*/metrics.json"))) == 21
    text = (tmp_path / "results" / "results.md").read_text()
    for expected in (
        "case1a",
        "case1b",
        "case2a",
        "case2b",
        "case3",
        "case4",
        "token",
        "structural",
        "inconclusive (1 seed:",
        "torch-struct 0.5",
    ):
        assert expected in text, expected
    figures = (tmp_path / "results" / "results.csv").read_text()
    assert (tmp_path / "results" / "results.png").stat().st_size > 10_000

    # As after an interruption: one training is lost, the others are kept.
    lost = sorted((tmp_path / "work").glob("student-*/metrics.json"))[0]
    method = json.loads(lost.read_text())["method"]
    lost.unlink()
    second = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert "1 trainings done" in second.stdout
    logs = "".join(path.read_text() for path in (tmp_path / "work" / "logs").iterdir())
    assert logs.count("training on") == 1
    assert f"student {method}: training on" in logs

    def without_times(text: str) -> list[list[str]]:
        return [line.split(",")[:9] + line.split(",")[10:] for line in text.splitlines()]

    assert without_times((tmp_path / "results" / "results.csv").read_text()) == without_times(figures)


def test_unknown_profile(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--profile", "slow", "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Unknown profile 'slow': expected one of quick, tiny" in done.stderr
