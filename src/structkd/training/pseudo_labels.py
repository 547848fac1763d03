"""Training on the teacher's best structure, as a distillation loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributions import Distribution

from structkd import HeadSelection, MeanFieldDependency, NonProjectiveDependencyCRF, Relabelled, topk_kd_loss
from structkd.configurable import configurable

__all__ = ["pseudo_label_loss"]


@configurable
def pseudo_label_loss(
    teacher: Distribution, student: Distribution, reduction: str = "batchmean", num_items: float | Tensor | None = None
) -> Tensor:
    """Compute -log P_s(y*), where y* = argmax P_t is the teacher's best structure, taken for gold.

    The best structure is read as one of the student's: flat spans as tags, or a tree as head labels. A teacher that
    chooses heads word by word gives the tree that a parser predicts, with one root. The loss is the limit of structural
    distillation for a teacher that puts all its mass on one structure.

    Args:
        teacher, student: distributions over structures of the same batch.
        reduction, num_items: as in :func:`structkd.structural_kd_loss`.

    Raises:
        NotImplementedError: the teacher's structures cannot be read as the student's.

    >>> import torch
    >>> from structkd import MaxEnt
    >>> teacher = MaxEnt(torch.tensor([[[2.0, 0.0], [0.0, 3.0]]]))
    >>> student = MaxEnt(torch.zeros(1, 2, 2))
    >>> bool(torch.isclose(pseudo_label_loss(teacher, student), 2 * torch.tensor(2.0).log()))
    True
    """
    if isinstance(teacher, Relabelled):
        teacher = teacher.of(_predicting(teacher.source))
    return topk_kd_loss(_predicting(teacher), student, reduction=reduction, num_items=num_items, k=1)


def _predicting(teacher: Any) -> Any:
    """Return the distribution over trees of a parser's scores, for a parser predicts a tree even if it scores every
    head separately; return any other teacher unchanged."""
    if isinstance(teacher, (HeadSelection, MeanFieldDependency)):
        return NonProjectiveDependencyCRF(teacher.log_potentials, teacher.lengths)
    return teacher
