"""The arguments that commands for trained models share."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

__all__ = ["FORMAT_NAMES", "add_batch_size", "add_model", "add_token_column", "at_least_one", "loaded", "parser_of"]

#: Names of the formats of :mod:`structkd.inference.formats`, which loads libraries that --help does not need.
FORMAT_NAMES = ("text", "columns", "conllu", "jsonl")


def parser_of(name: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    """Return the parser of a command whose texts are printed as they are."""
    return argparse.ArgumentParser(
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
