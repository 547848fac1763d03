"""``structkd --help``: the text that Hydra would print from the template in conf/, without loading Hydra."""

from __future__ import annotations

from pathlib import Path
from string import Template

from omegaconf import OmegaConf

import structkd.conf

__all__ = ["help_text"]


def help_text() -> str:
    """Return the help with the groups of the package's own configuration."""
    root = Path(structkd.conf.__file__).parent
    groups = {folder: sorted(path.stem for path in folder.glob("*.yaml")) for folder in root.iterdir()}
    lines = [f"{folder.name}: {', '.join(choices)}" for folder, choices in sorted(groups.items()) if choices]
    help_node = OmegaConf.load(root / "hydra" / "help" / "structkd.yaml")
    config = OmegaConf.create({"hydra": {"help": help_node}})
    return Template(config.hydra.help.template).substitute(APP_CONFIG_GROUPS="\n".join(lines))
