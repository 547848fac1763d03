"""Weighted structures as a family of teachers: random picks from the structures of another family."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from families import Family, Scores
from oracles import Enumeration, Structure
from torch import Tensor

import structkd

NUMBER = 7


class Listed(Family):
    """Structures of a family with weights; some equal each other. Every second one can be built by another family.

    Scores are the weights [B, K] and the picks [B, K], which number a structure in the list of its sentence.
    """

    batched = ("weights", "picks")
    maskable = ()
    student = False

    def __init__(self, kind: str, of: Family, core: Family | None = None) -> None:
        self.name = f"listed-{of.name}"
        self.kind, self.of, self.core = kind, of, core or of

    def scores(self, generator: torch.Generator, batch: int, n: int, dtype: torch.dtype = torch.float64) -> Scores:
        weights = torch.rand(batch, NUMBER, generator=generator, dtype=torch.float64).to(dtype)
        return {"weights": weights, "picks": torch.randint(1 << 30, (batch, NUMBER), generator=generator)}

    @functools.cache  # noqa: B019
    def _space(self, n: int, core: bool) -> Sequence[Structure]:
        return list((self.core if core else self.of).structures(n))

    def chosen(self, scores: Scores, item: int, n: int) -> list[Structure]:
        spaces = [self._space(n, number % 2 == 0) for number in range(NUMBER)]
        picks = scores["picks"][item].tolist()
        return [space[pick % len(space)] for space, pick in zip(spaces, picks, strict=True)]

    def enumerate(self, scores: Scores, lengths: Sequence[int], temperature: float = 1.0) -> list[Enumeration]:
        found = []
        for item, n in enumerate(lengths):
            total: dict[Structure, float] = {}
            for y, weight in zip(self.chosen(scores, item, n), scores["weights"][item].tolist(), strict=True):
                total[y] = total.get(y, 0.0) + weight
            found.append(Enumeration.from_probabilities({y: w ** (1 / temperature) for y, w in total.items()}))
        return found

    def masked(
        self,
        scores: Scores,
        lengths: Sequence[int],
        generator: torch.Generator,
        rate: float = 0.3,
        among: Callable[[int], Iterable[Structure]] | None = None,
    ) -> tuple[Scores, list[Structure]]:
        """Give some structures the weight 0; the first stays, which the core family has."""
        out = torch.rand(scores["weights"].shape, generator=generator) < rate
        out[:, 0] = False
        kept = [self.chosen(scores, item, n)[0] for item, n in enumerate(lengths)]
        return scores | {"weights": scores["weights"].masked_fill(out, 0.0)}, kept

    def poisoned(self, scores: Scores, lengths: Sequence[int], value: float) -> Scores:
        return scores  # `build` puts noise into the padding

    def build(self, scores: Scores, lengths: Tensor | None = None, **options: Any) -> Any:
        assert lengths is not None
        weights, rows = scores["weights"], [self.chosen(scores, item, n) for item, n in enumerate(lengths.tolist())]
        if self.kind == "spans":
            return structkd.Empirical.from_spans(rows, lengths, weights=weights, **options)
        table = torch.full((len(rows), NUMBER, int(lengths.max()) + 1), -100)
        relations = torch.full_like(table, 99)
        labelled = self.kind == "relations"
        for item, sentence in enumerate(rows):
            for k, structure in enumerate(sentence):
                if weights[item, k]:
                    heads = [part[0] for part in structure] if labelled else list(structure)
                    table[item, k, : len(heads)] = torch.tensor(heads)
                    if labelled:
                        relations[item, k, : len(heads)] = torch.tensor([part[1] for part in structure])
        if self.kind == "labels":
            return structkd.Empirical.from_labels(table, weights, lengths, **options)
        return structkd.Empirical.from_heads(table, relations if labelled else None, weights, lengths, **options)
