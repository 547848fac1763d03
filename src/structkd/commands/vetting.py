"""Refuse a composed configuration that would make Hydra run code, or write outside of the folder of results.

Hydra itself obeys the node ``hydra`` of a configuration: it creates callbacks, launchers, sweepers and handlers of
logging by name, sets environment variables, evaluates and executes some strings, and writes to the folders that it
finds there. A folder of yaml files (``--config-dir``) may come from anybody, so the node is compared here with a list
of what it may hold, after it is composed and before Hydra acts on it: for the command itself, and for every run of a
sweep in whatever process. Whatever the list does not know is refused.

The command line is the user's own. What is typed there as ``hydra.key=value`` is not compared, classes aside.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra._internal.hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from structkd.harmless import check_text, is_name
from structkd.plugins import plugins, register_plugin

from .limits import check_expansion, limit_repository

__all__ = ["VettingError", "check_folder", "trust_typed", "vet", "vetted"]

_Check = Callable[[Any], bool]


class VettingError(ValueError):
    """A configuration asks for something that only the command line may ask for, or nobody."""


@contextlib.contextmanager
def vetted() -> Iterator[None]:
    """Let Hydra compose its configurations by a loader that vets them."""
    before = hydra._internal.hydra.ConfigLoaderImpl
    hydra._internal.hydra.ConfigLoaderImpl = VettingLoader  # type: ignore[misc]
    try:
        yield
    finally:
        hydra._internal.hydra.ConfigLoaderImpl = before  # type: ignore[misc]


class VettingLoader(ConfigLoaderImpl):
    """Hydra's loader. Launchers send it to other processes, so it vets the runs of a sweep there, too."""

    def load_configuration(
        self, config_name: str | None, overrides: list[str], *args: Any, **options: Any
    ) -> DictConfig:
        """Compose and vet a configuration."""
        try:
            config = super().load_configuration(config_name, overrides, *args, **options)
        except KeyError as error:  # of hydra.job.env_copy
            raise VettingError(
                f"The configuration needs the environment variable {error}, which is not set."
            ) from error
        except RecursionError as error:
            raise VettingError("The configuration refers to itself, or is nested too deeply.") from error
        vet(config, overrides)
        return config

    def _process_config_searchpath(self, config_name: str | None, parsed_overrides: list[Override], repo: Any) -> None:
        limit_repository(repo)
        _check_folders(repo)
        # Hydra imports packages that it finds in a search path, long before the configuration is composed.
        if config_name is not None and not any(_key(each) == "hydra.searchpath" for each in parsed_overrides):
            loaded = repo.load_config(config_path=config_name)
            if loaded is not None and OmegaConf.is_dict(loaded.config) and "hydra" in loaded.config:
                found = OmegaConf.to_container(loaded.config, resolve=False)
                node = found.get("hydra") if isinstance(found, Mapping) else None
                if isinstance(node, Mapping) and node.get("searchpath"):
                    raise _only_typed("hydra.searchpath", node["searchpath"])
        super()._process_config_searchpath(config_name, parsed_overrides, repo)
        _check_folders(repo)


def vet(config: DictConfig | dict[str, Any], overrides: Sequence[str]) -> None:
    """Refuse a composed configuration that must not be obeyed.

    Args:
        config: with its node ``hydra``, of Hydra or as plain data; interpolations are looked at as they are written.
        overrides: the command line, as Hydra was given it.

    Raises:
        VettingError: naming the key, its value, and the way to ask for it if there is one.
    """
    content: Any = config
    if not isinstance(config, dict):
        content = OmegaConf.to_container(config, resolve=False, enum_to_str=True)
    check_text(content)
    check_expansion(content)
    typed = _typed(overrides)
    node = content.get("hydra") or {}
    content = {key: value for key, value in content.items() if key != "hydra"}
    if content.get("trust") is not None and "trust" not in typed:
        raise VettingError(
            f"trust={_shown(content['trust'])}: A configuration cannot trust a module. Type +trust=<module> on the "
            "command line if you trust it."
        )
    if "work_dir" not in typed and not _is_work_dir(content.get("work_dir")):
        raise _only_typed("work_dir", content.get("work_dir"), "STRUCTKD_WORK names it, too. ")
    for path, value in _trackers(content):
        if path not in typed and value not in (None, [], "none", ["none"], "tensorboard", ["tensorboard"]):
            raise _only_typed(path, value, "Trackers other than tensorboard send figures to a host. ")
    for key, value in node.items():
        _vet_key(f"hydra.{key}", value, typed, overrides)


def check_folder(folder: str) -> None:
    """Refuse a folder of configurations that would replace the root of every configuration."""
    for name in ("config.yaml", "config.yml", "structkd_schema.yaml", "hydra/config.yaml"):
        if (Path(folder) / name).exists():
            raise VettingError(
                f"{Path(folder) / name} would replace the root of the configuration. Give the file another name, or "
                "put it into a group such as scenario/."
            )


def _check_folders(repository: Any) -> None:
    for source in repository.get_sources():
        if source.scheme() == "file":
            check_folder(source.path)


def trust_typed(typed: Sequence[str]) -> list[str]:
    """Register the modules of ``+trust=module`` on a command line, and return those that are new."""
    new = []
    for each in typed:
        key, equals, value = each.partition("=")
        if key.lstrip("+") != "trust" or not equals:
            continue
        names = [name.strip().strip("'\"") for name in value.strip().removeprefix("[").removesuffix("]").split(",")]
        for name in filter(None, names):
            if name not in plugins():
                new.append(name)
            register_plugin(name)
    if new:
        # Launchers' processes inherit it.
        listed = [*os.environ.get("STRUCTKD_PLUGINS", "").split(","), *new]
        os.environ["STRUCTKD_PLUGINS"] = ",".join(filter(None, listed))
    return new


def _typed(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the values that a command line gives by ``key=value``, by their keys; choices of groups are none."""
    found: dict[str, Any] = {}
    for each in OverridesParser.create().parse_overrides(list(overrides)):
        key = _key(each)
        if each.package is None and "/" not in key and not each.is_delete():
            found |= _leaves(key, None if each.is_sweep_override() else each.value())
    return found


def _key(override: Override) -> str:
    return str(override.key_or_group)


def _leaves(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {path: leaf for name, inner in value.items() for path, leaf in _leaves(f"{key}.{name}", inner).items()}
    return {key: value}


# What the node may hold. A check gets a value as it is written, interpolations included.


def _is_plain(value: Any) -> bool:
    """Return whether a value is not text, so that it cannot be a name, a path or a command."""
    return value is None or isinstance(value, bool | int | float)


def _is_harmless(value: Any) -> bool:
    """Return whether a value is not text, or holds nothing."""
    return _is_plain(value) or value in ({}, [])


def _one_of(*values: Any) -> _Check:
    return lambda value: any(value is each or (type(value) is type(each) and value == each) for each in values)


def _like(pattern: str) -> _Check:
    compiled = re.compile(pattern)
    return lambda value: (
        _is_plain(value) or (isinstance(value, str) and len(value) <= 200 and compiled.fullmatch(value) is not None)
    )


def _empty(value: Any) -> bool:
    return not value


def _anything(value: Any) -> bool:
    return True


_NAME = _like(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
#: A field of a scheduler, such as a partition. No blanks and no line ends: it becomes a line of a script.
_FIELD = _like(r"[A-Za-z0-9_.,:+@=&|*()\[\]-]+")
#: Variables that a configuration may set: numbers of threads. Almost any other one can lead to code.
_VARIABLES = re.compile(r"[A-Z]+_NUM_THREADS|TOKENIZERS_PARALLELISM")
_RUN_LOG = "${hydra.runtime.output_dir}/${hydra.job.name}.log"

#: The keys of ``hydra`` without those that have functions of their own below. Hydra sets runtime and help itself.
_KEYS: dict[str, _Check] = {
    "mode": _one_of(None, "RUN", "MULTIRUN"),
    "run.dir": _one_of("${hydra.sweep.dir}/${hydra.sweep.subdir}"),
    "sweep.dir": _one_of("${work_dir}/${oc.env:STRUCTKD_RUNS,runs}"),
    "sweep.subdir": _one_of("${run_name:${hydra.overrides.task}}"),
    "output_subdir": _one_of(None, ".hydra"),
    "job.name": _NAME,
    "job.chdir": _is_plain,
    "job.id": _like(r"\?\?\?|[A-Za-z0-9_.-]+"),
    "job.num": _like(r"\?\?\?|[0-9]+"),
    "job.override_dirname": _anything,
    "job.config_name": _anything,
    "job.env_copy": _empty,
    "job.config": _anything,
    "runtime": _anything,
    "help": _anything,
    "hydra_help": _anything,
    "env": _empty,
}

_BASIC = "hydra._internal.core_plugins"
_SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"
_QUEUE: dict[str, _Check] = {
    "submitit_folder": _one_of("${hydra.sweep.dir}/.submitit/%j"),
    "name": lambda value: value == "${hydra.job.name}" or _NAME(value),
}
_SLURM = ("partition", "qos", "comment", "constraint", "exclude", "gres", "mem_per_gpu", "mem_per_cpu", "account")
#: Launchers and sweepers, with those of their settings that may be text. Numbers, true, false and null are free.
_CLASSES: dict[str, dict[str, dict[str, _Check]]] = {
    "launcher": {
        f"{_BASIC}.basic_launcher.BasicLauncher": {},
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher": {
            "backend": _one_of(None, "loky", "threading", "multiprocessing"),
            "prefer": _one_of(None, "processes", "threads"),
            "require": _one_of(None, "sharedmem"),
            "pre_dispatch": _like(r"all|([0-9]{1,4} ?\* ?)?n_jobs"),  # joblib evaluates it
            "batch_size": _like("auto"),
            "temp_folder": _one_of(None),
            "max_nbytes": _like(r"[0-9]{1,9}[KMG]?"),
            "mmap_mode": _one_of(None, "r", "r+", "w+", "c"),
        },
        f"{_SUBMITIT}.LocalLauncher": _QUEUE,
        f"{_SUBMITIT}.SlurmLauncher": {
            **_QUEUE,
            **dict.fromkeys(_SLURM, _FIELD),
            "additional_parameters": _empty,
            "setup": _empty,  # commands of a shell
        },
        "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher": {
            "ray.init.address": _one_of(None, "auto", "local"),
        },
    },
    "sweeper": {
        f"{_BASIC}.basic_sweeper.BasicSweeper": {},
        "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper": {
            "direction": _like("minimize|maximize"),
            "direction[]": _like("minimize|maximize"),
            "study_name": _NAME,
            "storage": _one_of(None),
            "custom_search_space": _one_of(None),
            "sampler._target_": _like(r"optuna\.samplers\.(Grid|TPE|Random|CmaEs|NSGAII|MOTPE)Sampler"),
            "sampler.restart_strategy": _one_of(None, "ipop", "bipop"),
            "sampler.independent_sampler": _one_of(None),
            "sampler.constraints_func": _one_of(None),
            "sampler.source_trials": _one_of(None),
        },
    },
}


def _vet_key(path: str, value: Any, typed: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Vet one key of the node ``hydra``, and all that is below it."""
    name = path.removeprefix("hydra.")
    if name in ("launcher", "sweeper"):
        _vet_class(name, value, typed)
    elif name == "callbacks":
        _vet_callbacks(value)
    elif name in ("job_logging", "hydra_logging"):
        _vet_logging(path, value, typed)
    elif name == "overrides":
        # Hydra appends the command line to what is there.
        if sorted([*(value.get("hydra") or []), *(value.get("task") or [])]) != sorted(overrides):
            raise VettingError("hydra.overrides: Hydra fills this list from the command line. Leave it out.")
    elif name == "job.env_set":
        _vet_variables(value, typed)
    elif name == "verbose":
        if not (_is_plain(value) or all(map(_NAME, value if isinstance(value, list) else [value]))):
            raise _only_typed(path, value)
    elif name == "searchpath":
        if list(value or []) != (typed.get(path) or []):
            raise _only_typed(path, value)
    elif name in _KEYS:
        if path not in typed and not _KEYS[name](value):
            raise _only_typed(path, value)
    elif isinstance(value, Mapping) and any(known.startswith(f"{name}.") for known in (*_KEYS, "job.env_set")):
        for inner, below in value.items():
            _vet_key(f"{path}.{inner}", below, typed, overrides)
    elif not (path in typed or _is_plain(value)):
        raise VettingError(f"{path}={_shown(value)}: A configuration has no such key.")


def _vet_callbacks(value: Any) -> None:
    if value and (not isinstance(value, Mapping) or any(each not in _CALLBACKS for each in value.values())):
        raise VettingError(
            f"hydra.callbacks={_shown(value)}: Callbacks run code, and structkd has exactly one, its own. Leave others "
            "out."
        )


_CALLBACKS = ({"_target_": "structkd.commands.sweep.Outcomes"}, None)


def _vet_variables(value: Any, typed: Mapping[str, Any]) -> None:
    for name, content in (value or {}).items():
        path = f"hydra.job.env_set.{name}"
        if str(name).startswith("STRUCTKD_"):
            raise VettingError(
                f"{path}: structkd reads {name} when it starts. Set it in the environment, before the command."
            )
        if path in typed:
            continue
        if not (_VARIABLES.fullmatch(str(name)) and _like(r"[0-9]{1,4}|true|false")(content)):
            raise _only_typed(path, content, "A configuration may set numbers of threads (OMP_NUM_THREADS). ")


def _vet_class(kind: str, value: Any, typed: Mapping[str, Any]) -> None:
    """Vet the launcher or the sweeper."""
    known = _CLASSES[kind]
    target = value.get("_target_") if isinstance(value, Mapping) else None
    if not isinstance(target, str) or target not in known:
        raise VettingError(
            f"hydra.{kind}={_shown(target or value)}: This {kind} is not on the list of those that may be created: "
            f"{', '.join(each.rpartition('.')[2] for each in known)}."
        )
    for path, leaf in _walk(value):
        full = f"hydra.{kind}.{path}"
        if path == "_target_" or full in typed or full.partition("[")[0] in typed:
            # A sampler is created by its name, whoever names it.
            continue
        if kind == "sweeper" and path.startswith(("params.", "search_space.")):
            _vet_parameter(path.partition(".")[2], full)
            continue
        check = known[target].get(re.sub(r"\[\d+\]", "[]", path), _is_harmless)
        if not check(leaf):
            raise _only_typed(full, leaf)
    sampler = value.get("sampler")
    if isinstance(sampler, Mapping) and not known[target].get("sampler._target_", _empty)(sampler.get("_target_")):
        raise VettingError(
            f"hydra.sweeper.sampler={_shown(sampler.get('_target_'))}: Samplers are those of optuna, by name."
        )


def _vet_parameter(key: str, full: str) -> None:
    """Refuse a parameter of a sweep that changes what only the command line may change."""
    first = re.split(r"[./@:]", key.lstrip("+~"))[0]
    places = {first, *re.findall(r"@(?:\w+:)?(\w+)", key)}
    if places & {"hydra", "trust", "work_dir"}:
        raise VettingError(
            f"{full}: A sweep of a configuration cannot change hydra, trust or work_dir. Type it on the command line."
        )


_LOGGING_KEYS: dict[str, _Check] = {
    "version": _one_of(1),
    "disable_existing_loggers": _is_plain,
    "incremental": _is_plain,
}
_LEVEL = _like("DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|FATAL|NOTSET")
_LABEL = _like(r"[A-Za-z0-9_.-]+")


def _is_format(value: Any) -> bool:
    # A width of many digits would fill the memory.
    return value is None or (
        isinstance(value, str) and len(value) <= 500 and not re.search(r"\$\{|://|%\([^)]*\)[^a-zA-Z]*\d{3}|\*", value)
    )


#: Keys of a formatter, handler or logger. Whatever else the logging module reads may name a class or a function.
_PARTS: dict[str, dict[str, _Check]] = {
    "formatters": {
        "format": _is_format,
        "datefmt": _is_format,
        "style": _one_of("%"),
        "validate": _is_plain,
    },
    "handlers": {
        "class": _one_of("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler"),
        "formatter": _LABEL,
        "level": _LEVEL,
        "stream": _one_of("ext://sys.stdout", "ext://sys.stderr"),
        "filename": _one_of(_RUN_LOG),
        "mode": _one_of("a", "w"),
        "encoding": _one_of(None, "utf-8"),
        "delay": _is_plain,
    },
    "loggers": {
        "level": _LEVEL,
        "propagate": _is_plain,
        "handlers": lambda value: value is None or (isinstance(value, list) and all(map(_LABEL, value))),
    },
}


def _vet_logging(path: str, value: Any, typed: Mapping[str, Any]) -> None:
    if not isinstance(value, Mapping):
        raise _only_typed(path, value)
    for key, content in value.items():
        here = f"{path}.{key}"
        if key == "root":
            _vet_logging_part(here, content, _PARTS["loggers"], typed)
        elif key in _PARTS and isinstance(content, Mapping):
            for name, part in content.items():
                _vet_logging_part(f"{here}.{name}", part, _PARTS[key], typed)
        elif not (_LOGGING_KEYS.get(key, _empty)(content)):
            raise VettingError(f"{here}={_shown(content)}: The configuration of logging cannot have it.")


def _vet_logging_part(path: str, part: Any, keys: Mapping[str, _Check], typed: Mapping[str, Any]) -> None:
    if part is None:
        return
    if not isinstance(part, Mapping):
        raise VettingError(f"{path}={_shown(part)}: Expected settings of logging by name.")
    for key, value in part.items():
        here = f"{path}.{key}"
        if key == "filename" and here in typed:
            continue
        if key not in keys or not keys[key](value):
            known = ", ".join(keys)
            raise VettingError(
                f"{here}={_shown(value)}: The configuration of logging cannot have it. It may set: {known}."
            )


def _trackers(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the trackers that the settings of trainings name."""
    for name, value in content.items():
        here = f"{path}.{name}" if path else str(name)
        if name == "trainer" and isinstance(value, Mapping):
            yield f"{here}.report_to", value.get("report_to")
        elif isinstance(value, Mapping) and name not in ("model", "loss", "data"):
            yield from _trackers(value, here)


def _is_work_dir(value: Any) -> bool:
    """Whether a configuration may name the folder: the default, or a folder below the current one."""
    if value == "${oc.env:STRUCTKD_WORK,structkd-runs}":
        return True
    return isinstance(value, str) and len(value) <= 200 and all(is_name(part) for part in value.split("/"))


def _walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings and lists; empty ones count as leaves."""
    if isinstance(value, Mapping) and value:
        for name, below in value.items():
            yield from _walk(below, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and value:
        for number, below in enumerate(value):
            yield from _walk(below, f"{path}[{number}]")
    else:
        yield path, value


def _only_typed(path: str, value: Any, hint: str = "") -> VettingError:
    return VettingError(
        f"{path}={_shown(value)}: A configuration file must not set this, because files may come from anybody. {hint}"
        f"If you want it, type {path}=... on the command line."
    )


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
