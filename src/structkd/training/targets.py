"""What a frozen teacher says about a text, computed once and kept in the form of its scores.

The scores of a model are small (a CRF's emissions [N, C] per sentence and one [C, C] per teacher, a parser's arcs
[N, N]) and give back its distribution exactly, at any temperature; bigram marginals would take [N, C, C] per sentence
and fix the temperature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm

from structkd import Mixture
from structkd.models import StructuredModel
from structkd.training.sampling import SortedSampler

__all__ = ["MixtureTargets", "Targets", "TeacherTargets"]


class Targets(Protocol):
    """What a training needs of its teacher or teachers."""

    def __len__(self) -> int:
        """Sentences of the text."""

    def scores(self, rows: Sequence[int]) -> Any:
        """The padded scores of some sentences: tensors in dictionaries."""

    def distribution(self, scores: Any, lengths: Tensor) -> Any:
        """The distribution that the student learns from, out of the :meth:`scores` of a batch on any device."""


class TeacherTargets:
    """The scores of one teacher for the sentences of one text.

    Args:
        teacher: what the scores are of; its weights are of no use here any more.
        lengths: words of every sentence, N.
        scores: the scores of every sentence one after the other, [sum of N^a, ...] for a score with ``a`` axes of
            words.
        shared: the scores that do not depend on the sentence (a CRF's transitions, start and end).
    """

    def __init__(
        self, teacher: StructuredModel, lengths: Sequence[int], scores: dict[str, Tensor], shared: dict[str, Tensor]
    ) -> None:
        self.teacher = teacher
        self.lengths = torch.tensor(list(lengths), dtype=torch.long)
        for name, cells in scores.items():
            expected = int((self.lengths ** teacher.score_axes[name]).sum())
            if len(cells) != expected:
                raise ValueError(f"Expected {name} of {expected} cells for {len(lengths)} sentences, got {len(cells)}.")
        self.sentence_scores = scores
        self.shared = shared

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
        lengths = np.array([len(tokens) for tokens in text["tokens"]])
        begin = {axes: np.cumsum([0, *lengths**axes]) for axes in set(teacher.score_axes.values()) - {0}}
        scores: dict[str, Tensor] = {}
        shared: dict[str, Tensor] = {}
        order = list(SortedSampler(lengths.tolist()))
        was_training = teacher.training
        teacher.eval()
        try:
            with (
                torch.no_grad(),
                tqdm(total=len(lengths), desc="teacher", unit="sentence", disable=None if progress else True) as bar,
            ):
                for cut in range(0, len(order), batch_size):
                    rows = order[cut : cut + batch_size]
                    batch = teacher.encode([text[row] for row in rows])
                    output = teacher(**{name: value.to(teacher.device) for name, value in batch.items()})
                    for name, value in teacher.scores(output).items():
                        value = value.float().cpu() if value.is_floating_point() else value.cpu()
                        axes = teacher.score_axes[name]
                        if axes == 0:
                            shared[name] = value.clone()
                            continue
                        if name not in scores:
                            scores[name] = value.new_empty(int(begin[axes][-1]), *value.shape[1 + axes :])
                        for row, padded in zip(rows, value, strict=True):
                            inside = padded[(slice(int(lengths[row])),) * axes]
                            scores[name][begin[axes][row] : begin[axes][row + 1]] = inside.flatten(0, axes - 1)
                    bar.update(len(rows))
        finally:
            teacher.train(was_training)
        return cls(teacher, lengths.tolist(), scores, shared)

    def __len__(self) -> int:
        return len(self.lengths)

    def scores(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The padded scores of some sentences, as the teacher gave them; 0 in the padding."""
        chosen = torch.as_tensor(rows)
        padded = {}
        for name, cells in self.sentence_scores.items():
            index, inside = self._cells(chosen, self.teacher.score_axes[name])
            missing = ~inside.view(*inside.shape, *[1] * (cells.dim() - 1))
            padded[name] = cells[index].masked_fill_(missing, 0)
        return padded

    def _cells(self, rows: Tensor, axes: int) -> tuple[Tensor, Tensor]:
        """Where the cells [B, N, ..., N] of some sentences lie, and which are inside their sentence."""
        size = self.lengths**axes
        lengths = self.lengths[rows].view(-1, *[1] * axes)
        position = torch.arange(int(lengths.max()))
        index, inside = torch.zeros_like(lengths), torch.ones_like(lengths, dtype=torch.bool)
        for axis in range(axes):
            along = position.view(*[-1 if other == axis else 1 for other in range(axes)])
            index = index * lengths + along
            inside = inside & (along < lengths)
        begin = (size.cumsum(0) - size)[rows].view(-1, *[1] * axes)
        return torch.where(inside, index + begin, 0), inside

    def distribution(self, scores: Mapping[str, Tensor], lengths: Tensor) -> Any:
        """The teacher's distribution for a batch.

        Args:
            scores: :meth:`scores` of the batch, on any device.
            lengths: LongTensor [B], on the same.
        """
        shared = {name: value.to(lengths.device) for name, value in self.shared.items()}
        return self.teacher.distribution({**scores, **shared}, lengths)


class MixtureTargets:
    """The scores of several teachers for one text; a student learns from the weighted average of their marginals.

    Args:
        targets: of each teacher, for the same sentences.
        weights: of each teacher, positive; they are normalised.
    """

    def __init__(self, targets: Sequence[TeacherTargets], weights: Sequence[float]) -> None:
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

    def scores(self, rows: Sequence[int]) -> dict[str, dict[str, Tensor]]:
        """Every teacher's scores of some sentences, by the teacher's number."""
        return {str(number): targets.scores(rows) for number, targets in enumerate(self.targets)}

    def distribution(self, scores: Mapping[str, Mapping[str, Tensor]], lengths: Tensor) -> Mixture:
        """The teachers' distributions for a batch as one; see :meth:`TeacherTargets.distribution`."""
        components = [targets.distribution(scores[str(number)], lengths) for number, targets in enumerate(self.targets)]
        return Mixture(components, weights=self.weights)
