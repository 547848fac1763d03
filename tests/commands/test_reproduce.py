"""The script behind `make reproduce`: profiles, plans and estimates, and whole profiles on a made-up language."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from preloaded import kill, run_program, start_program, wait_until

from structkd.records import Failure, MethodSettings, Settings, Timing, TrainingConfig, TrainingFolder
from structkd.runs.identity import chosen_settings, kind_of_training

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SCRIPT = EXPERIMENTS / "reproduce.py"

sys.path.insert(0, str(EXPERIMENTS))

from planning import BESIDES, Command, Plan, Progress, Training, next_command, plan, read_profiles  # noqa: E402
from reproduce import _failures, main  # noqa: E402


def call(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_program(folder, SCRIPT, *arguments)


def finished(work: Path) -> dict[str, int]:
    """Trainings that are done, with the time at which they were."""
    return {path.parent.name: path.stat().st_mtime_ns for path in work.glob("*-*/metrics.json")}


@pytest.mark.processes
def test_killed_and_started_again_it_goes_on_and_reports(tmp_path: Path) -> None:
    work, output = tmp_path / "work" / "tiny", tmp_path / "results" / "tiny"
    arguments = ("--profile", "tiny", "--work", work.parent, "--output", output.parent)
    killed = start_program(tmp_path, SCRIPT, *arguments)
    wait_until(lambda: len(finished(work)) >= 2, killed)
    assert killed.is_alive(), "it ended before it could be killed"
    kill(killed)
    before = finished(work)

    second = call(tmp_path, *arguments)
    assert second.returncode == 0, second.stderr
    assert "3 runs by 2 commands, in 2 processes" in second.stdout
    assert f"They share 12 trainings, of which {len(before)} are done; " in second.stdout
    assert "12 of 12 trainings done, nothing is left to train" in second.stdout
    after = finished(work)
    assert len(after) == 12, "the plan and the fingerprints agree on what is shared"
    assert before.items() <= after.items(), "what was finished was not done again"
    text = (output / "results.md").read_text()
    for expected in ("case1a", "case1b", "case2a", "token", "structural", "PROFILE=tiny"):
        assert expected in text, expected
    assert (output / "results.png").stat().st_size > 10_000

    # A run that is none of the profile's is not reported, and a third start trains nothing.
    stranger = work / "runs" / "stranger"
    (stranger / ".hydra").mkdir(parents=True)
    (stranger / ".hydra" / "overrides.yaml").write_text("[scenario=case9z]")
    (stranger / "metrics.json").write_text("{}")
    third = call(tmp_path, *arguments)
    assert third.returncode == 0, third.stderr
    assert "of which 12 are done; nothing is left to train" in third.stdout
    assert finished(work) == after
    assert "case9z" not in (output / "results.md").read_text()


@pytest.mark.processes
def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    profiles = {
        "mixed": {
            "about": "one run that works",
            "overrides": ["+debug=tiny", "~kd@baselines.token", "student.trainer.max_steps=1"],
            "seeds": [[0]],
            "runs": {"case4": {"overrides": ["student.labelled=71"]}, "case1a": {}},
        }
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(profiles))
    arguments = ["--profiles", tmp_path / "mine.yaml", "--profile", "mixed", "--jobs", "1"]
    done = call(tmp_path, *arguments, "--work", tmp_path / "work", "--output", tmp_path / "results")
    assert done.returncode == 1
    assert "scenario=case4" in done.stderr
    assert "Traceback" not in done.stderr
    assert "scenario=case1a" not in done.stderr
    text = (tmp_path / "results" / "mixed" / "results.md").read_text()
    assert "## case1a" in text
    assert "## case4" not in text
    assert "student.labelled=71" in text, "what failed is listed"


def test_what_is_missing_is_named_at_the_start(tmp_path: Path) -> None:
    run = {"overrides": ["data=columns", "data.train=absent.txt", "student.model.encoder.vectors=none.vec"]}
    profiles = {"mine": {"about": "nothing", "seeds": [[0]], "runs": {"case2a": run}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(profiles))
    done = call(tmp_path, "--profiles", tmp_path / "mine.yaml", "--profile", "mine", "--work", tmp_path / "work")
    assert done.returncode == 1
    assert "absent.txt" in done.stderr
    assert "none.vec" in done.stderr
    assert "STRUCTKD_VECTORS" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "work").rglob("*.log")), "nothing was started"


def test_unknown_profile(tmp_path: Path) -> None:
    done = call(tmp_path, "--profile", "slow", "--work", tmp_path)
    assert done.returncode != 0
    assert "Unknown profile 'slow': expected one of quick, " in done.stderr


@functools.cache
def planned_once(name: str) -> Plan:
    """The plan of a profile: every run of it is composed."""
    return plan(read_profiles()[name])


@pytest.mark.parametrize("name", read_profiles())
def test_dry_run_of_every_profile(name: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("reproduce.plan", lambda profile: planned_once(name))
    arguments = ["--profile", name, "--work", str(tmp_path), "--output", str(tmp_path), "--dry-run"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    assert main() == 0
    output = capsys.readouterr().out
    planned = planned_once(name)
    assert f"{len(planned.runs)} runs by {len(planned.commands)} commands" in output
    assert f"They share {len(planned.trainings)} trainings; " in output
    assert output.count("    structkd -m ") == len(planned.commands)
    assert not list(tmp_path.iterdir()), "a dry run leaves nothing behind"


class TestPlan:
    def test_quick(self) -> None:
        planned = planned_once("quick")
        trainings = planned.trainings.values()
        # 1a and 2a share a teacher; token KD of 2a and 4 has one of its own; 1b and 2b, 2a and 4 share the students
        # without one
        assert sum(training.role == "teacher" for training in trainings) == 7
        assert len(trainings) == 7 + 2 * (4 + 6 * 2)
        assert len(planned.runs) == 12
        assert all(training.guess is not None for training in trainings)
        progress = Progress(planned, Path("/nowhere"), "code")
        seconds = progress.remaining(2)
        assert seconds is not None
        assert seconds < 15 * 60, "with the corpora and the report, at most 16 minutes on two cores"

    def test_unknown_fields_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        for profile in (
            {"seeds": [[0]], "runs": {}},
            {"about": "a", "seeds": [[0]], "runs": {}, "sead": 1},
            {"about": "a", "seeds": [[0]], "runs": {"case1a": {"second": [1, 2]}}},
        ):
            path.write_text(yaml.safe_dump({"mine": profile}))
            with pytest.raises(ValueError, match=r"mine\.yaml, mine.*expected"):
                read_profiles(path)

    def test_seeds_come_in_rounds_and_keys_are_swept(self) -> None:
        run = {"over": {"student.unlabelled": [0, 30]}}
        planned = plan(
            {"about": "a", "overrides": ["+debug=tiny"], "seeds": [[0, 1], [2]], "runs": {"case1a": run, "case4": {}}}
        )
        assert [each.name for each in planned.commands] == [
            "case1a,seed=0-1",
            "case4,seed=0-1",
            "case1a,seed=2",
            "case4,seed=2",
        ]
        first = planned.commands[0]
        assert str(first) == "structkd -m scenario=case1a +debug=tiny student.unlabelled=0,30 seed=0,1"
        assert frozenset({"scenario=case1a", "+debug=tiny", "student.unlabelled=30", "seed=1"}) in first.runs
        assert len(first.runs) == 4
        # a teacher; for each seed a student without one, whatever the unlabelled text, and two by two with it
        assert len(first.trainings) == 1 + 2 * (1 + 2 * 2)


def training(number: int, kind: str = "a", guess: float | None = 10.0, role: str = "student") -> Training:
    return Training(f"{kind}{number}", kind, number, role, guess)


def one_command(name: str, *trainings: Training) -> Command:
    return Command(name, ("-m", name), (frozenset({name}),), trainings)


def test_commands_that_would_wait_for_each_other_do_not_start_together() -> None:
    teacher, other = training(0, "teacher"), training(1, "other")
    first, second, third = one_command("x", teacher), one_command("y", teacher), one_command("z", other)
    queue = [second, third]
    assert next_command(queue, [first], done=set()) is third
    assert next_command(queue, [first], done=set()) is second, "better than nothing"
    assert next_command([second, third], [first], done={"teacher0"}) is second


class TestEstimate:
    def folder(self, work: Path, number: int, kind: str, seed: int, **times: Any) -> None:
        folder = TrainingFolder(work / f"student-{number}")
        folder.path.mkdir(parents=True)
        config(kind, seed, times.pop("code", "code")).write(folder.config)
        Timing(seconds=times["seconds"], resumed_from=times.get("resumed_from")).write(folder.timing)
        folder.metrics.write_text("{}")
        os.utime(folder.metrics, (written := 2e9 + times.get("besides", 0.0) + times["seconds"], written))
        os.utime(folder.config, (2e9, 2e9))

    def test_measured_guessed_and_scaled(self, tmp_path: Path) -> None:
        kinds = {name: kind_of_training("student", chosen_settings(settings(name), METHOD)) for name in ("a", "b", "c")}
        trainings = [training(seed, kinds[name], 10.0) for name in ("a", "b") for seed in range(4)]
        trainings += [training(0, kinds["c"], None)]
        progress = Progress(Plan("", ((one_command("x", *trainings),),)), tmp_path, "code")
        progress.update()
        assert progress.remaining(1) is None, "nobody knows of c"
        self.folder(tmp_path, 1, "a", 0, seconds=25.0, besides=5.0)  # the teacher's scores, say
        self.folder(tmp_path, 2, "a", 1, seconds=50.0, besides=-1e6)  # copied from elsewhere
        self.folder(tmp_path, 3, "a", 2, seconds=1.0, resumed_from=7)  # its last part alone: not a measurement
        self.folder(tmp_path, 4, "a", 3, seconds=1.0, code="older")
        self.folder(tmp_path, 5, "a", 9, seconds=40.0)  # a seed that is not asked for
        progress.update()
        assert len(progress.done) == 3
        assert {each.seed for each in progress.undone if each.kind == kinds["a"]} == {3}
        # a: measured, 40. b: guessed 10, on a machine 4 times slower. c: the mean of what was measured.
        expected = 6 * (40 + BESIDES)
        assert progress.remaining(1) == pytest.approx(expected)
        assert progress.remaining(2) == pytest.approx(expected / 2)
        assert progress.remaining(50) == pytest.approx(40 + BESIDES), "one training is one process"

    def test_nothing_left(self, tmp_path: Path) -> None:
        progress = Progress(
            Plan(
                "",
                (
                    (
                        one_command(
                            "x", training(0, kind_of_training("student", chosen_settings(settings("a"), METHOD)))
                        ),
                    ),
                ),
            ),
            tmp_path,
            "code",
        )
        self.folder(tmp_path, 1, "a", 0, seconds=30.0)
        progress.update()
        assert progress.remaining(2) == 0


METHOD = {"name": "token", "loss": {"temperature": 1.0}, "interpolation": None, "targets": "store"}


def settings(name: str) -> dict[str, Any]:
    return {"model": {"_target_": name}, "trainer": {"max_steps": 3, "report_to": "none", "num_train_epochs": None}}


def config(name: str, seed: int, code: str) -> TrainingConfig:
    """The configuration in the folder of a training with these settings."""
    method = MethodSettings(name="token", loss={"temperature": 1}, interpolation=None)
    return TrainingConfig(
        format=3, code=code, versions={}, compiled=True, accelerator=None, corpora=[], role="student", seed=seed,
        settings=Settings(
            model={"_target_": name}, trainer={"max_steps": 3}, patience=None, batch_words=None, select="best",
            labelled=1, unlabelled=0, method=method,
        ),
        teachers=[], text=("", None, ""), plugins={}, files={},
    )  # fmt: skip


def test_failures_say_what_happened_and_where(tmp_path: Path) -> None:
    planned = Plan("", (tuple(one_command(name) for name in ("fine", "broken", "absent", "again")),))
    for name, failure in (("fine", None), ("broken", "out of memory"), ("again", "full disk")):
        folder = tmp_path / "runs" / name
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "overrides.yaml").write_text(f"[{name}]")
        if name != "broken":
            (folder / "metrics.json").write_text("{}")
        if failure:
            record = Failure(error="MemoryError", message=failure, traceback="", overrides=[], sweep=None, time="")
            record.write(folder / "failed.json")
    lines = _failures(planned, tmp_path, {"some.log": 9})
    assert lines == [
        "- broken: MemoryError: out of memory",
        f"- absent: not finished, see {tmp_path / 'logs' / 'absent'}.log",
        "- again: MemoryError: full disk",
        "- exit status 9 of the command whose log is some.log",
    ]
