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
    HEADS_LABELLED,
    MAXENT,
    MEAN_FIELD,
    MEAN_FIELDS,
    PROJECTIVE,
    SECOND_ORDER,
    SEMI_MARKOV,
    SPANS,
    TREES,
    TREES_LABELLED,
    DenseChain,
    FactoredChain,
    Family,
    HeadSelection,
    MaxEnt,
    Scores,
    SecondOrderChain,
    Spans,
    Trees,
    lengths_tensor,
    remembered,
    seeded,
)
from listed import Listed
from oracles import Enumeration, Structure, cross_entropy, read_spans, span_tags
from torch import Tensor

import structkd

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


def segments_of(starts: Structure) -> Structure:
    """The segments (first word, last word, label) of labels at the first words of segments."""
    first = [word for word, label in enumerate(starts) if label >= 0]
    return tuple((i, j - 1, starts[i]) for i, j in zip(first, [*first[1:], len(starts)], strict=True))


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


# ------------------------------------------------------------------------------------------ pairs beyond the paper's
class Mapped(Family):
    """A family of teachers under a map of their labels, types or relations, or in another tag scheme."""

    student = False

    def __init__(self, of: Family, mapped: Callable[[Any], Any]) -> None:
        self.name, self.of, self.mapped = f"mapped-{of.name}", of, mapped
        self.scores, self.enumerate, self.masked, self.poisoned = of.scores, of.enumerate, of.masked, of.poisoned

    def build(self, scores: Scores, lengths: Tensor | None = None, **options: Any) -> Any:
        return self.mapped(self.of.build(scores, lengths, **options))


LOC = ["LOC"]
#: Inventories of one type and of two; their tags are in no particular order.
IO_ONE, BIO_ONE, BIOES_ONE = ["I-LOC", "O"], ["I-LOC", "B-LOC", "O"], ["O", "S-LOC", "B-LOC", "E-LOC", "I-LOC"]
IO = ["I-PER", "O", "I-LOC"]
SCHEMES = {"IO": IO_ONE, "BIO": BIO_ONE, "BIOES": BIOES_ONE}


def read_as_spans(labels: Sequence[str], types: Sequence[str]) -> Callable[[Structure, int], Structure]:
    return lambda tags, n: read_spans([labels[tag] for tag in tags], types)


def read_as_tags(
    labels: Sequence[str], types: Sequence[str], target: Sequence[str], scheme: str
) -> Callable[[Structure, int], Structure]:
    def convert(tags: Structure, n: int) -> Structure:
        spans = read_spans([labels[tag] for tag in tags], types)
        return tuple(target.index(tag) for tag in span_tags(spans, n, types, scheme))

    return convert


def taggers(size: int) -> dict[str, Family]:
    return {"maxent": MaxEnt(size), "factored": FactoredChain(True, size), "dense": DenseChain(size)}


def without_one_word(name: str) -> tuple[int, ...]:
    """A dense chain's event says nothing of one-word sentences."""
    return (3, 2) if name == "dense" else (3, 1, 2)


LISTED_LABELS, LISTED_SPANS = Listed("labels", MAXENT), Listed("spans", SPANS)
LISTED = [
    *(Pair(LISTED_LABELS, student, LONG if student is DENSE else None) for student in (MAXENT, FACTORED, BARE, DENSE)),
    *(Pair(Listed("heads", HEADS, student), student) for student in ARCS),
    *(Pair(Listed("relations", HEADS_LABELLED, student), student, (2, 1, 3)) for student in ARCS_LABELLED),
    Pair(LISTED_SPANS, SPANS, (3, 1, 4, 2), None, {"types": TYPES}),
    Pair(Listed("labels", MaxEnt(5)), SPANS, (3, 1, 2), read_as_spans(BIO, TYPES), {"labels": BIO}, {"types": TYPES}),
    Pair(Listed("labels", MaxEnt(2)), SECOND_ORDER),
]
SPANS_TO_TAGS, TAGS_TO_SPANS, ACROSS = [], [], []
for labels, scheme in ((IO, "IO"), (BIO, "BIO"), (BIO_SHUFFLED, "BIO"), (BIOES, "BIOES")):
    for kind, student in taggers(len(labels)).items():
        written = tags_of(labels, scheme), {"types": TYPES}, {"labels": labels}
        lengths = without_one_word(kind)
        LISTED.append(Pair(LISTED_SPANS, student, lengths, *written, f"listed-spans->{kind}-{scheme}-{len(labels)}"))
        if kind != "maxent" or scheme == "IO":
            SPANS_TO_TAGS.append(Pair(SPANS, student, lengths, *written, f"spans->{kind}-{scheme}-{len(labels)}"))
for labels in (IO, BIO, BIOES):
    for kind, teacher in taggers(len(labels)).items():
        read = read_as_spans(labels, TYPES), {"labels": labels}, {"types": TYPES}
        TAGS_TO_SPANS.append(Pair(teacher, SPANS, (3, 1, 2), *read, f"{kind}-{len(labels)}->spans"))
        TAGS_TO_SPANS.append(Pair(teacher, SPANS, (2, 3), *read, f"{kind}-{len(labels)}->spans-longer"))
for labels in (IO, BIO, BIOES_ONE):  # four words, so that a span has words with two of its own before them
    types, lengths = (LOC, (4, 1, 3, 2)) if labels is BIOES_ONE else (TYPES, (4, 1, 2) if labels is IO else (3, 1, 2))
    read = read_as_spans(labels, types), {"labels": labels}, {"types": types}
    student = Spans(len(types))
    TAGS_TO_SPANS.append(
        Pair(SecondOrderChain(len(labels)), student, lengths, *read, f"second-order-{len(labels)}->spans")
    )
for (one, labels), (other, target) in itertools.permutations(SCHEMES.items(), 2):
    students = taggers(len(target))
    for kind, teacher in [*taggers(len(labels)).items(), ("listed", Listed("labels", MaxEnt(len(labels))))]:
        for to, student in students.items():
            if kind in (to, "listed") or (one, other) == ("BIO", "BIOES"):
                lengths = without_one_word("dense" if (kind, to) == ("dense", "factored") else to)
                read = read_as_tags(labels, LOC, target, other), {"labels": labels}, {"labels": target}
                ACROSS.append(Pair(teacher, student, lengths, *read, f"{kind}-{one}->{to}-{other}"))

for labels, target, one, other in ((BIO_ONE, BIOES_ONE, "BIO", "BIOES"), (IO_ONE, BIO_ONE, "IO", "BIO")):
    read = read_as_tags(labels, LOC, target, other), {"labels": labels}, {"labels": target}
    for student in (MaxEnt(len(target)), FactoredChain(True, len(target)), SecondOrderChain(len(target))):
        teacher = SecondOrderChain(len(labels))
        ACROSS.append(Pair(teacher, student, (3, 1, 2), *read, f"second-{one}->{student.name}-{other}"))
    ACROSS.append(Pair(FactoredChain(True, len(labels)), student, (3, 1, 2), *read, f"factored-{one}->second-{other}"))

SEGMENTS = [
    *(
        Pair(
            SEMI_MARKOV,
            student,
            lengths,
            lambda y, n: tuple(y[max(m for m in range(w + 1) if y[m] >= 0)] for w in range(n)),
        )
        for student, lengths in ((MaxEnt(2), None), (FactoredChain(True, 2), None), (DenseChain(2), LONG))
    ),
    Pair(SEMI_MARKOV, SPANS, (3, 1, 4, 2), lambda y, n: segments_of(y)),
    Pair(SEMI_MARKOV, SEMI_MARKOV, LONG),
]
TRIGRAMS = [
    Pair(SECOND_ORDER, SECOND_ORDER),
    *(
        pair
        for other, lengths in ((MaxEnt(2), None), (FactoredChain(True, 2), None), (DenseChain(2), LONG))
        for pair in (Pair(SECOND_ORDER, other, lengths), Pair(other, SECOND_ORDER, lengths))
    ),
]


def relabelled(
    of: Family,
    student: Family,
    mapping: dict[Any, Any],
    names: list[str] | None,
    convert: Any,
    lengths: Any,
    **options: Any,
) -> Pair:
    given = {key: value for key, value in options.items() if key in ("labels", "types")}
    learned = {key.removeprefix("student_"): value for key, value in options.items() if key not in given}
    teacher = Mapped(of, lambda built: structkd.relabel(built, mapping, names))
    return Pair(teacher, student, lengths, convert, given, learned, f"relabel-{of.name}-{mapping}->{student.name}")


def one_type(labels: Sequence[str], mapping: dict[str, str | None]) -> Callable[[Structure, int], Structure]:
    """Tags of two types as those of LOC in BIO_ONE."""

    def convert(tags: Structure, n: int) -> Structure:
        named = [labels[tag].split("-") for tag in tags]
        kinds = [(tag[0], mapping.get(tag[1], tag[1]) if len(tag) > 1 else None) for tag in named]
        return tuple(BIO_ONE.index("O" if kind is None else f"{prefix}-{kind}") for prefix, kind in kinds)

    return convert


DROP, MERGE = {"PER": None}, {"PER": "LOC"}
RELABELLED = []
for mapping in (DROP, MERGE):
    for kind, teacher in taggers(5).items():
        for to, student in taggers(3).items():
            if kind == to or kind == "factored":
                lengths = without_one_word(to)
                tags = one_type(BIO, mapping)
                RELABELLED.append(
                    relabelled(teacher, student, mapping, BIO_ONE, tags, lengths, labels=BIO, student_labels=BIO_ONE)
                )
    kept = lambda y, n, mapping=mapping: tuple((i, j, 0) for i, j, k in y if k == 0 or mapping is MERGE)  # noqa: E731
    RELABELLED.append(relabelled(SPANS, Spans(1), mapping, LOC, kept, (3, 1, 2), types=TYPES, student_types=LOC))
    RELABELLED.append(
        relabelled(Listed("spans", SPANS), Spans(1), mapping, LOC, kept, (3, 1, 2), types=TYPES, student_types=LOC)
    )
    for to, student in taggers(3).items():
        tags = lambda y, n, kept=kept: tuple(BIO_ONE.index(t) for t in span_tags(kept(y, n), n, LOC, "BIO"))  # noqa: E731
        lengths = without_one_word(to)
        RELABELLED.append(relabelled(SPANS, student, mapping, LOC, tags, lengths, types=TYPES, student_labels=BIO_ONE))
    spans = lambda y, n, m=mapping: read_spans([BIO_ONE[tag] for tag in one_type(BIO, m)(y, n)], LOC)  # noqa: E731
    for teacher in taggers(5).values():
        for lengths in ((3, 1, 2), (3, 2)):
            RELABELLED.append(
                relabelled(teacher, Spans(1), mapping, None, spans, lengths, labels=BIO, student_types=LOC)
            )
    RELABELLED.append(
        relabelled(SecondOrderChain(5), Spans(1), mapping, None, spans, (3, 1, 2), labels=BIO, student_types=LOC)
    )
for teacher, student in (
    (HEADS_LABELLED, HeadSelection(1)),
    (TREES_LABELLED[0], Trees(True, True, 1)),
    (TREES_LABELLED[3], HEADS),
):
    arcs = lambda y, n, s=student: tuple((h, 0) if s.relations else h for h, r in y)  # noqa: E731
    RELABELLED.append(relabelled(teacher, student, {1: 0}, None, arcs, (2, 1, 3)))
RELABELLED.append(
    relabelled(SECOND_ORDER, SECOND_ORDER, {0: 1, 1: 0}, None, lambda y, n: tuple(1 - tag for tag in y), None)
)
# a map, then a change of scheme
RELABELLED.append(
    Pair(
        Mapped(FactoredChain(True, 5), lambda built: structkd.retag(structkd.relabel(built, MERGE), BIOES_ONE)),
        MaxEnt(5),
        (3, 1, 2),
        lambda y, n: read_as_tags(BIO_ONE, LOC, BIOES_ONE, "BIOES")(one_type(BIO, MERGE)(y, n), n),
        {"labels": BIO},
        {"labels": BIOES_ONE},
        "relabel-and-retag",
    )
)

RELABELLED.append(
    Pair(
        Mapped(SecondOrderChain(2), lambda built: structkd.retag(built, BIOES_ONE)),
        Spans(1),
        (4, 1, 2),
        read_as_spans(IO_ONE, LOC),
        {"labels": IO_ONE},
        {"types": LOC},
        "second-IO-as-BIOES->spans",
    )
)

#: Every pair that the other lists do not have, for tests of one kind.
CELLS = [*LISTED, *SPANS_TO_TAGS, *TAGS_TO_SPANS, *ACROSS, *SEGMENTS, *TRIGRAMS, *RELABELLED]
