"""Sweeps: named folders, launchers, failed runs, optimisers, and a sweep killed again and again."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import structkd.conf
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from preloaded import start_command

from structkd.commands.schema import register_schema
from structkd.commands.sweep import run_name

CONF = Path(structkd.conf.__file__).parent
# As small as a training can be that still stops, saves and chooses in its middle.
TINY = (
    *("+debug=tiny", "~kd@baselines.token", "teacher.trainer.max_steps=20", "teacher.trainer.eval_steps=5"),
    *("student.trainer.max_steps=9", "student.trainer.eval_steps=3"),
)


def results(work: Path) -> dict[str, bytes]:
    """What came out: of runs and of trainings."""
    return {str(path.relative_to(work)): path.read_bytes() for path in work.rglob("metrics.json")}


def finished(work: Path) -> dict[str, tuple[int, int]]:
    """What would be written anew if a run or a training were repeated."""
    return {
        str(path.relative_to(work)): ((stat := path.stat()).st_mtime_ns, stat.st_ino)
        for metrics in work.rglob("metrics.json")
        for path in metrics.parent.glob("*.json")
    }


class TestNames:
    def test_overrides_in_alphabetical_order(self) -> None:
        assert run_name([]) == "defaults"
        assert run_name(["work_dir=/some/where"]) == "defaults"
        assert run_name(["seed=0", "scenario=case1a", "work_dir=x"]) == "scenario=case1a,seed=0"
        assert run_name(["seed=0", "+debug=tiny"]) == run_name(["+debug=tiny", "seed=0"]) == "+debug=tiny,seed=0"

    @pytest.mark.parametrize(
        ("typed", "swept"),
        [("a=[1, 2]", "a=[1,2]"), ("~kd@baselines.token", "~kd@baselines.token=null"), ("a= b", "a=b")],
    )
    def test_same_alone_and_in_a_sweep(self, typed: str, swept: str) -> None:
        """Sweepers write overrides in their own way."""
        assert run_name([typed, "b=2"]) == run_name(["b=2", swept])

    @pytest.mark.parametrize(
        ("overrides", "name"),
        [
            (["student.text.path=news/2020.txt"], "student.text.path=news%2F2020.txt"),
            (["a='it: 5%'"], "a=%27it%3A 5%25%27"),
            (["a={b: 1, c: [2, x]}"], "a={b:1,c:[2,x]}".replace(":", "%3A")),
            (["encoder@student.model.encoder=bilstm_tiny"], "encoder@student.model.encoder=bilstm_tiny"),
            (["a=1."], "a=1.0"),
            (["a=b."], "a=b%2E"),
        ],
    )
    def test_legal_everywhere_and_readable(self, overrides: list[str], name: str) -> None:
        assert run_name(overrides) == name

    def test_different_overrides_have_different_names(self) -> None:
        lists = [
            *(
                ["a=1"],
                ["a='1'"],
                ['a="1"'],
                ["+a=1"],
                ["++a=1"],
                ["~a"],
                ["~a=1"],
                ["a=1.0"],
                ["a=null"],
                ["a='null'"],
            ),
            *(["a=1", "b=2"], ["a='1,b=2'"], ["a=[1,2]"], ["a=['1','2']"], ["a=['1,2']"], ["a=b/c"], ["a=b%2Fc"]),
            # of overlapping keys the last one wins
            *(["a=1", "a=2"], ["a=2", "a=1"], ["a.b=1", "a={b:2}"], ["a={b:2}", "a.b=1"], ["+a=1", "a=2"]),
            *([f"a={'x' * 200}"], [f"a={'x' * 201}"], [f"a={'x' * 200}", "b=1"]),
        ]
        names = [run_name(overrides) for overrides in lists]
        assert len(set(names)) == len(names), sorted(names)
        for name in names:
            assert re.fullmatch(r"[ -~]{1,120}", name), name
            assert not re.search(r'[<>:"/\\|?*]|[. ]$', name), name


def test_a_failed_run_stops_no_other_and_is_the_only_one_done_again(run, tmp_path: Path) -> None:
    for name in ("one.txt", "three.txt"):
        (tmp_path / name).write_text("velo tolar su sab .\n" * 8)
    # missing.txt comes before three.txt
    sweep = ("-m", *TINY, "+text@student.text=lines", "student.unlabelled=6")
    sweep += ("student.text.path=one.txt,missing.txt,three.txt",)
    status, output, errors = run(*sweep)
    work = tmp_path / "structkd-runs"
    assert status == 1
    assert "3 runs in structkd-runs/runs: 2 finished (0 of them before), 1 failed." in output
    assert "structkd report structkd-runs/runs" in output
    assert re.search(r"failed: .*student\.text\.path=missing\.txt\n +.*missing\.txt", errors), errors
    assert "Traceback" not in output + errors
    (failed,) = work.glob("runs/*/failed.json")
    failure = json.loads(failed.read_text())
    assert failure["error"] == "FileNotFoundError"
    assert "missing.txt" in failure["message"]
    assert "load_text" in failure["traceback"]
    assert "student.text.path=missing.txt" in failure["overrides"]
    done = finished(work)
    assert len([path for path in done if path.startswith("runs/") and path.endswith("metrics.json")]) == 2
    assert not list(work.glob("runs/.sweeps"))

    (tmp_path / "missing.txt").write_text("ke miret ta gorish velo .\n" * 8)
    status, output, errors = run(*sweep)
    assert status == 0, errors
    assert "3 runs in structkd-runs/runs: 3 finished (2 of them before), 0 failed." in output
    assert not list(work.glob("runs/*/failed.json"))
    assert finished(work).items() >= done.items()
    assert output.count(": training on") == 1, "the student of the failed run"

    # alone, in another order: the same folder
    done = finished(work)
    status, output, _ = run("student.text.path=one.txt", "student.unlabelled=6", *TINY, "+text@student.text=lines")
    assert status == 0
    assert finished(work) == done


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_processes_in_parallel_give_the_same_bytes(run, tmp_path: Path, monkeypatch, launcher: str) -> None:
    """One teacher for all of them; one run fails in a process of its own. They may start processes that load data."""
    sweep = ("-m", *TINY, "student.labelled=10,15,1000", "+student.trainer.dataloader_num_workers=1")
    status, output, errors = run(*sweep, "work_dir=alone")
    assert status == 1
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    status, output, errors = run(*sweep, "work_dir=parallel", f"hydra/launcher={launcher}")
    assert status == 1, errors
    assert os.environ["OMP_NUM_THREADS"] == "1", "inherited by every process"
    assert "3 runs in parallel/runs: 2 finished (0 of them before), 1 failed." in output
    assert "student.labelled=1000" in errors
    alone, parallel = results(tmp_path / "alone"), results(tmp_path / "parallel")
    assert len([name for name in alone if name.startswith("runs/")]) == 2
    assert len([name for name in alone if name.startswith("teacher-")]) == 1
    assert parallel == alone
    for path in (tmp_path / "parallel").rglob("run.json"):
        made = json.loads(path.read_text())
        assert made["command"].startswith("structkd -m +debug=tiny"), "as typed, not as the launcher started it"
    # what they finished is found by the basic launcher
    done = finished(tmp_path / "parallel")
    status, output, _ = run(*sweep, "work_dir=parallel")
    assert "2 finished (2 of them before), 1 failed" in output
    assert finished(tmp_path / "parallel") == done


def test_a_sweep_that_cannot_be_composed_starts_nothing(run, tmp_path: Path) -> None:
    status, _, errors = run("-m", *TINY, "kd.loss.temprature=1,2")
    assert status == 1
    assert "no key 'temprature' in kd.loss. Did you mean 'temperature'?" in errors
    assert not list((tmp_path / "structkd-runs").rglob("metrics.json"))


@pytest.mark.filterwarnings("ignore:.*SQLAlchemy 2.0")
def test_optuna_continues_and_survives_failed_trials(run, tmp_path: Path) -> None:
    search = ("+sweep=optuna", *(each for each in TINY if not each.startswith("~")))
    # one of the choices cannot be had
    search += ("student.labelled=choice(15,1000)",)
    work = tmp_path / "structkd-runs"
    status, output, errors = run(*search, "hydra.sweeper.n_trials=2")
    first = finished(work)
    status, output, errors = run(*search, "hydra.sweeper.n_trials=4")
    assert status == 1, errors
    runs = [json.loads(path.read_text()) for path in work.glob("runs/*/metrics.json")]
    failed = list(work.glob("runs/*/failed.json"))
    assert len(runs) > 0
    assert len(failed) > 0
    assert len(runs) + len(failed) == 4
    assert f"4 runs in structkd-runs/runs: {len(runs)} finished" in output
    assert finished(work).items() >= first.items()
    best = OmegaConf.load(work / "runs" / "optimization_results.yaml")
    assert best.best_value == max(run["results"][-1]["dev"]["f1"] for run in runs)
    assert [row["method"] for row in runs[0]["results"]] == ["teacher", "structural"]


def test_a_sweeper_that_gives_up_does_not_swallow_the_failures(tmp_path: Path) -> None:
    """Optuna raises where no trial was any good, before Hydra says that the sweep is over."""
    # In a process of its own: optuna keeps writing to the standard error of the test that imported it.
    search = ("+sweep=optuna", "+debug=tiny", "student.labelled=choice(1000,2000)", "hydra.sweeper.n_trials=2")
    done = subprocess.run(
        [sys.executable, "-m", "structkd", *search],
        env={name: value for name, value in os.environ.items() if name != "STRUCTKD_WORK"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "2 runs in structkd-runs/runs: 0 finished (0 of them before), 2 failed." in done.stdout
    assert done.stderr.count("\nfailed: ") == 2
    assert "student.labelled=1000" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "structkd-runs" / "runs").glob(".sweeps"))


class TestShippedSweeps:
    @pytest.mark.parametrize("path", sorted((CONF / "sweep").glob("*.yaml")), ids=lambda path: path.stem)
    def test_composes_and_is_headed_by_its_command(self, path: Path) -> None:
        assert f"#   structkd +sweep={path.stem}\n" in path.read_text()
        register_schema()
        GlobalHydra.instance().clear()
        with initialize_config_module("structkd.conf", version_base="1.3"):
            config = compose("config", overrides=[f"+sweep={path.stem}"], return_hydra_config=True)
            assert config.hydra.mode.name == "MULTIRUN"
            swept = config.hydra.sweeper.params
            assert swept
            compose("config", overrides=[f"+sweep={path.stem}", "+debug=tiny"])

    def test_temperature(self, run, tmp_path: Path) -> None:
        tiny = [each for each in TINY if not each.startswith("~")]
        status, output, errors = run("+sweep=temperature", *tiny, "kd.loss.temperature=1,3")
        assert status == 0, errors
        assert "4 runs in structkd-runs/runs: 4 finished" in output
        assert len(list((tmp_path / "structkd-runs").glob("student-*"))) == 1 + 4

    def test_unlabelled(self, run, tmp_path: Path) -> None:
        status, output, errors = run("+sweep=unlabelled", *TINY, "student.unlabelled=0,20")
        assert status == 0, errors
        assert "2 runs in structkd-runs/runs: 2 finished" in output


def _wait_for(process: BaseProcess, happened: Callable[[], bool]) -> None:
    while process.is_alive() and not happened():
        time.sleep(0.01)


def _written(work: Path) -> set[tuple[str, int]]:
    """Every file of every training, as often as it was written."""
    files = set()
    for folder, _, names in os.walk(work):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                path = os.path.join(folder, name)
                files.add((path, os.stat(path).st_mtime_ns))
    return files


SWEEP = ("-m", "scenario=case1a,case2a", "seed=0,1,2", *TINY)


def test_a_sweep_killed_again_and_again(tmp_path: Path) -> None:
    """The same bytes as without, and nothing that was finished is done twice."""
    whole = start_command(tmp_path, *SWEEP, "work_dir=whole")
    whole.join(timeout=300)
    assert whole.exitcode == 0, (tmp_path / "log.txt").read_text()
    moments = random.Random(0)
    work = tmp_path / "killed"
    seen: dict[str, tuple[int, int]] = {}
    kills = 0
    while True:
        before = _written(work)
        process = start_command(tmp_path, *SWEEP, "work_dir=killed")
        if kills == 0:  # in the middle of the teacher
            _wait_for(process, lambda: any(work.glob("teacher-*/checkpoints/checkpoint-10")))
        elif kills < 4:  # anywhere
            number = moments.randrange(1, 60)
            _wait_for(process, lambda before=before, number=number: len(_written(work) - before) >= number)
            time.sleep(moments.uniform(0, 0.05))
        else:
            process.join(timeout=300)
        if not process.is_alive():
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        assert finished(work).items() >= seen.items(), "something finished was done again"
        seen = finished(work)
    assert process.exitcode == 0, (tmp_path / "log.txt").read_text()
    assert kills >= 3
    assert finished(work).items() >= seen.items(), "something finished was done again"
    assert len([name for name in results(work) if name.startswith("runs/")]) == 6
    assert results(work) == results(tmp_path / "whole")
    (teacher,) = work.glob("teacher-*/timing.json")
    assert json.loads(teacher.read_text())["resumed_from"] is not None


def test_a_terminated_sweep_says_how_to_continue(tmp_path: Path) -> None:
    process = start_command(tmp_path, *SWEEP, "work_dir=work")
    _wait_for(process, lambda: any((tmp_path / "work").glob("student-*/checkpoints")))
    os.kill(process.pid, signal.SIGTERM)
    process.join(timeout=30)
    assert process.exitcode == 143
    log = (tmp_path / "log.txt").read_text()
    assert "interrupted. The same command continues" in log
    assert "Traceback" not in log


def test_as_a_module(tmp_path: Path) -> None:
    """As torchrun starts it; the folder is the user's where hydra.run.dir says so."""
    command = [sys.executable, "-m", "structkd", *TINY, "hydra.run.dir=mine"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == 0
    assert (tmp_path / "mine" / "metrics.json").exists()
    assert not (tmp_path / "structkd-runs" / "runs").exists()
