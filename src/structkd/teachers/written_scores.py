"""Scores that another program wrote through :class:`structkd.training.ScoreWriter`, as a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from structkd.configurable import configurable
from structkd.data import UNLABELLED, Annotation, TagAnnotation, TreeAnnotation
from structkd.numbering import to_conllu
from structkd.tags import repair_tags, spans
from structkd.teachers.given import GivenModel, GivenTeacher, required_path
from structkd.teachers.label_map import LabelMap, read_scheme
from structkd.training import Coverage, Teacher, WrittenScores

__all__ = ["Scores"]


@configurable
class Scores(GivenTeacher):
    """The scores in a folder that a ``ScoreWriter`` wrote. Sentences are found by their words, which must be the same.

    Args:
        path: the folder.
        map: names of the data for labels, types or relations of the scores, null for outside; ``*`` is the rest.
        verify: compare every file with its sha256 before it is used.

    >>> from structkd.teachers import Scores
    >>> Scores("parser-scores").verify
    True
    """

    def __init__(
        self, path: str | None = None, map: Mapping[str, str | None] | None = None, verify: bool = True
    ) -> None:
        self.path = required_path(path, "scores")
        self.map, self.verify = map, verify

    def open(self, annotation: Annotation) -> GivenModel:
        """Open the store and compare its labels with those of the data; see :class:`GivenTeacher`."""
        return _Written(self, annotation, WrittenScores.open(self.path, verify=self.verify))


class _Written(GivenModel):
    """The scores by the words of their sentence."""

    runs = False

    def __init__(self, recipe: Scores, annotation: Annotation, store: WrittenScores) -> None:
        super().__init__(annotation)
        self.path, self.store = recipe.path, store
        self.score_axes = store.model.score_axes
        about = store.manifest.fingerprint
        structure, names = about["structure"], about["names"]
        who = f"the scores {recipe.path}"
        trees = isinstance(annotation, TreeAnnotation)
        if trees != ("arcs" in self.score_axes):
            raise ValueError(
                f"T{who[1:]} are of the structure {structure!r}, and the data are annotated otherwise "
                f"({annotation.description()}). Choose another task or teacher."
            )
        self.scheme: str | None = None
        own = names or []
        if structure in ("words", "chain") and isinstance(annotation, TagAnnotation) and annotation.types is not None:
            self.scheme, tags = read_scheme(own, None, who)
            if list(tags.values()) != own:
                raise ValueError(f"T{who[1:]} have labels in another spelling than B-PER: {', '.join(own[:9])}.")
            own = list(dict.fromkeys(tag[2:] for tag in own if tag != "O"))
        self.map = LabelMap.of(own, annotation, recipe.map, who)
        self.has_names = names is not None
        self.rows: dict[tuple[str, ...], int] = {}
        for row, words in enumerate(store.sentences):
            self.rows.setdefault(words, row)
        self.identity = store.manifest.plain()  # has the sha256 of every shard
        told = f" by {about['teacher']}" if about["teacher"] else ""
        self.title = (
            f"the scores {recipe.path}{told} ({structure}, {len(store):,} sentences, {store.manifest.dtype}); "
            f"{self.map.describe()}"
        )

    def encode(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        rows = [self._row(example) for example in examples]
        return {"lengths": self.store.lengths[rows], **self.store.batch(rows)}

    def _row(self, example: Mapping[str, Any]) -> int:
        row = self.rows.get(tuple(example["tokens"]))
        if row is None:
            raise ValueError(
                f"{self.path} has no scores of sentence {example.get('id')!r} ({' '.join(example['tokens'])[:60]!r}). "
                "Write them, or leave the sentence out; for labelled sentences lower student.labelled."
            )
        return row

    def forward(self, lengths: Tensor, **scores: Tensor) -> dict[str, Tensor]:
        """Return the scores as they are, and those that all sentences share."""
        return {**scores, **{name: value.to(lengths.device) for name, value in self.store.shared.items()}}

    def scores(self, output: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: output[name] for name in self.score_axes if name in output}

    def distribution(self, scores: Mapping[str, Tensor], lengths: Tensor) -> Any:
        distribution = self.store.model.distribution(scores, lengths)
        if isinstance(self.annotation, TreeAnnotation):
            same = not self.has_names or self.store.model.names == list(self.annotation.relations)
            return distribution if same else self.map.relations(distribution, self.store.model.names)
        return self.map.distribution(distribution, self.scheme)

    def decode(self, scores: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor]:
        """Return the best structure of the scores, in the labels of the data."""
        best = self.store.model.distribution(scores, lengths).decode()
        if isinstance(self.annotation, TreeAnnotation):
            padding = best < 0
            relations = torch.zeros_like(best)
            if self.has_names:
                numbers = torch.tensor(self.map.numbers(self.store.model.names), device=best.device)
                item, word = (~padding).nonzero(as_tuple=True)
                relations[item, word] = numbers[scores["relations"][item, best[item, word], word].argmax(-1)]
            heads = to_conllu(best)
            return {
                "heads": heads.masked_fill(padding, UNLABELLED),
                "relations": relations.masked_fill(padding, UNLABELLED),
            }
        labels = torch.full((len(lengths), int(lengths.max())), UNLABELLED)
        names = self.store.model.names
        for row, found, length in zip(labels, best, lengths.tolist(), strict=True):
            if self.store.model.structure == "spans":
                named = [(start, end, names[kind]) for start, end, kind in found]
                row[:length] = torch.tensor(self.map.labels_of_spans(named, length))
                continue
            tags = [names[number] for number in found[:length].tolist()]
            if self.scheme is None:
                row[:length] = torch.tensor(self.map.numbers(tags))
            else:
                legal = repair_tags(tags, self.scheme)[0]
                row[:length] = torch.tensor(self.map.labels_of_spans(spans(legal, self.scheme), length))
        return {"labels": labels.to(lengths.device)}

    def cover(self, text: Dataset) -> Coverage:
        rows = [row for row, tokens in enumerate(text["tokens"]) if tuple(tokens) in self.rows]
        if len(rows) == len(text):
            return Coverage()
        return Coverage(
            rows,
            [
                f"{self.path} has scores of {len(self.rows):,} sentences, {len(rows):,} of the {len(text):,} "
                "unlabelled ones among them; the others were left out."
            ],
        )

    def of_text(self, text: Dataset) -> Teacher:
        return _Selected(self, [self._row(example) for example in text])


class _Selected:
    """The scores of a training text, in place: a :class:`~structkd.training.Teacher`."""

    def __init__(self, model: _Written, rows: list[int]) -> None:
        self.model, self.rows = model, rows

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        return self.model.store.batch([self.rows[row] for row in rows])

    def distribution(self, batch: Mapping[str, Tensor], lengths: Tensor) -> Any:
        shared = {name: value.to(lengths.device) for name, value in self.model.store.shared.items()}
        with torch.autocast(lengths.device.type, enabled=False):
            return self.model.distribution({**batch, **shared}, lengths)
