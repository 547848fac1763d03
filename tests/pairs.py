"""The (teacher, student) pairs of the contract's cases, and their loss by enumeration.

The expected loss is T^2 times - sum_y P_t(y) log P_s(y) over listed structures y of the student, both sides' scores
divided by T; where the teacher's class allows structures that the student's does not, P_t is conditioned on the space
both allow.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from families import (
    ARCS,
    ARCS_LABELLED,
    BARE,
    DENSE,
    FACTORED,
    HEADS,
    MAXENT,
    MEAN_FIELD,
    MEAN_FIELDS,
    PROJECTIVE,
    SPANS,
    TREES,
    Family,
    MaxEnt,
    Scores,
    lengths_tensor,
    remembered,
    seeded,
)
from oracles import Enumeration, Structure, cross_entropy, span_tags
from torch import Tensor

TYPES = ["LOC", "PER"]
BIO = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
BIO_SHUFFLED = ["I-PER", "B-LOC", "X", "O", "B-PER", "<pad>", "I-LOC"]
BIOES = ["O", *(f"{prefix}-{kind}" for kind in TYPES for prefix in "BIES")]
BIOES_SHUFFLED = [*reversed(BIOES), "B-MISC"]


class Pair:
    """A teacher family, a student family, and how a teacher's structure reads as a student's."""

    def __init__(
        self,
        teacher: Family,
        student: Family,
        lengths: Sequence[int] | None = None,
        convert: Callable[[Structure, int], Structure] | None = None,
        teacher_options: dict[str, Any] | None = None,
        student_options: dict[str, Any] | None = None,
        name: str = "",
    ) -> None:
        self.teacher, self.student = teacher, student
        self.lengths = tuple(lengths or student.ragged)
        self.width = max(self.lengths) + 1
        self.convert = convert
        self.teacher_options, self.student_options = teacher_options or {}, student_options or {}
        self.name = name or f"{teacher.name}->{student.name}"

    def __repr__(self) -> str:
        return self.name

    def scores(self, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Scores, Scores]:
        generator, batch = seeded(seed), len(self.lengths)
        return (
            self.teacher.scores(generator, batch, self.width, dtype),
            self.student.scores(generator, batch, self.width, dtype),
        )

    def build(self, teacher: Scores, student: Scores) -> tuple[Any, Any]:
        return self.build_teacher(teacher), self.build_student(student)

    def build_teacher(self, scores: Scores) -> Any:
        return self.teacher.build(scores, lengths_tensor(self.lengths), **self.teacher_options)

    def build_student(self, scores: Scores) -> Any:
        return self.student.build(scores, lengths_tensor(self.lengths), **self.student_options)

    def masked_teacher(self, scores: Scores, seed: int, rate: float = 0.3) -> Scores:
        """Random cells of the teacher impossible, around a structure that the student can build, too."""
        among = None if self.convert is not None else self.student.structures
        return self.teacher.masked(scores, self.lengths, seeded(seed), rate, among)[0]

    def targets(self, teacher: Scores, student: list[Enumeration], temperature: float = 1.0) -> list[Enumeration]:
        """P_t over the student's structures, one enumeration per sentence."""
        targets = []
        for n, p, q in zip(
            self.lengths, self.teacher.enumerate(teacher, self.lengths, temperature), student, strict=True
        ):
            if self.convert is not None:
                p = p.pushed(lambda y, n=n: self.convert(y, n))
            targets.append(p.restricted(q.scores))
        return targets

    @remembered
    def loss(self, teacher: Scores, student: Scores, temperature: float = 1.0) -> list[float]:
        enumerations = self.student.enumerate(student, self.lengths, temperature)
        targets = self.targets(teacher, enumerations, temperature)
        return [temperature**2 * cross_entropy(p, q) for p, q in zip(targets, enumerations, strict=True)]

    @remembered
    def gradients(self, teacher: Scores, student: Scores, temperature: float = 1.0) -> Scores:
        """The closed form T (P_s - P_t) for every score cell of the student, for the sum of the losses."""
        enumerations = self.student.enumerate(student, self.lengths, temperature)
        targets = self.targets(teacher, enumerations, temperature)
        counts = []
        for p, q in zip(targets, enumerations, strict=True):
            of_teacher, of_student = p.expectation(self.student.cells), q.expectation(self.student.cells)
            cells = of_teacher.keys() | of_student.keys()
            counts.append(
                {cell: temperature * (of_student.get(cell, 0.0) - of_teacher.get(cell, 0.0)) for cell in cells}
            )
        return self.student.gradients(student, counts)

    @remembered
    def projected(self, teacher: Scores, student: Scores, temperature: float = 1.0) -> Tensor:
        """Expected `project(teacher, student, T)`: [B, *student event]."""
        enumerations = self.student.enumerate(student, self.lengths, temperature)
        return self.student.events(self.targets(teacher, enumerations, temperature), self.width)


def tags_of(labels: Sequence[str], scheme: str) -> Callable[[Structure, int], Structure]:
    return lambda spans, n: tuple(labels.index(tag) for tag in span_tags(spans, n, TYPES, scheme))


def spans_to_tags(labels: list[str], scheme: str, name: str) -> Pair:
    """Case 4; sentences short enough to list every tag sequence."""
    return Pair(
        *(SPANS, MaxEnt(len(labels)), (3, 1, 2)),
        tags_of(labels, scheme),
        {"types": TYPES},
        {"labels": labels},
        f"spans->{name}",
    )


LONG = (3, 2, 5, 2, 4)  # a dense chain's event says nothing of one-word sentences
CHAINS = [
    *(Pair(DENSE, DENSE), Pair(FACTORED, FACTORED), Pair(BARE, FACTORED), Pair(FACTORED, BARE)),
    *(Pair(DENSE, FACTORED, LONG), Pair(FACTORED, DENSE, LONG)),
]
TO_MAXENT = [Pair(FACTORED, MAXENT), Pair(BARE, MAXENT), Pair(DENSE, MAXENT, LONG), Pair(MAXENT, MAXENT)]
FROM_MAXENT = [Pair(MAXENT, FACTORED), Pair(MAXENT, BARE), Pair(MAXENT, DENSE, LONG)]
TO_TAGS = [
    spans_to_tags(BIO, "BIO", "BIO"),
    spans_to_tags(BIO_SHUFFLED, "BIO", "BIO-extra"),
    spans_to_tags(BIOES, "BIOES", "BIOES"),
    spans_to_tags(BIOES_SHUFFLED, "BIOES", "BIOES-extra"),
]
ARC_PAIRS = [Pair(t, s, s.ragged) for t, s in itertools.product([*ARCS, MEAN_FIELD], ARCS)]
ARC_PAIRS += [Pair(t, HEADS, HEADS.ragged) for t in MEAN_FIELDS[1:]]
# Which trees both sides allow is shown without relations: with them, each teacher with its own kind and the next.
ARC_PAIRS_LABELLED = [Pair(t, t, t.ragged) for t in ARCS_LABELLED]
ARC_PAIRS_LABELLED += [
    Pair(t, s, s.ragged) for t, s in zip(ARCS_LABELLED, ARCS_LABELLED[1:] + ARCS_LABELLED[:1], strict=True)
]
SPAN_PAIRS = [Pair(SPANS, SPANS, (3, 1, 4, 2))]

PAIRS = [*CHAINS, *TO_MAXENT, *FROM_MAXENT, *TO_TAGS, *ARC_PAIRS, *ARC_PAIRS_LABELLED, *SPAN_PAIRS]
SAME = [pair for pair in PAIRS if pair.teacher is pair.student]

# One pair for every kind of student and of teacher, for what does not depend on the details.
REPRESENTATIVE = [
    *(CHAINS[0], CHAINS[1], CHAINS[4], CHAINS[5], TO_MAXENT[0], FROM_MAXENT[0], TO_TAGS[2]),
    *(Pair(PROJECTIVE, HEADS), Pair(HEADS, TREES[0]), Pair(TREES[3], TREES[1]), Pair(MEAN_FIELD, TREES[2])),
    ARC_PAIRS_LABELLED[0],
]

#: Every pair at one temperature, and one of every kind at another.
TEMPERED = [*((pair, 2.5) for pair in PAIRS), *((pair, 1.0) for pair in REPRESENTATIVE)]
