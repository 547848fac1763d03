"""The shipped configurations of data: each names a loader that takes its arguments, and the command that runs it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import structkd.conf
import yaml

from structkd import data

FOLDER = Path(structkd.conf.__file__).parent / "data"
FILES = sorted(FOLDER.glob("*.yaml"))


def settings(path: Path) -> dict[str, Any]:
    """The file with its defaults list composed: ``name@key`` puts file ``name`` under ``key``."""
    own = yaml.safe_load(path.read_text(encoding="utf-8"))
    merged: dict[str, Any] = {}
    for entry in own.pop("defaults", []):
        name, _, key = entry.partition("@")
        merged[key] = settings(FOLDER / f"{name}.yaml")
    return merged | own


def bind(node: dict[str, Any]) -> inspect.BoundArguments:
    room, _, name = node.pop("_target_").rpartition(".")
    assert room == "structkd.data"
    arguments = {key: bind(value) if isinstance(value, dict) else value for key, value in node.items()}
    return inspect.signature(getattr(data, name)).bind(**arguments)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_configuration_fits_its_loader(path: Path) -> None:
    bound = bind(settings(path))
    inner = [value.arguments for value in bound.arguments.values() if isinstance(value, inspect.BoundArguments)]
    assert all(arguments.get("task") == "${task}" for arguments in inner or [bound.arguments])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_configuration_is_headed_by_its_command(path: Path) -> None:
    command = path.read_text(encoding="utf-8").splitlines()[1]
    assert command.startswith("#   ")
    assert "structkd " in command
    assert f"data={path.stem}" in command.split()
