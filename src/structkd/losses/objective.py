"""The training objective of a student: distillation and supervision, interpolated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from structkd.configurable import configurable

from ..distributions.base import StructuredDistribution
from ..distributions.checks import check_number
from ..projections.registry import check_distribution
from .structural import check_num_items, supervised_loss


@configurable
@dataclass(frozen=True)
class ConstantInterpolation:
    """A share of distillation that is the same from the first step to the last.

    Args:
        value: the share, in 0..1.

    >>> import structkd
    >>> schedule = structkd.ConstantInterpolation(0.3)
    >>> [schedule(progress) for progress in (0.0, 0.5, 1.0)]
    [0.3, 0.3, 0.3]
    """

    value: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _share("value", self.value))

    def __call__(self, progress: float) -> float:
        return self.value


@configurable
@dataclass(frozen=True)
class LinearAnnealing:
    """A share of distillation that moves linearly from `start` to `end` (teacher annealing, Clark et al., 2019).

    Args:
        start: the share at progress 0, in 0..1.
        end: the share at progress 1, at most 1. If it lies below 0, the share reaches 0 before the training ends, and
            stays there. The schedule max(0, 1 - a * epoch / 100) of Wang et al. (2021) over E epochs is
            `LinearAnnealing(1, 1 - a * E / 100)`.

    >>> import structkd
    >>> schedule = structkd.LinearAnnealing(start=1.0, end=0.0)
    >>> [schedule(progress) for progress in (0.0, 0.25, 1.0)]
    [1.0, 0.75, 0.0]
    """

    start: float = 1.0
    end: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", _share("start", self.start))
        object.__setattr__(self, "end", _share("end", self.end, -math.inf))

    def __call__(self, progress: float) -> float:
        progress = min(max(float(progress), 0.0), 1.0)
        return max(0.0, self.start + (self.end - self.start) * progress)


def _share(name: str, share: Any, least: float = 0.0) -> float:
    share = check_number(name, share)
    if not (least <= share <= 1.0 and share > -math.inf):
        bounds = "lie in 0..1" if least == 0 else "be finite and at most 1"
        raise ValueError(f"The share of distillation must {bounds}, got {name}={share}.")
    return share


@configurable
class KDObjective(nn.Module):
    """The objective interpolation * KD + (1 - interpolation) * supervised, summed over sentences and divided once.

    Args:
        kd: callable (teacher, student, reduction="none") -> [B], such as `StructuralKDLoss()`. None turns distillation
            off and sets the interpolation to 0.
        supervised: callable (student, gold, reduction="none") -> [B]; None means `structkd.supervised_loss`.
        interpolation: a number in 0..1 or a schedule, callable from progress in 0..1 to such a number
            (`ConstantInterpolation`, `LinearAnnealing`).

    Raises:
        TypeError: if a class is given instead of an instance, or a loss cannot be called.

    Unlabelled sentences contribute to the distillation only.

    >>> import structkd, torch
    >>> teacher = structkd.MaxEnt(torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]))
    >>> student, gold = structkd.MaxEnt(torch.zeros(1, 2, 2)), torch.tensor([[0, 1]])
    >>> objective = structkd.KDObjective(structkd.StructuralKDLoss(), interpolation=0.5)
    >>> round(objective(teacher, student, gold).item(), 4)
    1.3863
    """

    def __init__(
        self,
        kd: Callable[..., Tensor] | None,
        supervised: Callable[..., Tensor] | None = None,
        interpolation: float | Callable[[float], float] = 0.5,
    ) -> None:
        super().__init__()
        for name, given, example in (
            ("kd", kd, "structkd.StructuralKDLoss()"),
            ("supervised", supervised, "structkd.supervised_loss"),
            ("interpolation", interpolation, "0.5 or structkd.LinearAnnealing()"),
        ):
            if isinstance(given, type):
                raise TypeError(f"The {name} is the class {given.__name__}. Give an instance: {name}={example}.")
            if name != "interpolation" and given is not None and not callable(given):
                raise TypeError(f"The {name} must be callable, got {type(given).__name__}. Give {name}={example}.")
        self.kd = kd
        self.supervised = supervised if supervised is not None else supervised_loss
        self.interpolation = interpolation if callable(interpolation) else ConstantInterpolation(interpolation)

    def share(self, progress: float) -> float:
        """Return the share of distillation at this progress, 0..1."""
        return 0.0 if self.kd is None else self.interpolation(progress)

    def forward(
        self,
        teacher: Distribution | Tensor | None,
        student: Any,
        gold: Any = None,
        *,
        progress: float = 0.0,
        labelled: Tensor | None = None,
        num_items: float | Tensor | None = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            teacher: a distribution or projected marginals; may be None if the share of distillation is 0.
            student: a distribution whose scores require grad.
            gold: structures in the form that `student.decode()` returns; may be None if no sentence is labelled or the
                share of supervision is 0. Rows of unlabelled sentences are ignored.
            progress: the share of the training that is done, 0..1.
            labelled: BoolTensor [B], true for sentences that have gold structures; None means all.
            num_items: the divisor; None means B.

        Returns:
            A scalar.

        Raises:
            ValueError: if the teacher or the gold structures are needed and missing, or shapes do not match.
        """
        student = check_distribution("student", student)
        if labelled is not None:
            labelled = torch.as_tensor(labelled).bool()
            if labelled.shape != student.batch_shape:
                raise ValueError(
                    f"The mask `labelled` must have shape {list(student.batch_shape)}, one truth value per sentence, "
                    f"got {list(labelled.shape)}."
                )
        share = self.share(progress)
        loss: Any = 0.0
        if share > 0:
            if teacher is None:
                raise ValueError(
                    f"The share of distillation is {share}, but no teacher was given. Give a teacher, or set the "
                    "interpolation to 0."
                )
            assert self.kd is not None
            loss = share * self.kd(teacher, student, reduction="none")
        if share < 1 and (labelled is None or labelled.any()):
            if gold is None:
                raise ValueError(
                    f"The share of supervision is {1 - share}, but no gold structures were given. Give gold "
                    "structures, mark all sentences as unlabelled, or set the interpolation to 1."
                )
            if labelled is not None:
                gold = _replaced(student, gold, labelled)
            supervised = self.supervised(student, gold, reduction="none")
            if labelled is not None:
                supervised = torch.where(labelled, supervised, 0.0)
            loss = loss + (1 - share) * supervised
        if not isinstance(loss, Tensor):
            # The batch has nothing to learn from, and callers still back-propagate through the result.
            finite = (scores.nan_to_num(0.0, 0.0, 0.0) for scores in student.sources())
            loss = sum((scores * 0.0).sum() for scores in finite).to(student.dtype)
        return loss.sum() / (check_num_items(num_items) if num_items is not None else student.batch_shape[0] or 1)


def _replaced(student: Any, gold: Any, labelled: Tensor) -> Any:
    """Replace the gold structures of unlabelled sentences, which may hold any values, by valid ones."""
    if not isinstance(gold, Tensor):
        structures = zip(gold, student.decode(), labelled.tolist(), strict=True)
        return [given if known else some for given, some, known in structures]
    known = labelled.view(-1, *[1] * (gold.dim() - 1))
    if isinstance(student, StructuredDistribution) and student.is_event(gold):
        return torch.where(known, gold, student.placeholder_event().to(gold.dtype))
    return gold.masked_fill(~known, 0)
