"""Teachers that give weighted structures and no scores: their distribution is an ``Empirical``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

import structkd
from structkd.data import UNLABELLED, Annotation, TagAnnotation, TreeAnnotation
from structkd.numbering import to_conllu
from structkd.teachers.given import GivenModel

__all__ = ["StructureModel", "Weighted", "merged"]


class Weighted(NamedTuple):
    """A structure of a sentence and its weight.

    Attributes:
        weight: non-negative; the weights of a sentence need not sum to 1.
        values: label numbers of the data; of a tree the heads, 0-based, where a root is its own head.
        relations: of a tree, their numbers in the data; None if it has none.
    """

    weight: float
    values: tuple[int, ...]
    relations: tuple[int, ...] | None = None


class StructureModel(GivenModel):
    """Base of the teachers that give up to K weighted structures a sentence. A subclass defines ``structures``.

    The scores of a sentence are ``structures`` [N, K] (labels or heads), ``weights`` [N, K], the same for every word,
    and ``relations`` [N, K] of labelled trees. A structure of weight 0 fills up a sentence that has fewer than K.

    Args:
        annotation: of the data.
        count: K, the largest number of structures of a sentence.
        relations: whether trees have relations.
    """

    def __init__(self, annotation: Annotation, count: int, relations: bool = True) -> None:
        super().__init__(annotation)
        self.count = count
        self.has_relations = relations and isinstance(annotation, TreeAnnotation)
        self.score_axes = {"structures": 1, "weights": 1} | ({"relations": 1} if self.has_relations else {})

    def structures(self, examples: Sequence[Mapping[str, Any]]) -> list[list[Weighted]]:
        """Return the structures of some sentences, at least one of positive weight for each."""
        raise NotImplementedError

    def encode(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return the structures of some sentences, padded: they are the scores, too."""
        found = self.structures(examples)
        lengths = torch.tensor([len(example["tokens"]) for example in examples])
        longest = int(lengths.max())
        shape = (len(examples), longest, self.count)
        padded = {"structures": torch.zeros(shape, dtype=torch.long), "weights": torch.zeros(shape)}
        if self.has_relations:
            padded["relations"] = torch.zeros(shape, dtype=torch.long)
        for row, several in enumerate(found):
            size, count = int(lengths[row]), len(several)
            padded["structures"][row, :size, :count] = torch.tensor([each.values for each in several]).mT
            padded["weights"][row, :, :count] = torch.tensor([each.weight for each in several])
            if self.has_relations:
                padded["relations"][row, :size, :count] = torch.tensor([each.relations for each in several]).mT
        return {"lengths": lengths, **padded}

    def forward(self, lengths: Tensor, **scores: Tensor) -> dict[str, Tensor]:
        """Return the scores as they are."""
        return scores

    def distribution(self, scores: Mapping[str, Tensor], lengths: Tensor) -> structkd.Empirical:
        """Return the weighted structures as a distribution. O(B K N) time and memory."""
        structures, weights = scores["structures"].mT, scores["weights"][:, 0]
        if isinstance(self.annotation, TagAnnotation):
            return structkd.Empirical.from_labels(structures, weights, lengths, labels=self.annotation.labels)
        relations = scores["relations"].mT if self.has_relations else None
        return structkd.Empirical.from_heads(structures, relations, weights, lengths)

    def decode(self, scores: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor]:
        """Return the structure of the largest weight, which comes first."""
        inside = torch.arange(scores["structures"].shape[1], device=lengths.device) < lengths.unsqueeze(1)
        best = scores["structures"][..., 0]
        if isinstance(self.annotation, TagAnnotation):
            return {"labels": best.masked_fill(~inside, UNLABELLED)}
        relations = scores["relations"][..., 0] if self.has_relations else torch.zeros_like(best)
        return {
            "heads": to_conllu(best.masked_fill(~inside, -1)).masked_fill(~inside, UNLABELLED),
            "relations": relations.masked_fill(~inside, UNLABELLED),
        }


def merged(structures: Sequence[Weighted]) -> list[Weighted]:
    """Add up the weights of equal structures, and return the heaviest first. O(K N) time."""
    total: dict[Any, float] = {}
    for weight, *structure in structures:
        key = tuple(structure)
        total[key] = total.get(key, 0.0) + weight
    found = [Weighted(weight, *key) for key, weight in total.items() if weight > 0]
    return sorted(found, key=lambda each: -each.weight)
