"""``structkd demo``: distillation on a made-up language, from files of text to a student that annotates."""

from __future__ import annotations

import shlex
from pathlib import Path

from .arguments import parser_of

__all__ = ["overrides_of"]

_DESCRIPTION = """\
Show distillation from beginning to end, in half a minute on one core and without a network.

The command invents a language and writes text in it to files: train.conll (800 sentences, a word and its tag on
every line), dev.conll (100), test.conll (300), and news.txt (600 sentences without labels). It then trains a
teacher on all of train.conll, a student on 40 sentences of it, and a student that learns from the teacher on news.txt,
too. The command that does so is printed, and works on files of your own.
"""


def overrides_of(arguments: list[str]) -> list[str]:
    """Write the files of the demonstration, and return the overrides of its run."""
    parser = parser_of("demo", _DESCRIPTION)
    parser.add_argument("folder", nargs="?", default="structkd-demo", help="where to write (default: structkd-demo)")
    folder = parser.parse_args(arguments).folder
    from structkd.runs.demonstration import write_files  # loads datasets: not for --help

    write_files(Path(folder))
    overrides = ["scenario=case2a", "+debug=demo", "~kd@baselines.token", "data=columns", "data.file_scheme=BIOES"]
    overrides += [f"data.{split}={folder}/{split}.conll" for split in ("train", "dev", "test")]
    overrides += ["+text@student.text=lines", f"student.text.path={folder}/news.txt", f"work_dir={folder}"]
    print(f"This runs:\n\n    {shlex.join(['structkd', *overrides])}\n", flush=True)
    return overrides
