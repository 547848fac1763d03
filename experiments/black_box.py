"""Ask a black box for annotations of unlabelled text, and write those that can be read for ``teacher=annotations``.

    python experiments/black_box.py my_model:model news.txt --times 5 --labels PER ORG LOC --output answers.jsonl
    structkd data=uner_ewt teacher=annotations teacher.path=answers.jsonl +text@student.text=annotations

``my_model:model`` is a function ``list[str] -> list[answers]`` of a module on PYTHONPATH; an answer is a list of
``{"text": ..., "label": ...}`` in the order of the text, or the JSON of one. The text has a sentence a line, in words.
Every answer is kept in ``asked.jsonl`` beside the output: the same command continues an interrupted session.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from structkd.data import load_text
from structkd.teachers import ask, parse_answers


def main(arguments: list[str] | None = None) -> None:
    """Ask, parse and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("annotator", help="module:function")
    parser.add_argument("text", help="one tokenised sentence a line")
    parser.add_argument("--times", type=int, default=1, help="answers for every sentence")
    parser.add_argument("--batch", type=int, default=16, help="sentences in a call")
    parser.add_argument("--price", type=float, default=0.0, help="of a character that is sent or received")
    parser.add_argument("--labels", nargs="*", help="that an answer may have")
    parser.add_argument("--output", default="answers.jsonl")
    options = parser.parse_args(arguments)
    module, _, name = options.annotator.partition(":")
    if not name:
        parser.error(f"{options.annotator!r} is not module:function.")
    sys.path.insert(0, "")
    annotator = getattr(importlib.import_module(module), name)
    asked = ask(
        annotator,
        load_text(options.text)["tokens"],
        Path(options.output).with_name("asked.jsonl"),
        times=options.times,
        batch_size=options.batch,
        cost=lambda text, answer: options.price * (len(text) + len(str(answer))),
    )
    print(f"{asked.asked} answers asked for, {asked.known} known before; cost of all: {asked.cost:g}")
    found = parse_answers(Path(options.output).with_name("asked.jsonl"), options.output, labels=options.labels or None)
    print(f"{found.kept} annotations of {found.sentences} sentences in {options.output}")
    for reason, count in found.dropped.most_common():
        print(f"{count} answers dropped: {reason}")


if __name__ == "__main__":
    main()
