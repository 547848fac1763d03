"""The text of ``structkd demo``, and the sentences at its end."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from structkd.data import TagAnnotation, load_toy
from structkd.evaluation import metric_title
from structkd.files import write_text
from structkd.records import Result, RunMetrics, TrainingFolder

__all__ = ["conclude", "write_files"]

#: Sentences of the files. conf/debug/demo.yaml names how many of them have labels for whom.
TRAIN, NEWS, DEV, TEST = 800, 600, 100, 300
#: Words of the made-up language. The labelled sentences of the student contain a small part of them.
_STEMS = 800


def write_files(folder: Path) -> None:
    """Write train.conll, dev.conll, test.conll and news.txt: text in a made-up language.

    Args:
        folder: where to write; it is made, and files of these names are replaced.
    """
    corpus = load_toy(train=TRAIN + NEWS, dev=DEV, test=TEST, stems=_STEMS)
    assert isinstance(corpus.annotation, TagAnnotation)
    names = corpus.annotation.labels
    train = corpus.splits["train"]
    folder.mkdir(parents=True, exist_ok=True)
    splits = {"dev": corpus.splits["dev"], "test": corpus.splits["test"], "train": train.select(range(TRAIN))}
    for split, sentences in splits.items():
        columns = [
            "".join(f"{word} {names[label]}\n" for word, label in zip(row["tokens"], row["labels"], strict=True))
            for row in sentences
        ]
        write_text(folder / f"{split}.conll", "\n".join(columns))
    news = [" ".join(row["tokens"]) for row in train.select(range(TRAIN, len(train)))]
    write_text(folder / "news.txt", "\n".join(news) + "\n")


def conclude(run: RunMetrics, work_dir: Path) -> None:
    """Print the three figures, a sentence about them, the student's folder, and the command that uses it."""
    teacher = next(each for each in run.results if each.role == "teacher")
    alone = next(each for each in run.results if each.method == "none")
    student = run.student
    rows = [
        (f"teacher, {teacher.labelled} labelled sentences", teacher),
        (f"student, {alone.labelled} labelled sentences", alone),
        (f"student, these and {student.unlabelled} that the teacher annotates", student),
    ]
    width = max(len(title) for title, _ in rows)
    print(f"\n{'In short':<{width}}  {metric_title(run.metric)} on test")
    for title, result in rows:
        print(f"{title:<{width}}  {_figure(run, result):.1f}")
    print(f"\n{_sentence(run, teacher, alone)}\n")
    folder = _shown(_link(work_dir, TrainingFolder(work_dir / student.folder).model))
    print(f"The student is in {folder}. It annotates text:\n")
    print(f"    structkd predict {shlex.quote(folder)} {shlex.quote(_shown(work_dir / 'news.txt'))}", flush=True)


def _link(work_dir: Path, model: Path) -> Path:
    """Link the student's model at a short place; without links, return the model's own."""
    link = work_dir / "student"
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(model, work_dir.resolve()), target_is_directory=True)
    except (OSError, ValueError):  # no links here, or another drive
        return model
    return link


def _figure(run: RunMetrics, result: Result) -> float:
    return 100 * result.test[run.metric]


def _sentence(run: RunMetrics, teacher: Result, alone: Result) -> str:
    best, before, after = (_figure(run, each) for each in (teacher, alone, run.student))
    if best <= before:
        return "The teacher is not better than the student without it, so that there is nothing to learn from it."
    share = 100 * (after - before) / (best - before)
    if share <= 0:
        return "Distillation has not helped here."
    return (
        f"With the same {alone.labelled} labels, distillation takes the student from {before:.1f} to {after:.1f}: "
        f"it closes {share:.0f} % of the gap to its teacher.\nOn real text see `make reproduce`; "
        "these figures are of an invented language."
    )


def _shown(path: Path) -> str:
    """Return a path as one would type it here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
