"""The checks before a release, as far as they build and install nothing."""

from __future__ import annotations

import hashlib
import importlib.util
import json
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


def test_the_lock_has_the_tested_versions_and_hashes_of_each() -> None:
    lock = script("lock")
    entries = lock.locked(lock.LOCK.read_text(encoding="utf-8"))
    assert {name: version for name, (version, _) in entries.items()} == lock.pinned()
    assert [name for name, (_, hashes) in entries.items() if not hashes] == []
    # As pip reads it, a digest that is cut short or has another letter is none.
    text = "six==1.16.0 \\\n    --hash=sha256:{}\n"
    assert lock.locked(text.format("a" * 64)) == {"six": ("1.16.0", {"a" * 64})}
    assert lock.locked(text.format("a" * 63)) == lock.locked(text.format("a" * 63 + "g")) == {"six": ("1.16.0", set())}
    assert lock.locked(lock.written(entries, lock.markers())) == entries
    with pytest.raises(ValueError, match=r"has a line without name==version: six\. Run `make lock`"):
        lock.locked("six\n")


def test_the_lock_comes_from_the_indexes_of_pips_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = script("lock")
    configured = lock.configured(
        ":env:.extra-index-url='https://b/simple c'\nglobal.index-url='https://a/simple'\n"
        "global.extra-index-url='d'\nglobal.timeout='3'"
    )
    assert configured == {"index-url": ["https://a/simple"], "extra-index-url": ["https://b/simple", "c"]}
    assert lock.configured("") == {"index-url": ["https://pypi.org/simple"]}

    # An index in JSON and one in HTML name files; a folder has one without a hash.
    a, b, c, other = ("0" * 63 + digit for digit in "abcd")
    files = [
        {"filename": "My_Torch-2.0-cp311-cp311-linux.whl", "hashes": {"sha256": a}, "url": "../x"},
        {"filename": "my-torch-2.0.tar.gz", "hashes": {"sha256": b}, "url": "../y"},
        {"filename": "my_torch-2.0.1.tar.gz", "hashes": {"sha256": other}, "url": "../z"},
        {"filename": "my_torch-2.0.exe", "hashes": {"sha256": other}, "url": "../z"},
        {"filename": "unhashed-2.0.tar.gz", "hashes": {}, "url": "../z"},
    ]
    page = lock.parse_page(json.dumps({"files": files}), "https://a/simple/my-torch/")
    html = f'<a href="../../My_Torch-2.0-cp312-cp312-linux.whl#sha256={c}">x</a><a href="/my_torch-3.tar.gz">y</a>'
    page += lock.parse_page(html, "https://a/simple/my-torch/")
    assert lock.hashes("My.Torch", "2.0", page) == {a, b, c}
    assert lock.hashes("unhashed", "2.0", page) == set()
    assert "https://a/simple/z has no sha256 in its index" in capsys.readouterr().err
    # A build replaces the file for the same Python and platform.
    built = tmp_path / "my_torch-2.0+cpu-cp311-cp311-linux.whl"
    built.write_bytes(b"wheel")
    offered = [*page, *lock.page(str(tmp_path), True)]
    assert lock.hashes("my-torch", "2.0", offered) == {hashlib.sha256(b"wheel").hexdigest(), b, c}

    # Hashes of the same version stay, those of another one go.
    for name in ("CONSTRAINTS", "LOCK"):
        monkeypatch.setattr(lock, name, tmp_path / name)
    monkeypatch.setattr(lock, "configuration", lambda: {"index-url": ["https://a/simple"]})
    monkeypatch.setattr(lock, "page", lambda *_: page)
    lock.CONSTRAINTS.write_text("# tested\nmy-torch==2.0\n")
    for before, expected in (("2.0", {a, b, c, other}), ("1.9", {a, b, c})):
        lock.LOCK.write_text(f"my-torch=={before} --hash=sha256:{other}\n")
        assert lock.main() is None
        assert lock.locked(lock.LOCK.read_text()) == {"my-torch": ("2.0", expected)}
    assert lock.main("absent") == "LOCK has no entry absent. Run `make lock`."
    lock.CONSTRAINTS.write_text("my-torch==4.0\n")
    assert "offers no file for my-torch==4.0" in lock.main()
