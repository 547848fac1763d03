"""The files of trainings and runs: written as before to the byte, and refused by file and key if they are not right."""

import dataclasses
import functools
import hashlib
import json
import operator
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from structkd import records
from structkd.files import json_bytes
from structkd.harmless import without_places
from structkd.records import (
    Failure,
    Record,
    RunMetrics,
    RunRecord,
    ScoreFile,
    StoreManifest,
    Timing,
    TrainingConfig,
    TrainingMetrics,
)

#: Written by the version before records had types.
WRITTEN = Path(__file__).parent / "written"
KINDS: dict[str, type[Record]] = {
    "teacher/config.json": TrainingConfig,
    "student/config.json": TrainingConfig,
    "mixture/config.json": TrainingConfig,
    "student/metrics.json": TrainingMetrics,
    "student/timing.json": Timing,
    "run/metrics.json": RunMetrics,
    "run/run.json": RunRecord,
    "run/failed.json": Failure,
    "store/manifest.json": StoreManifest,
    "store/scores-00000-of-00001.json": ScoreFile,
    "store/shared.json": ScoreFile,
}


@pytest.mark.parametrize("name", KINDS)
def test_files_of_the_version_before_load_and_keep_their_bytes(name: str, tmp_path: Path) -> None:
    KINDS[name].read(WRITTEN / name).write(tmp_path / "again.json")
    again = (tmp_path / "again.json").read_bytes()
    if KINDS[name].SEALED:
        content = json.loads(again)
        assert content.pop("seal") == hashlib.sha256((WRITTEN / name).read_bytes()).hexdigest()
        again = json_bytes(content)
    before = (WRITTEN / name).read_bytes()
    if KINDS[name].PUBLISHED:  # they had absolute paths
        before = json_bytes(without_places(json.loads(before)))
    assert again == before


def test_attributes_are_what_the_files_hold() -> None:
    run = RunMetrics.read(WRITTEN / "run" / "metrics.json")
    content = json.loads((WRITTEN / "run" / "metrics.json").read_text())
    assert run.student.method == run.method == "structural"
    assert run.student.metrics("dev") == content["results"][-1]["dev"]
    assert run.data.sentences == {"train": 120, "dev": 30, "test": 30}
    assert [each.settings.temperature for each in run.results] == [None, None, 1, 2]
    assert [each.settings.distils for each in run.results] == [False, False, True, True]


def fields(record: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], dataclasses.Field]]:
    """All fields of a record and of the first of every list or dictionary of records in it, with their paths."""
    if isinstance(record, Record):
        for field in dataclasses.fields(record):  # type: ignore[arg-type]
            yield (*path, field.name), field
            yield from fields(getattr(record, field.name), (*path, field.name))
    elif isinstance(record, (list, dict)) and record:
        first = 0 if isinstance(record, list) else next(iter(record))
        yield from fields(record[first], (*path, first))


@pytest.mark.parametrize("name", KINDS)
def test_a_key_that_is_missing_or_wrong_is_named_with_its_file(name: str, tmp_path: Path) -> None:
    kind, path = KINDS[name], tmp_path / "it.json"
    found = [(keys, field) for keys, field in fields(kind.read(WRITTEN / name)) if keys != ("format",)]
    assert found
    for keys, field in found:
        content = json.loads((WRITTEN / name).read_text())
        holder = functools.reduce(operator.getitem, keys[:-1], content)
        dotted = re.escape("".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)[1:])
        value = holder.pop(keys[-1], None)
        if field.default is dataclasses.MISSING:
            path.write_text(json.dumps(content))
            with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: {dotted} is missing\. \w.*\.$"):
                kind.read(path)
        if value is not None and not isinstance(value, dict):
            holder[keys[-1]] = {"of another": "type"}
            path.write_text(json.dumps(content))
            with pytest.raises(
                ValueError, match=rf"^{re.escape(str(path))}: {dotted} is {{'of.*; expected .*\. \w.*\.$"
            ):
                kind.read(path)


@pytest.mark.parametrize("name", ["teacher/config.json", "run/metrics.json", "run/run.json", "store/manifest.json"])
def test_another_format_is_refused(name: str, tmp_path: Path) -> None:
    content = json.loads((WRITTEN / name).read_text())
    (tmp_path / "it.json").write_text(json.dumps(content | {"format": content["format"] + 1}))
    with pytest.raises(
        ValueError, match=r"it\.json was written by another version of structkd \(format \d, expected \d\)\. \w"
    ):
        KINDS[name].read(tmp_path / "it.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": "30"}, r"steps is '30'; expected a whole number\."),
        ({"steps": True}, r"steps is True; expected a whole number\."),
        ({"steps": 3.5}, r"steps is 3\.5; expected a whole number\."),
        ({"role": None}, r"role is None; expected a text\."),
        ({"dev": {"f1": "high"}}, r"dev\.f1 is 'high'; expected a number\."),
        ({"dev": []}, r"dev is \[\]; expected an object\."),
        ({"history": [{"step": 1}, 3]}, r"history\[1\] is 3; expected an object\."),
        ({"history": {}}, r"history is {}; expected a list\."),
        ({"more": 1}, r"more is not a key that this version of structkd knows\."),
    ],
)
def test_each_type_is_checked(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    content = json.loads((WRITTEN / "student" / "metrics.json").read_text()) | change
    (tmp_path / "it.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message + " Remove it and run the command again"):
        TrainingMetrics.read(tmp_path / "it.json")


def test_pairs_have_two_elements(tmp_path: Path) -> None:
    content = json.loads((WRITTEN / "run" / "metrics.json").read_text())
    (tmp_path / "it.json").write_text(json.dumps(content | {"comparisons": [["a", "b"], ["a"]]}))
    with pytest.raises(ValueError, match=r"comparisons\[1\] has 1 elements; expected 2\."):
        RunMetrics.read(tmp_path / "it.json")


def test_a_file_that_is_not_there_is_found_to_be_none(tmp_path: Path) -> None:
    assert Timing.find(tmp_path / "timing.json") is None
    with pytest.raises(FileNotFoundError, match=r"There is no .*timing\.json"):
        Timing.read(tmp_path / "timing.json")


def test_students_that_differ_in_their_method_only() -> None:
    token = TrainingConfig.read(WRITTEN / "student" / "config.json").settings
    (plain,) = (
        each.settings
        for each in RunMetrics.read(WRITTEN / "run" / "metrics.json").results
        if (each.role, each.method) == ("student", "none")
    )
    assert token.differs_in_method_only(dataclasses.replace(token, method=plain.method, targets=None, weights=[1, 2]))
    assert token.differs_in_method_only(plain), "a student without a teacher has no unlabelled text"
    assert not token.differs_in_method_only(dataclasses.replace(token, unlabelled=7))
    assert not plain.differs_in_method_only(dataclasses.replace(token, patience=7))


def test_every_record_is_exported() -> None:
    defined = {name for name, value in vars(records).items() if isinstance(value, type) and issubclass(value, Record)}
    assert defined | {"RunFolder", "TrainingFolder"} == set(records.__all__)


def test_the_command_of_a_run_has_flags_and_plugins() -> None:
    """Pasted, it makes one run of a sweep again: with the folder of configurations and the modules that it needs."""
    record = RunRecord(
        format=1,
        command="structkd -m --config-dir my_conf kd=mine seed=0,1",
        overrides=["kd=mine", "seed=1"],
        work_dir="..",
        environment={"plug-ins": "my_losses"},
        finished="",
        results={},
    )
    assert record.command_alone == "structkd --config-dir my_conf kd=mine seed=1 +trust=my_losses"
    told = dataclasses.replace(record, overrides=["+trust=my_losses", "seed=1"])
    assert told.command_alone.count("trust") == 1
