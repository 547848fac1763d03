"""Training on the teacher's best structure, as a distillation loss."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution

from structkd import Empirical, HeadSelection, MeanFieldDependency, NonProjectiveDependencyCRF, Relabelled, topk_kd_loss
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
    if isinstance(teacher, (HeadSelection, MeanFieldDependency)):
        # A parser predicts a tree even if it scores every head separately.
        teacher = NonProjectiveDependencyCRF(teacher.log_potentials, teacher.lengths)
    if isinstance(teacher, Relabelled):
        teacher = _best(teacher)
    return topk_kd_loss(teacher, student, reduction=reduction, num_items=num_items, k=1)


def _best(teacher: Relabelled) -> Empirical:
    """Return the image of the best structure of the distribution that was relabelled, with all of the mass."""
    best = teacher.decode()
    if teacher.kind == "labels":
        return Empirical.from_labels(best.clamp_min(0).unsqueeze(1), lengths=teacher.lengths, labels=teacher.labels)
    if teacher.kind == "heads":
        return Empirical.from_heads(best.clamp_min(0).unsqueeze(1), lengths=teacher.lengths)
    types = list(teacher.types or map(str, range(teacher.size)))
    named = [[[(start, end, types[kind]) for start, end, kind in spans]] for spans in best]
    return Empirical.from_spans(named, teacher.lengths, types)
