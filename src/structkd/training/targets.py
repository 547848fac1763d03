"""What a frozen teacher says about a text, computed once and kept in the form of its scores.

The scores of a tagger are small (emissions [N, C] per sentence and one [C, C] per teacher) and give back its
distribution exactly, at any temperature; bigram marginals would take [N, C, C] per sentence and fix the temperature.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from structkd import LinearChainCRF, MaxEnt
from structkd.models import Tagger, tag_distribution

__all__ = ["TeacherTargets"]


class TeacherTargets:
    """The scores of one teacher for the sentences of one text.

    Args:
        labels: the teacher's tag inventory.
        emissions: float32 [words, C], all sentences one after the other.
        lengths: words of every sentence.
        shared: what does not depend on the sentence (a CRF's transitions, start and end).
    """

    def __init__(
        self, labels: Sequence[str], emissions: Tensor, lengths: Sequence[int], shared: dict[str, Tensor]
    ) -> None:
        if emissions.shape != (sum(lengths), len(labels)):
            raise ValueError(
                f"Expected emissions of {sum(lengths)} words and {len(labels)} labels, got {list(emissions.shape)}."
            )
        self.labels = list(labels)
        self.emissions = emissions
        self.lengths = torch.tensor(list(lengths), dtype=torch.long)
        self.shared = shared
        self._begin = self.lengths.cumsum(0) - self.lengths

    @classmethod
    def compute(
        cls, teacher: Tagger, sentences: Sequence[Sequence[str]], batch_size: int = 64, progress: bool = True
    ) -> TeacherTargets:
        """Run the teacher over tokenised sentences once, in evaluation mode and without gradients.

        Sentences of like length go through together; the teacher's mode is put back afterwards.
        """
        if teacher.features is None:
            raise ValueError("The teacher has no vocabulary and cannot read text: load it with from_pretrained.")
        lengths = [len(tokens) for tokens in sentences]
        begin = np.cumsum([0, *lengths])
        emissions = torch.empty(int(begin[-1]), len(teacher.config.labels))
        shared: dict[str, Tensor] = {}
        order = np.argsort(lengths, kind="stable")
        was_training = teacher.training
        teacher.eval()
        try:
            with (
                torch.no_grad(),
                tqdm(total=len(lengths), desc="teacher", unit="sentence", disable=None if progress else True) as bar,
            ):
                for cut in range(0, len(order), batch_size):
                    rows = order[cut : cut + batch_size]
                    batch = teacher.features.encode([sentences[row] for row in rows])
                    output = teacher(**{name: value.to(teacher.device) for name, value in batch.items()})
                    scores = {name: value.float().cpu() for name, value in teacher.scores(output).items()}
                    for row, padded in zip(rows, scores.pop("emissions"), strict=True):
                        emissions[begin[row] : begin[row + 1]] = padded[: lengths[row]]
                    shared = {name: value.clone() for name, value in scores.items()}
                    bar.update(len(rows))
        finally:
            teacher.train(was_training)
        return cls(teacher.config.labels, emissions, lengths, shared)

    def __len__(self) -> int:
        return len(self.lengths)

    def scores(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The padded scores of some sentences: ``emissions`` [B, N, C], 0 in the padding."""
        chosen = torch.as_tensor(rows)
        lengths = self.lengths[chosen]
        position = torch.arange(int(lengths.max()))
        inside = position < lengths.unsqueeze(1)
        cells = torch.where(inside, self._begin[chosen].unsqueeze(1) + position, 0)
        return {"emissions": self.emissions[cells].masked_fill(~inside.unsqueeze(-1), 0.0)}

    def distribution(self, scores: dict[str, Tensor], lengths: Tensor) -> LinearChainCRF | MaxEnt:
        """The teacher's distribution for a batch.

        Args:
            scores: :meth:`scores` of the batch, on any device.
            lengths: LongTensor [B].
        """
        device = scores["emissions"].device
        return tag_distribution(
            scores | {name: value.to(device) for name, value in self.shared.items()}, lengths, self.labels
        )
