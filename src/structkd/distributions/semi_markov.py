"""Semi-Markov chains of labelled segments (Sarawagi and Cohen, 2004), in torch-struct's parametrization."""

from __future__ import annotations

from typing import Any

import torch
import torch_struct
from torch import Tensor

from ..numbering import NOWHERE, UNLABELLED
from .base import Parts, StructuredDistribution, adopts
from .checks import check_labels, check_scores
from .faults import NOT_ONE_STRUCTURE, Faults
from .kernels.arithmetic import NEG_INF, working_precision
from .semirings import Log

BOUNDARIES = (
    "is no segmentation of the sentence. The first and the last word begin a segment, and a segment has fewer than K "
    "words"
)


class SemiMarkovCRF(StructuredDistribution, torch_struct.SemiMarkovCRF):
    """A distribution over segmentations in which every segment has a label that depends on the one before.

    Args:
        log_potentials: [B, N-1, K, C, C]; cell [b, n, k, j, i] scores a segment of label i that has the k words from
            word n on and is followed by a segment of label j, 1 <= k < K (torch-struct's parametrization; k = 0 is not
            read). The last word of a sentence is a segment of its own.
        lengths: LongTensor [B], words per sentence, 1..N; None means N for all.
        validate_args: check values (NaN, +inf); None means torch.distributions' default.

    `marginals` have the shape of the scores. `decode()` gives LongTensor [B, N]: the label of a segment at its first
    word, and -1 elsewhere; in gold structures, -100 is a word of which nothing is known. A sentence of one word has no
    cell and is uniform. Costs O(N K C^2).
    Raises TypeError or ValueError for a wrong kind, shape, length or value.

    Example:
        >>> import torch
        >>> scores = torch.zeros(1, 2, 3, 2, 2)
        >>> scores[0, 0, 2, 0, 1] = 5.0  # words 0 and 1 have label 1, and word 2 has label 0
        >>> SemiMarkovCRF(scores).decode().tolist()
        [[1, -1, 0]]
    """

    structures_are = "segments"

    def __init__(
        self, log_potentials: Tensor, lengths: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        check_scores("log_potentials", log_potentials, ("B", "N-1", "K", "C", "C"))
        _, words, longest, size, other = log_potentials.shape
        if size != other or size < 1 or longest < 2:
            raise ValueError(
                "The log_potentials must have shape [B, N-1, K, C, C] with K >= 2 and C >= 1, got "
                f"{list(log_potentials.shape)}."
            )
        self.log_potentials = log_potentials
        super().__init__(log_potentials, words + 1, log_potentials.shape[1:], lengths, validate_args)
        self.check_values("log_potentials", log_potentials, self.event_mask)

    @property
    def words(self) -> int:
        return self.event_shape[0] + 1

    def event_mask(self) -> Tensor:
        start = torch.arange(self.words - 1, device=self.lengths.device).view(-1, 1)
        size = torch.arange(self.event_shape[1], device=self.lengths.device)
        inside = (size > 0) & (start + size < self.lengths.view(-1, 1, 1))
        return inside[..., None, None]

    # Parts are (segments [B, N-1, K, C, C]; labels of the first segment [B, C], always scored 0).

    def parts(self) -> Parts:
        scores = self.log_potentials.to(working_precision(self.log_potentials))
        segments = torch.where(self.event_mask(), scores, NEG_INF)
        return segments, segments.new_zeros(*self.batch_shape, self.event_shape[-1])

    def inside(self, semiring: Log, parts: Parts, lengths: Tensor) -> Tensor:
        segments, first = parts
        longest = segments.shape[2]
        forward = [semiring.lift(first)]  # of the segment that begins at each word, by its label
        for word in range(1, segments.shape[1] + 1):
            reached = [
                semiring.sum(forward[word - size].unsqueeze(-2) + segments[:, word - size, size])
                for size in range(1, min(longest, word + 1))
            ]
            forward.append(semiring.sum(torch.stack(reached, -1)))
        last = torch.stack(forward, -1)  # [..., B, C, N]
        index = (lengths - 1).view(-1, 1, 1).expand(*last.shape[:-1], 1)
        return semiring.sum(torch.take_along_dim(last, index, -1).squeeze(-1))

    def _indicators_of_event(self, event: Tensor) -> Parts:
        return event, event.new_zeros(*self.batch_shape, self.event_shape[-1])

    def parts_of_event(self, marginals: Tensor) -> Parts:
        return self._indicators_of_event(self._in_sentence(marginals).to(working_precision(marginals)))

    def structure_of_parts(self, parts: Parts) -> Tensor:
        segments, first = parts
        labels = torch.full((*self.batch_shape, self.words), NOWHERE, device=self.lengths.device)
        labels[:, 0] = first.argmax(-1)
        item, start, size, following, label = segments.nonzero().T
        labels[item, start] = label
        labels[item, start + size] = following
        return labels

    def read_structure(self, structure: Any) -> tuple[Tensor, Faults]:
        mask, longest = self.word_mask, self.event_shape[1]
        fits = isinstance(structure, Tensor) and structure.shape == mask.shape
        begun = mask & (structure != NOWHERE) if fits else mask
        labels = check_labels(structure, begun, self.event_shape[-1])
        item, start = begun.nonzero().T
        size = torch.diff(start, append=start[:1])
        wrong = ~begun[:, 0] | ~begun.gather(1, (self.lengths - 1).unsqueeze(1)).squeeze(1)
        same = torch.diff(item, append=item[-1:] + 1) == 0
        wrong[item[same & (size >= longest)]] = True
        return labels.masked_fill(~begun, NOWHERE), {BOUNDARIES: wrong}

    def constrained(self, parts: Parts, structure: Tensor) -> Parts:
        segments, first = parts
        known, words = self.word_mask & (structure != UNLABELLED), self.words
        index = torch.arange(self.event_shape[-1], device=structure.device)
        others = known.unsqueeze(-1) & (structure.unsqueeze(-1) != index)  # labels that no segment begins with here
        start = torch.arange(words - 1, device=structure.device).unsqueeze(1)
        end = (start + torch.arange(self.event_shape[1], device=structure.device)).clamp_max(words - 1)
        begun = (known & (structure >= 0)).cumsum(1)
        within = begun[:, (end - 1).clamp_min(0)] > begun[:, :-1].unsqueeze(2)  # a segment begins inside
        wrong = others[:, :-1, None, None, :] | others[:, end].unsqueeze(-1) | within[..., None, None]
        alone = (self.lengths == 1).unsqueeze(1) & others[:, 0]
        return segments.masked_fill(wrong, NEG_INF), first.masked_fill(alone, NEG_INF)

    def parts_of_structure(self, structure: Tensor) -> Parts:
        begun = self.word_mask & (structure >= 0)
        item, start = begun.nonzero().T
        label = structure[item, start].long()
        pair = (item[1:] == item[:-1]).nonzero().flatten()
        size = start[pair + 1] - start[pair]
        dtype = working_precision(self.log_potentials)
        segments = torch.zeros(*self.batch_shape, *self.event_shape, dtype=dtype, device=structure.device)
        segments[item[pair], start[pair], size, label[pair + 1], label[pair]] = 1.0
        first = torch.nn.functional.one_hot(structure[:, 0].long().clamp_min(0), self.event_shape[-1]).to(dtype)
        return segments, first

    def faults_of_event(self, event: Tensor, as_gold: bool = False) -> Faults:
        event = self._in_sentence(event)
        strange = ((event != 0) & (event != 1)).flatten(1).any(1)
        item, start, size, following, label = event.nonzero().T
        shape = (*self.batch_shape, self.words)
        begins, ends = (torch.zeros(shape, dtype=torch.long, device=event.device) for _ in range(2))
        before, after = (torch.full(shape, NOWHERE, device=event.device) for _ in range(2))
        begins.index_put_((item, start), torch.ones_like(item), accumulate=True)
        ends.index_put_((item, start + size), torch.ones_like(item), accumulate=True)
        after[item, start], before[item, start + size] = label, following
        position = torch.arange(self.words, device=event.device)
        last = (self.lengths - 1).unsqueeze(1)
        # one segment begins at the first word, and where one ends the next begins with the label that was announced
        wrong = (begins != torch.where(position == 0, 1, ends)) & (position < last)
        wrong |= (ends != 1) & (position == last) & (position > 0)
        wrong |= (begins > 1) | ((before >= 0) & (before != after) & (position < last))
        return {NOT_ONE_STRUCTURE: strange | (wrong & self.word_mask).any(1)}

    def placeholder_event(self) -> Tensor:
        event = torch.zeros(self.event_shape, dtype=torch.bool, device=self.lengths.device)
        event[:, 1, 0, 0] = True
        return event

    def segments(self) -> tuple[Tensor, Tensor]:
        """Return P(segment), [B, N, K, C], of the segments that begin at each word by their sizes and labels, and the
        label marginals of the last word, [B, N, C], both in working precision and 0 elsewhere.
        """
        event, first = self.expected_parts()
        batch, words, size = len(first), self.words, self.event_shape[-1]
        segments = torch.nn.functional.pad(event.sum(3), (0, 0, 0, 0, 0, 1))
        last = event.new_zeros(batch, words, size)
        for k in range(1, min(self.event_shape[1], words)):
            last[:, k:] += event[:, : words - k, k].sum(-1)
        final = torch.arange(words, device=first.device) == (self.lengths - 1).unsqueeze(1)
        last[:, 0] = first
        return segments, last * final.unsqueeze(-1)


@adopts(torch_struct.SemiMarkovCRF, SemiMarkovCRF)
def _adopt(foreign: torch_struct.SemiMarkovCRF) -> SemiMarkovCRF:
    return SemiMarkovCRF(foreign.log_potentials, foreign.lengths)
