"""Checks of a whole configuration before anything of it is created."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from structkd.harmless import check_name
from structkd.training import trainer_settings

from .instantiate import InstantiationError, check, resolve

__all__ = ["additions", "check_configuration"]

_PLACES_OF_MODELS = ("ensemble", "teachers")


def check_configuration(config: Mapping[str, Any]) -> None:
    """Refuse names that cannot be names of files, and objects that a configuration cannot name.

    Args:
        config: plain data in the form of :class:`~structkd.commands.schema.ExperimentConfig`.

    Raises:
        ValueError: naming the key and the value.
    """
    for where, name in _names(config):
        check_name(where, name)
    for where, node in _nodes(config):
        check(node, where)


def additions(node: Any, path: str) -> tuple[str, Collection[str]]:
    """Return the keys that a node of a configuration may have, if it may have others than it has.

    Args:
        node: the node, or None.
        path: its keys, joined by points.

    Returns:
        A name for such a key, and the keys.
    """
    if path.rpartition(".")[2] == "trainer":
        return "a field of transformers.TrainingArguments", trainer_settings()
    target = node.get("_target_") if isinstance(node, Mapping) else None
    try:
        names = [] if target is None else list(inspect.signature(resolve(target)).parameters)
    except (InstantiationError, ValueError):
        names = []
    return f"an argument of {target}", names


def _names(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the names that become parts of paths, columns of tables and lines of reports."""
    found = [("name", config["name"]), ("kd.name", config["kd"]["name"])]
    found += [(f"baselines.{key}.name", each["name"]) for key, each in config["baselines"].items()]
    for group in ("baselines", *_PLACES_OF_MODELS):
        found += [(f"{group}.<name>", key) for key in config.get(group, {})]
    for where in ("data", "student.text"):
        node = config["data"] if where == "data" else config["student"]["text"]
        found += [(f"{key}.name", each["name"]) for key, each in _named(node, where)]
    for number, pair in enumerate(config["comparisons"] or []):
        found += [(f"comparisons[{number}]", each) for each in pair]
    return found


def _named(node: Any, where: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the mappings of a node that give a corpus its name, with their places."""
    if not isinstance(node, Mapping):
        return []
    inner = [found for key, value in node.items() for found in _named(value, f"{where}.{key}")]
    return [*inner, (where, node)] if node.get("name") is not None and "_target_" in node else inner


def _nodes(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the nodes that name objects."""
    found = [("data", config["data"]), ("student.text", config["student"]["text"])]
    found += [(f"{role}.model", config[role]["model"]) for role in ("teacher", "student")]
    for group in _PLACES_OF_MODELS:
        models = [(f"{group}.{name}.model", each.get("model")) for name, each in config.get(group, {}).items()]
        # Teachers of single methods are lists of changes, which need not have all arguments of the object.
        found += [
            (where, {"_partial_": True, **node})
            for where, node in models
            if isinstance(node, Mapping) and "_target_" in node
        ]
    for where, method in {"kd": config["kd"], **{f"baselines.{n}": m for n, m in config["baselines"].items()}}.items():
        found += [(f"{where}.{part}", method[part]) for part in ("loss", "interpolation")]
    return found
