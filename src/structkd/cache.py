"""The user's cache folder, which holds downloaded corpora and compiled kernels. Deleting it loses no results."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder that STRUCTKD_CACHE names, else `structkd` in the platform's cache folder.

    The platform's cache folder is `$XDG_CACHE_HOME` or `~/.cache` on Linux, `~/Library/Caches` on macOS and
    `%LOCALAPPDATA%` on Windows. The folder is not created.

    Raises:
        RuntimeError: if the user has no home folder.
    """
    named = os.environ.get("STRUCTKD_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        if not base.is_absolute():  # unset, or a relative path, which the XDG standard says to ignore
            base = Path.home() / ".cache"
    return base / "structkd"
