"""Hashes of everything a training depends on, so that a finished one is found again and a stale one never is."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

import structkd
from structkd.files import sha256
from structkd.rooms import DECIDING
from structkd.training.collate import INPUT_COLUMNS

from .identity import digest
from .instantiate import plugins, resolve

__all__ = ["code_fingerprint", "file_fingerprints", "plugin_fingerprints", "text_fingerprint"]

#: Modules outside of those packages that affect a training, too.
_GROUND = ("numbering.py", "tags.py")


@functools.cache
def code_fingerprint() -> str:
    """Hash the code of structkd as far as training runs through it; comments, docstrings and layout do not count.

    Taken once per process: files that are edited later are not the code that this process has loaded.
    """
    root = Path(inspect.getfile(structkd)).parent
    files = sorted(path for room in DECIDING for path in (root / room).rglob("*.py"))
    files += [root / name for name in _GROUND]
    return digest([[path.relative_to(root).as_posix(), _meaning(path)] for path in files])


def plugin_fingerprints(targets: Iterable[str]) -> dict[str, str]:
    """Hash the module of every plug-in object among the names."""
    found = {}
    for target in targets:
        module = resolve(target).__module__
        if any(module == name or module.startswith(name + ".") for name in plugins()):
            source = inspect.getsourcefile(resolve(target))
            found[module] = "" if source is None else _meaning(Path(source))
    return found


def file_fingerprints(config: Any) -> dict[str, Any]:
    """Hash the files and folders that a configuration names, such as word vectors or a folder with an encoder.

    A file is known by its sha256. Of a folder, whose weights may take minutes to hash, names, sizes and times count.
    """
    found: dict[str, Any] = {}
    if isinstance(config, Mapping):
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            found |= file_fingerprints(value)
    elif isinstance(config, str) and {"/", "."} & set(config) and (path := Path(config).expanduser()).exists():
        if path.is_file():
            found[config] = sha256(path)
        else:
            files = sorted(each for each in path.iterdir() if each.is_file())
            found[config] = [[each.name, each.stat().st_size, each.stat().st_mtime_ns] for each in files]
    return found


def text_fingerprint(text: Dataset) -> str:
    """Hash the columns that models read, and the ids, piece by piece: the text may be larger than memory."""
    columns = ["id", "tokens", *(name for name in INPUT_COLUMNS if name in text.column_names)]
    content = hashlib.sha256(json.dumps(columns).encode())
    for piece in text.select_columns(columns).iter(batch_size=2000):
        content.update(json.dumps([piece[name] for name in columns], ensure_ascii=False).encode())
    return content.hexdigest()


def _meaning(path: Path) -> str:
    """Hash a file's syntax tree without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[0] = ast.Expr(ast.Constant(None))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
