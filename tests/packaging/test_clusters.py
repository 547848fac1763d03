"""The settings of launchers that docs/clusters.md names exist. Its commands run in tests/docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from structkd.commands.schema import register_schema

PAGE = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("row", re.findall(r"^\| `(.*?)` \|", PAGE, re.MULTILINE))
def test_the_settings_in_the_table_exist(row: str) -> None:
    register_schema()
    GlobalHydra.instance().clear()
    with initialize_config_module("structkd.conf", version_base="1.3"):
        config = compose("config", overrides=["hydra/launcher=submitit_slurm"], return_hydra_config=True)
    for name in row.split("`, `"):
        if name != "hydra.launcher.":
            assert name in config.hydra.launcher, name
