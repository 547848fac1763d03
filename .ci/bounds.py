"""The lowest versions that setup.cfg allows, as constraints for pip: python .ci/bounds.py > floor.txt."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

#: Those of the package itself. Tests and documentation take the newest tools.
EXTRAS = ("fast", "report", "export", "sweep")
SETUP = Path(__file__).resolve().parents[1] / "setup.cfg"


def floor() -> list[str]:
    """Return "package==version" for every requirement with a lower bound, of the package and of EXTRAS."""
    setup = configparser.ConfigParser()
    setup.read(SETUP)
    groups = [setup["options"]["install_requires"], *(setup["options.extras_require"][each] for each in EXTRAS)]
    lowest: dict[str, tuple[int, ...]] = {}
    for line in "\n".join(groups).splitlines():
        match = re.match(r"([A-Za-z0-9_-]+)(?:\[[^\]]*\])?>=([0-9.]+)", line.strip())
        if match:
            number = tuple(map(int, match[2].split(".")))
            lowest[match[1].lower()] = max(lowest.get(match[1].lower(), number), number)
    return [f"{name}=={'.'.join(map(str, number))}" for name, number in sorted(lowest.items())]


if __name__ == "__main__":
    print("\n".join(floor()))
