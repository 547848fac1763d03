"""The commands of docs/clusters.md: what they say to Hydra, it understands."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from structkd.commands.schema import register_schema

PAGE = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
COMMANDS = [
    words[words.index("structkd") + 1 :]
    for line in LINES
    if "structkd" in (words := shlex.split(line, comments=True)) and words[0] != "pip"
]


def test_the_page_has_the_commands_it_is_for() -> None:
    text = " ".join(LINES)
    for expected in ("torchrun --nproc_per_node 2 -m structkd", "accelerate launch", "hydra/launcher=submitit_slurm"):
        assert expected in text
    assert len(COMMANDS) == 7


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_shell_takes_it_as_it_is_printed(block: str) -> None:
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_composes(words: list[str]) -> None:
    overrides = [word for word in words if word not in ("-m", "targets")]
    if "hydra/launcher=ray" in overrides and importlib.util.find_spec("hydra_plugins.hydra_ray_launcher") is None:
        pytest.skip("hydra-ray-launcher is not installed")
    register_schema()
    GlobalHydra.instance().clear()
    # A sweep is composed run by run: its first one.
    first = [re.sub(r"=(glob\(case\*\)|range\(10\)|1/4,.*)$", _first, each) for each in overrides]
    with initialize_config_module("structkd.conf", version_base="1.3"):
        config = compose("config", overrides=first, return_hydra_config=True)
    assert OmegaConf.to_container(config.teacher, resolve=True)
    for override in first:
        key, _, value = override.lstrip("+").partition("=")
        if key.startswith("hydra.launcher."):
            assert str(OmegaConf.select(config, key)) == value


def _first(match: re.Match[str]) -> str:
    return {"g": "=case1a", "r": "=0", "1": "=1/4"}[match[1][0]]


@pytest.mark.parametrize("row", re.findall(r"^\| `(.*?)` \|", PAGE, re.MULTILINE))
def test_the_settings_in_the_table_exist(row: str) -> None:
    register_schema()
    GlobalHydra.instance().clear()
    with initialize_config_module("structkd.conf", version_base="1.3"):
        config = compose("config", overrides=["hydra/launcher=submitit_slurm"], return_hydra_config=True)
    for name in row.split("`, `"):
        if name != "hydra.launcher.":
            assert name in config.hydra.launcher, name
