"""Training on the teacher's one best structure, in the form of a distillation loss."""

from __future__ import annotations

from torch import Tensor

from structkd import LinearChainCRF, MaxEnt, supervised_loss

__all__ = ["pseudo_label_loss"]


def pseudo_label_loss(
    teacher: LinearChainCRF | MaxEnt,
    student: LinearChainCRF | MaxEnt,
    reduction: str = "batchmean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    """-log P_s(y*) with y* = argmax P_t: the teacher's most probable tag sequence is taken for gold.

    The limit of structural distillation for a teacher that puts all its mass on one structure.

    Args:
        teacher, student: distributions over tag sequences of the same batch.
        reduction, num_items: as in :func:`structkd.supervised_loss`.
    """
    return supervised_loss(student, teacher.decode().clamp(min=0), reduction=reduction, num_items=num_items)
