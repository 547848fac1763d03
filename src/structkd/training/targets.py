"""Teachers' scores for the sentences of a text: held for all of it, or computed batch by batch."""

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

__all__ = ["LiveTargets", "MixtureTargets", "Shard", "Targets", "TeacherTargets", "sentence_lengths"]

Shard = Mapping[str, Tensor]
"""Some sentences' scores one after the other, [sum of N^a, ...] for a score with ``a`` axes of words, and ``lengths``,
[sentences], their words N."""


class Targets(Protocol):
    """What a training needs of its teacher or teachers."""

    def __len__(self) -> int:
        """Sentences of the text."""

    def scores(self, rows: Sequence[int]) -> Any:
        """What the teacher's distributions of some sentences are made of: padded tensors in dictionaries."""

    def distribution(self, scores: Any, lengths: Tensor) -> Any:
        """The distribution that the student learns from, out of the :meth:`scores` of a batch on any device."""


class TeacherTargets:
    """The scores of one teacher for the sentences of one text.

    Args:
        teacher: what the scores are of; its weights are of no use here any more.
        shards: the scores of the sentences, in order, in one or more parts.
        shared: the scores that do not depend on the sentence (a CRF's transitions, start and end).
    """

    def __init__(self, teacher: StructuredModel, shards: Sequence[Shard], shared: Mapping[str, Tensor]) -> None:
        self.teacher = teacher
        self.shards = list(shards)
        self.shared = dict(shared)
        lengths = [shard["lengths"].long() for shard in self.shards]
        self.lengths = torch.cat(lengths)
        self._shard = torch.arange(len(lengths)).repeat_interleave(torch.tensor([len(part) for part in lengths]))
        self._axes = {name: teacher.score_axes[name] for name in self.shards[0] if name != "lengths"}
        #: For every number of axes, where the cells of a sentence begin in its shard.
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
        cls, teacher: StructuredModel, text: Dataset, batch_size: int = 64, progress: bool = True
    ) -> TeacherTargets:
        """Run the teacher over a text once, in evaluation mode and without gradients.

        Sentences of like length go through together; the teacher's mode is put back afterwards.

        Args:
            teacher: a model with its features.
            text: the columns the teacher reads, ``tokens`` among them.
            batch_size: sentences at once.
            progress: show a bar (never where the output is not a terminal).
        """
        with teacher_bar(len(text), progress) as bar:
            shard, shared = run_teacher(teacher, text, batch_size, bar)
        return TeacherTargets(teacher, [shard], shared)

    def __len__(self) -> int:
        return len(self.lengths)

    def scores(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The padded scores of some sentences, as the teacher gave them; 0 in the padding."""
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

    def distribution(self, scores: Mapping[str, Tensor], lengths: Tensor) -> Any:
        """The teacher's distribution for a batch, in the scores' own precision.

        Args:
            scores: :meth:`scores` of the batch, on any device.
            lengths: LongTensor [B], on the same.
        """
        shared = {name: value.to(lengths.device) for name, value in self.shared.items()}
        with torch.autocast(lengths.device.type, enabled=False):
            return self.teacher.distribution({**scores, **shared}, lengths)


class LiveTargets:
    """A teacher that runs on every batch: nothing is stored, and every epoch costs what the first one does.

    Args:
        teacher: a model with its features. It stays in evaluation mode, and goes to the device of the batches.
        text: the columns the teacher reads, ``tokens`` among them.
    """

    def __init__(self, teacher: StructuredModel, text: Dataset) -> None:
        self.teacher = teacher.eval()
        self.text = text

    def __len__(self) -> int:
        return len(self.text)

    def scores(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The teacher's inputs for some sentences; they go to its device with the rest of the batch."""
        return self.teacher.encode(self.text.__getitems__(list(rows)))

    def distribution(self, scores: Mapping[str, Tensor], lengths: Tensor) -> Any:
        """The teacher's distribution for a batch, without gradients and in the teacher's own precision.

        Args:
            scores: :meth:`scores` of the batch, on any device.
            lengths: LongTensor [B], on the same.
        """
        if self.teacher.device != lengths.device:
            self.teacher.to(lengths.device)
        with torch.no_grad(), torch.autocast(lengths.device.type, enabled=False):
            return self.teacher.distribution(_plain_scores(self.teacher, scores), lengths)


class MixtureTargets:
    """The scores of several teachers for one text; a student learns from the weighted average of their marginals.

    Args:
        targets: of each teacher, for the same sentences.
        weights: of each teacher, positive; they are normalised.
    """

    def __init__(self, targets: Sequence[Targets], weights: Sequence[float]) -> None:
        sizes = {len(each) for each in targets}
        if len(sizes) != 1 or len(targets) != len(weights):
            raise ValueError(
                f"Every teacher needs scores for the same sentences and a weight; got {len(weights)} weights and "
                f"teachers with {', '.join(str(len(each)) for each in targets)} sentences."
            )
        if not all(weight > 0 for weight in weights):
            raise ValueError(f"The weights of teachers must be positive, got {list(weights)}.")
        self.targets = list(targets)
        self.weights = [weight / sum(weights) for weight in weights]

    def __len__(self) -> int:
        return len(self.targets[0])

    def scores(self, rows: Sequence[int]) -> dict[str, Any]:
        """Every teacher's scores of some sentences, by the teacher's number."""
        return {str(number): targets.scores(rows) for number, targets in enumerate(self.targets)}

    def distribution(self, scores: Mapping[str, Any], lengths: Tensor) -> Mixture:
        """The teachers' distributions for a batch as one; see :meth:`TeacherTargets.distribution`."""
        components = [targets.distribution(scores[str(number)], lengths) for number, targets in enumerate(self.targets)]
        return Mixture(components, weights=self.weights)


def sentence_lengths(text: Dataset) -> np.ndarray:
    """Words of every sentence, int64 [sentences]; the text itself is never in memory as a whole."""
    batches = text.select_columns("tokens").with_format("arrow").iter(batch_size=10_000)
    sizes = [pc.list_value_length(batch["tokens"]).to_numpy() for batch in batches]
    return np.concatenate([*sizes, np.empty(0, int)]).astype(np.int64)


def teacher_bar(sentences: int, progress: bool, initial: int = 0) -> tqdm:
    """A bar over sentences; never where the output is not a terminal."""
    disable = None if progress else True
    return tqdm(total=sentences, initial=initial, desc="teacher", unit="sentence", dynamic_ncols=True, disable=disable)


def run_teacher(
    teacher: StructuredModel, text: Dataset, batch_size: int = 64, bar: tqdm | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The teacher's scores for a text as one :data:`Shard`, and those that do not depend on the sentence.

    Which sentences share a batch depends on the text alone, so the same text gives the same bits. See
    :meth:`TeacherTargets.compute`.
    """
    lengths = sentence_lengths(text)
    begin = {axes: np.cumsum([0, *lengths**axes]) for axes in set(teacher.score_axes.values()) - {0}}
    shard: dict[str, Tensor] = {"lengths": torch.from_numpy(lengths.astype(np.int32))}
    shared: dict[str, Tensor] = {}
    order = list(SortedSampler(lengths.tolist()))
    was_training = teacher.training
    teacher.eval()
    try:
        for cut in range(0, len(order), batch_size):
            rows = order[cut : cut + batch_size]
            inputs = teacher.encode(text.__getitems__(rows))
            with torch.no_grad():
                scores = _plain_scores(teacher, {name: value.to(teacher.device) for name, value in inputs.items()})
            for name, value in scores.items():
                value, axes = value.cpu(), teacher.score_axes[name]
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
        teacher.train(was_training)
    return shard, shared


def _plain_scores(teacher: StructuredModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The teacher's scores of a batch, real numbers in float32; its own parameters take no gradient either."""
    scores = {name: value.detach() for name, value in teacher.scores(teacher(**inputs)).items()}
    return {name: value.float() if value.is_floating_point() else value for name, value in scores.items()}


def _inside(lengths: Tensor, axes: int) -> Tensor:
    """BoolTensor [B, N, ..., N] with ``axes`` axes of words: the cells inside their sentence."""
    inside = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    result = inside
    for _ in range(axes - 1):
        result = result.unsqueeze(-1) & inside.view(len(lengths), *[1] * (result.dim() - 1), -1)
    return result
