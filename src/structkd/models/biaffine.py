"""Scores of pairs of words: a vector for each role a word may play, and bilinear forms between them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import initialization

from structkd.models.bilstm import LockedDropout

__all__ = [
    "MLP",
    "ArcScorer",
    "RelationFactors",
    "ZeroLinear",
    "applied",
    "biaffine",
    "initialise_scorer",
    "linear_forms",
]


class MLP(nn.Sequential):
    """Words' vectors in one of their roles (head, dependent, ...), [B, N, D] -> [B, N, size].

    One layer with a leaky ReLU (Dozat & Manning 2017), then dropout of whole channels of a sentence.
    """

    def __init__(self, dimension: int, size: int, dropout: float) -> None:
        super().__init__(nn.Linear(dimension, size), nn.LeakyReLU(0.1), LockedDropout(dropout))


class ZeroLinear(nn.Linear):
    """A linear layer that gives 0 until it is trained; what it feeds must not be, or neither would ever learn."""


def biaffine(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """A bilinear form with biases for every label (Dozat & Manning 2017, equation 3).

    Args:
        first: [B, N, I]; vectors of the first word of a pair.
        second: [B, M, J]; vectors of the second.
        weight: [L, I+1, J+1]; its last row and column are biases.

    Returns:
        [B, N, M, L]; cell [b, i, j, l] is (first_i, 1)' weight_l (second_j, 1). O(N M L I) time, and no more memory
        than the result and [B, M, L, I].
    """
    return applied(first, linear_forms(second, weight))


def linear_forms(second: Tensor, weight: Tensor) -> Tensor:
    """What the labels of a bilinear form ask of the first word, given the second: [B, M, L, I+1], see :func:`biaffine`.

    For second words that meet several kinds of first ones, with :func:`applied`.
    """
    return nn.functional.linear(_with_one(second), weight.flatten(0, 1)).unflatten(2, weight.shape[:2])


def applied(first: Tensor, forms: Tensor) -> Tensor:
    """:func:`linear_forms` of vectors [B, N, I], [B, N, M, L]."""
    return (_with_one(first) @ forms.flatten(1, 2).mT).unflatten(2, forms.shape[1:3])


def _with_one(vectors: Tensor) -> Tensor:
    return nn.functional.pad(vectors, (0, 1), value=1.0)


class ArcScorer(nn.Module):
    """Scores of arcs: head' U dependent + head' u (Dozat & Manning 2017, equation 7), with a learned root.

    Args:
        dimension: D, cells of a word's vector.
        size: cells of its vector as a head, and as a dependent.
        dropout: share of channels dropped.
    """

    def __init__(self, dimension: int, size: int, dropout: float) -> None:
        super().__init__()
        self.head = MLP(dimension, size, dropout)
        self.dependent = MLP(dimension, size, dropout)
        self.root = nn.Parameter(torch.empty(size))
        self.wanted = ZeroLinear(size, size)  # U as its weight, u as its bias

    def forward(self, words: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, N]; cell [b, h, d] scores the arc from head h to dependent d, the diagonal the root."""
        wanted = self.wanted(self.dependent(words))
        return torch.diagonal_scatter(self.head(words) @ wanted.mT, wanted @ self.root, dim1=1, dim2=2)


class RelationFactors(nn.Module):
    """What relations are scored from: vectors of heads, dependents and the root, and a full bilinear form.

    Args:
        dimension: D, cells of a word's vector.
        size: R, cells of its vector as a head, and as a dependent.
        count: L, relations.
        dropout: share of channels dropped.
    """

    def __init__(self, dimension: int, size: int, count: int, dropout: float) -> None:
        super().__init__()
        self.head = MLP(dimension, size, dropout)
        self.dependent = MLP(dimension, size, dropout)
        self.root = nn.Parameter(torch.empty(size))
        self.weight = nn.Parameter(torch.empty(count, size + 1, size + 1))

    def forward(self, words: Tensor) -> dict[str, Tensor]:
        """[B, N, D] -> ``relation_heads`` and ``relation_dependents`` [B, N, R], ``relation_root`` [R] and
        ``relation_weight`` [L, R+1, R+1].
        """
        return {
            "relation_heads": self.head(words),
            "relation_dependents": self.dependent(words),
            "relation_root": self.root,
            "relation_weight": self.weight,
        }


@torch.no_grad()
def initialise_scorer(module: nn.Module) -> bool:
    """Fill the own parameters of a part of a scorer; whether ``module`` is one. Every pair scores 0 at first."""
    if isinstance(module, ZeroLinear):
        initialization.zeros_(module.weight)
        if module.bias is not None:
            initialization.zeros_(module.bias)
    elif isinstance(module, (ArcScorer, RelationFactors)):
        initialization.normal_(module.root, std=1 / math.sqrt(len(module.root)))
        if isinstance(module, RelationFactors):
            initialization.zeros_(module.weight)
    else:
        return False
    return True
