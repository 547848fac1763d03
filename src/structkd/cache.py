"""The folder of the user's in which structkd keeps what it fetched or compiled, and can fetch or compile again."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder that STRUCTKD_CACHE names, else `structkd` in the platform's folder for caches.

    The latter is `$XDG_CACHE_HOME` or `~/.cache` on Linux, `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on Windows.
    Nothing is created. Raises RuntimeError if the user has no home folder.
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
        if not base.is_absolute():  # not set; the standard has relative paths ignored
            base = Path.home() / ".cache"
    return base / "structkd"
