"""Reports out of result files: grouping, figures, verdicts."""

import csv
import gzip
import io
import json
from pathlib import Path

import pytest

from structkd.evaluation.report import collect, markdown, read_runs, write_report

DATA = {
    "name": "made-up",
    "task": "spans",
    "scheme": "BIO",
    "fingerprint": "f00d",
    "licence": "none",
    "source": "here",
    "notes": "",
    "sentences": {"train": 9, "dev": 4, "test": 4},
}
GOLD = [["B-X", "O"], ["B-X", "I-X"], ["O", "B-X"], ["O", "O"]]
GOOD = GOLD
FAIR = [["B-X", "O"], ["B-X", "O"], ["O", "B-X"], ["O", "O"]]
POOR = [["O", "O"], ["B-X", "O"], ["O", "B-X"], ["B-X", "O"]]


def result(role: str, method: str, seed: int, f1: float, temperature: float = 1.0) -> dict:
    figures = {"f1": f1, "precision": f1, "recall": f1, "accuracy": f1}
    return {
        "role": role,
        "method": method,
        "seed": seed,
        "folder": f"{role}-{method}-{seed}",
        "labelled": 5,
        "unlabelled": 0,
        "parameters": 1234,
        "seconds": 1.0,
        "dev": figures,
        "test": figures,
        "settings": {"model": {"size": 3}, "method": {"name": method, "loss": {"temperature": temperature}}},
    }


def save_run(folder: Path, seed: int, results: list[dict], scenario: str = "case1a") -> None:
    (folder / "predictions").mkdir(parents=True)
    for row in results:
        predicted = {"teacher": GOOD, "structural": GOOD, "token": FAIR}.get(row["method"], POOR)
        with gzip.open(folder / "predictions" / f"{row['method']}.jsonl.gz", "wt") as lines:
            for number, (truth, guess) in enumerate(zip(GOLD, predicted, strict=True)):
                lines.write(json.dumps({"id": str(number), "gold": truth, "predicted": guess}) + "\n")
    run = {
        "scenario": scenario,
        "seed": seed,
        "metric": "f1",
        "data": DATA,
        "results": results,
        "command": f"structkd seed={seed}",
        "environment": {"torch": "1"},
    }
    (folder / "metrics.json").write_text(json.dumps(run))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed in (0, 1):
        results = [
            result("teacher", "teacher", 0, 0.9),
            result("student", "structural", seed, 0.8 + 0.02 * seed),
            result("student", "none", seed, 0.5),
            result("student", "token", seed, 0.7),
        ]
        save_run(tmp_path / "runs" / str(seed), seed, results)
    # the same trainings once more, and a single training's own file
    save_run(tmp_path / "runs" / "again", 0, [result("student", "none", 0, 0.5)])
    (tmp_path / "runs" / "student-none-0").mkdir()
    (tmp_path / "runs" / "student-none-0" / "metrics.json").write_text('{"role": "student"}')
    return tmp_path / "runs"


def test_groups_by_method_and_counts_shared_trainings_once(runs: Path) -> None:
    (scenario,) = collect(read_runs([runs]))
    assert [row.method for row in scenario.rows] == ["teacher", "none", "token", "structural"]
    assert [sorted(row.results) for row in scenario.rows] == [[0], [0, 1], [0, 1], [0, 1]]
    assert scenario.rows[3].values("test", "f1") == pytest.approx([0.8, 0.82])


def test_the_table_says_what_the_files_say(runs: Path) -> None:
    text = markdown(collect(read_runs([runs])))
    (row,) = [line for line in text.splitlines() if line.startswith("| student, structural")]
    assert "81.00 ± 1.41" in row
    assert "80.00 (seed 0), 82.00 (seed 1)" in row
    assert " 78 % " in row  # (0.81 - 0.5) / (0.9 - 0.5)
    (row,) = [line for line in text.splitlines() if line.startswith("| student, none")]
    assert "+31.00 [" in row
    assert "inconclusive (2 seeds: p cannot be below 0.5)" in row


def test_enough_seeds_give_a_verdict(tmp_path: Path) -> None:
    for seed in range(6):
        better = 0.6 + 0.01 * seed
        results = [result("student", "structural", seed, better), result("student", "none", seed, 0.5)]
        results.append(result("student", "token", seed, better + (0.01 if seed % 2 else -0.01)))
        save_run(tmp_path / str(seed), seed, results)
    lines = markdown(collect(read_runs([tmp_path]))).splitlines()
    assert "p = 0.0312 |" in next(line for line in lines if line.startswith("| student, none"))
    assert "p = 1 (no evidence of a difference)" in next(line for line in lines if line.startswith("| student, token"))


def test_settings_that_differ_are_named(tmp_path: Path) -> None:
    for number, temperature in enumerate((1.0, 2.0)):
        save_run(tmp_path / str(number), 0, [result("student", "structural", 0, 0.5, temperature)])
    (scenario,) = collect(read_runs([tmp_path]))
    assert [row.method for row in scenario.rows] == [
        "structural (method.loss.temperature=1.0)",
        "structural (method.loss.temperature=2.0)",
    ]


def test_files(runs: Path, tmp_path: Path) -> None:
    paths = write_report([runs], tmp_path / "report", title="Mine", notes=["A note."])
    assert [path.name for path in paths] == ["results.md", "results.csv", "results.png"]
    text = paths[0].read_text()
    assert text.startswith("# Mine\n")
    assert "A note." in text
    assert "Run with torch 1." in text
    rows = list(csv.DictReader(io.StringIO(paths[1].read_text())))
    assert len(rows) == 7
    assert {(row["method"], row["seed"]): row["test_f1"] for row in rows}["structural", "1"] == "0.8200000000000001"
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No folder"):
        read_runs([tmp_path / "none"])
    with pytest.raises(FileNotFoundError, match="No finished run"):
        read_runs([tmp_path])
    (tmp_path / "metrics.json").write_text('{"results": [')
    with pytest.raises(ValueError, match="not a result file"):
        read_runs([tmp_path])
