"""The arguments that commands for trained models share."""

from __future__ import annotations

import argparse
import importlib
import re
from typing import Any, NoReturn

from structkd.spelling import did_you_mean

__all__ = [
    "FORMAT_NAMES",
    "add_batch_size",
    "add_model",
    "add_token_column",
    "at_least_one",
    "loaded",
    "parser_of",
    "without_dashes",
]

#: Names of the formats of :mod:`structkd.inference.formats`, which loads libraries that --help does not need.
FORMAT_NAMES = ("text", "words", "columns", "conllu", "jsonl")


class _Parser(argparse.ArgumentParser):
    """A parser that suggests the option which a misspelt one may mean."""

    def error(self, message: str) -> NoReturn:
        found = re.fullmatch(r"unrecognized arguments: (.*)", message, re.DOTALL)
        given = next((each for each in found[1].split() if each.startswith("-")), "") if found else ""
        takes_settings = any(action.dest == "overrides" for action in self._actions)
        hint = without_dashes(given) if takes_settings else ""
        if given and not hint:
            hint = did_you_mean(given.partition("=")[0], self._option_string_actions)
        super().error(message + ("." if hint else "") + hint)


def without_dashes(given: str) -> str:
    """Return the advice for a setting that was typed as an option, or nothing for other options.

    >>> without_dashes("--data.train=a.txt"), without_dashes("--verbose")
    (' Leave out the dashes: data.train=a.txt', '')
    """
    found = re.match(r"--?([\w@/]+[.@][\w.@/]+|[\w.@/]+(?==))(=\S*)?", given)
    return f" Leave out the dashes: {found[1]}{found[2] or '=...'}" if found else ""


def parser_of(name: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    """Return the parser of a command whose texts are printed as they are."""
    return _Parser(
        prog=f"structkd {name}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the argument MODEL and the option --device."""
    parser.add_argument("model", metavar="MODEL", help="folder of a trained model, or its name on the hub")
    parser.add_argument("--device", metavar="DEVICE", help="where to run, such as cuda (default: the CPU)")


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """Add the option --batch-size."""
    parser.add_argument("--batch-size", type=at_least_one, default=32, metavar="N", help="sentences in a batch (32)")


def add_token_column(parser: argparse.ArgumentParser) -> None:
    """Add the option --token-column of files in columns."""
    parser.add_argument("--token-column", type=int, metavar="N", help="column of the words, from 0 (the first)")


def at_least_one(value: str) -> int:
    """Return a number that the command line gives, a whole number of at least 1."""
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number of at least 1")
    return int(value)


def loaded(options: argparse.Namespace) -> Any:
    """Return the model that the arguments name; plug-in modules are loaded first, as they may define it."""
    # These load torch and transformers: not before a model is wanted.
    from transformers.utils import logging as transformers_logging

    from structkd import load
    from structkd.runs.instantiate import plugins

    for name in plugins():
        importlib.import_module(name)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    return load(options.model, options.device)
