"""Files of every format are read by this version: a folder of each is kept in tests/written.

When a format changes, keep the folder of the old one, add that of the new one, and state the new number in
docs/versions.md. A format that is no longer read has a test of the remedy in its message.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import structkd
from structkd.export import annotate as exported
from structkd.export import export
from structkd.files import read_manifest, write_manifest
from structkd.records import RunMetrics, RunRecord, StoreManifest, TrainingConfig
from structkd.training import ScoreWriter, WrittenScores

WRITTEN = Path(__file__).parent / "written"
WORDS = [["Ana", "Lee", "sings"], ["Oslo"]]


def annotations() -> list[dict[str, Any]]:
    return json.loads((WRITTEN / "annotated.json").read_text(encoding="utf-8"))


def agrees(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one["words"] == other["words"]
        assert one["tags"] == other["tags"]
        assert one["tag_scores"] == pytest.approx(other["tag_scores"], abs=1e-5)


def test_a_model() -> None:
    agrees(structkd.load(WRITTEN / "model").annotate(WORDS, scores=True), annotations())


def test_an_exported_folder() -> None:
    pytest.importorskip("onnxruntime")
    agrees(exported.load(WRITTEN / "exported" / "format-2").annotate(WORDS, scores=True), annotations())
    with pytest.raises(ValueError, match=r"has format 1; .* Use the annotate.py of that folder, or export the model"):
        exported.load(WRITTEN / "exported" / "format-1")


def test_a_store_of_scores() -> None:
    store = WrittenScores.open(WRITTEN / "scores")
    assert store.manifest.sentences == 1


@pytest.mark.parametrize("number", [1, 2])
def test_a_checkpoint(number: int) -> None:
    manifest = read_manifest(WRITTEN / "checkpoint" / f"format-{number}")
    assert (manifest["format"], manifest["processes"]) == (number, 1)


def test_the_page_states_the_formats_that_are_written(tmp_path: Path) -> None:
    model = structkd.load(WRITTEN / "model")
    model.save_pretrained(tmp_path / "model")
    export(model, tmp_path / "exported")
    with ScoreWriter(tmp_path / "scores", "words", ["A", "B"]) as writer:
        writer.add(["a"], emissions=torch.zeros(1, 2))
    (tmp_path / "checkpoint").mkdir()
    write_manifest(tmp_path / "checkpoint")
    (manifest,) = (tmp_path / "checkpoint").iterdir()

    def number(path: Path) -> int:
        return int(json.loads(path.read_text(encoding="utf-8"))["format"])

    written = {
        "results of a run": RunMetrics.FORMAT,
        "how a run was made": RunRecord.FORMAT,
        "a training": TrainingConfig.FORMAT,
        "a store of scores": number(tmp_path / "scores" / "manifest.json"),
        "a checkpoint": number(manifest),
        "a model": number(tmp_path / "model" / "structkd.json"),
        "an exported folder": number(tmp_path / "exported" / "tables.json"),
    }
    assert written["a store of scores"] == StoreManifest.FORMAT
    page = (Path(__file__).parents[1] / "docs" / "versions.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| ([a-z ]+) \| [^|]* \| (\d+) \|$", page, flags=re.M)) == {
        name: str(each) for name, each in written.items()
    }
