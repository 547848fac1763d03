"""Saved models: where they lie, which files belong to them, and whether these are as they were written.

Beside its weights, configuration and features a saved model has ``structkd.json``, with the version that wrote it and
the size and sha256 of these files (not of README.md, which may be edited). A model that an earlier version saved has
none, or one without the configuration, and these files are loaded unchecked.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from structkd import __version__
from structkd.files import fault, inside, read_json, sealed, sha256, unsealed, write_json
from structkd.spelling import did_you_mean

__all__ = [
    "HUB_ARGUMENTS",
    "check_files",
    "check_index",
    "describe_again",
    "describe_files",
    "described",
    "load",
    "model_folder",
]

#: Keyword arguments of ``from_pretrained`` that say where in the hub, and in which cache, a model lies.
HUB_ARGUMENTS = ("revision", "cache_dir", "token", "local_files_only", "force_download", "proxies")
_DESCRIPTION = "structkd.json"
_FORMAT = 1
#: Folders in which a message looks for a model of a similar name.
_MOST_LOOKED_AT = 200
_REMEDY = "Copy or train the model again."
_CONFIG = "config.json"
_NO_CONFIG = "It is not the configuration of a model."
_KEYS = {"format", "structkd", "files", "about"}
_INDEX = "model.safetensors.index.json"
_PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model", "README.md")


def load(name_or_path: str | os.PathLike[str], device: str | torch.device | None = None, **hub: Any) -> Any:
    """Load a trained model of whatever class, in evaluation mode.

    Args:
        name_or_path: a folder that ``save_pretrained`` wrote; the folder of a training (``student-*``), which has such
            a folder, or of a run, which has a link to its student; or a name on the Hugging Face hub. Models of the hub
            are kept in the cache of transformers.
        device: to move the model to; None leaves it on the CPU.
        hub: ``revision``, ``cache_dir``, ``token`` or ``local_files_only``, as transformers takes them.

    Returns:
        The model, whose :meth:`~structkd.models.StructuredModel.annotate` reads text.

    Raises:
        FileNotFoundError: if there is no such folder or it holds no model, and the hub has none or cannot be reached.
        ValueError: if the model is not one of structkd, was written by a later version of structkd, or has files that
            are not as they were written; or if torch does not know the device, or cannot use it here.
        TypeError: for another argument.

    >>> import tempfile
    >>> from structkd.data import load_toy
    >>> from structkd.models import BiLSTMRecipe, TaggerRecipe
    >>> corpus = load_toy()
    >>> text = corpus.splits["train"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     recipe = TaggerRecipe(encoder=BiLSTMRecipe(hidden_size=8))
    ...     recipe.create(corpus.annotation, text, text).save_pretrained(folder)
    ...     type(load(folder)).__name__
    'Tagger'
    """
    from structkd import models  # registers the classes, and imports this module

    for argument in hub:
        if argument not in HUB_ARGUMENTS:
            raise TypeError(f"load has no argument {argument!r}; it takes device, {', '.join(HUB_ARGUMENTS)}.")
    if device is not None:
        _check_device(device)
    folder = model_folder(name_or_path, **hub)
    _check_format(folder)
    kind = read_json(folder / _CONFIG, _NO_CONFIG).get("model_type")
    known = {each.config_class.model_type: each for each in _subclasses(models.StructuredModel)}
    found = known.get(str(kind))
    if found is None:
        raise ValueError(
            f"{folder} holds a model of type {kind!r}, which is not a tagger or parser of structkd. If a module of "
            "yours defines it, import that module first (commands: STRUCTKD_PLUGINS=MODULE)."
        )
    try:
        model, report = found.from_pretrained(folder, output_loading_info=True)
    except (ValueError, TypeError, FileNotFoundError) as error:
        if "Unrecognized" in str(error):  # transformers lists all that it knows
            raise ValueError(
                f"{folder} holds a {found.__name__} whose {_CONFIG} has no encoder that is known here. If a module of "
                "yours defines it, import that module first (commands: STRUCTKD_PLUGINS=MODULE)."
            ) from error
        raise
    except Exception as error:  # safetensors and transformers raise classes of their own
        first = " ".join(str(error).split())
        raise ValueError(
            f"The weights in {folder} cannot be read ({type(error).__name__}: {first:.300}). The file is cut off or "
            "damaged, or belongs to another configuration: copy or train the model again."
        ) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ValueError(
            f"The weights in {folder} lack {len(missing)} tensors of a {found.__name__} ({shown}), which would be "
            "random numbers. They belong to another configuration: copy or train the model again."
        )
    if report["unexpected_keys"]:
        other = sorted(report["unexpected_keys"])
        shown = ", ".join(other[:3]) + (", ..." if len(other) > 3 else "")
        raise ValueError(
            f"The weights in {folder} have {len(other)} tensors that a {found.__name__} of this {_CONFIG} has not "
            f"({shown}). They belong to another configuration: copy or train the model again."
        )
    return model.to(device).eval() if device is not None else model.eval()


def _check_device(given: str | torch.device) -> None:
    """Refuse a device that cannot hold a tensor here."""
    if not isinstance(given, (str, torch.device)):
        raise TypeError(f"The device must be a text such as 'cuda' or a torch.device, got {type(given).__name__}.")
    advice = "Leave --device out (in Python: device=None), and the CPU is used."
    try:
        device = torch.device(given)
    except RuntimeError:
        hint = did_you_mean(str(given), ("cpu", "cuda", "mps", "xpu"))
        raise ValueError(f"There is no device {str(given)!r}; expected cpu, cuda, cuda:1 or mps.{hint}") from None
    kind = device.type.upper()
    if device.type == "meta":
        raise ValueError(f"A model on the device meta has no weights. {advice}")
    if device.type == "cuda" and torch.backends.cuda.is_built():
        count = torch.cuda.device_count()
        if count == 0:
            raise ValueError(f"No CUDA device is found here (torch {torch.__version__}). {advice}")
        if device.index is not None and device.index >= count:
            raise ValueError(f"There is no device {device}: the CUDA devices here are 0 to {count - 1}.")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # NotImplementedError is a RuntimeError
        raise ValueError(f"This torch has no {kind} (torch {torch.__version__}). {advice}") from error


def model_folder(name_or_path: str | os.PathLike[str], **hub: Any) -> Path:
    """Return the local folder of a model; one of the hub is fetched into the cache if it is not there.

    Args:
        name_or_path: see :func:`load`.
        hub: the arguments of :data:`HUB_ARGUMENTS`.

    Raises:
        FileNotFoundError, ValueError: see :func:`load`.
    """
    name = os.fspath(name_or_path) if isinstance(name_or_path, (str, os.PathLike)) else None
    if not isinstance(name, str):
        raise TypeError(
            "A model is named by a text or a path: a folder, or a name on the Hugging Face hub. Got "
            f"{type(name_or_path).__name__}."
        )
    if not name:
        raise ValueError("The name of a model is empty. Expected a folder, or a name on the Hugging Face hub.")
    path = Path(name).expanduser()
    if path.is_dir():
        for folder in (path, path / "model", path / "student"):
            file = folder / _CONFIG
            # a training's folder has a configuration, too: the training's
            if file.is_file() and "model_type" in read_json(file, _NO_CONFIG):
                return folder
        if (path / "tables.json").is_file() and (path / "annotate.py").is_file():
            raise ValueError(
                f"{path} is an exported model, which annotates without structkd: "
                f"{shlex.join(['python', str(path / 'annotate.py')])} FILE. "
                "structkd loads the model that was exported."
            )
        raise FileNotFoundError(
            f"{path} is not the folder of a model: it has no {_CONFIG} with a model_type. Expected a folder that "
            "save_pretrained wrote, or that of a training or a run, such as structkd-runs/student-0123456789abcdef."
            f"{_nearby(path)}"
        )
    if path.exists():
        raise ValueError(f"{path} is a file; a model is a folder with {_CONFIG}. Name the folder.")
    here = "" if path.is_absolute() else f" (looked for in {Path.cwd()})"
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith((".", "~", "-")) or ".." in name:
        raise FileNotFoundError(
            f"There is no folder {name}{here}, and it is not a name on the Hugging Face hub.{_nearby(path)}"
        )
    from huggingface_hub import snapshot_download

    wanted = {key: value for key, value in hub.items() if value is not None and key != "proxies"}
    try:
        found = Path(snapshot_download(name, allow_patterns=list(_PATTERNS), **wanted))
    except Exception as error:  # of many classes: no such model, no network, no access, no cached file
        raise FileNotFoundError(
            f"There is no folder {name}{here}, and no model {name} in the cache of the Hugging Face hub; the hub has "
            f"none or cannot be reached ({type(error).__name__}).{_nearby(path)} Check the name, or fetch the model "
            "where the hub can be reached and set HF_HOME to that cache."
        ) from error
    if not (found / _CONFIG).is_file():
        raise ValueError(f"{name} on the Hugging Face hub has no {_CONFIG}: it is not a model. Check the name.")
    return found


def _nearby(path: Path) -> str:
    """Return a question that names the folder of a model near a path that is none, or nothing if there is none."""
    start = next((each for each in (path, *path.parents) if each.is_dir()), Path())
    found: list[Path] = []
    for folder in (start, start.parent) if start == path else (start,):
        places = [place for part in ("*/", "*/*/") for place in itertools.islice(folder.glob(part), _MOST_LOOKED_AT)]
        found += [place for place in places if _holds_model(place)]
    # A run's folder and its link `student` are one model: the shorter name is enough.
    found = [place for place in found if not (place.name in ("model", "student") and place.parent in found)]
    return did_you_mean(str(path), map(str, found))


def _holds_model(folder: Path) -> bool:
    """Return whether :func:`load` would find a model in a folder, without reading much."""
    for place in (folder, folder / "model", folder / "student"):
        try:
            if "model_type" in read_json(place / _CONFIG, _NO_CONFIG):
                return True
        except (OSError, ValueError):
            continue
    return False


def describe_files(folder: Path, facts: Mapping[str, Any] | None = None) -> None:
    """Write ``structkd.json`` with the size and sha256 of the files of a saved model.

    Args:
        folder: of the model.
        facts: for the model card, see :func:`structkd.models.card.model_card`.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if _belongs(path, folder))
    files = {name: {"size": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in names}
    description = {"format": _FORMAT, "structkd": __version__, "files": files, "about": dict(facts or {})}
    write_json(folder / _DESCRIPTION, sealed(description))


def describe_again(folder: Path, facts: Mapping[str, Any]) -> None:
    """Replace the facts that :func:`describe_files` wrote; the sizes and sha256 of the files stay as they are."""
    write_json(folder / _DESCRIPTION, sealed({**_check_format(folder), "about": dict(facts)}))


def described(folder: Path) -> dict[str, Any]:
    """Return the facts that :func:`describe_files` wrote; none for a model of the version before."""
    facts: dict[str, Any] = _check_format(folder).get("about", {})
    return facts


def _belongs(path: Path, folder: Path) -> bool:
    """Whether a file is one of a model; a checkpoint has others beside it, which are written later."""
    parts = path.relative_to(folder).parts
    ours = path.name == "model.safetensors" or re.fullmatch(r"model-\d+-of-\d+\.safetensors", path.name)
    features = path.name in (_CONFIG, "vocabulary.json", "subwords.json", "tokenizer.json", _INDEX)
    return path.is_file() and bool(ours or features) and not any(part.startswith(".") for part in parts)


def check_files(folder: Path) -> None:
    """Compare the files of a saved model with ``structkd.json``.

    Raises:
        ValueError: if a later version of structkd wrote the model, or a file is not as it was written; names the file.
    """
    written = _check_format(folder).get("files", {})
    path = folder / _DESCRIPTION
    try:
        files = [(inside(folder, name), facts["size"], facts["sha256"]) for name, facts in written.items()]
    except ValueError as error:
        raise ValueError(f"{path} {error}. {_REMEDY}") from None
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not list files with size and sha256 ({error!r}). {_REMEDY}") from error
    for file, size, digest in files:
        if difference := fault(file, size, digest):
            edited = "" if file.name != _CONFIG else f" If you changed it on purpose, remove {path}, too."
            raise ValueError(f"{file} {difference}. {_REMEDY}{edited}")
    check_index(folder)


def check_index(folder: Path) -> None:
    """Refuse a list of files of weights that names files outside of its folder; transformers would read them.

    Raises:
        ValueError: it does, or is not such a list.
    """
    path = folder / _INDEX
    if not path.is_file():
        return
    names = read_json(path, _REMEDY).get("weight_map")
    if not isinstance(names, Mapping):
        raise ValueError(f"{path} has no weight_map, which names the file of every tensor. {_REMEDY}")
    for name in names.values():
        try:
            inside(folder, name)
        except ValueError as error:
            raise ValueError(f"{path} {error}. {_REMEDY}") from None


def _check_format(folder: Path) -> dict[str, Any]:
    """Return the content of ``structkd.json``, nothing if there is none; refuse that of a later version."""
    path = folder / _DESCRIPTION
    if not path.is_file():
        return {}
    description = unsealed(read_json(path, _REMEDY), path, _REMEDY)
    version, written = description.get("format"), description.get("structkd")
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"{path} has no format, a whole number: it is damaged. {_REMEDY}")
    if version > _FORMAT:
        raise ValueError(
            f"{folder} was saved by structkd {written} in format {version}; this is structkd {__version__}, which "
            f"reads formats up to {_FORMAT}. Install a later version: pip install --upgrade structkd"
        )
    if {*description} != _KEYS or not isinstance(description["about"], dict):
        raise ValueError(
            f"{path} has the keys {', '.join(sorted(description))[:200]}; expected {', '.join(sorted(_KEYS))}. It is "
            f"damaged. {_REMEDY}"
        )
    return description


def _subclasses(kind: Any) -> Iterator[Any]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)
