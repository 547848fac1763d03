"""The checks before a release: python .ci/release.py [3.11 ...]. It needs the environment of `make install`.

Versions agree, CHANGELOG has a section for this version, the wheel and the source distribution are built, each is
installed in an empty environment of every Python that can be had, and the site is built.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
#: Run in an empty folder by the installed package: the mathematics, the command, and its configuration.
TRIAL = (
    "import torch, structkd; t = structkd.LinearChainCRF.from_scores(torch.zeros(1, 3, 2), torch.zeros(2, 2)); "
    "print(float(structkd.structural_kd_loss(t, structkd.MaxEnt(torch.zeros(1, 3, 2)))))"
)


def version() -> str:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return setup["metadata"]["version"]


def disagreements() -> list[str]:
    """Return what names another version than setup.cfg does."""
    number = version()
    stated = {
        "src/structkd/__init__.py": r'^__version__ = "(.*)"$',
        "CITATION.cff": r"^version: (.*)$",
    }
    found = []
    for name, pattern in stated.items():
        match = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), flags=re.M)
        if match is None or match[1] != number:
            found.append(f"{name} names version {match[1] if match else 'none'}, and setup.cfg {number}.")
    return found


def unreleased() -> str | None:
    """Return a sentence if CHANGELOG lacks the section of this version."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if re.search(rf"^## \[{re.escape(version())}\]", text, flags=re.M):
        return None
    return f"CHANGELOG.md has no section [{version()}]: move the entries of [Unreleased] there, with the date."


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    print("+", *command, flush=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run([str(each) for each in command], check=True, cwd=cwd, env=kept)


def interpreters(wanted: Sequence[str]) -> dict[str, str]:
    """Return the Pythons that are wanted and that this machine has."""
    found = {}
    for number in wanted:
        places = [
            shutil.which(f"python{number}"),
            *map(str, Path.home().glob(f".pyenv/versions/{number}.*/bin/python")),
        ]
        if number == f"{sys.version_info.major}.{sys.version_info.minor}":
            places.insert(0, sys.executable)
        for place in filter(None, places):
            if subprocess.run([place, "--version"], capture_output=True, check=False).returncode == 0:
                found[number] = place
                break
    return found


def try_installed(python: str, packages: Sequence[Path], constraints: list[str]) -> None:
    """Install and try the packages in turn in one environment, whose dependencies come with the first."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run(python, "-m", "venv", folder / "env")
        installed = folder / "env" / "bin"
        for number, package in enumerate(packages):
            again = ["--force-reinstall", "--no-deps"] if number else []
            run(installed / "python", "-m", "pip", "install", "--quiet", *again, *constraints, package)
            empty = folder / f"empty{number}"
            empty.mkdir()
            run(installed / "python", "-c", TRIAL, cwd=empty)
            run(installed / "structkd", "--help", cwd=empty)
            run(installed / "structkd", "demo", cwd=empty)


def main() -> None:
    faults = [*disagreements(), *filter(None, [unreleased()])]
    for fault in faults:
        print(f"release: {fault} The trials go on.", file=sys.stderr)
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    run(sys.executable, "-m", "build")
    wheel, source = next((ROOT / "dist").glob("*.whl")), next((ROOT / "dist").glob("*.tar.gz"))
    wanted = sys.argv[1:] or list(PYTHONS)
    there = interpreters(wanted)
    for number in wanted:
        if number not in there:
            print(f"release: Python {number} is not on this machine, and was not tried.", file=sys.stderr)
    # The tested versions are those of Python 3.11; the others take the newest that they can have.
    for number, python in there.items():
        constraints = ["--constraint", str(ROOT / "constraints.txt")] if number == PYTHONS[0] else []
        try_installed(python, (wheel, source), constraints)
    run("make", "docs")
    if faults:
        sys.exit("\n".join(["release: All trials passed, but:", *faults]))
    print(f"release: {version()} was tried on Python {', '.join(there)}. Tag it: git tag v{version()}")


if __name__ == "__main__":
    main()
