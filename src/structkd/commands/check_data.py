"""``structkd check-data``: look at the data of a run before anything is trained."""

from __future__ import annotations

import os
import sys
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from . import sweep  # noqa: F401 - registers the resolver that names run folders
from .arguments import parser_of
from .shorthand import written_out
from .vetting import trust_typed, vetted

__all__ = ["command"]

_DESCRIPTION = """\
Read the data of a run, and print per split the numbers of sentences, words and labels, words that train lacks,
sentences that splits have in common, and the use that a run with these settings makes of them. Nothing is trained.

The arguments are those of a run. Tags that are illegal, trees that are none and other faults are refused with file and
line, and with the option that reads past them. The status is 1 if a run with these settings would be refused.
"""
_EPILOG = """\
examples:
  structkd check-data data=columns data.train=train.txt data.dev=dev.txt data.test=test.txt
  structkd check-data scenario=case1b data=conllu data.train=train.conllu data.dev=dev.conllu data.test=test.conllu
"""


def command(arguments: list[str]) -> None:
    """Print what the data of a run are."""
    parser = parser_of("check-data", _DESCRIPTION, _EPILOG)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, as of a run")
    parser.add_argument("--config-dir", metavar="DIR", help="a folder with groups of your own")
    options = parser.parse_args(arguments)
    config = _composed(options.overrides, options.config_dir)
    from structkd.runs.data_check import check_data  # loads transformers and datasets

    lines, starts = check_data(config)
    print("\n".join(lines))
    if not starts:
        sys.exit(1)


def _composed(overrides: list[str], folder: str | None) -> dict[str, Any]:
    """Return the configuration of a run as plain data."""
    GlobalHydra.instance().clear()
    search = [] if folder is None else [f"hydra.searchpath=[file://{os.path.abspath(folder)}]"]
    trust_typed(overrides)
    with vetted(), initialize_config_module("structkd.conf", version_base="1.3", job_name="structkd"):
        config = compose("config", overrides=[*search, *written_out(overrides)])
    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    plain["work_dir"] = os.path.abspath(os.path.expanduser(plain["work_dir"]))
    return plain  # type: ignore[no-any-return]
