"""Scores of pairs of words: a vector for each role of a word, and bilinear forms between these vectors."""

from __future__ import annotations

import math
from functools import reduce

import torch
from torch import Tensor, nn
from transformers import initialization

from structkd.models.bilstm import LockedDropout

__all__ = [
    "MLP",
    "ArcScorer",
    "BilinearRelations",
    "RelationFactors",
    "ZeroLinear",
    "apply_forms",
    "biaffine",
    "initialize_scorer",
    "linear_forms",
]


# Bytes at the peak of a training step for every cell of labelled arcs [B, N, N, L]: their scores, the marginals and the
# gradients, in working precision, and the relations' own graph. Measured with 37 relations: 58 to 86.
_BYTES_PER_CELL = 80


class MLP(nn.Sequential):
    """Vectors of words in one of their roles (head, dependent, ...), [B, N, D] -> [B, N, size].

    One layer with a leaky ReLU (Dozat & Manning 2017), then dropout of whole channels of a sentence.
    """

    def __init__(self, dimension: int, size: int, dropout: float) -> None:
        super().__init__(nn.Linear(dimension, size), nn.LeakyReLU(0.1), LockedDropout(dropout))


class ZeroLinear(nn.Linear):
    """A linear layer whose weights start at 0. Its factor in a product must not, or neither would learn."""


def biaffine(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """Compute a bilinear form with biases for every label (Dozat & Manning 2017, equation 3).

    Args:
        first: [B, N, I]; vectors of the first word of a pair.
        second: [B, M, J]; vectors of the second.
        weight: [L, I+1, J+1]; its last row and column are biases.

    Returns:
        [B, N, M, L]; cell [b, i, j, l] is (first_i, 1)' weight_l (second_j, 1). O(N M L I) time, and no more memory
        than the result and [B, M, L, I].
    """
    return apply_forms(first, *linear_forms(second, weight))


def linear_forms(second: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Apply the bilinear forms of :func:`biaffine` to the second words.

    :func:`apply_forms` completes them; it may be called with several kinds of first words.

    Args:
        second: [B, M, J]; vectors of the second words.
        weight: [L, I+1, J+1], as in :func:`biaffine`.

    Returns:
        The coefficients of the first word's vector, [B, M, L, I], and the constants, [B, M, L].
    """
    linear, size = nn.functional.linear, weight.shape[1] - 1
    forms = linear(second, weight[:, :size, :-1].flatten(0, 1), weight[:, :size, -1].flatten())
    constants = linear(second, weight[:, size, :-1], weight[:, size, -1])
    return forms.unflatten(2, (len(weight), size)), constants


def apply_forms(first: Tensor, forms: Tensor, constants: Tensor) -> Tensor:
    """Evaluate :func:`linear_forms` for first words [B, N, I]; returns [B, N, M, L]."""
    product = torch.baddbmm(constants.flatten(1).unsqueeze(1), first, forms.flatten(1, 2).mT)
    return product.view(*product.shape[:2], *constants.shape[1:])


class ArcScorer(nn.Module):
    """Scores of arcs: head' U dependent + head' u (Dozat & Manning 2017, equation 7), with a learned root.

    Args:
        dimension: D, the size of a word's vector.
        size: size of its vectors as a head and as a dependent.
        dropout: share of channels dropped.
    """

    def __init__(self, dimension: int, size: int, dropout: float) -> None:
        super().__init__()
        self.head = MLP(dimension, size, dropout)
        self.dependent = MLP(dimension, size, dropout)
        self.root = nn.Parameter(torch.empty(size))
        self.wanted = ZeroLinear(size, size)  # U is its weight, u its bias; the name stands in saved models

    def forward(self, words: Tensor) -> Tensor:
        """Return [B, N, N] for words [B, N, D]; cell [b, h, d] scores the arc from h to d, the diagonal the root."""
        forms = self.wanted(self.dependent(words))
        return torch.diagonal_scatter(self.head(words) @ forms.mT, forms @ self.root, dim1=1, dim2=2)


class BilinearRelations:
    """Scores of relations given the arc (Dozat & Manning 2017, equation 3), see :class:`structkd.RelationScores`.

    Args:
        heads: [B, N, R], vectors of the words as heads.
        dependents: [B, N, R], vectors of the words as dependents.
        root: [R], the vector of the root as a head.
        weight: [L, R+1, R+1], the bilinear forms (head, dependent) of the relations, biases last.
        memory_limit: GiB that labelled arcs may take, by an estimate for a training step; None sets no limit.
    """

    def __init__(
        self, heads: Tensor, dependents: Tensor, root: Tensor, weight: Tensor, memory_limit: float | None = None
    ) -> None:
        factors = heads, dependents, root, weight  # under autocast their dtypes differ, as parameters keep theirs
        self.dtype = reduce(torch.promote_types, (tensor.dtype for tensor in factors))
        self.heads, self.dependents, self.root, self.weight = (tensor.to(self.dtype) for tensor in factors)
        self.memory_limit = memory_limit

    @property
    def count(self) -> int:
        """L, the number of relations."""
        return len(self.weight)

    def everywhere(self) -> Tensor:
        """Return [B, N, N, L]; cell [b, h, d, l] scores relation l given the arc from h to d, the root on the diagonal.

        Raises:
            ValueError: if a training step with so many cells would exceed the memory limit.
        """
        self._check_memory()
        forms, constants = linear_forms(self.dependents, self.weight)
        relations = apply_forms(self.heads, forms, constants)
        root = apply_forms(self.root.expand(len(forms), 1, -1), forms, constants)
        relations.diagonal(dim1=1, dim2=2).copy_(root.squeeze(1).mT)  # in place: the tensor may be a large one
        return relations

    def along(self, heads: Tensor) -> Tensor:
        """Return [B, N, L], the scores of relations given the arcs of ``heads``, LongTensor [B, N] (root = own index).

        Costs O(B N L R^2) time and O(B N L R) memory.
        """
        root = heads == torch.arange(heads.shape[1], device=heads.device)
        chosen = self.heads.gather(1, heads.unsqueeze(-1).expand(self.heads.shape))
        chosen = torch.where(root.unsqueeze(-1), self.root, chosen)
        # Every arc is a pair of one-word sentences.
        first, second = (vectors.flatten(0, 1).unsqueeze(1) for vectors in (chosen, self.dependents))
        return biaffine(first, second, self.weight).view(*heads.shape, self.count)

    def _check_memory(self) -> None:
        batch, words, _ = self.dependents.shape
        needed = batch * words**2 * self.count * _BYTES_PER_CELL / 2**30
        if self.memory_limit is not None and needed > self.memory_limit:
            raise ValueError(
                f"A batch of {batch} sentences padded to {words} words needs about {needed:.2g} GiB for its "
                f"{batch} x {words} x {words} arcs with {self.count} relations; memory_limit is {self.memory_limit:g} "
                "GiB. Lower the batch size or leave out the longest sentences; raise memory_limit (null: none) where "
                "there is more."
            )


class RelationFactors(nn.Module):
    """Factors of the relations' scores: vectors of heads, dependents and the root, and a full bilinear form.

    Args:
        dimension: D, the size of a word's vector.
        size: R, the size of its vectors as a head and as a dependent.
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
        """Return the factors for words [B, N, D]: ``relation_heads`` and ``relation_dependents`` [B, N, R],
        ``relation_root`` [R] and ``relation_weight`` [L, R+1, R+1].
        """
        return {
            "relation_heads": self.head(words),
            "relation_dependents": self.dependent(words),
            "relation_root": self.root,
            "relation_weight": self.weight,
        }


@torch.no_grad()
def initialize_scorer(module: nn.Module) -> bool:
    """Initialize a part of a scorer, so that every pair scores 0; return whether ``module`` is such a part."""
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
