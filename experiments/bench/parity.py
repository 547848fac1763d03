"""Compare exported models with the models themselves: predictions must be equal, and scores within 1e-4.

    python experiments/bench/parity.py MODEL [MODEL ...] [--random 10000] [--output FILE]

Every model annotates the test sentences of UD-EWT and PetroGold, and random ones: 1 to 512 words, short ones more
often, out of words that the corpora have and of random characters. The exit status is 1 if a prediction differs.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import structkd
from structkd.data import load_petrogold, load_ud_ewt
from structkd.export import annotate, export
from structkd.sentences import Sentence

TOLERANCE = 1e-4
LONGEST = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="folder of a trained model")
    parser.add_argument("--random", type=int, default=10_000, metavar="N", help="random sentences (10,000)")
    parser.add_argument("--output", type=Path, help="file for the table, Markdown")
    options = parser.parse_args()
    texts = {
        "UD-EWT test": _of_corpus(load_ud_ewt("upos")),
        "PetroGold test": _of_corpus(load_petrogold("upos")),
    }
    texts["random"] = list(islice(_random([words for text in texts.values() for words, _ in text]), options.random))
    lines = [
        "| model | text | sentences | words | different predictions | largest difference of a score |",
        "|---|---|---:|---:|---:|---:|",
    ]
    different = 0
    for source in options.models:
        model = structkd.load(source)
        with tempfile.TemporaryDirectory() as place:
            runner = annotate.load(export(model, Path(place) / "exported"))
            for name, text in texts.items():
                begun = time.monotonic()
                count, gap = _compare(model, runner, text)
                different += count
                words = sum(len(each) for each, _ in text)
                lines.append(f"| {source} | {name} | {len(text):,} | {words:,} | {count} | {gap:.1e} |")
                print(f"{lines[-1]}  {time.monotonic() - begun:.0f} s", flush=True)
    if options.output is not None:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.exit(1 if different else 0)


def _of_corpus(corpus: Any) -> list[tuple[list[str], list[str]]]:
    """Return the words and the parts of speech of the test sentences."""
    split = corpus.splits["test"]
    return [
        (list(words), [corpus.annotation.labels[label] for label in labels])
        for words, labels in zip(split["tokens"], split["labels"], strict=True)
    ]


def _random(sentences: list[list[str]]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield sentences of words of the corpora, and one word in ten of random characters."""
    draw = random.Random(0)
    words = [word for sentence in sentences for word in sentence]
    tags = ["NOUN", "VERB", "ADP", "PUNCT", "DET", "PRON", "ADJ", "X"]
    yield ["a"], ["X"]
    yield [draw.choice(words) for _ in range(LONGEST)], [draw.choice(tags) for _ in range(LONGEST)]
    while True:
        length = int(math.exp(draw.uniform(0, math.log(LONGEST + 1))))
        chosen = [
            draw.choice(words)
            if draw.random() < 0.9
            else "".join(
                chr(draw.choice((draw.randint(33, 126), draw.randint(161, 0x4FFF)))) for _ in range(draw.randint(1, 40))
            )
            for _ in range(length)
        ]
        yield chosen, [draw.choice(tags) for _ in range(length)]


def _compare(model: Any, runner: Any, text: list[tuple[list[str], list[str]]]) -> tuple[int, float]:
    """Return the number of sentences with another prediction, and the largest difference of a score in the others."""
    expected = model.annotate_stream((Sentence(words, upos=tags) for words, tags in text), scores=True)
    found = runner.annotate_stream(({"words": words, "upos": tags} for words, tags in text), scores=True)
    different, gap = 0, 0.0
    for one, other in zip(found, expected, strict=True):
        del other["log_prob"]
        if _without_scores(one) != _without_scores(other):
            different += 1
        else:
            gap = max([gap, *(abs(a - b) for a, b in zip(_scores(one), _scores(other), strict=True))])
    return different, gap


def _without_scores(result: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in result.items() if not key.endswith("_scores")}
    if "spans" in kept:
        kept["spans"] = [{key: value for key, value in span.items() if key != "score"} for span in kept["spans"]]
    return kept


def _scores(result: dict[str, Any]) -> list[float]:
    lists = [value for key, value in result.items() if key.endswith("_scores")]
    return [score for scores in lists for score in scores] + [span["score"] for span in result.get("spans", [])]


if __name__ == "__main__":
    main()
