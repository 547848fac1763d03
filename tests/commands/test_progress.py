"""The lines that a sweep prints while it goes on, and the index of its folders."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.initialize import initialize_config_module
from omegaconf import OmegaConf

from structkd.commands.index import write_index
from structkd.commands.progress import Progress, duration, number_of_runs, seeds_remark
from structkd.records import SweepRecord

WRITTEN = Path(__file__).resolve().parents[1] / "written" / "run"


def record(folder: Path, number: int, status: str, *overrides: str) -> None:
    written = SweepRecord(folder=str(folder.parent / "run"), overrides=list(overrides), status=status)
    written.write(folder / f"{number:06}.json")


@pytest.fixture
def records(tmp_path: Path) -> Path:
    shutil.copytree(WRITTEN, tmp_path / "run")
    (tmp_path / "records").mkdir()
    return tmp_path / "records"


def test_a_line_for_every_run_that_ended(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr("structkd.commands.progress.time", now)
    lines: list[str] = []
    progress = Progress(records, 40, lines.append)
    record(records, 0, "started", "seed=0")
    progress.report()
    assert lines == []
    record(records, 0, "before", "seed=0")
    progress.report()
    (line,) = lines
    assert line.startswith("run 1 of 40: seed=0: test f1 structural ")
    assert "left" not in line, "one that was finished before says nothing about the time"
    now.monotonic = lambda: 60.0
    record(records, 1, "finished", "seed=1")
    record(records, 2, "failed", "seed=2")
    progress.close()
    assert lines[1].endswith("; about 38 minutes left")
    assert lines[2] == "run 3 of 40: seed=2: failed; about 18 minutes left"
    progress.report()
    assert len(lines) == 3


def test_a_line_says_what_the_runs_do_not_share(records: Path) -> None:
    lines: list[str] = []
    progress = Progress(records, 2, lines.append, ["data=columns", "~kd@baselines.token", "seed=0,1"])
    record(records, 0, "failed", "data=columns", "~kd@baselines.token=null", "seed=0")
    record(records, 1, "failed", "data=columns")
    progress.report()
    assert [line.partition(": failed")[0] for line in lines] == ["run 1 of 2: seed=0", "run 2 of 2: data=columns"]


def test_runs_in_other_processes_are_seen(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("structkd.commands.progress._PAUSE", 0.01)
    lines: list[str] = []
    progress = Progress(records, None, lines.append)
    progress.watch()
    (records / "000000.json").write_text("{")  # it is being written, in this way or in the next
    record(records, 1, "finished")
    (records / "000001.json").rename(records / ".unfinished-000001.json")
    record(records, 1, "finished")
    limit = time.monotonic() + 20
    while not lines and time.monotonic() < limit:
        time.sleep(0.01)
    progress.close()
    assert len(lines) == 1
    assert lines[0].startswith("run 1: no overrides: test f1 ")


@pytest.mark.parametrize(
    ("params", "typed", "number"),
    [
        ({"seed": "range(10)"}, ["scenario=case1a,case2a"], 20),
        ({"seed": "range(10)"}, ["seed=0,1,2"], 3),
        ({}, ["scenario=glob(case*)", "x=[1,2]"], 6),
        ({}, ["x=choice("], None),
    ],
)
def test_the_number_of_runs_is_known_before(params: dict[str, str], typed: list[str], number: int | None) -> None:
    GlobalHydra.instance().clear()
    sweeper = {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper", "params": params}
    config = OmegaConf.create({"hydra": {"sweeper": sweeper, "overrides": {"task": typed}}})
    with initialize_config_module("structkd.conf", version_base="1.3"):
        assert number_of_runs(config) == number
        config.hydra.sweeper = {"_target_": "optuna", "n_trials": 25}
        assert number_of_runs(config) == 25


def test_too_few_seeds_are_named_before_a_sweep() -> None:
    assert "3 seeds: p of a comparison over seeds cannot be below 0.25; 6 seeds" in seeds_remark(["seed=range(3)"])
    assert seeds_remark(["seed=range(10)", "seed=0,1"]).startswith("2 seeds"), "what was typed last counts"
    assert [seeds_remark(each) for each in (["seed=range(6)"], ["seed=3"], [], ["x=choice("])] == [""] * 4


def test_durations() -> None:
    assert [duration(each) for each in (1, 60, 720, 7200)] == [
        *("less than a minute", "about a minute", "about 12 minutes", "about 2 hours")
    ]


def test_the_index_names_every_training(tmp_path: Path) -> None:
    shutil.copytree(WRITTEN, tmp_path / "runs" / "scenario=case2a,seed=0")
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "runs" / "other" / "metrics.json").write_text("{}")  # of another version
    write_index(tmp_path, tmp_path / "runs")
    rows = [line for line in (tmp_path / "index.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) == 4
    assert all("`scenario=case2a,seed=0`" in row for row in rows)
    assert sum("| student, structural |" in row for row in rows) == 1
    assert rows == sorted(rows)
    shutil.copytree(WRITTEN.parent / "student", tmp_path / "student-0123456789abcdef")  # its run is in another folder
    write_index(tmp_path, tmp_path / "runs")
    (row,) = [line for line in (tmp_path / "index.md").read_text().splitlines() if "student-0123456789abcdef" in line]
    assert row.startswith("| `student-0123456789abcdef` | student, token | ")
    assert row.endswith(" |  |")
