"""Relative links from a report to files, so that both can be moved together."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

__all__ = ["Linker"]


class Linker:
    """Return links for a report in some folder; without a folder there are no links.

    Names of run folders contain ``=`` and ``,`` and perhaps characters that a URL must not contain: all are quoted.
    """

    def __init__(self, home: Path | None) -> None:
        self._home = None if home is None else home.resolve()

    def __call__(self, path: Path) -> str | None:
        """Return the URL of a file or folder; None if there is none."""
        if self._home is None or not path.exists():
            return None
        path = path.resolve()
        try:
            relative = Path(os.path.relpath(path, self._home)).as_posix()
        except ValueError:  # another drive
            return path.as_uri()
        # The final slash marks a folder; "./" keeps a colon in a name from looking like a URL scheme.
        return ("" if relative.startswith(".") else "./") + quote(relative, safe="/") + "/" * path.is_dir()
