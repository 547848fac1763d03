"""The environment as configurations see it: ``${oc.env:STRUCTKD_DATA,.}``, in place of OmegaConf's own resolver.

Configurations come from anybody and are kept with results, and an environment holds secrets. So a configuration can
ask for the variables that name folders, and only where it names a file or a folder.
"""

from __future__ import annotations

import os
import re
from typing import Any

from omegaconf import OmegaConf

__all__ = ["environment"]

_REQUIRED: Any = object()
#: Variables that name folders, or parts of their names.
_VARIABLES = (
    *("STRUCTKD_WORK", "STRUCTKD_DATA", "STRUCTKD_VECTORS", "STRUCTKD_CACHE", "STRUCTKD_RUNS"),
    *("HOME", "USER", "SCRATCH", "TMPDIR", "SLURM_TMPDIR"),
)
#: Keys of files and folders. A key that ends in ``name`` is one if it belongs to an encoder.
_FILES = re.compile(r"work_dir$|hydra\.|(.*\.)?(data|text|path|folder|files?|vectors|train|dev|test|encoder)(\.|\[|$)")
_NAMES = re.compile(r"(.*\.)?(?<!encoder\.)name$")


def environment(name: str, default: Any = _REQUIRED, *, _node_: Any = None) -> str | None:
    """Return a variable of the environment.

    Args:
        name: one of the variables that name folders.
        default: the value if the variable is not set.

    Raises:
        ValueError: another variable, another place, or no value.
    """
    key = "" if _node_ is None else str(_node_._get_full_key(None))
    if name not in _VARIABLES:
        raise ValueError(
            f"{key}: A configuration cannot read the environment variable {str(name)[:100]!r}, only "
            f"{', '.join(_VARIABLES)}."
        )
    if not _FILES.match(key) or _NAMES.match(key):
        raise ValueError(
            f"{key}: A configuration can read the environment only to name a file or a folder, in work_dir, data, a "
            "text, vectors, a path or an encoder."
        )
    value = os.environ.get(name, default)
    if value is _REQUIRED:
        raise ValueError(f"{key}: The environment variable {name} is not set.")
    return None if value is None else str(value)


OmegaConf.register_new_resolver("oc.env", environment, replace=True)
