"""The wheel, installed where nothing of the source tree can be seen."""

import configparser
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    (built,) = folder.glob("structkd-*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has structkd from the wheel, and its dependencies from ours.

    The dependencies come by a .pth line, which does not run the .pth files of the folder it names, so the editable
    install of this very source tree cannot be what is imported.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(install, check=True)
    scheme = {"base": str(folder), "platbase": str(folder)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def run(installed: Path, folder: Path, *command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
    done = subprocess.run([str(installed), *command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_package_of_the_tree_is_listed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    there = {
        ".".join(path.parent.relative_to(ROOT / "src").parts)
        for path in (ROOT / "src" / "structkd").rglob("__init__.py")
    }
    assert listed == there | {"structkd.conf"}


def test_wheel_holds_every_config_and_no_test(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert f"structkd/conf/{path.relative_to(ROOT / 'conf').as_posix()}" in names
    assert "structkd/py.typed" in names
    assert {"structkd/reporting/page.html.jinja", "structkd/reporting/page.css"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "experiments", "conf/"))]


def test_composes_a_config_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    where = run(installed, tmp_path, "-c", "import structkd.conf; print(structkd.conf.__file__)")
    assert str(ROOT) not in where
    shown = run(installed, tmp_path, "-m", "structkd.commands.main", "scenario=case2a", "--cfg", "job")
    assert "scenario" in shown or "student" in shown
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".yaml"]


def test_importing_structkd_loads_neither_transformers_nor_datasets_nor_hydra(installed: Path, tmp_path: Path) -> None:
    code = (
        "import sys, structkd; "
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'transformers', 'datasets', 'hydra', 'omegaconf'}))"
    )
    assert run(installed, tmp_path, "-c", code).strip() == "[]"


#: Commands of one process: a process of its own for each would load torch again.
COMMANDS = """
import json, re, sys
from pathlib import Path
from structkd.commands.main import main

def run(*arguments):
    sys.argv = ["structkd", *arguments]
    main()

run("scenario=case2a", "+debug=tiny")
(table,) = Path("structkd-runs/runs").glob("*/results.md")
student = re.search(r"student structural +structkd predict (\\S+) FILE", table.read_text())[1]
Path("text.txt").write_text("lo mi na. Ka ta?\\n" * 3)
run("predict", student, "text.txt", "--to", "jsonl", "--output", "found.jsonl", "--scores")
lines = [json.loads(line) for line in Path("found.jsonl").read_text().splitlines()]
assert len(lines) == 6 and lines[0]["words"] == ["lo", "mi", "na", "."] and len(lines[0]["tag_scores"]) == 4, lines
run("evaluate", student, "found.jsonl", "--json")
run("benchmark", student, "found.jsonl", "--batches", "5", "--json")
"""


def test_a_run_its_student_and_the_commands_for_it(installed: Path, tmp_path: Path) -> None:
    """A student is trained, and used by the command that the run printed."""
    output = run(installed, tmp_path, "-c", COMMANDS)
    assert '"f1": 1.0' in output, "its own predictions, taken for gold"
    assert '"words_per_second"' in output
