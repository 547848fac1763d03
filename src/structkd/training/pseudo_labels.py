"""Training on the teacher's best structure, as a distillation loss."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution

from structkd import HeadSelection, MeanFieldDependency, NonProjectiveDependencyCRF, topk_kd_loss

__all__ = ["pseudo_label_loss"]


def pseudo_label_loss(
    teacher: Distribution, student: Distribution, reduction: str = "batchmean", num_items: float | Tensor | None = None
) -> Tensor:
    """-log P_s(y*) with y* = argmax P_t: the teacher's best structure, read as the student's, is taken for gold.

    A tag sequence, the tree that a parser predicts as head labels (with one root, even where the teacher chooses heads
    word by word), or flat spans as tags. The limit of structural distillation for a teacher that puts all its mass on
    one structure.

    Args:
        teacher, student: distributions over structures of the same batch.
        reduction, num_items: as in :func:`structkd.structural_kd_loss`.

    Raises:
        NotImplementedError: if the teacher's structures cannot be read as the student's.
    """
    if isinstance(teacher, (HeadSelection, MeanFieldDependency)):
        # what a parser predicts is a tree, however it chooses heads
        teacher = NonProjectiveDependencyCRF(teacher.log_potentials, teacher.lengths)
    return topk_kd_loss(teacher, student, reduction=reduction, num_items=num_items, k=1)
