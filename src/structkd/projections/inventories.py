"""Messages for two sides of different inventories: which labels differ, and the call that maps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..distributions.tag_tables import scheme_of_tags, types_of_tags


def difference(name: str, teacher: Sequence[str], student: Sequence[str]) -> str:
    """Return the message for inventories that differ; `name` is "labels" or "types".

    >>> print(difference("labels", ["NOUN", "VERB"], ["VERB", "NOUN"]).split(". ", 1)[1])
    The same labels in another order: give structkd.relabel(teacher, {}, labels=student.labels) as the teacher.
    """
    given = (
        f"Teacher and student must have the same {name} in the same order, got {list(teacher)} for the teacher and "
        f"{list(student)} for the student. "
    )
    return given + _remedy(name, teacher, student)


def _remedy(name: str, teacher: Sequence[str], student: Sequence[str]) -> str:
    if set(teacher) == set(student):
        return (
            f"The same {name} in another order: give structkd.relabel(teacher, {{}}, labels=student.{name}) as the "
            "teacher."
        )
    schemes = scheme_of_tags(teacher), scheme_of_tags(student)
    tags = name == "labels" and None not in schemes
    theirs, ours = (types_of_tags(teacher), types_of_tags(student)) if tags else (list(teacher), list(student))
    extra = [label for label in theirs if label not in ours]
    target = next((label for label in ours if label not in theirs), ours[-1] if ours else "O")
    # Tags of the same types are converted between schemes; the student's inventory has those of one scheme only.
    convert = tags and schemes[0] != schemes[1]
    order = "" if convert else f", labels=student.{name}"
    if not extra:
        if convert:
            return (
                f"The student has the types {[label for label in ours if label not in theirs]}, which the teacher "
                f"lacks, and tags in {schemes[1]} instead of {schemes[0]}: give structkd.relabel(teacher, {{}}, "
                f"labels=[...]) with all types in {schemes[0]}. The other scheme follows by itself."
            )
        return (
            f"The student has more {name}, which the teacher never gives: give structkd.relabel(teacher, "
            f"{{}}{order}) as the teacher."
        )
    outside = ", or to None for outside" if name == "types" or "O" in student else ""
    return (
        f"The teacher has {extra}, which the student lacks. Map them{outside}: structkd.relabel(teacher, "
        f"{{{extra[0]!r}: {target!r}}}{order})."
    )


def sizes(teacher: Any, student: Any) -> str:
    """Return the message for inventories of other sizes, of which at most one side has names.

    >>> import structkd, torch
    >>> tagger = structkd.MaxEnt(torch.zeros(1, 1, 2), labels=["O", "I-X"])
    >>> sizes(tagger, structkd.MaxEnt(torch.zeros(1, 1, 3))).split(". ", 1)[1]
    'The student has no labels; build it with labels=[...], and schemes (IO, BIO, BIOES) are converted.'
    """
    given = (
        f"Teacher and student must have inventories of the same size, got {teacher.event_shape[-1]} entries for "
        f"the teacher and {student.event_shape[-1]} for the student. "
    )
    lacking = [
        role for role, side in (("teacher", teacher), ("student", student)) if getattr(side, "labels", None) is None
    ]
    if len(lacking) == 1:
        return given + (
            f"The {lacking[0]} has no labels; build it with labels=[...], and schemes (IO, BIO, BIOES) are converted."
        )
    return given + "Score the same labels on both sides; with labels=[...] on both, structkd.relabel maps them."
