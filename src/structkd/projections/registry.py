"""Teacher marginals over the student's substructures, by double dispatch on the pair of classes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from inspect import isabstract, signature
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from .. import distributions
from ..distributions.base import Parts, StructuredDistribution, adopt, adopted_class, class_name, ordinary_tensors
from ..distributions.checks import check_temperature
from ..distributions.relabelled import retag
from ..distributions.tag_tables import same_spans
from . import inventories

#: A function that returns P_t over the student's parts: a tensor shaped like `student.marginals`, or parts.
Projection = Callable[..., Tensor | Parts]

_PROJECTIONS: dict[tuple[type, type], Projection] = {}
_FUSED: set[Projection] = set()


def register_projection(teacher_class: type, student_class: type) -> Callable[[Projection], Projection]:
    """Return a decorator that adds a (teacher, student) pair to `project` and to every loss built on it.

    The decorated function takes the teacher and the student and returns marginals shaped like `student.marginals`, 0 in
    the padding. The teacher's scores are already divided by the temperature. If the teacher has no `tempered` method,
    give the function a third parameter, `temperature`. If several pairs fit, the most specific one is called, teacher
    first, as in torch.distributions.register_kl. Registering a pair again replaces it.

    Args:
        teacher_class, student_class: subclasses of torch.distributions.Distribution.

    Raises:
        TypeError: if one of them is not a class.

    >>> import structkd, torch
    >>> class Annotators(structkd.MaxEnt):
    ...     "Logits of several annotators' choices."
    >>> @structkd.register_projection(Annotators, structkd.MaxEnt)
    ... def majority(teacher, student):
    ...     return torch.nn.functional.one_hot(teacher.decode(), student.event_shape[-1]).float()
    >>> teacher = Annotators(torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]))
    >>> structkd.project(teacher, structkd.MaxEnt(torch.zeros(1, 2, 2)))
    tensor([[[1., 0.],
             [0., 1.]]])
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
    """Mark a projection, so that the student may compute the loss without it (`StructuredDistribution.fused_loss`).

    A student's `fused_loss` computes loss and gradient from the scores of both sides in one pass. It may stand in for a
    projection only if both give the same targets, which this decorator declares.

    Args:
        function: a projection that is passed to `register_projection`.

    Returns:
        The same function.

    >>> import structkd
    >>> class Annotators(structkd.MaxEnt):
    ...     "Logits of several annotators' choices."
    >>> @structkd.fused
    ... @structkd.register_projection(Annotators, structkd.MaxEnt)
    ... def shares(teacher, student):
    ...     return teacher.marginals
    """
    _FUSED.add(function)
    return function


def matrix() -> dict[tuple[str, str], str]:
    """Return how every class of teachers projects onto every class of students that structkd defines.

    Returns:
        A dictionary from the names of both classes to "exact" if a projection is registered, and to "sampled" if
        `project(..., samples=K)` can estimate it. Pairs whose structures have nothing in common are left out.

    >>> from structkd.projections import matrix
    >>> found = matrix()
    >>> found["SpanCRF", "MaxEnt"], found["SpanCRF", "SecondOrderChainCRF"], ("MaxEnt", "DependencyCRF") in found
    ('exact', 'sampled', False)
    """
    own = [kind for kind in vars(distributions).values() if isinstance(kind, type) and issubclass(kind, Distribution)]
    structured = [kind for kind in own if issubclass(kind, StructuredDistribution) and not isabstract(kind)]
    found = {}
    for teacher in [*structured, *(kind for kind in own if not issubclass(kind, StructuredDistribution))]:
        for student in structured:
            if _find(student, student) is None:  # a teacher only
                continue
            if _find(teacher, student) is not None:  # type: ignore[arg-type]
                found[teacher.__name__, student.__name__] = "exact"
            elif (_form(teacher), _form(student)) in _READABLE:
                found[teacher.__name__, student.__name__] = "sampled"
    return found


#: The forms of structures that can be read as others, by counting samples.
_READABLE = {("labels", "labels"), ("labels", "spans"), ("spans", "labels"), ("segments", "labels")}


def _form(kind: type) -> str:
    """Return the form of a class's structures; labels that name heads are of a form of their own."""
    return "" if issubclass(kind, distributions.HeadLabeling) else getattr(kind, "structures_are", "")


@dataclass(slots=True)
class Pair:
    """A checked teacher and student of the same sentences, and the projection that serves them.

    Attributes:
        teacher: of structkd's class if one of torch-struct's was given, unless a projection of that is registered.
        student: of structkd's class.
        project: the registered function.
    """

    teacher: Any
    student: Any
    project: Projection

    @property
    def fused(self) -> bool:
        """Whether the student may compute its loss directly from the scores of both sides."""
        return self.project in _FUSED

    @torch.no_grad()
    def targets(self, temperature: float) -> Parts:
        """Return P_t over the student's parts, in the form that its losses use."""
        result = _call(self.project, self.teacher, self.student, temperature)
        if isinstance(result, tuple):
            return result
        if not isinstance(self.student, StructuredDistribution):
            return (result.detach(),)
        return self.student.parts_of_event(_shaped(result, self.student))


def find_pair(teacher: Any, student: Any) -> Pair | None:
    """Check a teacher and a student and find the projection that serves them; return None if there is none."""
    adopted, student = check_distribution("teacher", teacher), check_distribution("student", student)
    theirs, ours = getattr(adopted, "labels", None), getattr(student, "labels", None)
    if theirs is not None and ours is not None and same_spans(theirs, ours):
        teacher = adopted = retag(adopted, ours)
    found = _find(type(teacher), type(student))  # type: ignore[arg-type]
    if found is None:
        return None
    function, teacher_class = found
    if not isinstance(teacher, teacher_class):
        teacher = adopted
    check_pair(teacher, student)
    return Pair(teacher, student, function)


def require_pair(teacher: Any, student: Any) -> Pair:
    """Do as `find_pair`, but raise NotImplementedError if no projection serves the pair."""
    pair = find_pair(teacher, student)
    if pair is None:
        raise NotImplementedError(_unknown(teacher, student))
    return pair


@ordinary_tensors
def project(
    teacher: Distribution,
    student: Distribution,
    temperature: float = 1.0,
    samples: int | None = None,
    standard_error: bool = False,
) -> Any:
    """Compute the teacher's marginals P_t(u | x) over the student's substructures.

    If the teacher allows structures that the student's class cannot build, the target is the teacher conditioned on
    the student's space.

    Args:
        teacher, student: distributions over the same sentences. The student's class, lengths and inventory are read;
            its scores are not.
        temperature: the teacher's scores are divided by it first.
        samples: if the pair has no exact projection, estimate the marginals from this many teacher samples (unbiased).
            Ignored if an exact projection is registered.
        standard_error: return the standard error of every cell as well; it is 0 if the projection is exact.

    Returns:
        A tensor shaped like `student.marginals`, without a gradient; or, if `standard_error`, a pair of such tensors.

    Raises:
        NotImplementedError: if no projection serves the pair and `samples` is None.
        ValueError: if the two sides have different sentences or inventories, or share no structure.

    >>> import structkd, torch
    >>> emissions, transitions = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), torch.eye(2)
    >>> teacher = structkd.LinearChainCRF.from_scores(emissions, transitions)
    >>> structkd.project(teacher, structkd.MaxEnt(torch.zeros(1, 2, 2)))
    tensor([[[0.8272, 0.1728],
             [0.4342, 0.5658]]])
    """
    student = check_distribution("student", student)
    if isinstance(student, StructuredDistribution):
        with torch.no_grad():
            student = student.dense()
    parts = targets(teacher, student, temperature, samples)
    if not isinstance(student, StructuredDistribution):
        return (parts[0], torch.zeros_like(parts[0])) if standard_error else parts[0]
    dtype = torch.promote_types(getattr(teacher, "dtype", student.dtype), student.dtype)
    event = student.event_of_parts(parts)
    if not standard_error:
        return event.to(dtype)
    from .weighted_structures import standard_errors  # imported here, because that module imports this one

    exact = samples is None or find_pair(teacher, student) is not None
    error = torch.zeros_like(event) if exact else standard_errors(event, student, int(samples or 0))
    return event.to(dtype), error.to(dtype)


def targets(
    teacher: Distribution, student: Distribution, temperature: float = 1.0, samples: int | None = None
) -> Parts:
    """Compute P_t over the student's parts, in the form that its losses use; see `project`."""
    temperature = check_temperature(temperature)
    pair = find_pair(teacher, student)
    if pair is not None:
        return pair.targets(temperature)
    if samples is None:
        raise NotImplementedError(_unknown(teacher, student))
    from .weighted_structures import sampled_targets  # imported here, because that module imports this one

    teacher, student = adopt(teacher), adopt(student)
    check_pair(teacher, student)
    with torch.no_grad():
        return sampled_targets(teacher, student, temperature, samples)


def check_pair(teacher: Distribution, student: Distribution) -> None:
    """Refuse sides of different sentences or inventories; tag schemes of the same types may differ."""
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
        if theirs is not None and ours is not None and theirs != ours and not same_spans(theirs, ours):
            raise ValueError(inventories.difference(inventory, theirs, ours))


def _lengths(distribution: Distribution) -> list[int] | None:
    if isinstance(distribution, StructuredDistribution) and not distribution.ragged:
        return [distribution.words] * distribution.batch_shape[0]
    lengths = getattr(distribution, "lengths", None)
    return lengths.tolist() if isinstance(lengths, Tensor) else None


def check_words(teacher: StructuredDistribution, student: StructuredDistribution, trailing: int) -> None:
    """Refuse sides that are padded to different numbers of words or, if `trailing`, have inventories of other sizes."""
    if teacher.words != student.words:
        raise ValueError(
            f"Teacher and student must be padded to the same number of words, got {teacher.words} for the teacher and "
            f"{student.words} for the student. Pad the scores of one, or cut the padding of the other."
        )
    if trailing and teacher.event_shape[-1] != student.event_shape[-1]:
        raise ValueError(inventories.sizes(teacher, student))


def check_distribution(role: str, distribution: Any) -> Any:
    """Return a teacher or student, a torch-struct one as structkd's; refuse an object that is not a distribution."""
    if not isinstance(distribution, Distribution):
        raise TypeError(
            f"The {role} must be a distribution, got {class_name(distribution)}. Wrap the scores in one of structkd's "
            "classes, such as structkd.MaxEnt(scores, lengths=lengths)."
        )
    return adopt(distribution)


def _call(function: Projection, teacher: Any, student: Any, temperature: float) -> Tensor | Parts:
    parameters = signature(function).parameters.values()
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
    """Find the most specific registered pair: nearest teacher class first, then nearest student class."""
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
