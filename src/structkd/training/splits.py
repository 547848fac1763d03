"""The sentences that the teacher and the student are trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from datasets import Dataset

from structkd.data import Corpus, Transfer, drawn, hidden, note_of, without_test_sentences

__all__ = ["Coverage", "Splits", "draw_splits"]


@dataclass(frozen=True)
class Coverage:
    """The sentences of a text that a teacher has a distribution for.

    Attributes:
        rows: their numbers in the text, in order; None for all sentences.
        notes: sentences for the readers of the results, on everything that was left out.
    """

    rows: list[int] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Splits:
    """The training sentences of one experiment.

    Attributes:
        teacher: annotated sentences of the teacher.
        labelled: annotated sentences of the student, some of the teacher's.
        unlabelled: sentences of the student, their annotation hidden (-100). The teacher was not trained on any of
            them: it is nearly certain about its training sentences, and would hand the student gold labels in disguise.
        note: which sentences were left out, for those who read the results; empty if none were.
    """

    teacher: Dataset
    labelled: Dataset
    unlabelled: Dataset
    note: str = ""


def draw_splits(
    data: Corpus | Transfer,
    *,
    teacher: int | None,
    labelled: int | None,
    unlabelled: int | None,
    text: Dataset | None = None,
    teacher_seed: int = 0,
    seed: int = 0,
    cover: Callable[[Dataset], Coverage] | None = None,
) -> Splits:
    """Draw the training sentences by hashes of seed and sentence id, so that they are the same on every machine.

    The student's unlabelled sentences come from ``text`` if it is given, and otherwise from the training split of the
    student's corpus, less the teacher's sentences.

    Args:
        data: a corpus, or the teacher's and the student's.
        teacher: how many annotated sentences the teacher gets; None for the whole split.
        labelled: how many of the teacher's sentences the student gets; None for all of them. With 0 it learns from the
            teacher alone.
        unlabelled: how many other sentences the student gets; None for all there are.
        text: plain text, columns ``id`` and ``tokens``; sentences that occur in the test split are left out.
        teacher_seed, seed: of the teacher's and the student's draw.
        cover: of teachers that train nothing, which sentences of a text they know. The student's unlabelled sentences
            are drawn from these. The number of the teacher's sentences may then be 0.

    Raises:
        ValueError: more sentences are asked for than there are, and the message says how many there are; or a text is
            given and none of its sentences is asked for.

    >>> from structkd.data import load_toy
    >>> splits = draw_splits(load_toy(), teacher=70, labelled=15, unlabelled=40)
    >>> len(splits.teacher), len(splits.labelled), len(splits.unlabelled)
    (70, 15, 40)
    """
    source, target = (data.source, data.target) if isinstance(data, Transfer) else (data, data)
    train = source.splits["train"]
    available = len(train)
    count = available if teacher is None else teacher
    if not (0 if cover else 1) <= count <= available:
        raise ValueError(
            f"teacher.labelled={count}: {source.name} has {available} training sentences. Lower it, or take all with "
            "teacher.labelled=null; unless it has a text of its own (student.text), the student's unlabelled sentences "
            "(student.unlabelled) come out of the rest."
        )
    if text is not None and unlabelled == 0:
        raise ValueError(
            "student.unlabelled=0: a text is given in student.text, and no sentence of it would be used. "
            "student.unlabelled=null takes the whole text; leave student.text out to use none."
        )
    labelled = count if labelled is None else labelled
    if not 0 <= labelled <= count:
        raise ValueError(
            f"student.labelled={labelled}: the student's labelled sentences are some of the teacher's, "
            f"which are {count}. Lower it, or take them all with student.labelled=null."
        )
    teachers = drawn(train, count, teacher_seed)
    note = ""
    if text is not None:
        pool, dropped = without_test_sentences(text, target.splits["test"])
        where = "the text given"
        note = note_of(text)
        if dropped:
            note = f"{note} {dropped} sentences of the unlabelled text occur in test and were left out.".strip()
    elif target is not source:
        pool, where = target.splits["train"], f"the training split of {target.name}"
    else:
        chosen = set(teachers["id"])
        pool = train.select([row for row, name in enumerate(train["id"]) if name not in chosen])
        where = f"the training split of {source.name}, less the teacher's {count}"
    if cover is not None and unlabelled != 0:
        covered = cover(pool)
        note = " ".join(filter(None, [note, *covered.notes]))
        if covered.rows is not None:
            if not covered.rows and unlabelled != 0:
                raise ValueError(f"The teacher knows no sentence of {where}. {' '.join(covered.notes)}")
            pool = pool.select(covered.rows)
            where = f"{where} and the sentences that the teacher does not know"
    unlabelled = len(pool) if unlabelled is None else unlabelled
    if not labelled + unlabelled:
        raise ValueError("student.labelled=0, student.unlabelled=0: the student has nothing to learn from.")
    if not 0 <= unlabelled <= len(pool):
        raise ValueError(
            f"student.unlabelled={unlabelled}: {where}, has {len(pool)} sentences. "
            "Lower student.unlabelled or teacher.labelled, or give a text: +text@student.text=lines "
            "student.text.path=news.txt."
        )
    return Splits(
        teacher=teachers,
        labelled=drawn(teachers, labelled, seed),
        unlabelled=hidden(drawn(pool, unlabelled, seed), source.annotation),
        note=note,
    )
