"""The commands that the documentation shows, called in this process.

Commands that use a trained model run. Runs of hours, and those that need the hub or a cluster, are composed: Hydra
reads their overrides, and a wrong key or choice is an error.
"""

from __future__ import annotations

import configparser
import importlib.util
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from pages import ROOT

from structkd.commands.schema import register_schema
from structkd.commands.shorthand import written_out

#: Subcommands that run as they stand.
_RUN = (
    *("demo", "predict", "evaluate", "export", "benchmark", "list", "check-data", "env", "report"),
    *("--help", "--version"),
)
#: Packages of others that a page may install.
_OTHERS = {"hydra-ray-launcher"}

Call = Callable[..., tuple[int, str, str]]


def commands(script: str) -> list[list[str]]:
    """Return the words of every command of a script."""
    joined = script.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def execute(words: list[str], call: Call, train: bool = False) -> str:
    """Run or check one command, and return its output ("" if it was checked only); `train` carries runs out, too."""
    if "|" in words:
        before, after = words[: words.index("|")], words[words.index("|") + 1 :]
        assert before[0] == "echo", f"only echo may stand before a pipe: {words}"
        Path("piped.txt").write_text(" ".join(before[1:]) + "\n", encoding="utf-8")
        return execute([*after, "piped.txt", "--quiet"], call, train)
    program, rest = words[0], words[1:]
    if program in ("torchrun", "accelerate"):
        rest = rest[rest.index("structkd") + 1 :]
        return composed(rest)
    if program == "structkd" and rest[0] == "report":
        rest = ["report", rest[1], "--output", "results"]
        if Path("results", "results.md").exists():  # one report is enough
            return ""
    if program == "structkd" and (train or rest[0] in _RUN):
        status, output, errors = call(*rest)
        assert status == 0, errors
        return output
    if program == "structkd":
        return composed([each for each in rest if each not in ("-m", "targets")])
    check = _CHECKS.get(program)
    assert check is not None, f"{program!r} is not a command that the tests of the documentation know"
    return check(rest)


def composed(overrides: list[str]) -> str:
    """Let Hydra compose a run; of a sweep, the first run."""
    register_schema()
    GlobalHydra.instance().clear()
    overrides = written_out(overrides)
    search: list[str] = []
    if "--config-dir" in overrides:
        place = overrides.index("--config-dir")
        assert Path(overrides[place + 1]).is_dir(), "the files of this page were not written"
        search = [f"hydra.searchpath=[file://{Path(overrides[place + 1]).absolute()}]"]
        del overrides[place : place + 2]
    launchers = [each for each in overrides if each.startswith("hydra/launcher=")]
    missing = [each for each in launchers if not _installed(each.partition("=")[2])]
    if missing:  # its options are the launcher's own
        overrides = [
            each for each in overrides if not each.lstrip("+").startswith(("hydra.launcher", "hydra/launcher"))
        ]
    first = [_first(each) for each in overrides if not each.startswith("--")]
    with initialize_config_module("structkd.conf", version_base="1.3"):
        config = compose("config", overrides=[*first, *search], return_hydra_config=True)
    assert OmegaConf.to_container(config.student, resolve=True)
    return ""


def _installed(launcher: str) -> bool:
    if launcher in ("basic", "joblib", "submitit_local", "submitit_slurm"):
        return True
    return importlib.util.find_spec(f"hydra_plugins.hydra_{launcher}_launcher") is not None


def _first(override: str) -> str:
    """Return an override with the first of the values that it sweeps over."""
    (parsed,) = OverridesParser.create().parse_overrides([override])
    if not parsed.is_sweep_override():
        return override
    key = parsed.get_key_element()
    if "glob(" in override:
        return f"{key}=case1a"
    sweep = parsed.value()
    values = list(parsed.sweep_iterator(transformer=lambda value: value))
    assert values, sweep
    return f"{key}={parsed._get_value_element_as_str(values[0])}"


def _make(arguments: list[str]) -> str:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    for each in arguments:
        assert each in targets or re.fullmatch("[A-Z]+=.+", each), f"make {each}"
    return ""


def _pip(arguments: list[str]) -> str:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert arguments[0] == "install"
    for each in arguments[1:]:
        name, _, extras = each.rstrip("]").partition("[")
        assert name in {"structkd", *_OTHERS}, each
        for extra in filter(None, extras.split(",")):
            assert extra in setup["options.extras_require"], each
    return ""


def _python(arguments: list[str]) -> str:
    script, rest = Path(arguments[0]), arguments[1:]
    if script.parts[0] == "exported":
        before = sys.argv
        sys.argv = [str(script), *rest]
        try:
            runpy.run_path(str(script), run_name="__main__")
        finally:
            sys.argv = before
        return "captured"
    source = (ROOT / script).read_text(encoding="utf-8")
    for option in (each for each in rest if each.startswith("--")):
        assert f'"{option}"' in source, f"{script} has no option {option}"
    return ""


def _export(arguments: list[str]) -> str:
    assert all(re.fullmatch(r"[A-Z_]+=.*", each) for each in arguments)
    return ""


_CHECKS = {"make": _make, "pip": _pip, "python": _python, "export": _export}
