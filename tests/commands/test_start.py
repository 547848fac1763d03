"""What the command answers at once, without the libraries that train."""

import subprocess
import sys
from pathlib import Path

import pytest

import structkd
from structkd.commands.help import help_text

ANSWERS = """
import sys
from structkd.commands.main import main

for arguments in (["--version"], ["--help"], ["+debug=tiny", "sceanrio=case2a"], ["reports"], ["report", "--help"],
                  ["predict", "--help"], ["list", "scenarios"]):
    sys.argv = ["structkd", *arguments]
    try:
        main()
    except SystemExit:
        pass
heavy = {"torch", "transformers", "datasets", "numpy", "pyarrow", "matplotlib", "scipy", "jinja2"}
print("loaded:", sorted({name.partition(".")[0] for name in sys.modules} & heavy))
"""


def test_nothing_that_trains_is_loaded(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ANSWERS], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("loaded: []")
    assert "Did you mean 'scenario'?" in done.stderr


def test_help_is_what_hydra_makes_of_the_template(run) -> None:
    status, output, _ = run("--help", "seed=0")
    assert status == 0
    assert output.split() == help_text().split()


def test_reports_say_what_they_need(run, monkeypatch) -> None:
    monkeypatch.setattr("structkd.extras.importlib.util.find_spec", lambda name: None)
    status, _, errors = run("report", "structkd-runs")
    assert status == 1
    assert "structkd: Reports need matplotlib, scipy, jinja2: pip install 'structkd[report]'." in errors


def test_names_are_loaded_when_they_are_asked_for() -> None:
    code = "import sys, structkd; assert 'torch' not in sys.modules; structkd.losses, structkd.MaxEnt, structkd.project"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'MaxEntropy'"):
        structkd.MaxEntropy  # noqa: B018
