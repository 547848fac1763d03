"""Reports out of result files: grouping, figures, verdicts."""

import csv
import gzip
import io
import json
import struct
from pathlib import Path

import pytest

from structkd.evaluation.report import collect, markdown, read_runs, rows_as_csv, write_report

DATA = {
    "name": "made-up",
    "task": "entities",
    "annotation": {"kind": "tags", "labels": ["O", "B-X", "I-X"], "scheme": "BIO"},
    "fingerprint": "f00d",
    "licence": "none",
    "source": "here",
    "notes": "",
    "sentences": {"train": 9, "dev": 4, "test": 4},
}
TREEBANK = DATA | {
    "task": "dependencies",
    "annotation": {"kind": "tree", "relations": ["root"], "multiroot": False},
    "notes": "A treebank.",
}
# per sentence: correct, predicted, gold
GOOD = [[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 0, 0]]
FAIR = [[1, 1, 1], [0, 1, 1], [1, 1, 1], [0, 0, 0]]
POOR = [[0, 0, 1], [0, 1, 1], [1, 1, 1], [0, 1, 0]]
RULE = "punctuation counted, relation subtypes dropped, as the CoNLL-18 scorer"


def result(role: str, method: str, seed: int, value: float, temperature: float = 1.0, figures=None, **model) -> dict:
    figures = figures or {"f1": value, "precision": value, "recall": value, "accuracy": value + 0.05}
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
        "settings": {"model": {"size": 3, **model}, "method": {"name": method, "loss": {"temperature": temperature}}},
    }


def parsed(role: str, method: str, seed: int, las: float, **model) -> dict:
    return result(role, method, seed, las, figures={"las": las, "uas": las + 0.04}, **model)


def save_run(
    folder: Path, seed: int, results: list[dict], scenario: str = "case1a", metric: str = "f1", data: dict = DATA
) -> None:
    (folder / "predictions").mkdir(parents=True)
    for row in results:
        counts = {"teacher": GOOD, "structural": GOOD, "token": FAIR}.get(row["method"], POOR)
        with gzip.open(folder / "predictions" / f"{row['method']}.jsonl.gz", "wt") as lines:
            for number, counted in enumerate(counts):
                # what the sentences are is not the report's business
                sentence = {
                    "id": str(number),
                    "tokens": ["w"],
                    "gold": {},
                    "predicted": {},
                    "counts": {metric: counted},
                }
                lines.write(json.dumps(sentence) + "\n")
    run = {
        "scenario": scenario,
        "seed": seed,
        "metric": metric,
        "data": data,
        "results": results,
        "command": f"structkd seed={seed}",
        "environment": {"torch": "1"},
    }
    (folder / "metrics.json").write_text(json.dumps(run))


def table(text: str, start: str) -> list[dict[str, str]]:
    """The rows of a Markdown report that begin so, by the columns of the header above them."""
    rows, header = [], []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| model"):
            header = cells
        elif line.startswith(f"| {start}"):
            rows.append(dict(zip(header, cells, strict=True)))
    return rows


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
    assert scenario.rows[3].values("test", "f1") == pytest.approx({0: 0.8, 1: 0.82})
    assert scenario.rows[3].values("test", "uas") == {}


def test_the_table_says_what_the_files_say(runs: Path) -> None:
    text = markdown(collect(read_runs([runs])))
    (row,) = table(text, "student, structural")
    assert row["test span F1, mean ± sd"] == "81.00 ± 1.41"
    assert row["every seed"] == "80.00 (seed 0), 82.00 (seed 1)"
    assert row["test accuracy"] == "86.00"
    assert row["dev span F1"] == "81.00"
    assert row["gap closed"] == "78 %"  # (0.81 - 0.5) / (0.9 - 0.5)
    (row,) = table(text, "student, none")
    assert row["exact sign-flip test"] == "inconclusive (2 seeds: p cannot be below 0.5)"
    # F1 of the counts is 1 against 2 / 6
    difference, low, high = (float(number.strip("[],")) for number in row["structural KD is ahead by"].split())
    assert difference == pytest.approx(31.0)
    assert 0 <= low <= 67 <= high <= 100
    assert RULE not in text


def test_attachment_scores_come_with_the_punctuation_rule(tmp_path: Path) -> None:
    results = [parsed("teacher", "teacher", 0, 0.9), parsed("student", "structural", 0, 0.8)]
    save_run(tmp_path / "0", 0, results, "case1b", "las", TREEBANK)
    scenarios = collect(read_runs([tmp_path]))
    text = markdown(scenarios)
    assert f"Test LAS in percent; 4 test sentences. UAS and LAS: {RULE}. Data: here" in text
    (row,) = table(text, "student, structural")
    assert (row["test LAS, mean ± sd"], row["test UAS"], row["dev LAS"]) == ("80.00", "84.00", "80.00")
    assert row["gap closed"] == ""  # without a plain student there is no distance
    (row,) = csv.DictReader(line for line in rows_as_csv(scenarios).splitlines() if "teacher" in line or "role" in line)
    assert (row["test_las"], row["test_uas"]) == ("0.9", "0.9400000000000001")


def test_one_teacher_a_table(tmp_path: Path) -> None:
    """Students of different teachers are different models; a student without KD goes with each of them."""
    for number, decoder in enumerate(("selection", "projective")):
        las = 0.6 + 0.1 * number
        results = [
            parsed("teacher", "teacher", 0, 0.9, decoder=decoder),
            parsed("student", "structural", 0, las),
        ]
        save_run(tmp_path / decoder, 0, results, "case1b", "las", TREEBANK)
    save_run(tmp_path / "plain", 0, [parsed("student", "none", 0, 0.5)], "case1b", "las", TREEBANK)
    scenarios = collect(read_runs([tmp_path]))
    assert [scenario.teacher for scenario in scenarios] == ["model.decoder=projective", "model.decoder=selection"]
    assert [row.method for row in scenarios[0].rows] == ["teacher", "none", "structural"]
    text = markdown(scenarios)
    assert [row["test LAS, mean ± sd"] for row in table(text, "student, structural")] == ["70.00", "60.00"]
    assert [row["test LAS, mean ± sd"] for row in table(text, "student, none")] == ["50.00", "50.00"]
    assert "## case1b (teacher: model.decoder=projective): made-up, dependencies" in text


def test_an_ensemble_is_measured_by_its_best_teacher(tmp_path: Path) -> None:
    results = [
        result("teacher", "teacher", 0, 0.7),
        result("teacher", "teacher-large", 0, 0.9, size=9),
        result("student", "none", 0, 0.5),
        result("student", "structural", 0, 0.7),
    ]
    save_run(tmp_path / "0", 0, results)
    text = markdown(collect(read_runs([tmp_path])))
    assert [row["model"] for row in table(text, "teacher")] == ["teacher", "teacher-large"]
    assert table(text, "student, structural")[0]["gap closed"] == "50 %"


def test_figures_and_counts_that_are_missing_leave_gaps(tmp_path: Path) -> None:
    """An annotation of the user's own, a model that lacks a figure, predictions that were thrown away."""
    results = [result("student", method, 0, 0.5, figures={"agreement": 0.5}) for method in ("structural", "token")]
    results[1]["dev"] = {}
    save_run(tmp_path / "0", 0, results, metric="agreement", data=DATA | {"notes": ""})
    (tmp_path / "0" / "predictions" / "token.jsonl.gz").unlink()
    text = markdown(collect(read_runs([tmp_path])))
    (row,) = table(text, "student, token")
    assert row["test agreement, mean ± sd"] == "50.00"
    assert row["dev agreement"] == ""
    assert row["structural KD is ahead by"] == "+0.00"
    results[0]["test"] = {}
    save_run(tmp_path / "1", 0, [results[0]], metric="agreement")
    assert len(write_report([tmp_path / "1"], tmp_path / "report")) == 3


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


def test_many_scenarios_stand_three_a_row(tmp_path: Path) -> None:
    for number in range(7):
        save_run(tmp_path / str(number), 0, [result("student", "none", 0, 0.5)], f"case{number}")
    sizes = {}
    for count in (1, 3, 7):
        path = write_report([tmp_path / str(number) for number in range(count)], tmp_path / f"report{count}")[2]
        sizes[count] = struct.unpack(">II", path.read_bytes()[16:24])  # width and height in the header of a PNG
    assert sizes[7][0] == sizes[3][0] > sizes[1][0]
    assert sizes[7][1] == 3 * sizes[3][1] == 3 * sizes[1][1]


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No folder"):
        read_runs([tmp_path / "none"])
    with pytest.raises(FileNotFoundError, match="No finished run"):
        read_runs([tmp_path])
    (tmp_path / "metrics.json").write_text('{"results": [')
    with pytest.raises(ValueError, match="not a result file"):
        read_runs([tmp_path])
