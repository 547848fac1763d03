"""A run that is done is found without planning it, unless anything that planning reads has changed."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from structkd.runs.finished import Evidence, _note, find


@pytest.fixture
def finished(monkeypatch, tmp_path_factory) -> tuple[dict, Path, Path]:
    """The configuration, the data and the folder of a run that has been noted."""
    folder = tmp_path_factory.mktemp("finished")
    data, output = folder / "train.txt", folder / "run"
    data.write_text("a\n")
    output.mkdir()
    config = {
        "data": {"_target_": "structkd.data.load_columns", "train": str(data)},
        "seed": 0,
        "work_dir": str(folder),
    }
    monkeypatch.setattr("structkd.runs.finished._read", {})
    monkeypatch.setattr("structkd.runs.finished._unusable", [])
    monkeypatch.setattr(
        "structkd.runs.finished.finished_run", lambda run: SimpleNamespace(fingerprint="abc", results=[])
    )
    evidence = Evidence(config, output)
    with evidence.gathered():
        data.read_text()
    evidence.keep("abc")
    return config, data, output


def test_found(finished) -> None:
    config, data, output = finished
    assert find(config, output) is not None
    assert list(json.loads(_note(output).read_text())["paths"]) == [str(data)]
    assert list(output.iterdir()) == [], "paths of the user's files are kept elsewhere"


def test_other_settings(finished) -> None:
    config, _, output = finished
    assert find({**config, "seed": 1}, output) is None


def test_other_data(finished) -> None:
    config, data, output = finished
    data.write_text("b\n")
    assert find(config, output) is None


def test_data_that_are_gone(finished) -> None:
    config, data, output = finished
    data.unlink()
    assert find(config, output) is None
    data.write_text("a\n")


def test_other_environment(finished, monkeypatch, tmp_path: Path) -> None:
    config, _, output = finished
    monkeypatch.setenv("STRUCTKD_DATA", str(tmp_path))
    assert find(config, output) is None


def test_other_code(finished, monkeypatch) -> None:
    config, _, output = finished
    monkeypatch.setattr("structkd.runs.finished._version", lambda name: "0")
    assert find(config, output) is None


def test_other_results(finished, monkeypatch) -> None:
    config, _, output = finished
    monkeypatch.setattr("structkd.runs.finished.finished_run", lambda run: SimpleNamespace(fingerprint="x", results=[]))
    assert find(config, output) is None


@pytest.mark.parametrize("target", ["mine.load", "structkd.mine.load"])
def test_plug_ins_are_not_noted(finished, target: str, tmp_path: Path) -> None:
    evidence = Evidence({"data": {"_target_": target}}, tmp_path)
    with evidence.gathered():
        pass
    evidence.keep("abc")
    assert not list(tmp_path.iterdir())


def test_what_a_process_reads_but_once_counts_for_all_of_its_runs(finished, tmp_path: Path) -> None:
    config, data, _ = finished
    evidence = Evidence(config, tmp_path)
    with evidence.gathered():
        pass
    evidence.keep("abc")
    assert find(config, tmp_path) is not None
    data.write_text("c\n")
    assert find(config, tmp_path) is None
