"""``structkd export``: a trained model as a folder that needs numpy and onnxruntime only."""

from __future__ import annotations

import gzip
import json
import shlex
import zlib
from pathlib import Path
from typing import Any

from structkd.files import MANIFEST, MOST_UNPACKED, most_unpacked, read_json
from structkd.runs.models import source_of

from .arguments import add_model, loaded, parser_of

__all__ = ["command"]

_DESCRIPTION = """\
Write a trained model as a folder that annotates text without torch: networks in ONNX, tables, annotate.py, README.md.
The folder needs numpy and onnxruntime; a model that reads subwords also tokenizers. It annotates as `structkd predict`
does, several times faster, and starts in a fraction of a second.

With --int8 the weights have 8 bits. The result is compared with 32 bits on the development sentences of the training,
and refused if it loses more than 0.3 points. With --single-file there is also strings.onnx, which maps the words of a
sentence to its tags, strings to strings, for languages other than Python.
"""
_EPILOG = """\
examples:
  structkd export structkd-runs/student-0123456789abcdef exported
  python exported/annotate.py text.txt
  structkd export structkd-runs/runs/scenario=case2a/student exported --int8 --single-file
"""


def command(arguments: list[str]) -> None:
    """Write the folder and print how it is used."""
    parser = parser_of("export", _DESCRIPTION, _EPILOG)
    add_model(parser)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="to write; an older export there is replaced")
    parser.add_argument("--int8", action="store_true", help="weights of 8 bits")
    parser.add_argument("--single-file", action="store_true", help="add strings.onnx (taggers on words)")
    parser.add_argument(
        "--dev",
        metavar="FILE",
        type=Path,
        help="sentences to compare int8 on, as predictions/dev.jsonl.gz of a training has them (default: that file)",
    )
    options = parser.parse_args(arguments)
    source, _ = source_of(options.model)
    dev_file = options.dev or source.resolve().parent / "predictions" / "dev.jsonl.gz"
    for read in (source, dev_file):
        if options.folder.resolve() in (read.resolve(), *read.resolve().parents):
            raise ValueError(f"{read} is read, and {options.folder} would be replaced; name another FOLDER.")
    dev = _sentences(dev_file, options)
    model = loaded(options)
    from structkd.export import export

    card = source / "README.md"
    written = export(
        model,
        options.folder,
        int8=options.int8,
        single_file=options.single_file,
        dev=dev,
        card=card.read_text(encoding="utf-8") if card.is_file() else None,
    )
    size = sum(path.stat().st_size for path in written.iterdir()) / 1e6
    if options.int8:
        facts = read_json(written / MANIFEST)["export"]["int8"]
        print(
            f"dev {facts['metric']} {100 * facts['int8']:.2f} (32 bits: {100 * facts['float32']:.2f}), "
            f"{facts['sentences']:,} sentences"
        )
    print(f"written: {written} ({size:.1f} MB)\n\n  {shlex.join(['python', str(written / 'annotate.py')])} FILE")


def _sentences(path: Path, options: Any) -> list[dict[str, Any]] | None:
    """Return the development sentences for int8; None if they are not needed, or not there and not asked for."""
    if not options.int8 or (options.dev is None and not path.is_file()):
        return None
    try:
        most = most_unpacked(path.stat().st_size)
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise ValueError(f"it unpacks to more than {MOST_UNPACKED} times its size")
        sentences = [json.loads(line) for line in content.splitlines() if line.strip()]
        if not all({"tokens", "gold"} <= set(sentence) for sentence in sentences):
            raise ValueError("a line has no tokens or no gold")
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no {path}.") from None
    except (OSError, EOFError, zlib.error, ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} does not hold annotated sentences as predictions/dev.jsonl.gz does, one JSON object with tokens "
            f"and gold on every line ({error})."
        ) from error
    return sentences
