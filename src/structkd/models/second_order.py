"""A second-order dependency parser: low-rank scores of siblings and grandparents, combined by mean field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from structkd import MeanFieldDependency
from structkd.configurable import configurable
from structkd.models.biaffine import MLP, ZeroLinear
from structkd.models.parser import BiaffineParser, ParserConfig, ParserOutput, ParserRecipe

__all__ = [
    "SecondOrderConfig",
    "SecondOrderOutput",
    "SecondOrderParser",
    "SecondOrderRecipe",
]


class SecondOrderConfig(ParserConfig):
    """Configuration of a :class:`SecondOrderParser`.

    Args:
        rank: r, the rank of the second-order scores.
        second_order_size: size of a word's vector in each of its roles in them.
        siblings: score pairs of arcs with one head.
        grandparents: score pairs of arcs in which the dependent of one is the head of the other.
        iterations: iterations of mean field, at least 1.
        structure: "head_selection", because the posterior is a distribution over the head of every word.

    The others are :class:`~structkd.models.ParserConfig`'s.
    """

    model_type = "structkd_second_order_parser"

    rank: int = 32
    second_order_size: int = 64
    siblings: bool = True
    grandparents: bool = True
    iterations: int = 3

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.check_range(
            rank=(self.rank, 1, float("inf")),
            second_order_size=(self.second_order_size, 1, float("inf")),
            iterations=(self.iterations, 1, float("inf")),
        )
        if self.structure != "head_selection":
            raise ValueError(
                "A second-order parser has a mean-field posterior over the head of every word, structure "
                f"'head_selection'; got {self.structure!r}."
            )
        if not (self.siblings or self.grandparents):
            raise ValueError("A second-order parser scores siblings, grandparents or both; both are switched off.")


@dataclass
class SecondOrderOutput(ParserOutput):
    """Scores of a batch; :meth:`SecondOrderParser.distribution` turns them into the posterior.

    Second-order scores are kept as factors, [B, N, r]. Cell [b, h, d, c] of the scores is the sum over r of the product
    of three factors. It scores the arcs h -> d and h -> c (siblings), or h -> d and d -> c (grandparents).

    Attributes:
        sibling_heads: factors of h.
        sibling_dependents: factors of both d and c, because a pair of siblings has one score.
        grandparent_heads, grandparent_dependents, grandparent_children: factors of h, d and c.
    """

    sibling_heads: Tensor | None = None
    sibling_dependents: Tensor | None = None
    grandparent_heads: Tensor | None = None
    grandparent_dependents: Tensor | None = None
    grandparent_children: Tensor | None = None


class RoleFactors(nn.Module):
    """Factors of a score of several words: for every role [B, N, D] -> [B, N, r].

    The factors of the first role start at 0, and so do the scores.
    """

    def __init__(self, roles: int, dimension: int, size: int, rank: int, dropout: float) -> None:
        super().__init__()
        self.roles = nn.ModuleList(
            nn.Sequential(MLP(dimension, size, dropout), linear(size, rank, bias=False))
            for linear in [ZeroLinear, *[nn.Linear] * (roles - 1)]
        )

    def forward(self, words: Tensor) -> list[Tensor]:
        """Return the factors of every role."""
        return [role(words) for role in self.roles]


class SecondOrderParser(BiaffineParser):
    """A biaffine parser with scores of siblings and grandparents (Wang et al. 2019; Wang & Tu 2020).

    Its distribution is the mean-field posterior over every word's head, and relations given the arc. Training maximizes
    the posterior of the gold tree through the iterations (:func:`structkd.supervised_loss`, as for any other model).
    The model cannot be a student. Scores are kept as factors, so no tensor [B, N, N, N] is ever built: O(N^2 (r + L))
    memory.
    """

    config_class = SecondOrderConfig
    score_axes: ClassVar[Mapping[str, int]] = {
        **BiaffineParser.score_axes,
        "sibling_heads": 1,
        "sibling_dependents": 1,
        "grandparent_heads": 1,
        "grandparent_dependents": 1,
        "grandparent_children": 1,
    }

    config: SecondOrderConfig

    def add_scorers(self, dimension: int) -> None:
        config = self.config
        sizes = (dimension, config.second_order_size, config.rank, config.dropout)
        self.siblings = RoleFactors(2, *sizes) if config.siblings else None
        self.grandparents = RoleFactors(3, *sizes) if config.grandparents else None

    def forward(self, lengths: Tensor, **inputs: Tensor) -> SecondOrderOutput:
        words = self.encoder(lengths=lengths, **inputs)
        output = SecondOrderOutput(arcs=self.arcs(words), **self.relations(words))
        if self.siblings is not None:
            output.sibling_heads, output.sibling_dependents = self.siblings(words)
        if self.grandparents is not None:
            heads, dependents, children = self.grandparents(words)
            output.grandparent_heads, output.grandparent_dependents = heads, dependents
            output.grandparent_children = children
        return output

    def distribution(self, scores: Mapping[str, Tensor], lengths: Tensor) -> MeanFieldDependency:
        """Return the posterior over every word's head and relation, [B, N, N, L].

        Args:
            scores: :meth:`scores` of the batch (or the output itself).
            lengths: LongTensor [B].

        Labelled arcs are multiplied out as in :class:`BiaffineParser`.
        """
        return self.arc_distribution(scores, lengths).with_relations(self.relation_scores(scores))

    def arc_scores(self, scores: Mapping[str, Tensor], lengths: Tensor) -> Tensor:
        return self.arc_distribution(scores, lengths).log_potentials

    def arc_distribution(self, scores: Mapping[str, Tensor], lengths: Tensor) -> MeanFieldDependency:
        """Return the mean-field posterior over every word's head, [B, N, N]."""
        siblings = grandparents = None
        if self.config.siblings:
            dependents = scores["sibling_dependents"]
            siblings = (scores["sibling_heads"], dependents, dependents)
        if self.config.grandparents:
            grandparents = tuple(scores[f"grandparent_{role}"] for role in ("heads", "dependents", "children"))
        return MeanFieldDependency.from_factors(
            scores["arcs"],
            siblings,
            grandparents,  # type: ignore[arg-type]
            lengths=lengths,
            iterations=self.config.iterations,
        )


AutoConfig.register(SecondOrderConfig.model_type, SecondOrderConfig)
AutoModel.register(SecondOrderConfig, SecondOrderParser)


@configurable
class SecondOrderRecipe(ParserRecipe):
    """Builds a :class:`SecondOrderParser`; settings are those of :class:`SecondOrderConfig`."""

    model_class = SecondOrderParser
