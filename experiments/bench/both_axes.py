"""Plot accuracy over speed: a teacher, its student, the exported student, and spaCy, on Universal NER English-EWT.

    structkd scenario=case2a data=uner_ewt teacher=token_classification teacher.path=CLASSIFIER teacher.labelled=6000 \\
        student.labelled=6000 student.unlabelled=null student.model.legal=true student.trainer.max_steps=8000 \\
        '~kd@baselines.token' '~kd@baselines.none'
    python experiments/bench/both_axes.py --teacher CLASSIFIER --student FOLDER [--output DIR]

The teacher is the folder of a model of structkd or of a token classifier of transformers in the scheme BIO. F1 is that
of the test sentences, by exact spans and types. spaCy's entities are mapped: PERSON to PER, ORG to ORG, and GPE, LOC
and FAC to LOC. Speed is words per second of processor time at batch 1 on one thread; the engines take turns.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from contextlib import ExitStack
from pathlib import Path

from inference import SPACY, SPACY_MODEL, TURN, Engine

import structkd
from structkd.data import load_uner_ewt
from structkd.export import export
from structkd.files import replacing, write_json, write_text
from structkd.tags import spans

HERE = Path(__file__).resolve().parent
_MAPPED = {"PERSON": "PER", "PER": "PER", "ORG": "ORG", "GPE": "LOC", "LOC": "LOC", "FAC": "LOC"}
_SPAN = tuple[int, int, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True, help="folder of the teacher's model")
    parser.add_argument("--student", type=Path, required=True, help="folder of the student's model")
    parser.add_argument("--spacy", type=Path, default=SPACY, help="interpreter of spaCy's environment")
    parser.add_argument("--rounds", type=int, default=15, help="turns of every engine (default: 15)")
    parser.add_argument("--output", type=Path, default=HERE.parent / "results", help="where table and plot go")
    options = parser.parse_args()
    corpus = load_uner_ewt("spans")
    test, train = corpus.splits["test"], corpus.splits["train"]
    dev = [
        {"tokens": row["tokens"], "gold": corpus.annotation.names({"labels": row["labels"]})}
        for row in corpus.splits["dev"]
    ]
    scheme, labels = corpus.annotation.scheme, corpus.annotation.labels
    gold = [
        {(span.start, span.end + 1, span.type) for span in spans([labels[label] for label in row], scheme)}
        for row in test["labels"]
    ]
    spoken = [list(words) for words in train["tokens"]]
    random.Random(0).shuffle(spoken)
    text = [list(words) for words in test["tokens"]] + spoken[: TURN[1] * options.rounds + 64]
    with tempfile.TemporaryDirectory() as place, ExitStack() as ending:
        folder = Path(place)
        (folder / "sentences.json").write_text(json.dumps(text), encoding="utf-8")
        student = structkd.load(options.student)
        export(student, folder / "student")
        small = export(student, folder / "small", int8=True, dev=dev)
        kind = json.loads((options.teacher / "config.json").read_text(encoding="utf-8")).get("model_type", "")
        engines = [
            Engine("teacher", "compiled" if kind.startswith("structkd") else "classifier", str(options.teacher)),
            Engine("student", "compiled", str(options.student)),
            Engine("student, exported", "exported", str(folder / "student")),
            Engine("student, exported, 8 bits", "exported", str(small)),
            Engine("spaCy en_core_web_sm, ner", "spacy", SPACY_MODEL, python=str(options.spacy)),
        ]
        for engine in engines:
            engine.start(folder / "sentences.json")
            ending.callback(engine.process.kill)
        figures = {engine.name: _f1(gold, engine.spans(len(test))) for engine in engines}
        for number in range(options.rounds):
            for engine in random.Random(number).sample(engines, len(engines)):
                engine.turn(text, number, len(test))
    rows = [(engine.name, figures[engine.name], engine.median) for engine in engines]
    slowest = rows[-1][2]
    lines = [
        "| engine | test F1, UNER-EWT | words per CPU second, batch 1 | over spaCy |",
        "|---|---:|---:|---:|",
        *(f"| {name} | {100 * f1:.2f} | {speed:,.0f} | {speed / slowest:.1f} |" for name, f1, speed in rows),
    ]
    options.output.mkdir(parents=True, exist_ok=True)
    write_json(
        options.output / "both_axes.json",
        {name: {"f1": f1, "words_per_cpu_second": speed} for name, f1, speed in rows},
    )
    write_text(options.output / "both_axes.md", "\n".join(lines) + "\n")
    _plot(rows, options.output / "both_axes.png")
    print("\n".join(lines))


def _f1(gold: list[set[_SPAN]], found: list[list[list]]) -> float:
    predicted = [
        {(start, end, _MAPPED[label]) for start, end, label in sentence if label in _MAPPED} for sentence in found
    ]
    correct = sum(len(one & other) for one, other in zip(gold, predicted, strict=True))
    return 2 * correct / (sum(map(len, gold)) + sum(map(len, predicted)))


def _plot(rows: list[tuple[str, float, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.8), layout="constrained")
    drawn: list[tuple[float, float]] = []
    for name, f1, speed in rows:
        axes.scatter(speed, 100 * f1, s=40)
        crowded = any(0.5 < speed / other < 2 and abs(f1 - height) < 0.01 for other, height in drawn)
        place = {"xytext": (0, -14 if crowded else 7), "textcoords": "offset points"}
        axes.annotate(name, (speed, 100 * f1), ha="center", fontsize=8, **place)
        drawn.append((speed, f1))
    axes.set_xscale("log")
    axes.set_xlabel("words per second of processor time, batch 1")
    axes.set_ylabel("F1 on UNER-EWT test")
    axes.margins(0.2)
    axes.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
