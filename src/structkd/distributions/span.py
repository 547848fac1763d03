"""Flat typed spans: segmental semi-Markov models without labels between spans (Sarawagi and Cohen, 2004)."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .base import Parts, StructuredDistribution
from .checks import check_inventory, check_scores
from .faults import OVERLAP, STRANGE_SPANS, Faults, set_cells, strange_values
from .kernels.arithmetic import NEG_INF, working_precision
from .kernels.spans import expectations as span_expectations
from .semirings import Log


class Span(NamedTuple):
    """Words start..end (inclusive, 0-based) bear entity type number `type`.

    Example:
        >>> span = Span(start=1, end=2, type=0)
        >>> span.end - span.start + 1  # words
        2
    """

    start: int
    end: int
    type: int


class SpanCRF(StructuredDistribution):
    """A distribution over sets of typed spans that do not overlap.

    Args:
        log_potentials: [B, N, N, L]; cell [b, i, j, l], i <= j inclusive, is the log-odds of words i..j being a span of
            type l against no span. Cells with j < i are ignored.
        lengths: LongTensor [B], words per sentence, 1..N; None means N for all.
        types: the entity types in score order, L strings.
        validate_args: check values (NaN, +inf); None means torch.distributions' default.

    A structure scores the sum of its spans; the empty set scores 0, so there always is one. `marginals` have the
    shape of the scores, `decode()` gives, for every sentence, its spans `(start, end, type index)` from left to right.
    Costs O(N^2 L). Raises TypeError or ValueError for a wrong kind, shape, length, inventory or value.

    Example:
        >>> import torch
        >>> scores = torch.full((1, 3, 3, 1), -1.0)
        >>> scores[0, 0, 1, 0] = 2.0
        >>> SpanCRF(scores, types=["PER"]).decode()
        [[Span(start=0, end=1, type=0)]]
    """

    def __init__(
        self,
        log_potentials: Tensor,
        lengths: Tensor | None = None,
        types: Sequence[str] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        check_scores("log_potentials", log_potentials, ("B", "N", "N", "L"))
        _, words, ends, size = log_potentials.shape
        if words != ends or size < 1:
            raise ValueError(
                f"The log_potentials must have shape [B, N, N, L] with L >= 1, got {list(log_potentials.shape)}."
            )
        self.types = check_inventory("types", types, size)
        self.log_potentials = log_potentials
        super().__init__(log_potentials, words, (words, words, size), lengths, validate_args)
        self.check_values("log_potentials", log_potentials, self.event_mask)

    structures_are = "spans"

    def event_mask(self) -> Tensor:
        inside = self.word_mask
        forward = torch.ones(self.words, self.words, dtype=torch.bool, device=inside.device).triu()
        return (inside.unsqueeze(2) & inside.unsqueeze(1) & forward).unsqueeze(-1)

    # Parts are (spans [B, N, N, L], words outside any span [B, N], always scored 0).

    def parts(self) -> Parts:
        scores = self.log_potentials.to(working_precision(self.log_potentials))
        spans = torch.where(self.event_mask(), scores, NEG_INF)
        return spans, spans.new_zeros(*self.batch_shape, self.words)

    def inside(self, semiring: Log, parts: Parts, lengths: Tensor) -> Tensor:
        spans, outside = parts
        untyped = semiring.sum(semiring.lift(spans))
        # prefix[..., e]: the first e words
        prefix = semiring.lift(torch.zeros_like(outside[:, :1]))
        for end in range(spans.shape[1]):
            alone = (prefix[..., -1] + outside[:, end]).unsqueeze(-1)
            closed = semiring.times(prefix, untyped[..., : end + 1, end])
            prefix = torch.cat([prefix, semiring.sum(torch.cat([closed, alone], -1)).unsqueeze(-1)], -1)
        index = lengths.unsqueeze(-1).expand(*prefix.shape[:-1], 1)
        return torch.take_along_dim(prefix, index, -1).squeeze(-1)

    def expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        if torch.is_grad_enabled() and any(p.requires_grad for p in parts):
            return super().expectations(parts)
        value, marginals, alone = span_expectations(parts[0].detach(), self.lengths)
        return value, (marginals, alone)

    def structure_of_parts(self, parts: Parts) -> list[list[Span]]:
        spans: list[list[Span]] = [[] for _ in range(self.batch_shape[0])]
        for item, start, end, kind in parts[0].nonzero().tolist():
            spans[item].append(Span(start, end, kind))
        return spans

    def placeholder_event(self) -> Tensor:
        return torch.zeros(self.event_shape, dtype=torch.bool, device=self._device)

    def faults_of_event(self, event: Tensor, as_gold: bool = False) -> Faults:
        cells = set_cells(event, self.word_mask, (1, 2))
        cells = cells[cells[:, 1] <= cells[:, 2]]
        return {STRANGE_SPANS: strange_values(event, cells), OVERLAP: self._overlap(cells)}

    def _overlap(self, cells: Tensor) -> Tensor:
        """Return whether spans given by their cells, LongTensor [M, 4], overlap, BoolTensor [B]."""
        ends = torch.zeros(*self.batch_shape, self.words + 1, dtype=torch.long, device=cells.device)
        one = torch.ones_like(cells[:, 0])
        ends.index_put_((cells[:, 0], cells[:, 1]), one, accumulate=True)
        ends.index_put_((cells[:, 0], cells[:, 2] + 1), -one, accumulate=True)
        return (ends.cumsum(1) > 1).any(1)

    @staticmethod
    def _covering(spans: Tensor) -> Tensor:
        """Count the spans of an event [B, N, N, L] that cover each word, [B, N]."""
        started, ended = spans.sum((2, 3)).cumsum(1), spans.sum((1, 3)).cumsum(1)
        return started - nn.functional.pad(ended[:, :-1], (1, 0))

    def _is_compact(self, value: Any) -> bool:
        return isinstance(value, Sequence) and not isinstance(value, str)

    def _compact_form(self) -> str:
        return f"a list of spans (start, end, type index) for each of {self.batch_shape[0]} sentences"

    def read_structure(self, structure: Any) -> tuple[Tensor, Faults]:
        """Return the cells of spans, LongTensor [M, 4]: item, start, end, type."""
        if not self._is_compact(structure):
            raise TypeError(f"The spans must be {self._compact_form()}, got {type(structure).__name__}.")
        if len(structure) != self.batch_shape[0]:
            raise ValueError(f"The spans must be lists for {self.batch_shape[0]} sentences, got {len(structure)}.")
        cells = []
        for item, (sentence, length) in enumerate(zip(structure, self.lengths.tolist(), strict=True)):
            try:
                triples = [
                    (operator.index(start), operator.index(end), operator.index(k)) for start, end, k in sentence
                ]
            except (TypeError, ValueError):
                raise TypeError(
                    f"The spans must be {self._compact_form()}, and batch item {item} has {sentence!r}."
                ) from None
            for start, end, kind in triples:
                if not (0 <= start <= end < length and 0 <= kind < self.event_shape[-1]):
                    raise ValueError(
                        f"Span {(start, end, kind)} of batch item {item} does not lie in its {length} words and "
                        f"{self.event_shape[-1]} types. A span is (first word, last word, type), 0-based and inclusive."
                    )
                cells.append((item, start, end, kind))
        found = torch.tensor(cells, dtype=torch.long, device=self._device).view(-1, 4)
        return found, {OVERLAP: self._overlap(found)}

    def leaves_open(self, structure: Any) -> bool:
        return False

    def parts_of_structure(self, structure: Tensor) -> Parts:
        dtype = working_precision(self.log_potentials)
        spans = torch.zeros(*self.batch_shape, *self.event_shape, dtype=dtype, device=self._device)
        spans[tuple(structure.T)] = 1.0
        return self._indicators_of_event(spans)

    def _indicators_of_event(self, event: Tensor) -> Parts:
        return event, (1.0 - self._covering(event)) * self.word_mask

    def _exact_expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        if parts[1].any():  # scores of words outside any span count, too
            return StructuredDistribution.expectations(self, parts)
        return self.expectations(parts)

    def completed(self, targets: Parts) -> Parts:
        return self._indicators_of_event(targets[0])

    def measured_from(self, structure: Parts, parts: Parts) -> Parts:
        spans, outside = parts
        # Every span, and every word outside, pays the difference of the best scores before and after it. The
        # sums of the best structures then stay at 0, where the logarithm of their number can be seen.
        best = [torch.zeros_like(outside[:, 0])]
        untyped = spans.detach().amax(-1)
        for end in range(self.words):
            closed = torch.stack(best, 1) + untyped[:, : end + 1, end]
            alone = best[-1] + outside[:, end].detach()
            best.append(torch.where(self.word_mask[:, end], torch.maximum(closed.amax(1), alone), best[-1]))
        before, after = torch.stack(best[:-1], 1), torch.stack(best[1:], 1)
        return spans + (before.unsqueeze(2) - after.unsqueeze(1)).unsqueeze(-1), outside + (before - after)

    def alone(self) -> StructuredDistribution:
        # a span's score is of no single word, and each word's choice alone would say little of its tag
        return self.certain_of(self.best()[1])

    def words_alone(self, scores: Tensor | None = None) -> StructuredDistribution:
        raise NotImplementedError(
            "SpanCRF has a distribution per word only in the tags of a tagger, and the student is SpanCRF. Use "
            "structural_kd_loss or topk_kd_loss instead."
        )

    def decode(self) -> list[list[Span]]:
        """Return the best spans of every sentence, from left to right: `Span(start, end, type index)`."""
        return super().decode()

    def parts_of_event(self, marginals: Tensor) -> Parts:
        spans = self._in_sentence(marginals).to(working_precision(self.log_potentials))
        return spans, spans.new_zeros(*self.batch_shape, self.words)
