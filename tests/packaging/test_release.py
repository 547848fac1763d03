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


def test_the_audit_reports_findings_that_are_new_and_acceptances_that_are_stale() -> None:
    audit = script("audit")

    def finding(test: str, file: str) -> dict[str, object]:
        return {"test_id": test, "filename": f"src/structkd/{file}", "line_number": 7, "issue_text": "Do not."}

    found = [finding("B101", "rooms.py"), finding("B101", "rooms.py"), finding("B301", "models/loading.py")]
    accepted = {("B101", "rooms.py"): "Narrowed.", ("B301", "models/loading.py"): "Harmless."}
    assert audit.audited(found, accepted) == (3, [])
    # The same test in another file is new, and so is another test in the same file.
    others = [finding("B101", "tags.py"), finding("B301", "rooms.py")]
    number, faults = audit.audited(found[:2] + others, accepted)
    assert number == 2
    assert faults == [
        "src/structkd/tags.py:7: B101 Do not.",
        "src/structkd/rooms.py:7: B301 Do not.",
        "B301 is accepted in src/structkd/models/loading.py and does not occur. Remove it.",
    ]


def test_every_accepted_finding_has_a_reason_and_a_file() -> None:
    for (test, file), reason in script("audit").ACCEPTED.items():
        assert re.fullmatch(r"B\d{3}", test)
        assert (ROOT / "src" / "structkd" / file).is_file(), file
        assert reason.endswith("."), reason


def test_the_audit_says_why_versions_are_not_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = script("audit")
    monkeypatch.setattr(audit.importlib.util, "find_spec", lambda _: True)
    hole = {"name": "requests", "version": "2.19.1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.20"]}]}
    unknown = {"name": "requests", "skip_reason": "not found"}

    # An index without data calls every version unknown, and a host that cannot be reached is an error.
    monkeypatch.setattr(audit, "asked", lambda service, _: [unknown] if service == "pypi" else "ConnectionError")
    assert audit.versions() == []
    assert "skipped, because no service has data within reach (pypi: no data on" in capsys.readouterr().out
    # With data, holes of the tested versions are faults.
    monkeypatch.setattr(audit, "asked", lambda *_: [hole])
    assert audit.versions() == ["requests 2.19.1: PYSEC-1; mended in 2.20."]
    monkeypatch.setattr(audit, "asked", lambda _, file: "SSLError" if file == "constraints.txt" else [hole])
    assert audit.versions() == ["pip-audit: pypi has data, but the audit of constraints.txt ended with SSLError."]
