"""The folder of a spaCy pipeline, checked so that loading it runs no code that the user has not named."""

from __future__ import annotations

import configparser
import re
from importlib.metadata import entry_points
from pathlib import Path

from structkd.files import inside, read_json

__all__ = ["REMEDY", "pipeline_folder"]

#: Suffixes of files that are code, or that may run it when they are read.
_CODE = frozenset((".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".pkl", ".pickle", ".pth"))
_CALLBACKS = ("before_creation", "after_creation", "after_pipeline_creation")
_IMPORTING = ("source", "@callbacks", "@readers", "@loggers")
_INLINE = re.compile(r"[\"'](?:source|@callbacks|@readers|@loggers)[\"']")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_MOST_BYTES = 2**20
REMEDY = "If you trust an installed pipeline that needs code, name its package on the command line: +trust=package."


def pipeline_folder(path: str) -> Path:
    """Return the folder with the data of a pipeline, which can be loaded without running code of its own.

    ``spacy.load`` imports the module that it is given by name, whatever that is. A configuration may come from anybody,
    so a name must be that of a package that declares itself to be a pipeline (entry point ``spacy_models``), and its
    data are read as a folder.

    Args:
        path: a folder with ``config.cfg``, or the name of an installed pipeline.

    Raises:
        ValueError: if the folder holds code, or its configuration refers to other pipelines or to callbacks.
        FileNotFoundError: if no folder and no installed pipeline has that name, or a file of the pipeline is missing.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        folder = _installed(path)
    if not (folder / "config.cfg").is_file():
        raise FileNotFoundError(f"{folder} has no config.cfg, which every pipeline of spaCy has. Name its folder.")
    code = next((each for each in sorted(folder.rglob("*")) if each.suffix in _CODE), None)
    if code is not None:
        raise ValueError(f"{code}: A folder with code or pickles is not loaded as a spaCy pipeline. {REMEDY}")
    _check_configuration(folder / "config.cfg")
    return folder


def _installed(name: str) -> Path:
    """Return the folder with the data of an installed pipeline, by the metadata of its package."""
    expected = (
        f"Expected the folder of a spaCy pipeline, or the name of an installed one. Pipelines are installed by: python "
        f"-m spacy download {name if _NAME.fullmatch(name) else 'NAME'}."
    )
    if not _NAME.fullmatch(name):
        raise FileNotFoundError(f"No folder is named {name!r:.200}. {expected}")
    points = entry_points(group="spacy_models", name=name)
    found = next((point.dist.locate_file(name) for point in points if point.value == name and point.dist), None)
    if found is None:
        raise FileNotFoundError(f"No installed package declares {name!r} as a spaCy pipeline. {expected}")
    package = Path(str(found))
    try:
        meta = read_json(package / "meta.json", f"Install {name} again.")
    except FileNotFoundError:
        raise FileNotFoundError(f"{package} has no meta.json, which every spaCy pipeline has. {expected}") from None
    try:
        return inside(package, f"{meta['lang']}_{meta['name']}-{meta['version']}")
    except (KeyError, ValueError) as error:
        raise ValueError(f"{package / 'meta.json'} does not name the folder of the data ({error}).") from None


def _check_configuration(path: Path) -> None:
    """Refuse what makes spaCy import a module by name: parts of other pipelines, and callbacks."""
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#", ";"))
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # names have cases
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes")
        parser.read_string(path.read_text(encoding="utf-8"))
    except (configparser.Error, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a spaCy configuration ({str(error)[:200]}).") from None
    for section in parser.sections():
        if section.split(".")[0] not in ("nlp", "components"):
            continue  # spaCy obeys the others when it trains
        for key, value in parser.items(section):
            is_callback = section == "nlp" and key in _CALLBACKS and value not in ("null", "")
            if is_callback or key in _IMPORTING or _INLINE.search(value):
                raise ValueError(
                    f"{path}, section {section}, {key}: Parts of other pipelines and callbacks are not loaded, because "
                    f"spaCy would import a module that this file names. {REMEDY}"
                )
