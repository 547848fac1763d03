"""Places where nothing can be written and pipes that nobody reads: a paragraph or nothing, no traceback."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from structkd.commands.main import main

TINY = ("+debug=tiny", "~kd@baselines.token", "teacher.trainer.max_steps=4", "teacher.trainer.eval_steps=2")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As a disk that is nearly full: writing beyond this size fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("command", [[], ["targets"], ["-m", "seed=0,1"], ["-m", "hydra/launcher=joblib"]])
def test_a_work_dir_that_is_a_file(run, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "file").write_text("")
    status, _, errors = run(*command, "+debug=tiny", "work_dir=file")
    assert status == 1
    assert f"{tmp_path}/file is a file, and a folder is needed there." in errors
    assert "work_dir=... (or STRUCTKD_WORK)" in errors
    assert "Traceback" not in errors
    assert "Warning" not in errors


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (4_000, "File too large"),
        (20_000, r"Model weights could not be written or read (I/O error: File too large"),
        (40_000, r"Model weights could not be written or read (["),  # the optimizer's state, by torch
    ],
)
def test_a_full_disk(run, size: int, said: str) -> None:
    with largest_file(size):
        status, output, errors = run(*TINY)
    assert status == 1
    assert f"structkd: {said}" in errors
    assert "The same command continues where it stopped." in errors
    assert "Traceback" not in output + errors
    assert "Logging error" not in output + errors
    # and it does
    if size == 40_000:
        status, output, errors = run(*TINY)
        assert status == 0, errors


def test_a_full_disk_in_a_sweep(run, tmp_path: Path) -> None:
    with largest_file(20_000):
        status, output, errors = run("-m", *TINY, "seed=0,1")
    assert status == 1
    assert "2 runs in structkd-runs/runs: 0 finished (0 of them before), 2 failed." in output
    assert errors.count("Model weights could not be written or read") >= 2
    assert "Traceback" not in output + errors
    assert len(list((tmp_path / "structkd-runs" / "runs").glob("*/failed.json"))) == 2


def test_a_sweep_that_cannot_keep_its_records(run, monkeypatch) -> None:
    def full(path: Path, content: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("structkd.records.write_bytes", full)
    status, output, errors = run("-m", *TINY, "seed=0,1", "student.labelled=1000")
    assert status == 1
    assert "student.labelled=1000: the student's labelled sentences are some of the teacher's" in errors
    assert "Traceback" not in output + errors
    assert "Warning" not in output + errors


def test_the_traceback_on_request(run, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["structkd", "+debug=tiny", "work_dir=file"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    GlobalHydra.instance().clear()
    with pytest.raises(NotADirectoryError):
        main()


def structkd(folder: Path, *arguments: str, stdout: int = subprocess.PIPE, **environment: str):
    return subprocess.run(
        [sys.executable, "-m", "structkd", *arguments],
        cwd=folder,
        env=os.environ | environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


@pytest.fixture
def closed_pipe() -> Iterator[int]:
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def test_nobody_reads_what_is_printed(tmp_path: Path, closed_pipe: int) -> None:
    done = structkd(tmp_path, "--help", stdout=closed_pipe)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", [[], ["-m", "seed=0"]])
def test_nobody_reads_the_table(run, monkeypatch, tmp_path: Path, command: list[str]) -> None:
    """What was trained is kept, and no run counts as failed."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as closed, (tmp_path / "errors").open("w") as errors:
        monkeypatch.setattr(sys, "stdout", closed)
        monkeypatch.setattr(sys, "stderr", errors)
        status, _, _ = run(*command, *TINY)
    assert status == 1
    assert "structkd" not in (tmp_path / "errors").read_text()
    runs = tmp_path / "structkd-runs" / "runs"
    assert len(list(runs.glob("*/metrics.json"))) == 1
    assert not list(runs.glob("*/failed.json"))


def test_an_output_on_a_full_disk(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = structkd(tmp_path, "--version", stdout=full.fileno())
    assert done.returncode == 1
    assert "structkd: No space left on device." in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
