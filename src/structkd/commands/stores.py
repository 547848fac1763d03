"""What the teachers of a run say about its text: from a store on disk that all runs share, or live."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from datasets import Dataset

from structkd.models import StructuredModel
from structkd.training import MixtureTargets, Targets, TeacherTargets

from .work import Training

__all__ = ["SharedTargets", "joined"]


class SharedTargets:
    """The teachers' scores for one text, opened or computed when first asked for, for all students of a run.

    A store has a folder ``<work_dir>/targets-<digest>``, named by the teacher's training, the text and the precision;
    of several processes that want it one writes, the others wait.

    Args:
        way: "store", or "live": the teachers run on every batch.
        teachers: their trainings, to be done before anything is asked of this object.
        weights: of the teachers.
        work_dir: where trainings and stores lie.
        text: from :func:`~structkd.training.training_text`.
        dtype, shard_sentences: as in :meth:`structkd.training.TargetStore.write`.
    """

    WAYS: ClassVar[tuple[str, ...]] = ("store", "live")

    def __init__(
        self,
        way: str,
        teachers: Sequence[Training],
        weights: Sequence[float],
        work_dir: Path,
        text: Dataset,
        dtype: str,
        shard_sentences: int,
    ) -> None:
        self.way = way
        self.text = text
        self._teachers = teachers
        self._weights = weights
        self._work_dir = work_dir
        self._dtype = dtype
        self._shard_sentences = shard_sentences
        self._models: list[StructuredModel] = []
        self._targets: Targets | None = None

    @property
    def precision(self) -> str:
        """That the scores come in, as far as the trained student depends on it."""
        return self._dtype if self.way == "store" else "live"

    @property
    def models(self) -> list[StructuredModel]:
        """The trained teachers."""
        if not self._models:
            self._models = [each.recipe.load(self._work_dir / each.key / "model") for each in self._teachers]
        return self._models

    def __call__(self) -> Targets:
        if self._targets is None:
            for model in self.models:
                model.encoder.check(self.text)
            self._targets = joined([TeacherTargets.compute(model, self.text) for model in self.models], self._weights)
        return self._targets


def joined(targets: Sequence[Any], weights: Sequence[float]) -> Targets:
    """The targets of one teacher, or of several as a mixture."""
    return targets[0] if len(targets) == 1 else MixtureTargets(targets, weights)
