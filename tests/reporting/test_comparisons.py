"""Verdicts: what may be said with so many seeds and so many comparisons, and p that anybody can compute again."""

import csv
import gzip
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from made_up import model, save_run

from structkd.reporting import Report, collect, read_runs
from structkd.reporting.comparisons import Comparison, compare_all
from structkd.reporting.findings import of_all
from structkd.reporting.significance import paired_bootstrap


def compared(folder: Path) -> list[Comparison]:
    return compare_all(collect(read_runs([folder]).finished))


def save(folder: Path, seeds: int, comparisons: list[tuple[str, str]], qualities: dict[str, list[float]]) -> None:
    for seed in range(seeds):
        results = [
            model("student", name, seed, quality=quality[seed % len(quality)]) for name, quality in qualities.items()
        ]
        save_run(folder / str(seed), results, seed=seed, comparisons=comparisons)


def test_too_few_seeds_are_inconclusive_whatever_the_difference(tmp_path: Path) -> None:
    save(tmp_path, 5, [("structural", "none")], {"structural": [0.9], "none": [0.2]})
    (only,) = compared(tmp_path)
    assert only.verdict == "inconclusive (5 seeds: p cannot be below 0.0625; 6 or more can be significant)"
    assert only.p == only.smallest == 0.0625


def test_enough_seeds_give_a_verdict(tmp_path: Path) -> None:
    save(tmp_path, 6, [("structural", "none")], {"structural": [0.9], "none": [0.2]})
    (only,) = compared(tmp_path)
    assert only.verdict == "significant (p = 0.031)"
    assert only.difference > 0.6


def test_a_difference_that_changes_its_sign_is_not_significant(tmp_path: Path) -> None:
    save(tmp_path, 6, [("structural", "none")], {"structural": [0.9, 0.2], "none": [0.2, 0.9]})
    (only,) = compared(tmp_path)
    assert only.outcome == "not significant"
    assert only.verdict == f"not significant (p = {only.adjusted:.2g})"


def test_the_family_is_every_comparison(tmp_path: Path) -> None:
    """Six seeds are enough for one comparison and too few for two."""
    qualities = {"structural": [0.9], "none": [0.2], "token": [0.3]}
    save(tmp_path, 6, [("structural", "none"), ("structural", "token")], qualities)
    for each in compared(tmp_path):
        assert (each.family, each.p, each.adjusted, each.attainable) == (2, 0.03125, 0.0625, 0.0625)
        assert each.verdict == (
            "inconclusive (6 seeds: p cannot be below 0.0625 after correction; 7 or more can be significant)"
        )
    said = of_all([], compared(tmp_path))
    assert "None could be significant: with so few seeds or teachers, p after correction is 0.0625 or more." in said
    assert "over the" not in said


def test_a_comparison_that_others_leave_room_for_is_conclusive(tmp_path: Path) -> None:
    """Holm multiplies the larger p by less, so that six seeds suffice beside one that is far below."""
    save(tmp_path / "few", 6, [("structural", "none")], {"structural": [0.9], "none": [0.2]})
    save(tmp_path / "many", 12, [("topk", "token")], {"topk": [0.9], "token": [0.2]})
    assert {each.method.method: each.outcome for each in compared(tmp_path)} == {
        "structural": "significant",
        "topk": "significant",
    }


def test_predictions_that_were_thrown_away_leave_the_interval_out(tmp_path: Path) -> None:
    save(tmp_path, 2, [("structural", "none")], {"structural": [0.9], "none": [0.2]})
    (tmp_path / "1" / "predictions" / "none.jsonl.gz").unlink()
    (only,) = compared(tmp_path)
    assert only.interval is None
    assert "test sentences" not in Report.of([tmp_path]).terminal


def test_a_model_without_figures_is_not_compared(tmp_path: Path) -> None:
    save(tmp_path, 1, [("structural", "none")], {"structural": [0.9], "none": [0.2]})
    content = json.loads((tmp_path / "0" / "metrics.json").read_text())
    content["results"][1]["test"] = {}
    (tmp_path / "0" / "metrics.json").write_text(json.dumps(content))
    assert compared(tmp_path) == []
    assert "No comparison was declared that could be made" in Report.of([tmp_path]).findings


def test_every_p_can_be_computed_again_from_the_predictions(written: tuple[Path, Path]) -> None:
    """From files alone: the predictions that results.csv names, for what comparisons.csv prints."""
    _, report = written
    models = list(csv.DictReader((report / "results.csv").read_text().splitlines()))
    comparisons = list(csv.DictReader((report / "comparisons.csv").read_text().splitlines()))
    (printed,) = [
        each
        for each in comparisons
        if (each["scenario"], each["method"], each["baseline"]) == ("case1a", "structural", "token")
    ]

    def counts(method: str) -> np.ndarray:
        from urllib.parse import unquote

        tables = []
        for seed in printed["seeds"].split():
            (found,) = [
                each for each in models if (each["scenario"], each["method"], each["seed"]) == ("case1a", method, seed)
            ]
            with gzip.open(report / unquote(found["predictions"]), "rt") as lines:
                tables.append([json.loads(line)["counts"]["f1"] for line in lines])
        return np.array(tables)

    one, other = counts("structural"), counts("token")
    totals = [table.sum(axis=1) for table in (one, other)]
    figures = [2 * total[:, 0] / (total[:, 1] + total[:, 2]) for total in totals]
    differences = figures[0] - figures[1]
    assert len(differences) == 10
    flipped = [np.dot(signs, differences) for signs in itertools.product([1, -1], repeat=10)]
    p = np.mean(np.abs(flipped) >= abs(differences.sum()) - 1e-12)
    assert float(printed["p"]) == pytest.approx(p)
    assert float(printed["difference"]) == pytest.approx(differences.mean())
    interval = paired_bootstrap(one, other)
    assert float(printed["low"]) == pytest.approx(interval.low)
    assert float(printed["high"]) == pytest.approx(interval.high)
    # Tarone by definition: K comparisons can reach 0.05 / K, and the least p of those is multiplied by K, then the next
    left = {row: (float(each["p"]), float(each["smallest_p"])) for row, each in enumerate(comparisons)}
    adjusted, largest = {}, 0.0
    while left:
        k = next(k for k in itertools.count(1) if sum(least <= 0.05 / k for _, least in left.values()) <= k)
        able = [row for row, (_, least) in left.items() if least <= 0.05 / k]
        if not able:
            break
        row = min(able, key=lambda row: left[row][0])
        adjusted[row] = largest = max(largest, min(1.0, k * left.pop(row)[0]))
    assert float(printed["p_holm"]) == pytest.approx(adjusted[comparisons.index(printed)])


def test_rows_of_few_seeds_cost_a_row_of_ten_nothing(tmp_path: Path) -> None:
    save(tmp_path / "ten", 10, [("structural", "none")], {"structural": [0.9], "none": [0.2]})
    for scenario in range(5):
        folder = tmp_path / f"two-{scenario}"
        save(folder, 2, [("topk", "token")], {"topk": [0.9 + scenario / 100], "token": [0.2]})
    found = compared(tmp_path)
    assert {(each.method.method, each.outcome) for each in found if len(each.differences) == 10} == {
        ("structural", "significant")
    }
    (ten,) = [each for each in found if len(each.differences) == 10]
    assert ten.adjusted == ten.p


def test_teachers_are_the_units_where_they_vary(tmp_path: Path) -> None:
    """Twelve students of six teachers are six pairs, whose interval and p are over teachers."""
    for seed in range(12):
        results = [model("teacher", "teacher", seed // 2)]
        results += [
            model("student", name, seed, quality=quality) for name, quality in (("structural", 0.9), ("none", 0.2))
        ]
        save_run(tmp_path / str(seed), results, seed=seed, comparisons=[("structural", "none")])
    (only,) = compared(tmp_path)
    seeds = list(only.differences.values())
    assert only.units == pytest.approx([(one + other) / 2 for one, other in zip(seeds[::2], seeds[1::2], strict=True)])
    assert only.by_teacher
    assert only.p == 2 / 2**6
    low, high = only.over_units or (0.0, 0.0)
    assert low < only.difference < high
    assert only.verdict == "significant (p = 0.031)"
    assert only.seeds == "6 teachers"
    assert "95 % interval over teachers" in Report.of([tmp_path]).save(tmp_path / "report")[0].read_text()


def test_no_difference_is_said_with_a_margin_only(tmp_path: Path) -> None:
    qualities = {"structural": [0.9], "none": [0.9]}
    save(tmp_path, 8, [("structural", "none")], qualities)
    (only,) = compared(tmp_path)
    assert only.equivalence is None
    assert "no difference" not in only.verdict
    for file in tmp_path.glob("*/metrics.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"margin": 0.05}))
    (only,) = compared(tmp_path)
    assert only.equivalence == 0.5**8
    assert only.verdict.endswith("no difference of 5 points or more (p = 0.0039)")
    assert only.detectable is not None


def test_comparisons_may_ask_for_settings(tmp_path: Path) -> None:
    """structural(legal=true) against token(legal=false), from runs of their own, beside a teacher that follows."""
    pairs = [("structural(legal=true)", "token(legal=false)"), ("structural", "token")]
    for seed in range(2):
        for legal in (False, True):
            chosen = {"model": {"_target_": "structkd.models.TaggerRecipe", "legal": legal}}
            results = [model("teacher", "teacher", 0, **chosen)]
            results += [model("student", name, seed, **chosen) for name in ("structural", "token")]
            save_run(tmp_path / f"{seed}-{legal}", results, seed=seed, comparisons=pairs)
    found = compared(tmp_path)
    assert [each.title for each in found] == [
        "structural (legal=True) − token (legal=False)",  # noqa: RUF001
        "structural (legal=False) − token (legal=False)",  # noqa: RUF001
        "structural (legal=True) − token (legal=True)",  # noqa: RUF001
    ]


def test_every_interval_names_its_units(tmp_path: Path) -> None:
    """A headline with the interval over test sentences alone would look like one over seeds."""
    save(tmp_path / "two", 2, [("structural", "none")], {"structural": [0.9, 0.4], "none": [0.5, 0.7]})
    save(tmp_path / "one", 1, [("structural", "none")], {"structural": [0.9], "none": [0.5]})
    limits = r"\[[+-]\d+\.\d\d, [+-]\d+\.\d\d\]"
    for folder, pattern in (
        ("two", rf" \(95 % interval over seeds {limits}, over test sentences {limits}\)"),
        ("one", rf" \(95 % interval over test sentences {limits}\)"),
    ):
        found = Report.of([tmp_path / folder])
        for text in (found.terminal.replace("\n    ", " "), *found.findings_of(found.scenarios[0])[1:]):
            assert re.search(pattern, text), text
        markdown = found.save(tmp_path / "report")[0].read_text()
        assert re.search(pattern, markdown), "no bracket is escaped"
