"""Measure what teacher targets cost, and write experiments/results/targets.md.

    python experiments/bench/targets.py [--sentences 1000000] [--rounds 60] [--parts memory size speed] [--output DIR]

memory: a text of so many sentences lies in an Arrow file; a fresh process stores a tiny teacher's scores for them, and
another reads them back in batches, in the order of a training. size: bytes a sentence of stores in float32 and float16
beside bigram marginals [N, C, C], and the KL divergence that float16 causes. speed: processor time of a step that
distils a BiLSTM-CRF into another, with targets from a store, from memory, and from a teacher that runs on every batch,
in turns. Sentences are PetroGold's where it is in the cache (STRUCTKD_CACHE), else the toy corpus's.
"""

from __future__ import annotations

import os

# before torch is imported, which reads it once
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter
from measuring import forget_peak, interleaved, peak_memory

import structkd
from structkd.data import TagAnnotation, load_petrogold, load_toy
from structkd.models import BiLSTMRecipe, Tagger, TaggerRecipe
from structkd.training import (
    Collator,
    LengthBatches,
    LiveTeacher,
    ScoreStore,
    Teacher,
    TeacherScores,
    training_text,
)

HERE = Path(__file__).resolve().parent
PARTS = ("memory", "size", "speed")
LABELS = (9, 17, 33)
TEMPERATURES = (1, 2, 4)
BATCH = 32
TEACHER = BiLSTMRecipe(hidden_size=200, layers=1)
STUDENT = BiLSTMRecipe(hidden_size=64)
TINY = BiLSTMRecipe(word_size=8, character_filters=0, hidden_size=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=1_000_000, help="of the text whose memory is measured")
    parser.add_argument("--rounds", type=int, default=60, help="turns of every kind of step")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    parser.add_argument("--output", type=Path, default=HERE.parent / "results", help="where the table goes")
    parser.add_argument("--process", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.process:
        what, folder = options.process
        print(json.dumps(measured({"write": write_store, "read": read_store}[what], Path(folder))))
        return
    measure: dict[str, Callable[[Path], str]] = {
        "memory": lambda folder: memory(folder, options.sentences),
        "size": size,
        "speed": lambda folder: speed(folder, min(4000, options.sentences), options.rounds),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    report = ["# Teacher targets"]
    for part in options.parts:
        with tempfile.TemporaryDirectory(dir=options.output) as folder:
            report.append(measure[part](Path(folder)))
        print(f"{report[-1]}\n", flush=True)
    path = options.output / "targets.md"
    path.write_text("\n\n".join(report) + "\n", encoding="utf-8")
    print(path)


def table(columns: list[str], rows: list[list[Any]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


# memory


def memory(folder: Path, sentences: int) -> str:
    """Both processes, one after the other."""
    write_text(folder, sentences)
    rows = []
    for what in ("write", "read"):
        command = [sys.executable, __file__, "--process", what, str(folder)]
        done = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
        figures = [f"{done[name] / 1e6:,.0f}" for name in ("before", "peak", "anonymous")]
        rows.append([what, f"{done['seconds']:.0f}", f"{sentences / done['seconds']:,.0f}", *figures])
    sizes = [sum(path.stat().st_size for path in folder.glob(files)) / 1e6 for files in ("*.arrow", "store/*")]
    return (
        f"## Memory: {sentences:,} sentences\n\nText {sizes[0]:,.0f} MB, store {sizes[1]:,.0f} MB on disk. Resident "
        "memory counts the pages of both that happen to be in memory and can go at any time; anonymous memory does "
        "not.\n\n"
        + table(["", "s", "sentences/s", "MB after imports", "MB resident at the peak", "MB anonymous at most"], rows)
    )


def write_text(folder: Path, sentences: int) -> None:
    """The toy corpus again and again, each time with a first word of its own, so that no sentence occurs twice."""
    toy = load_toy(train=2000).splits["train"]["tokens"][:]
    with ArrowWriter(path=str(folder / "text.arrow")) as writer:
        for row in range(sentences):
            tokens = [f"w{row // len(toy)}", *toy[row % len(toy)]]
            writer.write({"id": str(row), "tokens": tokens, "labels": [-100] * len(tokens)})
        writer.finalize()


def unlabelled(folder: Path) -> tuple[Tagger, Dataset]:
    """The tiny teacher, and the text on disk as a training takes it."""
    corpus = load_toy()
    train = corpus.splits["train"]
    torch.manual_seed(0)
    teacher = TaggerRecipe(encoder=TINY).create(corpus.annotation, train, train)
    return teacher, training_text(corpus.annotation, train, Dataset.from_file(str(folder / "text.arrow")))


def write_store(folder: Path) -> None:
    teacher, text = unlabelled(folder)
    ScoreStore.write(teacher, text, folder / "store", fingerprint={})


def read_store(folder: Path) -> None:
    """One epoch of a training, as far as the data go."""
    teacher, text = unlabelled(folder)
    store = ScoreStore.open(folder / "store", teacher, fingerprint={})
    for batch in batches(teacher, text, store, epochs=1):
        store.distribution(batch["teacher"], batch["lengths"])


def batches(model: Tagger, text: Dataset, teacher: Teacher, epochs: int | None = None) -> Iterator[dict[str, Any]]:
    """What the trainer's data loader gives."""
    sampler, collate = LengthBatches(text["length"][:], BATCH), Collator(model, teacher)
    for epoch in itertools.count() if epochs is None else range(epochs):
        sampler.set_epoch(epoch)
        for rows in sampler:
            yield collate(text.__getitems__(rows))


def measured(run: Callable[[Path], None], folder: Path) -> dict[str, float]:
    """Seconds and bytes of this process; anonymous memory is looked at twenty times a second."""
    done, anonymous = threading.Event(), [0]

    def watch() -> None:
        while not done.wait(0.05):
            anonymous.append(status("RssAnon"))

    forget_peak()
    before, begun = status("VmRSS"), time.perf_counter()
    watching = threading.Thread(target=watch)
    watching.start()
    try:
        run(folder)
    finally:
        done.set()
        watching.join()
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "before": before, "peak": peak_memory(), "anonymous": max(anonymous)}


def status(name: str) -> int:
    """Bytes, by the kernel's own account."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


# size


def size(folder: Path) -> str:
    """Stores of one teacher for every number of labels."""
    rows = []
    for count in LABELS:
        text, annotation, name = sentences(count, 2000)
        teacher = trained(TaggerRecipe(encoder=STUDENT), annotation, text)
        exact = TeacherScores.compute(teacher, text, progress=False)
        stores: dict[str, Any] = {}
        for dtype in ("float32", "float16"):
            stores[dtype] = ScoreStore.write(teacher, text, folder / f"{count}-{dtype}", fingerprint={}, dtype=dtype)
        marginals = 4 * count**2 * float(exact.lengths.double().mean())
        full, half = (
            sum(file.bytes for file in store.manifest.files.values()) / len(text) for store in stores.values()
        )
        costs = [divergence(exact, stores["float16"], temperature) for temperature in TEMPERATURES]
        figures = [f"{marginals:,.0f}", f"{full:,.0f}", f"{half:,.0f}", f"{marginals / full:.1f}"]
        rows.append([count, *figures, f"{marginals / half:.1f}", *(f"{mean:.1e} / {most:.1e}" for mean, most in costs)])
    columns = ["labels", "marginals [N, C, C]", "float32", "float16", "times smaller", "float16"]
    return (
        f"## Size\n\nBytes a sentence of {name}, {float(exact.lengths.double().mean()):.1f} words on average, and "
        "KL(exact || float16) of a trained BiLSTM-CRF in nats a sentence, mean and maximum, by temperature.\n\n"
        + table([*columns, *(f"KL at T = {temperature}" for temperature in TEMPERATURES)], rows)
    )


def sentences(count: int, limit: int) -> tuple[Dataset, TagAnnotation, str]:
    """Some sentences, each word with one of ``count`` labels by its spelling."""
    cached = Path(os.environ.get("STRUCTKD_CACHE", "~/.cache/structkd")).expanduser() / "dante-corpora-2.0.5"
    corpus = load_petrogold() if cached.exists() else load_toy(train=limit)
    train = corpus.splits["train"]
    tokens = train["tokens"][:limit]
    labels = [[zlib.crc32(word[-2:].encode()) % count for word in words] for words in tokens]
    text = Dataset.from_dict({"id": train["id"][:limit], "tokens": tokens, "labels": labels})
    annotation = TagAnnotation(tuple(f"L{number}" for number in range(count)))
    return training_text(annotation, text), annotation, corpus.name


def trained(recipe: TaggerRecipe, annotation: TagAnnotation, text: Dataset, steps: int = 60) -> Tagger:
    """A model after a few steps on gold labels: its scores are like those of real ones."""
    torch.manual_seed(0)
    model = recipe.create(annotation, text, text)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for begin in range(0, steps * BATCH, BATCH):
        examples = text.__getitems__([row % len(text) for row in range(begin, begin + BATCH)])
        inputs = model.encode(examples)
        given = model.distribution(model.scores(model(**inputs)), inputs["lengths"])
        optimiser.zero_grad()
        structkd.supervised_loss(given, model.encode_gold(examples)).backward()
        optimiser.step()
    return model.eval()


def divergence(exact: TeacherScores, stored: TeacherScores, temperature: float) -> tuple[float, float]:
    """KL(exact || stored) of every sentence, in float64: mean and maximum."""
    values = []
    for rows in torch.arange(len(exact)).split(BATCH):
        given, lost = (
            scores.distribution(
                {name: value.double() for name, value in scores.batch(rows).items()}, exact.lengths[rows]
            ).tempered(temperature)
            for scores in (exact, stored)
        )
        values.append(given.kl(lost).clamp(min=0))
    found = torch.cat(values)
    return float(found.mean()), float(found.max())


# speed


def speed(folder: Path, limit: int, rounds: int) -> str:
    """Steps of students that differ in where their targets come from."""
    text, annotation, name = sentences(9, limit)
    teacher = trained(TaggerRecipe(encoder=TEACHER), annotation, text, steps=5)
    store = ScoreStore.write(teacher, text, folder / "store", fingerprint={})
    assert store is not None
    kinds = {
        "store": store,
        "memory": TeacherScores.compute(teacher, text, progress=False),
        "live": LiveTeacher(teacher, text),
    }
    times = interleaved({kind: step(annotation, text, teacher) for kind, teacher in kinds.items()}, rounds, seconds=300)
    least = times["memory"].median_cpu
    rows = [[kind, f"{each.median_cpu:.1f}", f"{each.median_cpu / least:.2f}"] for kind, each in times.items()]
    return (
        f"## Speed\n\nMedian processor time of a distilling step, {BATCH} sentences of {name} from the data set to the "
        f"optimiser, BiLSTM({TEACHER.settings['hidden_size']})-CRF to BiLSTM({STUDENT.settings['hidden_size']})-CRF, "
        "9 labels, one thread.\n\n" + table(["targets from", "ms", "times that from memory"], rows)
    )


def step(annotation: TagAnnotation, text: Dataset, teacher: Teacher) -> Callable[[], Any]:
    """Steps of a student of its own, over the same batches in the same order as every other's."""
    torch.manual_seed(0)
    student = TaggerRecipe(encoder=STUDENT).create(annotation, text, text)
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-3)
    supply = batches(student, text, teacher)

    def run() -> None:
        batch = next(supply)
        lengths, scores = batch["lengths"], batch.pop("teacher")
        del batch["gold"], batch["labelled"], batch["ids"]
        optimiser.zero_grad()
        given = student.distribution(student.scores(student(**batch)), lengths)
        structkd.structural_kd_loss(teacher.distribution(scores, lengths), given).backward()
        optimiser.step()

    return run


if __name__ == "__main__":
    main()
