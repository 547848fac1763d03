"""Teachers as a training sees them: scores in memory, a model that runs on every batch, or several of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm

from structkd import Mixture
from structkd.models import StructuredModel
from structkd.training.sampling import SortedSampler

__all__ = ["LiveTeacher", "Shard", "Teacher", "TeacherMixture", "TeacherScores", "sentence_lengths"]

Shard = Mapping[str, Tensor]
"""The scores of some sentences, one sentence after the other: [sum of N^a, ...] for a score with ``a`` axes of words.
``lengths``, [sentences], are the sentences' words N."""


class Teacher(Protocol):
    """The interface of a teacher, or of several, to a training: a distribution for every sentence of its text."""

    def __len__(self) -> int:
        """Return the number of sentences of the text."""

    def batch(self, rows: Sequence[int]) -> Any:
        """Return the input of :meth:`distribution` for some sentences: dictionaries of padded tensors on the CPU."""

    def distribution(self, batch: Any, lengths: Tensor) -> Any:
        """Return the distribution that the student learns from.

        Args:
            batch: from :meth:`batch`, on any device.
            lengths: words of the sentences, LongTensor [B], on the same device.
        """


class TeacherScores:
    """The scores of one teacher for the sentences of one text.

    Args:
        model: the teacher. Only its configuration is used: the weights have done their work.
        shards: the scores of the sentences, in order, in one or more parts.
        shared: the scores that do not depend on the sentence (a CRF's transitions, start and end).
    """

    def __init__(self, model: Any, shards: Sequence[Shard], shared: Mapping[str, Tensor]) -> None:
        self.model = model
        self.shards = list(shards)
        self.shared = dict(shared)
        lengths = [shard["lengths"].long() for shard in self.shards]
        self.lengths = torch.cat(lengths)
        self._shard = torch.arange(len(lengths)).repeat_interleave(torch.tensor([len(part) for part in lengths]))
        self._axes = {name: model.score_axes[name] for name in self.shards[0] if name != "lengths"}
        #: By number of axes: the first cell of every sentence in its shard.
        self._begin = {
            axes: torch.cat([(part**axes).cumsum(0) - part**axes for part in lengths])
            for axes in set(self._axes.values())
        }
        for shard, part in zip(self.shards, lengths, strict=True):
            for name, axes in self._axes.items():
                expected = int((part**axes).sum())
                if len(shard[name]) != expected:
                    raise ValueError(
                        f"Expected {name} of {expected} cells for {len(part)} sentences, got {len(shard[name])}."
                    )

    @classmethod
    def compute(
        cls, model: StructuredModel, text: Dataset, batch_size: int = 64, progress: bool = True
    ) -> TeacherScores:
        """Run the teacher over a text once, in evaluation mode and without gradients.

        Sentences of similar length share a batch. The model's mode is restored afterwards.

        Args:
            model: the teacher, with its features.
            text: the columns that the teacher reads, ``tokens`` among them.
            batch_size: sentences in a batch.
            progress: show a bar, if the output is a terminal.

        >>> from structkd.data import load_toy
        >>> from structkd.models import BiLSTMRecipe, TaggerRecipe
        >>> corpus = load_toy()
        >>> text = corpus.splits["dev"]
        >>> recipe = TaggerRecipe(encoder=BiLSTMRecipe(word_size=8, hidden_size=8))
        >>> model = recipe.create(corpus.annotation, text, text)  # a teacher that is not trained yet
        >>> teacher = TeacherScores.compute(model, text)
        >>> teacher.distribution(teacher.batch([0, 1]), teacher.lengths[:2]).batch_shape
        torch.Size([2])
        """
        with teacher_bar(len(text), progress) as bar:
            shard, shared = run_teacher(model, text, batch_size, bar)
        return TeacherScores(model, [shard], shared)

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return the padded scores of some sentences, in float32 or more; 0 in the padding."""
        chosen = torch.as_tensor(rows)
        lengths = self.lengths[chosen]
        shards = [self.shards[number] for number in self._shard[chosen].tolist()]
        scores = {}
        for name, axes in self._axes.items():
            begin = self._begin[axes][chosen]
            spans = zip(shards, begin.tolist(), (begin + lengths**axes).tolist(), strict=True)
            cells = torch.cat([shard[name][first:end] for shard, first, end in spans])
            if cells.is_floating_point():
                cells = cells.to(torch.promote_types(cells.dtype, torch.float32))
            inside = _inside(lengths, axes)
            scores[name] = cells.new_zeros(*inside.shape, *cells.shape[1:])
            scores[name][inside] = cells
        return scores

    def distribution(self, batch: Mapping[str, Tensor], lengths: Tensor) -> Any:
        """Return the teacher's distribution for a batch, in the precision of the scores; see :class:`Teacher`."""
        shared = {name: value.to(lengths.device) for name, value in self.shared.items()}
        with torch.autocast(lengths.device.type, enabled=False):
            return self.model.distribution({**batch, **shared}, lengths)


class LiveTeacher:
    """A teacher that runs on every batch: nothing is stored, and every epoch costs as much as the first.

    Args:
        model: the teacher, with its features. It stays in evaluation mode and moves to the device of the batches.
        text: the columns that the teacher reads, ``tokens`` among them.
    """

    def __init__(self, model: StructuredModel, text: Dataset) -> None:
        self.model = model.eval()
        self.text = text

    def __len__(self) -> int:
        return len(self.text)

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return the teacher's inputs for some sentences."""
        inputs: dict[str, Tensor] = self.model.encode(self.text.__getitems__(list(rows)))
        return inputs

    def distribution(self, batch: Mapping[str, Tensor], lengths: Tensor) -> Any:
        """Return the teacher's distribution for a batch, without gradients and in its own precision.

        See :class:`Teacher`.
        """
        if self.model.device != lengths.device:
            self.model.to(lengths.device)
        with torch.no_grad(), torch.autocast(lengths.device.type, enabled=False):
            return self.model.distribution(_detached_scores(self.model, batch), lengths)


class TeacherMixture:
    """Several teachers of one text; a student learns from the weighted average of their marginals.

    Args:
        teachers: for the same sentences.
        weights: of each teacher, positive; they are normalized.
    """

    def __init__(self, teachers: Sequence[Teacher], weights: Sequence[float]) -> None:
        sizes = [len(teacher) for teacher in teachers]
        if len(set(sizes)) != 1 or len(teachers) != len(weights):
            raise ValueError(
                f"The teachers have {', '.join(map(str, sizes))} sentences and {len(weights)} weights; expected the "
                "same sentences and one weight for each."
            )
        if not all(weight > 0 for weight in weights):
            raise ValueError(f"The weights of teachers must be positive, got {list(weights)}.")
        self.teachers = list(teachers)
        self.weights = [weight / sum(weights) for weight in weights]

    def __len__(self) -> int:
        return len(self.teachers[0])

    def batch(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return the batches of all teachers, by the teacher's number."""
        return {str(number): teacher.batch(rows) for number, teacher in enumerate(self.teachers)}

    def distribution(self, batch: Mapping[str, Any], lengths: Tensor) -> Mixture:
        """Return the mixture of the teachers' distributions for a batch; see :class:`Teacher`."""
        components = [teacher.distribution(batch[str(number)], lengths) for number, teacher in enumerate(self.teachers)]
        return Mixture(components, weights=self.weights)


def sentence_lengths(text: Dataset) -> np.ndarray:
    """Return the words of every sentence, int64 [sentences], without loading the whole text."""
    batches = text.select_columns("tokens").with_format("arrow").iter(batch_size=10_000)
    sizes = [pc.list_value_length(batch["tokens"]).to_numpy() for batch in batches]
    return np.concatenate([*sizes, np.empty(0, int)]).astype(np.int64)


def teacher_bar(sentences: int, progress: bool, initial: int = 0) -> tqdm:
    """Return a bar over sentences, which shows itself only on a terminal."""
    disable = None if progress else True
    return tqdm(total=sentences, initial=initial, desc="teacher", unit="sentence", dynamic_ncols=True, disable=disable)


def run_teacher(
    model: StructuredModel, text: Dataset, batch_size: int = 64, bar: tqdm | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return a teacher's scores for a text as one :data:`Shard`, and the scores that do not depend on the sentence.

    Which sentences share a batch depends on the text alone, so the same text gives the same bits. See
    :meth:`TeacherScores.compute`.
    """
    lengths = sentence_lengths(text)
    begin = {axes: np.cumsum([0, *lengths**axes]) for axes in set(model.score_axes.values()) - {0}}
    shard: dict[str, Tensor] = {"lengths": torch.from_numpy(lengths.astype(np.int32))}
    shared: dict[str, Tensor] = {}
    order = list(SortedSampler(lengths.tolist()))
    was_training = model.training
    model.eval()
    try:
        for cut in range(0, len(order), batch_size):
            rows = order[cut : cut + batch_size]
            inputs = model.encode(text.__getitems__(rows))
            with torch.no_grad():
                scores = _detached_scores(model, {name: value.to(model.device) for name, value in inputs.items()})
            for name, value in scores.items():
                value, axes = value.cpu(), model.score_axes[name]
                if axes == 0:
                    shared[name] = value.clone()
                    continue
                if name not in shard:
                    shard[name] = value.new_empty(int(begin[axes][-1]), *value.shape[1 + axes :])
                for row, padded in zip(rows, value, strict=True):
                    inside = padded[(slice(int(lengths[row])),) * axes]
                    shard[name][begin[axes][row] : begin[axes][row + 1]] = inside.flatten(0, axes - 1)
            if bar is not None:
                bar.update(len(rows))
    finally:
        model.train(was_training)
    return shard, shared


def _detached_scores(model: StructuredModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a model's scores of a batch, real numbers in float32, without gradients to its parameters."""
    scores = {name: value.detach() for name, value in model.scores(model(**inputs)).items()}
    return {name: value.float() if value.is_floating_point() else value for name, value in scores.items()}


def _inside(lengths: Tensor, axes: int) -> Tensor:
    """Return which cells lie inside their sentence, BoolTensor [B, N, ..., N] with ``axes`` axes of words."""
    inside = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    result = inside
    for _ in range(axes - 1):
        result = result.unsqueeze(-1) & inside.view(len(lengths), *[1] * (result.dim() - 1), -1)
    return result
