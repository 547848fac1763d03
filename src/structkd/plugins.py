"""Modules of the user's own whose objects a configuration may name.

A plug-in is named by the user, never by a configuration. Any of these names one:

- ``+trust=my_module`` on the command line,
- the environment variable ``STRUCTKD_PLUGINS=my_module,another``,
- an entry point of an installed package, group ``structkd.plugins``, whose value is the module's name,
- ``structkd.runs.instantiate.register_plugin("my_module")`` in Python.

The environment variable is read once, when the process starts: a configuration that could set it later would admit
itself.
"""

from __future__ import annotations

import functools
import os
from importlib.metadata import entry_points

__all__ = ["freeze_plugins", "plugins", "register_plugin"]

_registered: list[str] = []
_from_environment: tuple[str, ...] = ()


def freeze_plugins() -> None:
    """Read ``STRUCTKD_PLUGINS``. This module does it when it is imported, and the command does it when it starts."""
    global _from_environment
    listed = (name.strip() for name in os.environ.get("STRUCTKD_PLUGINS", "").split(","))
    _from_environment = tuple(name for name in listed if name)


def register_plugin(module: str) -> None:
    """Admit the objects that ``module`` and its submodules define in configurations of this process."""
    if not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"Not the name of a module: {module!r}.")
    if module not in _registered:
        _registered.append(module)


def plugins() -> tuple[str, ...]:
    """Return the names of all plug-in modules."""
    return tuple(dict.fromkeys([*_registered, *_from_environment, *_installed_plugins()]))


@functools.cache
def _installed_plugins() -> tuple[str, ...]:
    """Return the plug-in modules of installed packages. Their metadata are read once: 10 ms, and 70 calls in a run."""
    return tuple(point.value.partition(":")[0] for point in entry_points(group="structkd.plugins"))


freeze_plugins()
