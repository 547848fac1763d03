"""Compare with other libraries: their own tests with our classes in their place, and their results beside ours.

    python tests_peers/run.py

Sources that no package index has (tests of torch-struct and pytorch-crf, the library synjax) are checkouts in
`tests_peers/.peers/src`, cloned from GitHub at the commits below. Without a network, put them into a folder, one
subfolder a project, and name it in STRUCTKD_PEERS. The table at the end tells what ran and what was not available.
Exit status 1 means that a test failed which passes with the other library's own classes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = HERE / ".peers"
COMMITS = {
    "torch-struct": ("https://github.com/harvardnlp/pytorch-struct", "7146de5659ff17ad7be53023c025ffd099866412"),
    "pytorch-crf": ("https://github.com/kmkurn/pytorch-crf", "623e3402d00a2728e99d6e8486010d67c754267b"),
    "synjax": ("https://github.com/google-deepmind/synjax", "6de574af85658c1e5608739b958ab20f06050a1b"),
}


@dataclass(frozen=True)
class Row:
    """What a comparison gave: names of tests by outcome, or why it did not run."""

    name: str
    passed: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    note: str = ""

    @property
    def ran(self) -> bool:
        return bool(self.passed or self.failed)


def source(project: str) -> Path | None:
    """Return the checkout of a project, cloned if need be; None if it cannot be had."""
    given = os.environ.get("STRUCTKD_PEERS")
    if given:
        folder = Path(given) / project
        return folder if folder.is_dir() else None
    folder = PEERS / "src" / project
    if not folder.is_dir():
        address, commit = COMMITS[project]
        commands = [
            ["git", "init", "--quiet", str(folder)],
            ["git", "-C", str(folder), "fetch", "--quiet", "--depth", "1", address, commit],
            ["git", "-C", str(folder), "checkout", "--quiet", "FETCH_HEAD"],
        ]
        for command in commands:
            if subprocess.run(command, env=os.environ | {"GIT_TERMINAL_PROMPT": "0"}, check=False).returncode:
                subprocess.run(["rm", "-rf", str(folder)], check=False)
                return None
    return folder


def pytest(name: str, *arguments: str, paths: tuple[Path, ...] = (), note: str = "") -> Row:
    """Run pytest in a process of its own, with `paths` in front of the module search path."""
    print(f"\n== {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        search = [*map(str, paths), str(PEERS / "packages"), str(HERE), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(each for each in search if each),
            "OMP_NUM_THREADS": "1",
            "JAX_PLATFORMS": "cpu",
            "JAXTYPING_DISABLE": "1",  # synjax's annotations are older than this jaxtyping
        }
        options = ["-q", "-c", os.devnull, "-p", "no:cacheprovider", "-o", "junit_family=xunit1", "--timeout=600"]
        command = [sys.executable, "-m", "pytest", *options, f"--junitxml={report}", *arguments]
        subprocess.run(command, env=environment, cwd=folder, check=False)
        if not report.exists():
            return Row(name, note="pytest did not start")
        passed, failed = set(), set()
        for case in xml.parse(report).iter("testcase"):
            broken = case.find("failure") is not None or case.find("error") is not None
            if case.find("skipped") is None:
                (failed if broken else passed).add(f"{case.get('classname')}.{case.get('name')}")
    return Row(name, frozenset(passed), frozenset(failed), note)


def torch_struct_tests() -> list[Row]:
    """Run torch-struct's tests as they are and with our classes; what fails as they are is torch-struct's affair."""
    name, folder = "torch-struct's tests", source("torch-struct")
    if folder is None:
        return [Row(name, note="no checkout of torch-struct")]
    arguments = ("-p", "of_2022", "--rootdir", str(folder), str(folder / "tests"))
    # torch_struct is the checkout in both: its tests know more than the release.
    alone = pytest(f"{name}, as they are", *arguments, paths=(folder,))
    ours = pytest(f"{name}, our classes in place", "-p", "in_place", *arguments, paths=(folder,))
    theirs = ours.failed & alone.failed
    note = f"{len(theirs)} fail with torch-struct's classes, too" if theirs else ""
    return [Row(ours.name, ours.passed, ours.failed - theirs, note)]


def pytorch_crf_tests() -> list[Row]:
    """Run pytorch-crf's tests on a layer whose likelihood and decoding are those of our chain."""
    name, folder = "pytorch-crf's tests, our chain in the layer", source("pytorch-crf")
    if folder is None:
        return [Row(name, note="no checkout of pytorch-crf")]
    arguments = ("-p", "in_place", "-k", "not TorchScript", "--rootdir", str(folder), str(folder / "tests"))
    return [pytest(name, *arguments, note="without those of TorchScript, which compiles their source")]


def pytorch_crf_comparison() -> list[Row]:
    return [pytest("pytorch-crf beside ours", str(HERE / "compare_pytorch_crf.py"))]


def supar_comparison() -> list[Row]:
    return [pytest("supar beside ours", str(HERE / "compare_supar.py"))]


def synjax_comparison() -> list[Row]:
    name, folder = "synjax beside ours", source("synjax")
    if folder is None:
        return [Row(name, note="no checkout of synjax")]
    return [pytest(name, str(HERE / "compare_synjax.py"), paths=(folder,))]


def main() -> int:
    own_tests, comparisons = (torch_struct_tests, pytorch_crf_tests), (supar_comparison, synjax_comparison)
    rows = [row for compare in (*own_tests, pytorch_crf_comparison, *comparisons) for row in compare()]
    print()
    for row in rows:
        outcome = f"{len(row.passed)} passed, {len(row.failed)} failed" if row.ran else "NOT RUN"
        print(f"{row.name:50} {outcome}" + (f" ({row.note})" if row.note else ""))
        for failed in sorted(row.failed):
            print(f"    failed: {failed}")
    return int(any(row.failed or row.note == "pytest did not start" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
