"""The checks before a release, as far as they build and install nothing."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_versions_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    release = script("release")
    assert release.disagreements() == []
    monkeypatch.setattr(release, "version", lambda: "9.9")
    assert len(release.disagreements()) == 2
    assert "has no section [9.9]" in release.unreleased()


def test_the_lowest_versions_are_those_of_setup_cfg() -> None:
    floor = script("bounds").floor()
    text = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert {"torch==2.6", "numba==0.66"} <= set(floor)
    for each in floor:
        name, number = each.split("==")
        assert re.search(rf"^    {re.escape(name)}>={re.escape(number)}\b", text, flags=re.M | re.I), each


def test_the_workflow_calls_what_contributors_call() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    versions = job["strategy"]["matrix"]["python"]
    classifiers = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert all(f"Programming Language :: Python :: {each}\n" in classifiers for each in versions)
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"):
        template = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= template.keys()
