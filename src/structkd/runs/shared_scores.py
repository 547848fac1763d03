"""The scores of a run's teachers for its text, from a store on disk that all runs share, or computed live."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from datasets import Dataset

from structkd.records import TrainingFolder
from structkd.teachers import GivenModel
from structkd.training import LiveTeacher, ScoreStore, Teacher, TeacherMixture
from structkd.training.processes import is_main_process, wait_for_everyone

from .fingerprint import file_fingerprints, text_fingerprint
from .identity import digest
from .sealing import mend_store
from .training_folder import Training, locked

__all__ = ["SharedScores", "joined"]


class SharedScores:
    """The teachers' scores for one text, opened or computed when first asked for, for all students of a run.

    A store has a folder ``<work_dir>/targets-<digest>``, named by the teacher's training, the text and the precision;
    of several processes that want it one writes, the others wait.

    Args:
        way: "store", or "live": the teachers run on every batch.
        teachers: their trainings, to be done before anything is asked of this object.
        weights: of the teachers.
        work_dir: where trainings and stores lie.
        text: from :func:`~structkd.training.training_text`.
        dtype, shard_sentences: as in :meth:`structkd.training.ScoreStore.write`.
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
        self._models: list[Any] = []
        self._teacher: Teacher | None = None

    @property
    def precision(self) -> str:
        """The precision of the scores, as far as the trained student depends on it."""
        # The sentences of a shard are padded to one width, which affects the last bits of their scores.
        return f"{self._dtype}, shards of {self._shard_sentences}" if self.way == "store" else "live"

    @property
    def models(self) -> list[Any]:
        """The trained teachers, and those that train nothing."""
        if not self._models:
            self._models = [
                each.recipe.load(TrainingFolder(self._work_dir / each.key).model) for each in self._teachers
            ]
        return self._models

    def __call__(self) -> Teacher:
        if self._teacher is None:
            for model in self.models:
                model.encoder.check(self.text)
            if self.way == "live":
                found: list[Any] = [self._known(model) or LiveTeacher(model, self.text) for model in self.models]
            else:
                found = [known or store for known, (_, store) in zip(self._all_known(), self.stores(), strict=True)]
            self._teacher = joined(found, self._weights)
        return self._teacher

    def _known(self, model: Any) -> Teacher | None:
        """Return the teacher of the text if its scores need not be computed."""
        return model.of_text(self.text) if isinstance(model, GivenModel) else None

    def _all_known(self) -> list[Teacher | None]:
        return [self._known(model) for model in self.models]

    def stores(self, part: tuple[int, int] = (0, 1)) -> list[tuple[Path | None, ScoreStore | None]]:
        """Return the folder and the store of every teacher, and write the stores that are missing.

        Args:
            part: (k, n): write only the k-th of n shares of every store, as one of n machines.

        Returns:
            None in place of a store that still lacks the shares of other machines. None in place of the folder, too,
            for a teacher that looks its scores up and needs no store.
        """
        return [
            (None, None) if isinstance(model, GivenModel) and not model.runs else self._store(teacher, model, part)
            for teacher, model in zip(self._teachers, self.models, strict=True)
        ]

    def _store(self, teacher: Training, model: Any, part: tuple[int, int]) -> tuple[Path, ScoreStore | None]:
        fingerprint: dict[str, Any] = {"teacher": teacher.key, "text": text_fingerprint(self.text)}
        if teacher.given is None:  # otherwise the key says which answers it gives
            weights = TrainingFolder(self._work_dir / teacher.key).weights
            fingerprint["weights"] = file_fingerprints([str(weights)])[str(weights)]
        folder = self._work_dir / f"targets-{digest([fingerprint, self._dtype, self._shard_sentences])[:16]}"
        # If machines share the work, every machine holds its own lock.
        lock = folder.with_name(f"{folder.name}-{part[0]}-of-{part[1]}") if part[1] > 1 else folder
        store = None
        for turn in (is_main_process(), not is_main_process()):
            # The main process writes first; the others that torchrun started then open the finished store.
            if turn:
                if is_main_process() and torch.accelerator.is_available():
                    model.to(torch.accelerator.current_accelerator())
                with locked(lock, f"{teacher.title}: another process is writing its scores, waiting"):
                    mend_store(folder)
                    store = ScoreStore.write(
                        model,
                        self.text,
                        folder,
                        fingerprint=fingerprint,
                        dtype=self._dtype,
                        shard_sentences=self._shard_sentences,
                        part=part,
                    )
                model.to("cpu")
            wait_for_everyone()
        return folder, store


def joined(teachers: Sequence[Any], weights: Sequence[float]) -> Teacher:
    """Return the one teacher, or a mixture of several."""
    return teachers[0] if len(teachers) == 1 else TeacherMixture(teachers, weights)
