"""Second-order dependency parsing by mean field (Wang et al., 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from .arcs import check_scores_of_arcs
from .head_selection import HeadChoice
from .semirings import NEG_INF, working_precision
from .structure import StructuredDistribution, check_lengths, check_scores


class MeanFieldDependency(HeadChoice):
    """The mean-field posterior over heads of a second-order parser: every word's head given by Q(h | d). Teacher only.

    Args:
        arcs: [B, N, N]; cell [b, h, d] scores the arc from head h to dependent d, root arcs on the diagonal.
        siblings: [B, N, N, N] or None; cell [b, h, d, c] scores the arcs h -> d and h -> c together.
        grandparents: [B, N, N, N] or None; cell [b, h, d, c] scores the arcs h -> d and d -> c together.
        lengths: LongTensor [B], words per sentence, 1..N; None means N for all.
        iterations: updates of all words at once, T >= 0.
        validate_args: check values (NaN, +inf); None means torch.distributions' default.

    Starting from F = arcs, each iteration sets Q(h | d) = softmax over h of F[h, d] and, for h != d,

        F[h, d] = arcs[h, d] + sum over c not in {h, d} of
                  Q(h | c) siblings[h, d, c] + Q(d | c) grandparents[h, d, c] + Q(c | h) grandparents[c, h, d].

    Root arcs keep their first-order score; cells with a repeated index, and padded words, take no part. The posterior
    is the softmax of the last F, which is `log_potentials`; `partition`, `entropy` and `log_prob` are the posterior's.
    Costs O(T N^3) time and O(N^3) memory. Raises TypeError or ValueError for a wrong kind, shape, length or value.
    """

    def __init__(
        self,
        arcs: Tensor,
        siblings: Tensor | None = None,
        grandparents: Tensor | None = None,
        lengths: Tensor | None = None,
        iterations: int = 3,
        validate_args: bool | None = None,
    ) -> None:
        check_scores_of_arcs("arcs", arcs)
        batch, words, _ = arcs.shape
        dtype = arcs.dtype
        for name, scores in (("siblings", siblings), ("grandparents", grandparents)):
            if scores is not None:
                check_scores(name, scores, ("B", "N", "N", "N"))
                if scores.shape != (batch, words, words, words):
                    raise ValueError(f"{name} must have shape {[batch] + [words] * 3}, got {list(scores.shape)}")
                dtype = torch.promote_types(dtype, scores.dtype)
        if not isinstance(iterations, int) or isinstance(iterations, bool):
            raise TypeError(f"iterations must be an int, got {type(iterations).__name__}")
        if iterations < 0:
            raise ValueError(f"iterations must not be negative, got {iterations}")
        lengths = check_lengths(lengths, batch, words, arcs.device)
        self.arcs, self.siblings, self.grandparents, self.iterations = arcs, siblings, grandparents, iterations
        StructuredDistribution.__init__(self, batch, arcs.shape[1:], dtype, lengths, validate_args)
        self._check_values("arcs", arcs, self._event_mask)
        for name, scores in (("siblings", siblings), ("grandparents", grandparents)):
            if scores is not None:
                self._check_values(name, scores, self._triples)

    @property
    def _scores(self) -> tuple[Tensor | None, ...]:
        return self.arcs, self.siblings, self.grandparents

    def _with_scores(self, *scores: Tensor | None) -> MeanFieldDependency:
        arcs, siblings, grandparents = scores
        return MeanFieldDependency(arcs, siblings, grandparents, self.lengths, self.iterations, validate_args=False)  # type: ignore[arg-type]

    def _triples(self) -> Tensor:
        """BoolTensor [B, N, N, N]: three different words of the sentence."""
        inside = self.word_mask
        other = ~torch.eye(self.words, dtype=torch.bool, device=inside.device)
        distinct = other[:, :, None] & other[:, None, :] & other[None, :, :]
        return inside[:, :, None, None] & inside[:, None, :, None] & inside[:, None, None, :] & distinct

    @property
    def log_potentials(self) -> Tensor:  # type: ignore[override]
        """F after the last iteration, [B, N, N]: the posterior's log potentials, 0 in the padding."""
        return self._parts()[0].to(self.dtype)

    def _parts(self) -> tuple[Tensor, ...]:
        return self._memo("field", lambda: (self._field(),))

    def _field(self) -> Tensor:
        dtype = working_precision(self.arcs)
        mask = self._event_mask()
        arcs = torch.where(mask, self.arcs.to(dtype), 0.0)
        if self.siblings is None and self.grandparents is None:
            return arcs
        triples = self._triples()
        # each message sums over c what Q says of the second arc
        messages: list[tuple[str, Tensor]] = []
        if self.siblings is not None:
            siblings = torch.where(triples, self.siblings.to(dtype), 0.0)
            messages.append(("bhc,bhdc->bhd", siblings))
        if self.grandparents is not None:
            grandparents = torch.where(triples, self.grandparents.to(dtype), 0.0)
            messages += [("bdc,bhdc->bhd", grandparents), ("bch,bchd->bhd", grandparents)]
        first_order = torch.eye(self.words, dtype=torch.bool, device=arcs.device) | ~mask
        field = arcs
        for _ in range(self.iterations):
            choices = self._choices(field, self.lengths)
            # a column may lose its last head on the way: it has no posterior, which `partition` then reports
            alive = (choices > NEG_INF).any(-1, keepdim=True)
            posterior = self._arrange(torch.where(alive, choices, 0.0).softmax(-1) * alive)
            field = arcs
            for equation, scores in messages:
                field = field + _expected(equation, posterior, scores)
            field = torch.where(first_order, arcs, field)
        return field


def _expected(equation: str, posterior: Tensor, scores: Tensor) -> Tensor:
    """sum of Q * score where 0 * -inf is 0 and any mass on an impossible pair gives -inf."""
    impossible = scores == NEG_INF
    if not impossible.any():
        return torch.einsum(equation, posterior, scores)
    finite = torch.einsum(equation, posterior, scores.masked_fill(impossible, 0.0))
    excluded = torch.einsum(equation, posterior.detach(), impossible.to(scores.dtype)) > 0
    return finite.masked_fill(excluded, NEG_INF)
