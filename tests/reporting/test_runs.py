"""Run folders: finished, failed, unfinished, and what cannot be read."""

import json
from pathlib import Path

import pytest
from made_up import model, save_configuration, save_failure, save_run

from structkd.reporting import read_runs


def test_finished_failed_and_unfinished_runs(tmp_path: Path) -> None:
    save_run(tmp_path / "runs" / "seed=0", [model("student", "none", 0)])
    save_failure(tmp_path / "runs" / "seed=1", "no such file", ["seed=1"])
    save_configuration(tmp_path / "runs" / "seed=2")
    # finished once, and failed when it was done again
    save_run(tmp_path / "runs" / "seed=3", [model("student", "none", 3)], seed=3)
    save_failure(tmp_path / "runs" / "seed=3", "later", ["seed=3"])
    (tmp_path / "student-12").mkdir()
    (tmp_path / "student-12" / "metrics.json").write_text('{"role": "student"}')
    found = read_runs([tmp_path, tmp_path / "runs"])
    assert [run.folder.name for run in found.finished] == ["seed=0", "seed=3"]
    assert [each.folder.name for each in found.failed] == ["seed=1", "seed=3"]
    assert [each.folder.name for each in found.unfinished] == ["seed=2"]
    assert [each.title for each in (*found.failed, *found.unfinished)] == ["seed=1", "seed=3", "seed=2"]


@pytest.mark.parametrize(
    ("typed", "overrides", "alone"),
    [
        ("structkd -m seed=0,1 kd=none", ["seed=1", "kd=none"], "structkd seed=1 kd=none"),
        ("structkd seed=1 --multirun --config-dir 'my conf'", ["seed=1"], "structkd --config-dir 'my conf' seed=1"),
        ("structkd -cd=mine 'scenario=glob(*)'", ["scenario=a"], "structkd -cd=mine scenario=a"),
    ],
)
def test_the_command_of_a_run_does_that_run_alone(typed: str, overrides: list[str], alone: str, tmp_path: Path) -> None:
    save_run(tmp_path / "run", [model("student", "none", 0)], command=typed, overrides=overrides)
    (run,) = read_runs([tmp_path]).finished
    assert run.command == alone


def test_runs_of_another_version_are_refused(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "old", [model("student", "none", 0)])
    content = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(content | {"format": 2}))
    with pytest.raises(
        ValueError, match=r"another version of structkd \(format 2, expected 3\)\. Run the command again.*`token`"
    ):
        read_runs([tmp_path])


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        read_runs([tmp_path / "none"])
    with pytest.raises(FileNotFoundError, match="There is no finished run"):
        read_runs([tmp_path])
    save_failure(tmp_path / "failed", "no such file", [])
    with pytest.raises(FileNotFoundError, match="1 failed: ValueError: no such file in"):
        read_runs([tmp_path])
    for content, message in (('{"results": [', "cannot be read as JSON"), ("[]", "holds a list")):
        (tmp_path / "metrics.json").write_text(content)
        with pytest.raises(ValueError, match=rf"metrics\.json {message}.*Run the command again"):
            read_runs([tmp_path])
