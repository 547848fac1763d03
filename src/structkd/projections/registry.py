"""Teacher marginals over the student's substructures, by double dispatch on the pair of classes."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..distributions.base import Parts, StructuredDistribution, adopt, adopted_class, class_name, ordinary_tensors
from ..distributions.checks import check_temperature

#: P_t over the student's parts: a tensor shaped like `student.marginals`, or the parts a loss works with.
Projection = Callable[..., Tensor | Parts]

_PROJECTIONS: dict[tuple[type, type], Projection] = {}
_FUSED: set[Projection] = set()


def register_projection(teacher_class: type, student_class: type) -> Callable[[Projection], Projection]:
    """Decorator that adds a (teacher, student) pair to `project` and to every loss built on it.

        @structkd.register_projection(MyParser, structkd.HeadLabeling)
        def _(teacher, student):
            return marginals  # shaped like student.marginals, 0 in the padding

    The function gets the teacher with its scores already divided by the temperature; a teacher that has no `tempered`
    method is served by a third parameter, `temperature`. Of several pairs that fit, the most specific one is called,
    teacher first, as in torch.distributions.register_kl. Registering a pair again replaces it.
    """
    for role, kind in (("teacher", teacher_class), ("student", student_class)):
        if not isinstance(kind, type):
            raise TypeError(f"The {role} of a projection must be a class, got {kind!r}.")

    def register(function: Projection) -> Projection:
        _PROJECTIONS[teacher_class, student_class] = function
        _find.cache_clear()
        return function

    return register


def fused(function: Projection) -> Projection:
    """Mark a registered projection whose losses a student may compute together with the teacher (`fused_loss`)."""
    _FUSED.add(function)
    return function


@dataclass(frozen=True)
class Pair:
    """A checked teacher and student of the same sentences, and the projection that serves them.

    Attributes:
        teacher: of our class where torch-struct's was given, unless a projection of theirs is registered.
        student: of our class.
        project: the registered function.
    """

    teacher: Any
    student: Any
    project: Projection

    @property
    def fused(self) -> bool:
        """Whether the student may compute its loss together with the teacher."""
        return self.project in _FUSED

    @torch.no_grad()
    def targets(self, temperature: float) -> Parts:
        """P_t over the student's parts, in the form its losses work with."""
        result = _call(self.project, self.teacher, self.student, temperature)
        if isinstance(result, tuple):
            return result
        if not isinstance(self.student, StructuredDistribution):
            return (result.detach(),)
        return self.student.parts_of_event(_shaped(result, self.student))


def find_pair(teacher: Any, student: Any) -> Pair | None:
    """Check a teacher and a student and find the projection that serves them; None where there is none."""
    adopted, student = check_distribution("teacher", teacher), check_distribution("student", student)
    found = _find(type(teacher), type(student))  # type: ignore[arg-type]
    if found is None:
        return None
    function, teacher_class = found
    if not isinstance(teacher, teacher_class):
        teacher = adopted
    check_pair(teacher, student)
    return Pair(teacher, student, function)


def require_pair(teacher: Any, student: Any) -> Pair:
    """`find_pair`; raises NotImplementedError where no projection serves the pair."""
    pair = find_pair(teacher, student)
    if pair is None:
        raise NotImplementedError(_unknown(teacher, student))
    return pair


@ordinary_tensors
def project(
    teacher: Distribution, student: Distribution, temperature: float = 1.0, samples: int | None = None
) -> Tensor:
    """P_t(u | x) over the student's substructures, in the shape of `student.marginals`; carries no gradient.

    Args:
        teacher, student: distributions over the same sentences. Only the student's kind, lengths and inventory are
            read, never its scores.
        temperature: the teacher's scores are divided by it first.
        samples: for a pair without an exact projection, estimate from this many teacher samples (unbiased). Ignored
            where an exact one is registered.

    Where the teacher allows structures that the student's class cannot build, the target is the teacher conditioned on
    the student's space. Raises NotImplementedError for an unknown pair, ValueError for distributions that do not fit
    together or an empty structure space.
    """
    student = check_distribution("student", student)
    if isinstance(student, StructuredDistribution):
        with torch.no_grad():
            student = student.dense()
    parts = targets(teacher, student, temperature, samples)
    if not isinstance(student, StructuredDistribution):
        return parts[0]
    dtype = torch.promote_types(getattr(teacher, "dtype", student.dtype), student.dtype)
    return student.event_of_parts(parts).to(dtype)


def targets(
    teacher: Distribution, student: Distribution, temperature: float = 1.0, samples: int | None = None
) -> Parts:
    """P_t over the student's parts, in the form its losses work with; see `project`."""
    temperature = check_temperature(temperature)
    pair = find_pair(teacher, student)
    if pair is not None:
        return pair.targets(temperature)
    if samples is None:
        raise NotImplementedError(_unknown(teacher, student))
    from .structures import sampled_targets  # which projects structures one by one, through this module

    teacher, student = adopt(teacher), adopt(student)
    check_pair(teacher, student)
    with torch.no_grad():
        return sampled_targets(teacher, student, temperature, samples)


def check_pair(teacher: Distribution, student: Distribution) -> None:
    """Refuse a teacher and a student of different sentences or inventories."""
    if teacher.batch_shape != student.batch_shape:
        raise ValueError(
            f"Teacher and student must have the same batch shape, got {list(teacher.batch_shape)} for the teacher and "
            f"{list(student.batch_shape)} for the student. Build both from the same sentences."
        )
    theirs, ours = _lengths(teacher), _lengths(student)
    if theirs is not None and ours is not None and theirs != ours:
        raise ValueError(
            f"Teacher and student must have the same lengths, got {theirs} for the teacher and {ours} for the student. "
            "Build both from the same sentences, in the same order."
        )
    for inventory in ("labels", "types"):
        theirs, ours = getattr(teacher, inventory, None), getattr(student, inventory, None)
        if theirs is not None and ours is not None and theirs != ours:
            raise ValueError(
                f"Teacher and student must have the same {inventory} in the same order, got {theirs} for the teacher "
                f"and {ours} for the student. Reorder the scores of one of them."
            )


def _lengths(distribution: Distribution) -> list[int] | None:
    if isinstance(distribution, StructuredDistribution) and not distribution.ragged:
        return [distribution.words] * distribution.batch_shape[0]
    lengths = getattr(distribution, "lengths", None)
    return lengths.tolist() if isinstance(lengths, Tensor) else None


def check_words(teacher: StructuredDistribution, student: StructuredDistribution, trailing: int) -> None:
    """Refuse scores padded to different numbers of words or of different inventories' sizes."""
    if teacher.words != student.words:
        raise ValueError(
            f"Teacher and student must be padded to the same number of words, got {teacher.words} for the teacher and "
            f"{student.words} for the student. Pad the scores of one, or cut the padding of the other."
        )
    if trailing and teacher.event_shape[-1] != student.event_shape[-1]:
        raise ValueError(
            f"Teacher and student must have inventories of the same size, got {teacher.event_shape[-1]} entries for "
            f"the teacher and {student.event_shape[-1]} for the student. Score the same labels on both sides."
        )


def check_distribution(role: str, distribution: Any) -> Any:
    """A teacher or student as ours where it is torch-struct's; refuse what is no distribution."""
    if not isinstance(distribution, Distribution):
        raise TypeError(
            f"The {role} must be a distribution, got {class_name(distribution)}. Wrap the scores in one of structkd's "
            "classes, such as structkd.MaxEnt(scores, lengths=lengths)."
        )
    return adopt(distribution)


def _call(function: Projection, teacher: Any, student: Any, temperature: float) -> Tensor | Parts:
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.name == "temperature" for p in parameters):
        return function(teacher, student, temperature=temperature)
    if len(positional) > 2:
        return function(teacher, student, temperature)
    if temperature != 1:
        if not hasattr(teacher, "tempered"):
            raise ValueError(
                f"The teacher {class_name(teacher)} has no method tempered(temperature), and temperature {temperature} "
                "was asked for. Write that method, or give its projection a parameter `temperature`."
            )
        teacher = teacher.tempered(temperature)
    return function(teacher, student)


def _shaped(marginals: Any, student: StructuredDistribution) -> Tensor:
    shape = student.batch_shape + student.event_shape
    if not isinstance(marginals, Tensor) or marginals.shape != shape:
        given = list(marginals.shape) if isinstance(marginals, Tensor) else type(marginals).__name__
        raise ValueError(
            f"A projection onto {class_name(student)} must return a tensor of shape {list(shape)}, like "
            f"student.marginals, got {given}."
        )
    return marginals.detach()


@lru_cache
def _find(teacher_class: Any, student_class: Any) -> tuple[Projection, type] | None:
    """The most specific registered pair: nearest teacher class first, then nearest student class."""
    teacher, student = adopted_class(teacher_class), adopted_class(student_class)
    ranked = [(teacher.index(t), student.index(s), t, s) for t, s in _PROJECTIONS if t in teacher and s in student]
    if not ranked:
        return None
    _, _, t, s = min(ranked, key=lambda r: (r[0], r[1]))
    _, _, other_t, other_s = min(ranked, key=lambda r: (r[1], r[0]))
    if _PROJECTIONS[t, s] is not _PROJECTIONS[other_t, other_s]:
        warnings.warn(
            f"Two projections fit {teacher[0].__name__} -> {student[0].__name__} equally well: "
            f"({t.__name__}, {s.__name__}) and ({other_t.__name__}, {other_s.__name__}). The first is used. Register "
            "the pair itself to decide.",
            RuntimeWarning,
            stacklevel=5,
        )
    return _PROJECTIONS[t, s], t


def _unknown(teacher: Distribution, student: Distribution) -> str:
    known = "\n".join(sorted(f"  {t.__name__} -> {s.__name__}" for t, s in _PROJECTIONS))
    return (
        f"There is no projection from {class_name(teacher)} to {class_name(student)}. Registered (teacher -> student):"
        f"\n{known}\nAdd one with @structkd.register_projection({class_name(teacher)}, {class_name(student)}), or pass "
        "samples=K to project() for a Monte Carlo estimate."
    )
