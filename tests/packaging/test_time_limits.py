"""A test that hangs is a failure with a stack, also if it holds the interpreter's lock, also in a worker of xdist."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
TESTS = """
import itertools, time

def test_that_waits():
    time.sleep(100)

def test_that_waits_with_the_lock_held():
    all(itertools.repeat(True))  # in C, without a look at signals

def test_afterwards():
    pass
"""


@pytest.mark.processes
def test_hangs_are_failures_with_a_stack(tmp_path: Path) -> None:
    (tmp_path / "test_hangs.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-c", str(PROJECT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    command += ["-p", "no:cacheprovider", "-n", "1", "-o", "timeout=1", "-o", "faulthandler_timeout=2.5"]
    done = subprocess.run(
        [*command, "test_hangs.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 failed, 1 passed" in done.stdout
    assert "Failed: Timeout (>1.0s) from pytest-timeout." in done.stdout
    assert "crashed while running 'test_hangs.py::test_that_waits_with_the_lock_held'" in done.stdout
    assert 'test_hangs.py", line 8 in test_that_waits_with_the_lock_held' in done.stderr
