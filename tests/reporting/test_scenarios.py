"""Results of many runs, grouped: one table a scenario and teacher, one line a method and setting."""

from pathlib import Path

import pytest
from made_up import TREES, model, save_run

from structkd.reporting import collect, read_runs
from structkd.reporting.findings import of_scenario
from structkd.reporting.scenarios import Row, Scenario
from structkd.reporting.settings import titles
from structkd.reporting.tables import terminal


def read(*folders: Path) -> list[Scenario]:
    return collect(read_runs(folders).finished)


def row(scenario: Scenario, name: str) -> Row:
    (found,) = [each for each in scenario.rows if each.name == name]
    return found


def test_a_sweep_over_seeds_is_one_table(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        methods = [model("student", name, seed) for name in ("structural", "token", "none")]
        save_run(tmp_path / str(seed), [model("teacher", "teacher", 0), *methods], seed=seed)
    save_run(tmp_path / "again", [model("student", "none", 0)])  # done once, part of two runs
    (scenario,) = read(tmp_path)
    assert [each.name for each in scenario.rows] == ["teacher", "none", "token", "structural"]
    assert [list(each.models) for each in scenario.rows] == [[0], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
    assert row(scenario, "token").metrics("test", "uas") == {}


def test_the_gap_closed_is_a_share_of_the_distance_from_plain_student_to_best_teacher(tmp_path: Path) -> None:
    save_run(
        tmp_path / "0",
        [
            model("teacher", "teacher", 0, quality=0.7),
            model("teacher", "teacher-large", 0, quality=0.9, model={"size": 9}),
            model("student", "none", 0, quality=0.5),
            model("student", "structural", 0, quality=0.7),
        ],
    )
    (scenario,) = read(tmp_path)
    figures = {each.name: each.metrics("test", "f1")[0] for each in scenario.rows}
    share = (figures["structural"] - figures["none"]) / (figures["teacher-large"] - figures["none"])
    assert scenario.gap_closed(row(scenario, "structural")) == pytest.approx(share)
    assert scenario.gap_closed(row(scenario, "none")) is None
    assert scenario.gap_closed(row(scenario, "teacher")) is None
    # one after the other: 4,000 words a second each
    assert scenario.teachers_speed(scenario.students[0]) == pytest.approx(2000)


def test_one_teacher_a_table(tmp_path: Path) -> None:
    """Students of different teachers are different models; a student without KD goes with each of them."""
    for quality, structure in ((0.6, "head_selection"), (0.7, "projective")):
        results = [
            model("teacher", "teacher", 0, metric="las", model={"structure": structure}),
            model("student", "structural", 0, metric="las", quality=quality),
        ]
        save_run(tmp_path / structure, results, scenario="case1b", metric="las", data=TREES)
    plain = model("student", "none", 0, metric="las", quality=0.5)
    save_run(tmp_path / "plain", [plain], scenario="case1b", metric="las", data=TREES)
    scenarios = read(tmp_path)
    assert [each.teacher for each in scenarios] == ["structure=head_selection", "structure=projective"]
    assert [[each.name for each in one.rows] for one in scenarios] == [["teacher", "none", "structural"]] * 2
    assert all(scenario.gap_closed(row(scenario, "structural")) for scenario in scenarios)


def test_teachers_that_differ_in_their_seed(tmp_path: Path) -> None:
    """A teacher a seed is one table; all combinations of both seeds are a table a teacher."""
    for seed in (0, 1):
        for teacher in (0, 1):
            results = [model("teacher", "teacher", teacher), model("student", "structural", seed, quality=0.7)]
            results[1]["folder"] += str(teacher)
            save_run(tmp_path / f"{seed}{teacher}", results, seed=seed)
    (scenario,) = read(tmp_path / "00", tmp_path / "11")
    assert list(row(scenario, "teacher").models) == [0, 1]
    assert [each.teacher for each in read(tmp_path)] == ["seed=0", "seed=1"]


def test_what_was_trained_again_replaces_what_was_before(tmp_path: Path) -> None:
    for day, quality in ((2, 0.8), (1, 0.6)):
        result = model("student", "structural", 0, quality=quality)
        result["folder"] = f"student-{day}"
        save_run(tmp_path / str(day), [result], finished=f"2026-01-0{day}")
    (scenario,) = read(tmp_path)
    assert row(scenario, "structural").models[0].result.folder == "student-2"
    assert [run.folder.name for run in scenario.replaced] == ["1"]


def test_settings_that_differ_are_named(tmp_path: Path) -> None:
    for temperature in (10.0, 2.0):
        save_run(tmp_path / str(temperature), [model("student", "structural", 0, temperature=temperature)])
    (scenario,) = read(tmp_path)
    assert [each.name for each in scenario.rows] == ["structural (temperature=2)", "structural (temperature=10)"]


def test_titles_say_no_more_than_it_takes() -> None:
    assert titles([{"a": {"x": 1}}, {"a": {"x": 1}}]) == ["", ""]
    assert titles([{"a": {"x": 1}}, {"a": {"x": 2.0}}]) == ["x=1", "x=2"]
    # names that end alike keep what tells them apart
    assert titles([{"a": {"x": 1}, "b": {"x": 1}}, {"a": {"x": 2}, "b": {"x": 3}}]) == ["a.x=1, b.x=1", "a.x=2, b.x=3"]
    # two kinds of encoder differ in everything
    many = [
        {
            "rate": rate,
            "model": {"encoder": {"_target_": f"structkd.models.{kind}", **{f"{kind}{n}": n for n in range(9)}}},
        }
        for rate, kind in ((0.1, "BiLSTMRecipe"), (0.2, "TransformerRecipe"))
    ]
    assert titles(many) == ["encoder=BiLSTMRecipe", "encoder=TransformerRecipe"]


def test_pairs_are_those_of_one_run(tmp_path: Path) -> None:
    """With text of another size the baseline is another, too; a plain student needs none and is the same for all."""
    for unlabelled in (500, 2000):
        results = [model("student", name, 0, unlabelled=unlabelled) for name in ("structural", "token", "none")]
        save_run(tmp_path / str(unlabelled), results)
    # without baselines: those that were set alike are taken
    save_run(tmp_path / "alone", [model("student", "structural", 0, temperature=3.0, unlabelled=2000)])
    (scenario,) = read(tmp_path)
    assert {(one.variant, other.name) for one, other in scenario.pairs} == {
        ("temperature=1, unlabelled=500", "token (unlabelled=500)"),
        ("temperature=1, unlabelled=2000", "token (unlabelled=2000)"),
        ("temperature=1, unlabelled=500", "none"),
        ("temperature=1, unlabelled=2000", "none"),
        ("temperature=3, unlabelled=2000", "none"),
        ("temperature=3, unlabelled=2000", "token (unlabelled=2000)"),
    }


def test_runs_of_one_method_each_are_paired_by_what_they_share(tmp_path: Path) -> None:
    """A sweep over methods and temperatures: no pair across temperatures, nor across amounts of text."""
    for temperature in (1.0, 2.0):
        for name in ("structural", "token"):
            save_run(tmp_path / f"{name}{temperature}", [model("student", name, 0, temperature=temperature)])
    save_run(tmp_path / "less", [model("student", "token", 0, unlabelled=0)])
    (scenario,) = read(tmp_path)
    assert {(one.variant, other.variant) for one, other in scenario.pairs} == {
        ("temperature=1", "temperature=1, unlabelled=1500"),
        ("temperature=2", "temperature=2, unlabelled=1500"),
    }


def test_comparisons_that_were_never_run_are_known(tmp_path: Path) -> None:
    save_run(tmp_path / "0", [model("student", "structural", 0), model("student", "none", 0)])
    (scenario,) = read(tmp_path)
    assert scenario.missing == [("structural", "token")]
    assert [(one.name, other.name) for one, other in scenario.pairs] == [("structural", "none")]
    (remark,) = scenario.remarks
    assert remark.startswith("Declared, not possible: structural against token; token is in none of these runs.")


def test_methods_of_different_runs_are_compared_if_they_are_set_alike(tmp_path: Path) -> None:
    """Each run of a sweep over methods says which of the declared comparisons it lacks a method of."""
    pair = ("structural", "topk")
    for name, unlabelled in (("structural", 1500), ("topk", 1500), ("topk", 10)):
        for seed in (0, 1):
            result = model("student", name, seed, unlabelled=unlabelled)
            folder = tmp_path / str(unlabelled) / f"{name}{seed}"
            save_run(folder, [result], seed=seed, comparisons=(), elsewhere=[pair])
    (alike,) = read(tmp_path / "1500")
    assert [(one.name, other.name) for one, other in alike.pairs] == [pair]
    assert alike.remarks == []
    (different,) = read(tmp_path / "1500" / "structural0", tmp_path / "10")
    assert different.pairs == []
    assert (
        "structural against topk; no two students have settings that differ in the method only." in different.remarks[0]
    )
    assert different.remarks[0].endswith("+kd@baselines.topk=topk.")
    assert different.remarks[0] in " ".join(of_scenario(different, []))
    assert "Declared, not possible" in terminal([different], [])


def test_models_that_predict_nothing_are_named(tmp_path: Path) -> None:
    silent = model("student", "structural", 0)
    silent["counts"]["f1"] = silent["counts"]["f1"] * [0, 0, 1]
    silent["test"]["f1"] = 0.0
    wrong = model("student", "none", 0)
    wrong["counts"]["f1"] = wrong["counts"]["f1"] * [0, 1, 1]
    wrong["test"]["f1"] = 0.0
    save_run(tmp_path, [silent, wrong], comparisons=())
    (scenario,) = read(tmp_path)
    (remark,) = scenario.remarks
    assert remark.startswith("structural: No span is predicted in the whole test split")
