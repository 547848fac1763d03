"""Second-order dependency parsing by mean field (Wang et al., 2019; Wang and Tu, 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from .arcs import ArcDistribution, check_scores_of_arcs
from .base import StructuredDistribution, ordinary_tensors
from .checks import check_count, check_scores
from .head_selection import HeadChoice, HeadSelection
from .kernels import mean_field
from .kernels.arithmetic import NEG_INF, working_precision
from .kernels.mean_field import Factors
from .kernels.relations import Relations


class MeanFieldDependency(HeadChoice):
    """The mean-field posterior over heads of a second-order parser: every word's head given by Q(h | d). Teacher only.

    Args:
        arcs: [B, N, N]; cell [b, h, d] scores the arc from head h to dependent d, root arcs on the diagonal.
        siblings: [B, N, N, N] or None; cell [b, h, d, c] scores the arcs h -> d and h -> c together.
        grandparents: [B, N, N, N] or None; cell [b, h, d, c] scores the arcs h -> d and d -> c together.
        lengths: LongTensor [B], words per sentence, 1..N; None means N for all.
        iterations: updates of all words at once, T >= 0.
        validate_args: check values (NaN, +inf); None means torch.distributions' default.
        relations: [B, N, N, L] or None; cell [b, h, d, l] scores relation l given the arc from h to d.

    Starting from F = arcs, each iteration sets Q(h | d) = softmax over h of F[h, d] and, for h != d,

        F[h, d] = arcs[h, d] + sum over c not in {h, d} of
                  Q(h | c) siblings[h, d, c] + Q(d | c) grandparents[h, d, c] + Q(c | h) grandparents[c, h, d].

    Root arcs keep their first-order score; cells with a repeated index, and padded words, take no part. The posterior
    is the softmax of the last F, which is `log_potentials`; `partition`, `entropy` and `log_prob` are the posterior's.

    With relations, the posterior of a head and a relation is Q(h | d) times the softmax over l of relations[h, d]; an
    arc whose relations are all impossible is impossible itself. `log_potentials` and `marginals` are [B, N, N, L] then.
    A temperature divides all the tensors.

    Costs O(T N^3) time and O(N^3) memory; scores of low rank are better given to `from_factors`. Raises TypeError or
    ValueError for a wrong kind, shape, length or value.

    Example:
        >>> import torch
        >>> siblings = torch.zeros(1, 3, 3, 3)
        >>> siblings[0, 0, 1, 2] = 4.0  # word 0 as the head of both 1 and 2
        >>> field = MeanFieldDependency(torch.zeros(1, 3, 3), siblings, iterations=3)
        >>> field.decode()[0, 1].item()
        0
    """

    #: Scores of siblings and grandparents are tables [B, N, N, N], or the first of three factors.
    score_fields = ("arcs", "_siblings", "_grandparents", "relations")
    _sibling_rest: tuple[Tensor, Tensor] | None = None
    _grandparent_rest: tuple[Tensor, Tensor] | None = None

    def __init__(
        self,
        arcs: Tensor,
        siblings: Tensor | None = None,
        grandparents: Tensor | None = None,
        lengths: Tensor | None = None,
        iterations: int = 3,
        validate_args: bool | None = None,
        relations: Tensor | None = None,
    ) -> None:
        self._initialise_field(
            arcs, lengths, iterations, validate_args, relations, [s for s in (siblings, grandparents) if s is not None]
        )
        for name, scores in (("siblings", siblings), ("grandparents", grandparents)):
            if scores is not None:
                check_scores(name, scores, ("B", "N", "N", "N"))
                expected = [len(arcs), *[self.words] * 3]
                if list(scores.shape) != expected:
                    raise ValueError(f"{name} must have shape {expected}, got {list(scores.shape)}.")
                self.check_values(name, scores, self._triples)
        self._siblings, self._grandparents = siblings, grandparents

    def _initialise_field(
        self,
        arcs: Tensor,
        lengths: Tensor | None,
        iterations: int,
        validate_args: bool | None,
        relations: Tensor | None,
        others: Sequence[Any],
    ) -> None:
        """Store the arguments that do not depend on the form of the second-order scores, `others`."""
        check_scores_of_arcs("arcs", arcs)
        dtype = arcs.dtype
        if relations is not None:
            check_scores("relations", relations, ("B", "N", "N", "L"))
            if relations.shape[:3] != arcs.shape or relations.shape[3] < 1:
                raise ValueError(
                    f"The relations must have shape {[*arcs.shape, 'L >= 1']}, got {list(relations.shape)}."
                )
        for scores in (relations, *others):
            if isinstance(scores, Tensor):
                dtype = torch.promote_types(dtype, scores.dtype)
        iterations = check_count("iterations", iterations, 0)
        self.arcs, self.iterations, self._relations = arcs, iterations, relations
        event_shape = arcs.shape[1:] if relations is None else relations.shape[1:]
        StructuredDistribution.__init__(self, arcs, arcs.shape[1], event_shape, lengths, validate_args)
        self.dtype = dtype
        self.check_values("arcs", arcs, self._arc_mask)
        if relations is not None:
            self.check_values("relations", relations, self.event_mask)

    @staticmethod
    def from_factors(
        arcs: Tensor,
        siblings: Factors | None = None,
        grandparents: Factors | None = None,
        lengths: Tensor | None = None,
        iterations: int = 3,
        validate_args: bool | None = None,
        relations: Tensor | None = None,
    ) -> MeanFieldDependency:
        """Return the distribution from second-order scores of low rank, which are never multiplied out.

        Args:
            siblings: three tensors [B, N, r], finite, for h, d and c; siblings[b, h, d, c] is the sum over k of
                first[b, h, k] second[b, d, k] third[b, c, k]. Or None.
            grandparents: likewise, its rank may be another.
            arcs, lengths, iterations, validate_args, relations: as in the constructor.

        A temperature divides the products. Costs O(T N^2 r) time and O(T N (N + r)) memory.
        """
        field = MeanFieldDependency(arcs, None, None, lengths, iterations, validate_args, relations)
        field._siblings, field._sibling_rest = field._check_factors("siblings", siblings)
        field._grandparents, field._grandparent_rest = field._check_factors("grandparents", grandparents)
        for factor in (*(siblings or ()), *(grandparents or ())):
            field.dtype = torch.promote_types(field.dtype, factor.dtype)
        return field

    @property
    @ordinary_tensors
    def relations(self) -> Tensor | None:
        """Scores of relations given the arc, [B, N, N, L], or None."""
        return self._relations if self._by_arc is None else self._all_relations()

    @relations.setter
    def relations(self, relations: Tensor | None) -> None:
        self._relations, self._by_arc = relations, None

    @property
    def siblings(self) -> Tensor | None:
        """Scores of siblings [B, N, N, N], or None; of factors, multiplied out when asked for."""
        return _multiplied(self._siblings, self._sibling_rest)

    @property
    def grandparents(self) -> Tensor | None:
        """As `siblings`."""
        return _multiplied(self._grandparents, self._grandparent_rest)

    def _factors(self) -> list[Factors | None]:
        """Return the factors of siblings and grandparents; None where there are none."""
        tables = (self._siblings, self._sibling_rest), (self._grandparents, self._grandparent_rest)
        return [None if first is None or rest is None else (first, *rest) for first, rest in tables]

    def sources(self) -> tuple[Tensor, ...]:
        return *super().sources(), *(self._sibling_rest or ()), *(self._grandparent_rest or ())

    def arcs_and_relations(self, temperature: float = 1.0) -> tuple[ArcDistribution, Relations | None]:
        if not self.labelled:
            return self.tempered(temperature), None
        relations = Relations(lambda: cast(Tensor, self.relations), self.event_shape[-1], temperature)
        if self._by_arc is not None:
            return self._by_arc[0].tempered(temperature), relations
        impossible, arcs = relations.impossible, self.arcs
        if impossible is not None:
            arcs = arcs.masked_fill(impossible & self._arc_mask(), NEG_INF)
        return self._over_arcs(arcs).tempered(temperature), relations

    def scores_before(self, temperature: float) -> Tensor:
        return self.tempered(temperature).parts()[0] * temperature

    def alone(self) -> HeadSelection:
        field = MeanFieldDependency(self.arcs, lengths=self.lengths, iterations=0, relations=self.relations)
        return HeadSelection(field.log_potentials, self.lengths, validate_args=False)

    def _over_arcs(self, arcs: Tensor) -> MeanFieldDependency:
        """Return the distribution over other arcs, without relations."""
        unlabelled = self.with_scores(arcs, self._siblings, self._grandparents, None)
        unlabelled._event_shape = arcs.shape[1:]
        return unlabelled

    def _triples(self) -> Tensor:
        """Return BoolTensor [B, N, N, N]: three different words of the sentence."""
        inside = self.word_mask
        other = ~torch.eye(self.words, dtype=torch.bool, device=inside.device)
        distinct = other[:, :, None] & other[:, None, :] & other[None, :, :]
        return (self._arc_mask().unsqueeze(3) & inside[:, None, None, :]).logical_and_(distinct)

    @property  # type: ignore[misc]
    def log_potentials(self) -> Tensor:  # type: ignore[override]
        """F after the last iteration, [B, N, N], the posterior's log potentials; with relations [B, N, N, L], F plus
        the log probability of the relation. 0 in the padding.
        """
        return self.parts()[0].to(self.dtype)

    def parts(self) -> tuple[Tensor, ...]:
        return self._memo("field", lambda: (self._labelled_field(),))

    def _labelled_field(self) -> Tensor:
        dtype = working_precision(self.arcs)
        arcs = self.arcs.to(dtype)
        if self.ragged:
            arcs = torch.where(self._arc_mask(), arcs, 0.0)
        if self.relations is None:
            return self._field(arcs)
        padding = ~self.event_mask()
        relations = self.relations.masked_fill(padding, 0.0).to(dtype)
        impossible = relations.detach().amax(-1) == NEG_INF
        if impossible.any():
            arcs = arcs.masked_fill(impossible, NEG_INF)
            relations = relations.masked_fill(impossible.unsqueeze(-1), 0.0)
        labelled = relations.log_softmax(-1) + self._field(arcs).unsqueeze(-1)
        return labelled.masked_fill_(padding, 0.0)

    def _field(self, arcs: Tensor) -> Tensor:
        """Return F after the last iteration, [B, N, N], from the first-order scores in working precision."""
        if self._siblings is None and self._grandparents is None:
            return arcs
        factors = self._factors()
        if any(triple is not None for triple in factors):
            cleaned = [self._cleaned(triple, arcs.dtype) for triple in factors]
            return mean_field.field_of_factors(arcs, cleaned[0], cleaned[1], self.lengths, self.iterations)
        triples = self._triples()
        siblings, grandparents = (
            None if scores is None else torch.where(triples, scores, 0.0).to(arcs.dtype)
            for scores in (self._siblings, self._grandparents)
        )
        return mean_field.field(arcs, siblings, grandparents, self.lengths, self.iterations)

    def _check_factors(self, name: str, factors: Any) -> tuple[Tensor | None, tuple[Tensor, Tensor] | None]:
        """Return the first of three factors, which a temperature divides, and the others."""
        if factors is None:
            return None, None
        if not isinstance(factors, (tuple, list)) or len(factors) != 3:
            raise TypeError(f"{name} must be three tensors [B, N, r], for h, d and c, got {type(factors).__name__}.")
        for factor in factors:
            check_scores(f"Every factor of {name}", factor, ("B", "N", "r"))
            expected = (*self.batch_shape, self.words, factors[0].shape[-1])
            if factor.shape != expected:
                raise ValueError(f"Every factor of {name} must have shape {list(expected)}, got {list(factor.shape)}.")
            if not self._validate_args or factor.detach().sum().isfinite():  # a sum is finite only if all terms are
                continue
            if not (factor.isfinite() | ~self.word_mask.unsqueeze(-1)).all():
                raise ValueError(f"The factors of {name} must be finite inside a sentence, got an infinity or NaN.")
        first, second, third = factors
        return first, (second, third)

    def _cleaned(self, factors: Factors | None, dtype: torch.dtype) -> Factors | None:
        """Return the factors in working precision, 0 in the padding."""
        if factors is None:
            return None
        first, second, third = (factor.to(dtype) for factor in factors)
        if self.ragged:
            padding = ~self.word_mask.unsqueeze(-1)
            first, second, third = (factor.masked_fill(padding, 0.0) for factor in (first, second, third))
        return first, second, third


def _multiplied(scores: Tensor | None, rest: tuple[Tensor, Tensor] | None) -> Tensor | None:
    """Return second-order scores, [B, N, N, N], from a table, or a first factor and the others; O(N^3) memory."""
    return scores if scores is None or rest is None else torch.einsum("bhk,bdk,bck->bhdc", scores, *rest)
