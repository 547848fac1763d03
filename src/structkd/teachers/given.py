"""The interface of teachers that a run takes as they are: they were trained, or annotated text, somewhere else.

A kind of teacher is one file: a recipe, which a configuration of the group ``teacher`` names as ``teacher.model``, and
a model that gives distributions. The rest of structkd uses such a model as it uses a trained teacher: its scores are
stored, its figures on dev and test are taken, and it can be one of several teachers.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn

from structkd.data import Annotation
from structkd.files import sha256
from structkd.training import Coverage, Teacher

__all__ = ["GivenModel", "GivenTeacher", "Opened", "folder_state", "required_path"]


class GivenTeacher(ABC):
    """Settings of a teacher that trains nothing. A subclass checks its settings when it is created."""

    @abstractmethod
    def open(self, annotation: Annotation) -> GivenModel:
        """Return the teacher for data with some annotation, after every check that needs no text.

        Raises:
            FileNotFoundError, ValueError: the teacher cannot be read, or has labels that the data lack.
        """


class GivenModel(nn.Module):
    """A teacher that trains nothing, in the interface of :class:`~structkd.models.StructuredModel`.

    A subclass defines ``score_axes``, ``encode``, ``forward``, ``distribution`` and ``decode`` as models do. A teacher
    that looks sentences up, and does not run over them, defines ``cover`` and ``of_text``, too.

    Args:
        annotation: the annotation of the data, into which the teacher's is translated.

    Attributes:
        title: one sentence about the teacher, for the plan and the report.
        identity: plain data that change whenever the teacher's answers may.
        score_axes: as in :class:`~structkd.models.StructuredModel`.
        runs: whether it annotates any sentence; otherwise it only knows those that it was given.
        remarks: sentences on the teacher's part in the training text, which ``of_text`` may set.
    """

    title: str
    identity: Any
    score_axes: Mapping[str, int]
    runs: bool = True
    remarks: Sequence[str] = ()

    def __init__(self, annotation: Annotation) -> None:
        super().__init__()
        self.annotation = annotation
        self.register_buffer("_device_of_inputs", torch.empty(0), persistent=False)

    @property
    def device(self) -> torch.device:
        """The device that inputs have to be on."""
        buffer: Tensor = self._device_of_inputs  # type: ignore[assignment]
        return buffer.device

    @property
    def encoder(self) -> GivenModel:
        """The object that checks sentences, as a model's encoder does."""
        return self

    def check(self, examples: Dataset) -> None:
        """Refuse sentences that the teacher cannot take, before any work is done; the message names the sentence."""

    def encode(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return the padded inputs of ``forward`` for some sentences, ``lengths`` LongTensor [B] among them."""
        raise NotImplementedError

    def scores(self, output: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the scores that define the distribution, in the layout of ``score_axes``."""
        return {name: output[name] for name in self.score_axes}

    def distribution(self, scores: Mapping[str, Tensor], lengths: Tensor) -> Any:
        """Return the distribution over the structures of a batch, over the labels of the data."""
        raise NotImplementedError

    def decode(self, scores: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor]:
        """Return the best structure of every sentence in the columns of the data's annotation; -100 in the padding."""
        raise NotImplementedError

    def decode_published(self, scores: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor] | None:
        """Return None: a teacher that trains nothing decodes in one way."""
        return None

    def cover(self, text: Dataset) -> Coverage:
        """Return which sentences of a text the teacher has a distribution for; by default all of them."""
        return Coverage()

    def of_text(self, text: Dataset) -> Teacher | None:
        """Return a teacher of a text whose scores need not be computed; None if the model has to run over the text.

        Args:
            text: from :func:`~structkd.training.training_text`.
        """
        return None


class Opened:
    """A teacher that trains nothing, in the interface of :class:`~structkd.models.ModelRecipe`.

    Args:
        model: the teacher.
    """

    def __init__(self, model: GivenModel) -> None:
        self.model = model

    def create(self, annotation: Annotation, text: Dataset, annotated: Dataset) -> GivenModel:
        """Return the teacher, which depends on no text."""
        return self.model

    def load(self, folder: str | Path) -> GivenModel:
        """Return the teacher, which is in no folder of a training."""
        return self.model


def required_path(path: str | os.PathLike[str] | None, kind: str) -> str:
    """Return the path that a teacher is read from.

    Raises:
        ValueError: none is given.
    """
    if path is None or not str(path):
        raise ValueError(f"teacher={kind} needs a path: add teacher.path=... (the key stands beside teacher.model).")
    return str(path)


def folder_state(path: str | os.PathLike[str]) -> list[list[str]]:
    """Return the names and sha256 of the files below a folder, wherever it lies."""
    folder = Path(path).expanduser()
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    return [[each.relative_to(folder).as_posix(), sha256(each)] for each in files]
