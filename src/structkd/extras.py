"""Parts of the package that need more than it installs by itself."""

from __future__ import annotations

import importlib.util

__all__ = ["how_to_report"]

_REPORT = ("matplotlib", "scipy", "jinja2")


def how_to_report() -> str:
    """Return how to install the packages that reports need; nothing if they are installed."""
    missing = [name for name in _REPORT if importlib.util.find_spec(name) is None]
    return f"Reports need {', '.join(missing)}: pip install 'structkd[report]'" if missing else ""
