"""Links from a report to the files it speaks of: relative, so that both can be moved together."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

__all__ = ["Linker"]


class Linker:
    """Makes links for a report that lies in some folder; without a folder there are none.

    Names of run folders hold ``=`` and ``,``, and may hold what a URL must not: everything of the kind is quoted.
    """

    def __init__(self, home: Path | None) -> None:
        self._home = None if home is None else home.resolve()

    def __call__(self, path: Path) -> str | None:
        """URL of a file or folder; None where there is no such thing."""
        if self._home is None or not path.exists():
            return None
        path = path.resolve()
        try:
            relative = Path(os.path.relpath(path, self._home)).as_posix()
        except ValueError:  # another drive
            return path.as_uri()
        # A slash opens folders everywhere; "./" keeps a colon in a name from looking like a scheme.
        return ("" if relative.startswith(".") else "./") + quote(relative, safe="/") + "/" * path.is_dir()
