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
    return merge(merged, own)


def merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {key: merge(under[key], over[key]) for key in under.keys() & over.keys() if isinstance(over[key], dict)}
    return under | over | both


def bind(node: dict[str, Any]) -> inspect.BoundArguments:
    room, _, name = node.pop("_target_").rpartition(".")
    assert room == "structkd.data"
    arguments = {key: bind(value) if isinstance(value, dict) else value for key, value in node.items()}
    return inspect.signature(getattr(data, name)).bind(**arguments)


def leaves(bound: inspect.BoundArguments) -> list[dict[str, Any]]:
    """The arguments of the loaders that load text, and not other corpora."""
    values = [*bound.args, *bound.kwargs.values()]
    inner = [value for value in values if isinstance(value, inspect.BoundArguments)]
    return [arguments for each in inner for arguments in leaves(each)] if inner else [bound.arguments]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_configuration_fits_its_loader(path: Path) -> None:
    assert all(arguments.get("task") == "${task}" for arguments in leaves(bind(settings(path))))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_configuration_is_headed_by_its_command(path: Path) -> None:
    command = path.read_text(encoding="utf-8").splitlines()[1]
    assert command.startswith("#   ")
    assert "structkd " in command
    assert f"data={path.stem}" in command.split()
