"""A model that structkd has trained before, and wrote into a folder or onto the hub, as a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from structkd.configurable import configurable
from structkd.data import UNLABELLED, Annotation, TagAnnotation, TreeAnnotation
from structkd.models import StructuredModel
from structkd.models.loading import load, model_folder
from structkd.tags import spans
from structkd.teachers.given import GivenModel, GivenTeacher, folder_state, required_path
from structkd.teachers.label_map import LabelMap, data_names

__all__ = ["Trained"]


@configurable
class Trained(GivenTeacher):
    """A model that structkd wrote: a folder of ``save_pretrained``, a training's folder, or a name on the hub.

    Args:
        path: the folder, or the name on the Hugging Face hub.
        map: names of the data for entity types, labels or relations of the model, null for outside; ``*`` is the rest.

    >>> from structkd.teachers import Trained
    >>> Trained("structkd-runs/teacher-0123456789abcdef").path
    'structkd-runs/teacher-0123456789abcdef'
    """

    def __init__(self, path: str | None = None, map: Mapping[str, str | None] | None = None) -> None:
        self.path = required_path(path, "trained")
        self.map = map

    def open(self, annotation: Annotation) -> GivenModel:
        """Load the model and compare its labels with those of the data; see :class:`GivenTeacher`."""
        return _Trained(self, annotation, *_loaded(self.path))


class _Trained(GivenModel):
    """The model, whose structures are read as those of the data."""

    def __init__(self, recipe: Trained, annotation: Annotation, model: StructuredModel, identity: Any) -> None:
        super().__init__(annotation)
        self.model = model.eval().requires_grad_(False)
        self.score_axes = model.score_axes
        own = model.annotation
        if type(own) is not type(annotation):
            raise ValueError(
                f"{recipe.path} predicts {own.description()}, and the data are annotated otherwise "
                f"({annotation.description()}). Choose another task or teacher."
            )
        if isinstance(own, TagAnnotation) and (own.scheme is None) != (data_scheme(annotation) is None):
            raise ValueError(
                f"{recipe.path} predicts the labels {', '.join(own.labels[:8])}, and the data have "
                f"{', '.join(data_names(annotation)[:8])}: one side has tags of spans, the other has not."
            )
        self.scheme = own.scheme if isinstance(own, TagAnnotation) else None
        self.map = LabelMap.of(data_names(own), annotation, recipe.map, f"the model {recipe.path}")
        self.same = own == annotation and not self.map.changes
        self.identity = identity
        count = sum(parameter.numel() for parameter in model.parameters())
        self.title = (
            f"the {type(model).__name__} {recipe.path} ({count / 1e6:.1f} million parameters), trained before; "
            f"{self.map.describe()}"
        )

    def check(self, examples: Dataset) -> None:
        self.model.encoder.check(examples)

    def encode(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        encoded: dict[str, Tensor] = self.model.encode(examples)
        return encoded

    def forward(self, **inputs: Tensor) -> Any:
        return self.model(**inputs)

    def scores(self, output: Any) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.model.scores(output)
        return found

    def distribution(self, scores: Mapping[str, Tensor], lengths: Tensor) -> Any:
        distribution = self.model.distribution(scores, lengths)
        if self.same:
            return distribution
        if isinstance(self.model.annotation, TreeAnnotation):
            return self.map.relations(distribution, self.model.annotation.relations)
        # A span model scores types, and has no tags of its own.
        scheme = self.scheme if getattr(distribution, "labels", None) is not None else None
        return self.map.distribution(distribution, scheme)

    def decode(self, scores: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor]:
        decoded: dict[str, Tensor] = self.model.decode(scores, lengths)
        if self.same:
            return decoded
        own, translated = self.model.annotation, {}
        for column, values in decoded.items():
            result = values.clone()
            if column in ("labels", "relations"):
                for row, length in zip(result, lengths.tolist(), strict=True):
                    row[:length] = torch.tensor(self._translated(own, row[:length].tolist()))
            translated[column] = result
        return translated

    def _translated(self, own: Annotation, numbers: list[int]) -> list[int]:
        if isinstance(own, TreeAnnotation):
            return self.map.numbers(own.relations[number] for number in numbers)
        assert isinstance(own, TagAnnotation)
        tags = [own.labels[number] for number in numbers if number != UNLABELLED]
        if own.scheme is None:
            return self.map.numbers(tags)
        return self.map.labels_of_spans(spans(tags, own.scheme), len(tags))


def data_scheme(annotation: Annotation) -> str | None:
    """Return the tag scheme of the data, or None."""
    return annotation.scheme if isinstance(annotation, TagAnnotation) else None


def _loaded(path: str) -> tuple[StructuredModel, Any]:
    """Return the model, and plain data that change with its files.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: structkd did not write it, or its files are not as they were written.
    """
    try:
        folder = model_folder(path)
        model = load(folder)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"The teacher {path!r} cannot be loaded. {error}") from error
    except ValueError as error:
        raise ValueError(
            f"The teacher {path!r} cannot be loaded. {error} (A stock token classifier is read by "
            "teacher=token_classification.)"
        ) from error
    return model, folder_state(folder)
