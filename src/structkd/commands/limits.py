"""Limits of configurations: files inside their folder, and values that do not grow when they are read.

A few lines of yaml can stand for more values than a memory holds, by aliases of aliases (``b: [*a, *a]``) or by
interpolations of interpolations (``b: ${a}${a}``). Both are counted before anything is expanded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["LimitError", "check_expansion", "check_yaml", "limit_repository"]

_MOST_BYTES = 2**20
_MOST_VALUES = 100_000
_DEEPEST = 100
#: Characters and values of a configuration whose interpolations are replaced.
_LARGEST = 10_000_000
_INTERPOLATION = re.compile(r"\$\{([^${}]*)")


class LimitError(ValueError):
    """A configuration lies outside of its folder, or is larger than any configuration."""


def limit_repository(repository: Any) -> None:
    """Let a repository of Hydra's refuse names that lead out of its folders, and files beyond the limits."""
    for method in ("load_config", "config_exists", "group_exists", "get_group_options"):
        setattr(repository, method, _limited(repository, getattr(repository, method)))


def _limited(repository: Any, method: Any) -> Any:
    def limited(*args: str, **options: str) -> Any:
        name = args[0] if args else next(iter(options.values()))  # Hydra calls by position and by keyword
        parts = re.split(r"[/\\]", name)
        if ".." in parts or name.startswith(("/", "\\", "~")) or "\0" in name or re.match("[A-Za-z]:", name):
            raise LimitError(
                f"{name!r:.200} in a defaults list or a choice: Files of configurations lie in the folder that "
                "--config-dir names, and are named relative to it. Copy the file into that folder."
            )
        if method.__name__ == "load_config":
            for source in repository.get_sources():
                if source.scheme() == "file" and source.is_config(name):
                    _check_place(Path(source.path), name)
        return method(*args, **options)

    return limited


def _check_place(folder: Path, name: str) -> None:
    path = folder / (name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    real, root = os.path.realpath(path), os.path.realpath(folder)
    if os.path.commonpath([real, root]) != root:
        raise LimitError(f"{path} is a link to {real}, outside of {folder}. Copy the file into the folder.")
    if path.is_file():
        check_yaml(path)


def check_yaml(path: Path) -> None:
    """Refuse a yaml file that is large, nested deeply, or that stands for many values by its aliases.

    Time and memory are linear in the file, which has at most a MiB.

    Raises:
        ValueError: naming the file, the line, and the limit. Faults of the syntax are left to whoever reads the file.
    """
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise LimitError(f"{path} has {size:,} bytes. A configuration has at most {_MOST_BYTES:,}.")
    known: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = [(None, 0)]  # anchor and number of values of every collection around
    try:
        for event in yaml.parse(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader):
            where = f"{path}, line {event.start_mark.line + 1}"
            if isinstance(event, yaml.CollectionStartEvent):
                open_.append((event.anchor, 1))
                if len(open_) > _DEEPEST:
                    raise LimitError(f"{where}: The values are nested more than {_DEEPEST} deep.")
                continue
            if isinstance(event, yaml.ScalarEvent):
                anchor, values = event.anchor, 1
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, values = open_.pop()
            elif isinstance(event, yaml.AliasEvent):
                if any(event.anchor == anchor for anchor, _ in open_):
                    raise LimitError(f"{where}: *{event.anchor} stands inside of what it refers to.")
                anchor, values = None, known.get(event.anchor, 1)
            else:
                continue
            if anchor is not None:
                known[anchor] = values
            outer, before = open_[-1]
            open_[-1] = (outer, before + values)
            if before + values > _MOST_VALUES:
                raise LimitError(
                    f"{where}: The file stands for more than {_MOST_VALUES:,} values once its aliases are replaced."
                )
    except (yaml.YAMLError, UnicodeDecodeError):
        return  # Hydra meets it again, and says where


def check_expansion(content: Mapping[str, Any]) -> None:
    """Refuse a composed configuration that becomes huge when its interpolations are replaced.

    Args:
        content: as plain data, with the interpolations as they are written.

    Raises:
        ValueError: naming the key.
    """
    sizes: dict[tuple[str, ...], int] = {}

    def referred(at: tuple[str, ...], written: str) -> int:
        """Return the size of the value that an interpolation, or an argument of a resolver, may stand for."""
        total = 0
        for name in written.rpartition(":")[2].split(","):
            name = name.strip().strip("'\"")
            dots = len(name) - len(name.lstrip("."))
            base = at[: max(len(at) - dots, 0)] if dots else ()
            path = (*base, *filter(None, re.split(r"[.\[\]]+", name[dots:])))
            if path and (found := _found(content, path)) is not _ABSENT:
                total += size(path, found)
        return total

    def size(at: tuple[str, ...], value: Any) -> int:
        if at in sizes:
            return sizes[at]
        sizes[at] = 1  # of a value that refers to itself, which OmegaConf refuses
        total = 1
        if isinstance(value, Mapping):
            total += sum(size((*at, str(key)), inner) for key, inner in value.items())
        elif isinstance(value, list | tuple):
            total += sum(size((*at, str(number)), inner) for number, inner in enumerate(value))
        elif isinstance(value, str):
            total += len(value) + sum(referred(at, each) for each in _INTERPOLATION.findall(value))
        if total > _LARGEST:
            raise LimitError(
                f"{'.'.join(at) or 'The configuration'} has more than {_LARGEST:,} characters and values once its "
                "interpolations are replaced."
            )
        sizes[at] = total
        return total

    try:
        size((), content)
    except RecursionError:
        raise LimitError("The interpolations of the configuration refer to each other in too long a chain.") from None


_ABSENT = object()


def _found(content: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if isinstance(content, Mapping):
            content = next((value for key, value in content.items() if str(key) == name), _ABSENT)
        elif isinstance(content, list | tuple) and name.isdecimal() and len(name) < 10 and int(name) < len(content):
            content = content[int(name)]
        else:
            return _ABSENT
    return content
