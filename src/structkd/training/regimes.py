"""Who sees what: the texts of the teacher and of the student, drawn from one training split."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from datasets import Dataset, DatasetDict

from structkd.data.corpus import Corpus, teacher_regime
from structkd.training.collate import UNLABELLED

__all__ = ["Regime", "draw_regime"]


@dataclass(frozen=True)
class Regime:
    """The texts of one experiment.

    Attributes:
        teacher: labelled sentences of the teacher.
        labelled: labelled sentences of the student, some of the teacher's.
        unlabelled: sentences of the student whose labels are hidden (-100). None of them is the teacher's: a teacher
            is nearly certain of what it was trained on, and would hand the student gold labels in disguise.
    """

    teacher: Dataset
    labelled: Dataset
    unlabelled: Dataset


def draw_regime(
    corpus: Corpus, *, teacher: int | None, labelled: int, unlabelled: int, teacher_seed: int = 0, seed: int = 0
) -> Regime:
    """Draw the sentences by hashes of seed and sentence id, so that they are the same everywhere.

    Args:
        corpus: its training split is drawn from.
        teacher: the teacher's labelled sentences; None means the whole split.
        labelled, unlabelled: the student's sentences.
        teacher_seed, seed: of the teacher's and the student's draw.

    Raises:
        ValueError: if more sentences are asked for than there are; says how many there are.
    """
    train = corpus.splits["train"]
    available = len(train)
    count = available if teacher is None else teacher
    if not 1 <= count <= available:
        raise ValueError(f"teacher.labelled={count}: {corpus.name} has {available} training sentences.")
    if not 1 <= labelled <= count:
        raise ValueError(
            f"student.labelled={labelled}: the student's labelled sentences are some of the teacher's, "
            f"which are {count}."
        )
    if not 0 <= unlabelled <= available - count:
        raise ValueError(
            f"student.unlabelled={unlabelled}: {corpus.name} has {available} training sentences, {count} of them are "
            f"the teacher's, which leaves {available - count}. Lower student.unlabelled or teacher.labelled."
        )
    teachers = teacher_regime(corpus, count, teacher_seed)
    chosen = set(teachers["id"])
    rest = train.select([row for row, name in enumerate(train["id"]) if name not in chosen])

    def draw(text: Dataset, size: int) -> Dataset:
        part = dataclasses.replace(corpus, splits=DatasetDict({**corpus.splits, "train": text}))
        return teacher_regime(part, size, seed)

    hidden = draw(rest, unlabelled) if unlabelled else rest.select([])
    features = hidden.features
    hidden = hidden.map(
        lambda row: {"labels": [UNLABELLED] * len(row["tokens"])},
        features=features,
        keep_in_memory=True,
        load_from_cache_file=False,
    )
    return Regime(teacher=teachers, labelled=draw(teachers, labelled), unlabelled=hidden)
