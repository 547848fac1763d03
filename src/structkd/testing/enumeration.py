"""A distribution over listed structures: partition, entropy, marginals and cross-entropy by their definitions.

Nothing here knows a recursion, a determinant or a gradient, and every number is a Python float.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

__all__ = ["Enumeration", "Structure", "cross_entropy", "log_sum_exp", "mixture"]

#: A structure as a tuple: labels, heads, (head, relation) pairs or spans, by position. Any hashable tuple will do.
Structure = tuple[Any, ...]


def log_sum_exp(values: Iterable[float]) -> float:
    values = list(values)
    top = max(values, default=-math.inf)
    if top == -math.inf:
        return -math.inf
    return top + math.log(math.fsum(math.exp(value - top) for value in values))


class Enumeration:
    """A distribution over listed structures, P(y) = exp(score(y)) / sum of exp(score)."""

    def __init__(self, scores: Mapping[Structure, float]) -> None:
        self.scores = dict(scores)
        self.partition = log_sum_exp(self.scores.values())

    @classmethod
    def from_probabilities(cls, probabilities: Mapping[Structure, float]) -> Enumeration:
        return cls({y: math.log(p) if p > 0 else -math.inf for y, p in probabilities.items()})

    def log_prob(self, structure: Structure) -> float:
        score = self.scores.get(structure, -math.inf)
        return score - self.partition if score > -math.inf else -math.inf

    @functools.cached_property
    def probabilities(self) -> dict[Structure, float]:
        return {y: math.exp(self.log_prob(y)) for y in self.scores}

    @property
    def entropy(self) -> float:
        return cross_entropy(self, self)

    def ranked(self) -> list[Structure]:
        """Return the possible structures, best first."""
        possible = [y for y, score in self.scores.items() if score > -math.inf]
        return sorted(possible, key=lambda y: -self.scores[y])

    def restricted(self, space: Iterable[Structure]) -> Enumeration:
        """Return the distribution conditioned on `space`."""
        space = set(space)
        return Enumeration({y: score for y, score in self.scores.items() if y in space})

    def pushed(self, convert: Callable[[Structure], Structure]) -> Enumeration:
        """Return the distribution of convert(y)."""
        image: dict[Structure, list[float]] = {}
        for y, score in self.scores.items():
            image.setdefault(convert(y), []).append(score)
        return Enumeration({y: log_sum_exp(scores) for y, scores in image.items()})

    def expectation(self, cells: Callable[[Structure], Iterable[Hashable]]) -> dict[Any, float]:
        """Compute the expected number of times that each cell is in a structure."""
        total: dict[Any, float] = {}
        for y, p in self.probabilities.items():
            for cell in cells(y):
                total[cell] = total.get(cell, 0.0) + p
        return total


def cross_entropy(p: Enumeration, q: Enumeration) -> float:
    """Compute - sum_y p(y) log q(y); +inf if q forbids a structure that p allows."""
    total = []
    for y, probability in p.probabilities.items():
        if probability > 0:
            log_q = q.log_prob(y)
            if log_q == -math.inf:
                return math.inf
            total.append(-probability * log_q)
    return math.fsum(total)


def mixture(components: Sequence[Enumeration], weights: Sequence[float]) -> Enumeration:
    total: dict[Structure, float] = {}
    for component, weight in zip(components, weights, strict=True):
        for y, p in component.probabilities.items():
            total[y] = total.get(y, 0.0) + weight * p
    return Enumeration.from_probabilities(total)
