"""Models, wheels and data sets of other people: settings that would fetch code, run it, or read elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import BertConfig

from structkd.data import PackageFile, PackageFolder, load_hub
from structkd.models.foreign import check_foreign
from structkd.models.loading import check_index

DIGEST = "0" * 64
GOOD: dict[str, Any] = {
    "requirement": "made-corpora==1.0.post1",
    "wheel_sha256": DIGEST,
    "folder": "made/data_2",
    "members": {"config.json": DIGEST, "a-b_1.bin": DIGEST},
    "megabytes": 3,
}


@pytest.mark.parametrize(
    "change",
    [
        *[
            {"requirement": each}
            for each in (
                *(
                    "/some/folder",
                    "./folder",
                    "../folder",
                    "file:///x.tar.gz",
                    "--requirement=FILE",
                    "--log=FILE",
                    "-rFILE",
                ),
                *(
                    "http://example.org/x.whl",
                    "git+https://example.org/x",
                    "x @ file:///x",
                    "x",
                    "x>=1",
                    "x==1,!=2",
                    "x==*",
                ),
                *(
                    "x==1.zip",
                    "x==1.tar.gz",
                    "x==1.whl",
                    "x==1; os_name",
                    "x==1 --hash",
                    "x==1\n--log=F",
                    "x[a]==1",
                    "==1",
                ),
                *("-x==1", "x-==1", "a/b==1", "x==../1", "x==1.", "é==1", "x" * 300 + "==1", "", None, 7, ["x==1"]),
            )
        ],
        *[{"wheel_sha256": each} for each in ("", "0" * 63, "0" * 65, "Z" * 64, None, DIGEST + "\n")],
        *[{"folder": each} for each in ("../x", "/x", "a/../b", "a//b", "", ".", ".hidden", "a\\b", "a/\x00", "-x")],
        *[{"members": {each: DIGEST}} for each in ("../x", "/x", "a/b", "a\\b", "", ".", "..", ".ssh", "-x", "a\n", 3)],
        *[{"members": each} for each in ({}, None, "x", ["x"], {"x": "0"}, {"x": None})],
        *[{"megabytes": each} for each in (-1, "3", None, float("nan"), float("inf"), 10**400)],
    ],
    ids=ascii,
)
def test_wheels_are_named_by_package_and_version(change: dict[str, Any]) -> None:
    PackageFolder(**GOOD)
    with pytest.raises(ValueError, match=r"\.$"):
        PackageFolder(**GOOD | change)
    if "requirement" in change or "wheel_sha256" in change:
        file = {"requirement": "x==1", "wheel_sha256": DIGEST, "member": "a/b", "member_sha256": DIGEST, "megabytes": 1}
        PackageFile(**file)
        with pytest.raises(ValueError, match=r"\.$"):
            PackageFile(**file | change)


def test_implementations_that_are_fetched_are_refused() -> None:
    ordinary = BertConfig(attn_implementation="sdpa")
    check_foreign(ordinary, "x")
    check_foreign({"model_type": "x", "encoder": {"backbone": ordinary}, "_attn_implementation": None}, "x")
    for setting in (
        {"_attn_implementation": "evil/kernel"},
        {"attn_implementation": "evil/kernel@main:attention"},
        {"_experts_implementation": "evil/kernel"},
        {"attn_implementation": {"text_config": "evil/kernel"}},
        {"quantization_config": {"quant_method": "gptq"}},
        {"transformers_weights": "../../x.safetensors"},
    ):
        for config in (setting, {"encoder": {"backbone": setting}}):
            with pytest.raises(ValueError, match="configuration of x"):
                check_foreign(config, "x")
    ordinary._attn_implementation_internal = "evil/kernel"
    with pytest.raises(ValueError, match="evil/kernel"):
        check_foreign(ordinary, "x")


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "../../x.bin", 3, None])
def test_an_index_names_files_of_its_folder(name: Any, tmp_path: Path) -> None:
    check_index(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}))
    check_index(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match="index"):
        check_index(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        *[{"dataset": each} for each in ("pandas", "json", "csv", "parquet", "text", "webdataset", "imagefolder")],
        *[
            {"dataset": each}
            for each in ("./x", "/x", "../x/y", "~/x", "a/b/c", "local", "hf://datasets/x", "http://x/y")
        ],
        {"dataset": "a/b", "config": "../../x"},
        {"dataset": "a/b", "revision": "../x"},
    ],
    ids=ascii,
)
def test_data_sets_are_those_of_the_hub(
    arguments: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local").mkdir()
    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **options: pytest.fail("asked for"))
    with pytest.raises(ValueError, match="Hugging Face hub"):
        load_hub(**arguments)
