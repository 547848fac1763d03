"""``structkd predict``: annotate text with a trained model."""

from __future__ import annotations

import sys
from pathlib import Path

from structkd.files import check_output

from .arguments import FORMAT_NAMES, add_batch_size, add_model, add_token_column, loaded, parser_of

__all__ = ["command"]

_DESCRIPTION = """\
Annotate text with a trained model: spans, tags, or dependency trees.

MODEL is the folder of a training (structkd-runs/student-0123456789abcdef), its folder model, the link "student" in the
folder of a run, or a name on the Hugging Face hub. Files are read as a stream, in memory that does not grow with them;
without a file, or for "-", the standard input is read. Compressed files (gzip, bzip2, xz) are decompressed.
"""

_EPILOG = """\
formats (by the file's suffix, or --format; a file is written in its own format, or in that of --to):
  text      raw text. Words and sentences are found by rules (docs/students.md); a line end ends a sentence. Written
            a sentence on a line: [Ana Lee PER] runs    Ana/PROPN runs/VERB    Ana/2/nsubj runs/0/root
  words     text whose words are separated by white space, a sentence a line, as a training reads it (student.text). As
            many lines are written as are read, in the form of text.
  columns   a word a line, in the first column or --token-column, and blank lines between sentences. Predictions are
            appended as columns.
  conllu    CoNLL-U. Trees go into HEAD and DEPREL, parts of speech into UPOS, tags of spans into MISC (ner=B-PER), and
            scores into MISC. Everything else is kept byte for byte: comments, multiword tokens, empty nodes.
  jsonl     a JSON value a line: {"words": [...]}, {"text": "..."}, a list of words, or a text. Written are all results
            of model.annotate, character offsets included; other keys of an object are kept.

examples:
  echo "Ana Lee lives in Porto." | structkd predict structkd-runs/student-0123456789abcdef
  structkd predict structkd-runs/runs/scenario=case2a/student news.txt --to jsonl --scores --output news.jsonl
  structkd predict me/portuguese-parser treebank.conllu.gz --output parsed.conllu
"""


def command(arguments: list[str]) -> None:
    """Annotate files and write them to the standard output or to a file."""
    parser = parser_of("predict", _DESCRIPTION, _EPILOG)
    add_model(parser)
    parser.add_argument(
        "files", nargs="*", default=[], metavar="FILE", help="files to annotate (default: the standard input)"
    )
    parser.add_argument("--format", choices=FORMAT_NAMES, help="format of the files (default: by their suffixes)")
    parser.add_argument("--to", choices=FORMAT_NAMES, help="format to write (default: the one that was read)")
    add_token_column(parser)
    parser.add_argument("--scheme", metavar="NAME", help="tag scheme to write: BIO or BIOES (default: the model's)")
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="file to write, compressed if it ends in .gz, .bz2 or .xz; it is replaced when complete",
    )
    parser.add_argument("--scores", action="store_true", help="add exact probabilities of tags, spans and arcs")
    add_batch_size(parser)
    parser.add_argument("--quiet", action="store_true", help="print no progress on the standard error")
    options = parser.parse_intermixed_args(arguments)
    if options.output is not None:  # loading the model takes seconds
        check_output(options.output, options.files)
    model = loaded(options)
    from structkd.inference import Progress, predict_files

    files = options.files or ["-"]
    # Someone who types text sees the answer to every line.
    typed = files == ["-"] and sys.stdin.isatty()
    progress = None if options.quiet else Progress(sys.stderr)
    predict_files(
        model,
        files,
        options.output,
        given=options.format,
        wanted=options.to,
        token_column=options.token_column,
        scheme=options.scheme,
        scores=options.scores,
        batch_size=1 if typed else options.batch_size,
        progress=progress,
        notice=lambda sentence: print(f"structkd: {sentence}", file=sys.stderr),
    )
    sys.stdout.flush()
    if progress is not None:
        progress.end()
