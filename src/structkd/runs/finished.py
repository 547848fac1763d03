"""Whether a run is finished, found out without the libraries that train.

:func:`structkd.runs.plan.plan` decides by fingerprints of code, data and text, for which it loads the corpus and
untrained models. Everything that it reads for them is noted in the user's cache folder: the configuration, the bytes of
the package, the versions of other packages, environment, devices, and size and time of every file and folder. If all of
that is as it was, planning would come to the same result, and is left out. If anything differs, even a comment in the
code, or if something was read that cannot be noted (a network, the hub's cache, a plug-in), the run is planned in full.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structkd.conf
from structkd.cache import cache_folder
from structkd.files import read_json, write_json
from structkd.records import RunFolder, RunMetrics
from structkd.rooms import NAMEABLE

from .identity import digest
from .sealing import finished_run, is_sound

__all__ = ["Evidence", "find"]

_PACKAGES = (
    *("torch", "torch-struct", "transformers", "accelerate", "datasets", "tokenizers", "safetensors", "numpy"),
    *("pyarrow", "numba", "llvmlite", "hydra-core", "omegaconf", "spacy"),
)
_VARIABLES = ("STRUCTKD_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "TORCH_", "CUDA_", "HIP_", "ROCR_", "XDG_", "HOME")
#: Set by the command itself.
_OUR_OWN = ("STRUCTKD_COMMAND", "STRUCTKD_RUNS", "STRUCTKD_SWEEP_RECORDS")
_DEVICES = ("/dev/nvidia*", "/dev/kfd", "/dev/dri/*", "/dev/accel*")
#: Files of a folder that are compared; a folder with more is not noted.
_LARGEST = 2000
_MOST_NOTES = 2000


class Evidence:
    """The inputs on which planning a run depended, as :meth:`gathered` has seen them."""

    def __init__(self, config: Mapping[str, Any], output: Path) -> None:
        self._output = output
        self._paths: set[str] = set()
        self._usable = _nameable(config) and int(os.environ.get("WORLD_SIZE", "1")) == 1
        self._circumstances = _circumstances(config)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Note every file that is read and every folder that is listed while the block runs."""
        _install_hook()
        _active.append(self)
        try:
            yield
        finally:
            _active.remove(self)
        _read.update({path: _state(path) for path in self._paths if os.path.exists(path)})
        # Loaders may keep in memory the files that they have read for another run of this process.
        self._states = dict(_read)
        if not self._usable:
            _unusable.append(True)

    def keep(self, fingerprint: str) -> None:
        """Write the note, if everything could be noted, for a run whose results have this fingerprint."""
        if not _unusable and None not in self._states.values():
            note = {"circumstances": self._circumstances, "paths": self._states, "fingerprint": fingerprint}
            with suppress(OSError, RuntimeError):  # without a cache folder the run is planned
                path = _note(self._output)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, note)
                _forget(path.parent)

    def saw(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take an audit event of the interpreter."""
        if event in ("socket.connect", "subprocess.Popen", "os.posix_spawn"):
            self._usable = False
            return
        if event not in ("open", "os.listdir", "os.scandir"):
            return
        path = arguments[0] if arguments else None
        if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str | os.PathLike):
            return
        path = os.path.abspath(path)
        if _inside(path, _hub_folders()):
            self._usable = False
        elif not _inside(path, [*_code_folders(), str(self._output)]) and path not in map(os.path.abspath, sys.path):
            self._paths.add(path)


def find(config: Mapping[str, Any], output: Path) -> RunMetrics | None:
    """Return the results of a run that is finished for certain; None if that takes planning it."""
    try:
        note = read_json(_note(output))
        if note is None or int(os.environ.get("WORLD_SIZE", "1")) > 1:
            return None
        if note["circumstances"] != _circumstances(config):
            return None
        if any(_state(path) != state for path, state in note["paths"].items()):
            return None
        metrics = finished_run(RunFolder(output))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return None
    if metrics is not None and not is_sound(metrics, Path(config["work_dir"]).absolute()):
        return None
    return metrics if metrics is not None and metrics.fingerprint == note["fingerprint"] else None


_active: list[Evidence] = []
_installed: list[bool] = []
#: State of every path that this process has read to plan its runs, and whether it read anything that cannot be noted.
_read: dict[str, Any] = {}
_unusable: list[bool] = []


def _install_hook() -> None:
    # An audit hook stays as long as the interpreter: one is enough.
    if not _installed:
        sys.addaudithook(_hook)
        _installed.append(True)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for each in _active:
        each.saw(event, arguments)


def _note(output: Path) -> Path:
    """Return the path of the note. It holds paths of the user's files, and the run's folder may be published."""
    place = hashlib.sha256(os.path.abspath(output).encode(errors="surrogateescape")).hexdigest()
    return cache_folder() / "finished" / f"{place[:32]}.json"


def _forget(folder: Path) -> None:
    """Remove the oldest notes of a folder that has many. Their runs are planned when they are asked for again."""
    notes = list(folder.glob("*.json"))
    if len(notes) > 2 * _MOST_NOTES:
        for path in sorted(notes, key=lambda path: path.stat().st_mtime)[:-_MOST_NOTES]:
            path.unlink(missing_ok=True)


def _circumstances(config: Mapping[str, Any]) -> str:
    """Digest of all that planning depends on beside the files that it reads."""
    package = Path(structkd.__file__).parent
    sources = [*package.rglob("*.py"), *Path(structkd.conf.__file__).parent.rglob("*.yaml")]
    data = os.environ.get("STRUCTKD_DATA")
    return digest(
        {
            "config": config,
            "code": [[str(path), hashlib.sha256(path.read_bytes()).hexdigest()] for path in sorted(sources)],
            # A teacher may be an installed package, as spaCy's pipelines are.
            "packages": {name: _version(name) for name in (*_PACKAGES, *_given(config))},
            "python": [sys.version, sys.prefix],
            "machine": [platform.node(), platform.platform()],
            "devices": sorted(path for pattern in _DEVICES for path in glob.glob(pattern)),
            "environment": {
                name: value
                for name, value in sorted(os.environ.items())
                if name.startswith(_VARIABLES) and name not in _OUR_OWN
            },
            "folder": os.getcwd(),
            "data": None if data is None else _state(os.path.expanduser(data), deep=True),
        }
    )


def _state(path: str, deep: bool = False) -> Any:
    """Size, time and number of a file; of a folder those of its files; None if it has too many to compare."""
    if not os.path.isdir(path):
        stat = os.stat(path)
        return [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    content: list[Any] = []
    for folder, _, names in os.walk(path):
        for name in sorted(names):
            inner = os.path.join(folder, name)
            content.append([inner, *(_state(inner) if os.path.exists(inner) else [])])
        if len(content) > _LARGEST:
            return None
        if not deep:
            break
    return sorted(content)


def _given(config: Mapping[str, Any]) -> list[str]:
    """Return the names of teachers that train nothing."""
    several = [config.get("teacher") or {}, *(config.get("ensemble") or {}).values()]
    return [each["path"] for each in several if each.get("path")]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _nameable(config: Any) -> bool:
    """Whether a configuration names objects of this package alone."""
    if isinstance(config, Mapping):
        target = str(config.get("_target_", "structkd.x"))
        inside, *rest = target.split(".")
        ours = inside == "structkd" and (len(rest) == 1 or rest[0] in NAMEABLE)
        return ours and all(map(_nameable, config.values()))
    return all(map(_nameable, config)) if isinstance(config, list | tuple) else True


def _hub_folders() -> list[str]:
    names = ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HUGGINGFACE_HUB_CACHE")
    default = os.path.expanduser("~/.cache/huggingface")
    return [os.path.abspath(folder) for folder in (default, *map(os.environ.get, names)) if folder]


def _code_folders() -> list[str]:
    # Versions and hashes of the sources stand for these; pages that the system writes about itself are not files.
    package = os.path.dirname(os.path.abspath(structkd.__file__))
    installed = [folder for folder in sys.path if os.path.basename(folder) in ("site-packages", "dist-packages")]
    return [sys.prefix, sys.base_prefix, package, os.path.dirname(os.__file__), *installed, "/proc", "/sys", "/dev"]


def _inside(path: str, folders: list[str]) -> bool:
    return any(path == folder or path.startswith(folder + os.sep) for folder in folders)
