"""``structkd evaluate``: judge a trained model on an annotated file."""

from __future__ import annotations

import sys

from structkd.harmless import printable_json

from .arguments import FORMAT_NAMES, add_batch_size, add_model, loaded, parser_of

__all__ = ["command"]

_DESCRIPTION = """\
Annotate an annotated file with a trained model, and print the metrics, label by label.

Spans are compared as by seqeval's strict mode, trees as by the scorer of CoNLL 2018 (punctuation counts, subtypes of
relations do not). Labels that the model does not have count as errors, and are listed.
"""

_EPILOG = """\
examples:
  structkd evaluate structkd-runs/student-0123456789abcdef test.conllu
  structkd evaluate structkd-runs/runs/scenario=case2a/student test.iob2 --token-column 1 --tag-column 2 --scheme BIO
  structkd evaluate me/ner-student test.jsonl --json | jq .metrics.f1
"""


def command(arguments: list[str]) -> None:
    """Print the metrics of a model on a file."""
    parser = parser_of("evaluate", _DESCRIPTION, _EPILOG)
    add_model(parser)
    parser.add_argument("file", metavar="FILE", help="annotated file: columns, conllu, or jsonl with words and tags")
    parser.add_argument("--format", choices=FORMAT_NAMES[2:], help="format of the file (default: by its suffix)")
    parser.add_argument("--token-column", type=int, default=0, metavar="N", help="column of the word, from 0 (0)")
    parser.add_argument("--tag-column", type=int, default=-1, metavar="N", help="column of the tag (-1, the last)")
    parser.add_argument("--scheme", metavar="NAME", help="tag scheme of the file, such as BIO or IOB1 (the model's)")
    parser.add_argument("--separator", default="-", metavar="TEXT", help="between prefix and type of a tag (-)")
    parser.add_argument("--repair", action="store_true", help="read illegal tags as conlleval does, not refuse them")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_batch_size(parser)
    options = parser.parse_args(arguments)
    model = loaded(options)
    from structkd.inference import evaluate_file

    found = evaluate_file(
        model,
        options.file,
        given=options.format,
        token_column=options.token_column,
        tag_column=options.tag_column,
        scheme=options.scheme,
        separator=options.separator,
        repair=options.repair,
        batch_size=options.batch_size,
    )
    if options.json:
        print(printable_json({"model": options.model, "file": options.file, **found.plain()}, indent=1))
        return
    print(f"{found.sentences:,} sentences, {found.words:,} words of {options.file}\n")
    for name, value in found.metrics.items():
        print(f"{name:<12}{100 * value:7.2f}")
    width = max([len("label"), *map(len, found.labels)])
    print(f"\n{'label':<{width}}  precision  recall      f1     gold  predicted")
    for label, row in found.labels.items():
        shares = "".join(f"{100 * row[name]:{size}.2f}" for name, size in (("precision", 11), ("recall", 8), ("f1", 8)))
        print(f"{label:<{width}}{shares}{row['gold']:9,}{row['predicted']:11,}")
    if found.unknown:
        named = ", ".join(f"{label} ({count:,})" for label, count in found.unknown.items())
        print(f"structkd: the model does not have these labels of the file: {named}.", file=sys.stderr)
