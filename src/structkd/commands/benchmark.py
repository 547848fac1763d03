"""``structkd benchmark``: the speed of a trained model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .arguments import FORMAT_NAMES, add_token_column, at_least_one, parser_of

__all__ = ["command"]

_DESCRIPTION = """\
Measure the speed of a trained model: words per CPU second, one sentence at a time and in batches, time from the start
of a process to the first annotation, and peak memory. With --exported, the model that `structkd export` wrote is
measured beside it, in turns.

Every engine runs in a process of its own, on one thread. Five batches of every size come first and do not count. The
interval is a bootstrap over batches (95 %). Without FILE, sentences of an invented language are annotated; with one,
its sentences (2,000 at most), unsorted.
"""
_EPILOG = """\
examples:
  structkd benchmark structkd-runs/student-0123456789abcdef test.conllu
  structkd benchmark structkd-runs/student-0123456789abcdef test.txt --exported exported --json
"""


def command(arguments: list[str]) -> None:
    """Print a table of speeds."""
    parser = parser_of("benchmark", _DESCRIPTION, _EPILOG)
    parser.add_argument("model", metavar="MODEL", help="folder of a trained model, or its name on the hub")
    parser.add_argument("file", nargs="?", metavar="FILE", help="text to annotate (default: invented text)")
    parser.add_argument("--format", choices=FORMAT_NAMES, help="format of the file (default: by its suffix)")
    add_token_column(parser)
    parser.add_argument("--exported", metavar="FOLDER", help="a folder that structkd export wrote of the model")
    parser.add_argument(
        "--batches", type=at_least_one, default=50, metavar="N", help="batches of every size, in five turns (50)"
    )
    parser.add_argument("--threads", type=at_least_one, default=1, metavar="N", help="threads of torch (1)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_intermixed_args(arguments)
    from structkd.inference import benchmark, check_exported, checked_folder, sentences_of

    engines = {"torch": checked_folder(options.model)}
    if options.exported:
        check_exported(Path(options.exported), engines["torch"])
        engines["exported"] = options.exported
    sentences = sentences_of(options.file, options.format, token_column=options.token_column)
    found = benchmark(engines, sentences, batches=options.batches, threads=options.threads)
    if options.json:
        print(json.dumps([speed.plain() for speed in found], indent=1))
        return
    words = sum(map(len, sentences)) / len(sentences)
    print(f"{len(sentences):,} sentences, {words:.1f} words each; words per CPU second (95 % interval)\n")
    sizes = list(found[0].words_per_second)
    heads = "".join(f"{f'batch {size}':>30}" for size in sizes)
    print(f"{'engine':<10}{heads}{'to first tag':>14}{'peak memory':>13}")
    for speed in found:
        cells = ""
        for size in sizes:
            mean, low, high = speed.words_per_second[size]
            cells += f"{f'{mean:,.0f} ({low:,.0f} to {high:,.0f})':>30}"
        print(f"{speed.engine:<10}{cells}{speed.load_seconds:>12.2f} s{speed.memory:>10.0f} MB")
    batches = ", ".join(f"{count} of {size}" for size, count in found[0].batches.items())
    print(f"\nbatches of sentences: {batches}", file=sys.stderr)
