"""The registry of distributions under test, with the hooks of each."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch_struct
from oracles import (
    Enumeration,
    Structure,
    head_choices,
    mean_field,
    segment_starts,
    segmentations,
    tag_sequences,
    trees,
    with_relations,
)
from torch import Tensor

import structkd
from structkd import testing
from structkd.testing import Cell, Scores, agrees, lengths_tensor, remembered, seeded

__all__ = ["agrees", "lengths_tensor", "remembered", "seeded"]


class Family(testing.Family):
    """The hooks, and what the tests of losses and of the paths of the kernels ask besides."""

    ragged: tuple[int, ...] = (3, 1, 5, 2, 4)  # lengths, for the losses
    score_is_event = True  # `scores` and the events have the same cells, so d partition / d scores = marginals
    student = True
    paths: tuple[str, ...] = ("compiled", "torch")  # the paths of the kernels on which its results are worked out


def random(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


class Chain(Family):
    labels = 3
    paths = ("compiled", "torch", "log", "triton")
    torch_struct_class = torch_struct.LinearChainCRF
    one_word_events = False

    def structures(self, n: int) -> Sequence[Structure]:
        return tag_sequences(n, self.labels)

    def event_cells(self, structure: Structure) -> list[tuple[int, ...]]:
        return [(n, structure[n + 1], structure[n]) for n in range(len(structure) - 1)]

    def event_shape(self, n: int) -> tuple[int, ...]:
        return (n - 1, self.labels, self.labels)


class DenseChain(Chain):
    name = "chain-dense"
    shortest = 2

    def __init__(self, labels: int = 3) -> None:
        self.labels = labels

    def scores(self, generator: torch.Generator, batch: int, n: int, dtype: torch.dtype = torch.float64) -> Scores:
        return {"scores": random(generator, batch, n - 1, self.labels, self.labels, dtype=dtype)}

    def build(self, scores: Scores, lengths: Tensor | None = None, **options: Any) -> Any:
        return structkd.LinearChainCRF(scores["scores"], lengths=lengths, **options)

    def cells(self, structure: Structure) -> list[Cell]:
        return [("scores", index) for index in self.event_cells(structure)]


class FactoredChain(Chain):
    batched = ("emissions",)
    maskable = ("emissions", "transitions")
    shiftable = ("emissions", "transitions", "start", "end")
    score_is_event = False

    def __init__(self, ends: bool, labels: int = 3) -> None:
        self.ends, self.labels = ends, labels
        self.name = "chain-factored" if ends else "chain-factored-bare"

    def scores(self, generator: torch.Generator, batch: int, n: int, dtype: torch.dtype = torch.float64) -> Scores:
        c = self.labels
        scores = {"emissions": random(generator, batch, n, c), "transitions": random(generator, c, c)}
        if self.ends:
            scores |= {"start": random(generator, c), "end": random(generator, c)}
        return self.to(scores, dtype)

    def build(self, scores: Scores, lengths: Tensor | None = None, **options: Any) -> Any:
        return structkd.LinearChainCRF.from_scores(**scores, lengths=lengths, **options)

    def cells(self, structure: Structure) -> list[Cell]:
        cells: list[Cell] = [("emissions", (n, tag)) for n, tag in enumerate(structure)]
        cells += [("transitions", (after, before)) for before, after in itertools.pairwise(structure)]
        if self.ends:
            cells += [("start", (structure[0],)), ("end", (structure[-1],))]
        return cells


class MaxEnt(Family):
    name = "maxent"
    paths = ("torch",)  # a softmax

    def __init__(self, labels: int = 3) -> None:
        self.labels = labels

    def scores(self, generator: torch.Generator, batch: int, n: int, dtype: torch.dtype = torch.float64) -> Scores:
        return {"scores": random(generator, batch, n, self.labels, dtype=dtype)}

    def build(self, scores: Scores, lengths: Tensor | None = None, **options: Any) -> Any:
        return structkd.MaxEnt(scores["scores"], lengths=lengths, **options)

    def structures(self, n: int) -> Sequence[Structure]:
        return tag_sequences(n, self.labels)

    def cells(self, structure: Structure) -> list[Cell]:
        return [("scores", (n, tag)) for n, tag in enumerate(structure)]

    def event_shape(self, n: int) -> tuple[int, ...]:
        return (n, self.labels)


class HeadLabeling(MaxEnt):
    """Labels of words; what the labels mean plays no part in the distribution itself."""

    name = "head-labeling"
    paths = ("compiled", "torch")
    batched = ("scores", "heads")
    shared = ("heads",)

    def scores(self, generator: torch.Generator, batch: int, n: int, dtype: torch.dtype = torch.float64) -> Scores:
        heads = torch.randint(-1, n, (batch, n, self.labels), generator=generator)
        return super().scores(generator, batch, n, dtype) | {"heads": heads}

    def build(self, scores: Scores, lengths: Tensor | None = None, **options: Any) -> Any:
        return structkd.HeadLabeling(scores["scores"], scores["heads"], lengths=lengths, **options)


class Arcs(Family):
    """Head assignments, with relations or without."""

    def __init__(self, name: str, relations: int | None = None) -> None:
        self.name = name if relations is None else f"{name}-labelled"
        self.relations = relations
        if relations is not None:
            self.lengths = (3, 1, 2)
            self.ragged = (2, 1, 3)

    def heads(self, n: int) -> Sequence[Structure]:
        raise NotImplementedError

    def scores(self, generator: torch.Generator, batch: int, n: int, dtype: torch.dtype = torch.float64) -> Scores:
        return {"scores": random(generator, batch, *self.event_shape(n), dtype=dtype)}

    def structures(self, n: int) -> Sequence[Structure]:
        heads = self.heads(n)
        return heads if self.relations is None else with_relations(heads, self.relations)

    def cells(self, structure: Structure) -> list[Cell]:
        if self.relations is None:
            return [("scores", (head, word)) for word, head in enumerate(structure)]
        return [("scores", (head, word, relation)) for word, (head, relation) in enumerate(structure)]

    def event_shape(self, n: int) -> tuple[int, ...]:
        return (n, n) if self.relations is None else (n, n, self.relations)

    def decoded(self, structure: Structure, width: int) -> Any:
        heads = structure if self.relations is None else tuple(head for head, _ in structure)
        return super().decoded(heads, width)


class HeadSelection(Arcs):
    paths = ("torch",)  # a softmax

    def __init__(self, relations: int | None = None) -> None:
        super().__init__("head-selection", relations)

    def heads(self, n: int) -> Sequence[Structure]:
        return head_choices(n)

    def build(self, scores: Scores, lengths: Tensor | None = None, **options: Any) -> Any:
        return structkd.HeadSelection(scores["scores"], lengths=lengths, **options)


class Trees(Arcs):
    def __init__(self, projective: bool, multiroot: bool, relations: int | None = None) -> None:
        kind = "projective" if projective else "nonprojective"
        super().__init__(f"{kind}-{'multi' if multiroot else 'single'}", relations)
        self.projective, self.multiroot = projective, multiroot
        self.paths = ("compiled", "torch") if projective else ("compiled", "torch", "log")
        self.torch_struct_class = torch_struct.DependencyCRF if projective else torch_struct.NonProjectiveDependencyCRF

    def heads(self, n: int) -> Sequence[Structure]:
        return trees(n, self.projective, self.multiroot)

    def build(self, scores: Scores, lengths: Tensor | None = None, **options: Any) -> Any:
        kind = structkd.DependencyCRF if self.projective else structkd.NonProjectiveDependencyCRF
        return kind(scores["scores"], lengths=lengths, multiroot=self.multiroot, **options)


class MeanField(Arcs):
    batched = ("arcs", "siblings", "grandparents")
    maskable = ("arcs",)
    shiftable = ("arcs",)
    partition_is_sum = False
    score_is_event = False
    student = False

    def __init__(self, siblings: bool = True, grandparents: bool = True, iterations: int = 3) -> None:
        parts = "".join(letter for letter, on in (("s", siblings), ("g", grandparents)) if on)
        super().__init__(f"mean-field-{parts}{iterations}")
        self.second_order = [n for n, on in (("siblings", siblings), ("grandparents", grandparents)) if on]
        self.iterations = iterations

    def heads(self, n: int) -> Sequence[Structure]:
        return head_choices(n)

    def scores(self, generator: torch.Generator, batch: int, n: int, dtype: torch.dtype = torch.float64) -> Scores:
        scores = {"arcs": random(generator, batch, n, n, dtype=dtype)}
        return scores | {name: random(generator, batch, n, n, n, dtype=dtype) for name in self.second_order}

    def build(self, scores: Scores, lengths: Tensor | None = None, **options: Any) -> Any:
        return structkd.MeanFieldDependency(
            scores["arcs"],
            scores.get("siblings"),
            scores.get("grandparents"),
            lengths=lengths,
            iterations=self.iterations,
            **options,
        )

    def cells(self, structure: Structure) -> list[Cell]:
        return [("arcs", (head, word)) for word, head in enumerate(structure)]

    @functools.cache  # noqa: B019
    def live(self, n: int) -> frozenset[Cell]:
        """First-order cells as everywhere, and the second-order cells of the sentence's words."""
        triples = [(h, d, c) for h in range(n) for d in range(n) for c in range(n)]
        second = [(name, triple) for name in self.second_order for triple in triples]
        return frozenset([("arcs", (h, d)) for h in range(n) for d in range(n)] + second)

    def _enumerate(self, tables: dict[str, Any], item: int, n: int, temperature: float) -> Enumeration:
        second = [tables[name][item] if name in tables else None for name in ("siblings", "grandparents")]
        log_q = mean_field(tables["arcs"][item], second[0], second[1], n, self.iterations, temperature)
        return Enumeration({y: sum(log_q[h][d] for d, h in enumerate(y)) for y in self.structures(n)})


class Spans(Family):
    name = "spans"
    shiftable = ()

    def __init__(self, types: int = 2) -> None:
        self.types = types

    def scores(self, generator: torch.Generator, batch: int, n: int, dtype: torch.dtype = torch.float64) -> Scores:
        return {"scores": random(generator, batch, n, n, self.types, dtype=dtype)}

    def build(self, scores: Scores, lengths: Tensor | None = None, **options: Any) -> Any:
        return structkd.SpanCRF(scores["scores"], lengths=lengths, **options)

    def structures(self, n: int) -> Sequence[Structure]:
        return segmentations(n, self.types)

    def cells(self, structure: Structure) -> list[Cell]:
        return [("scores", span) for span in structure]

    def event_shape(self, n: int) -> tuple[int, ...]:
        return (n, n, self.types)

    def decoded(self, structure: Structure, width: int) -> Any:
        return list(structure)


class SecondOrderChain(Family):
    name = "chain-second-order"
    paths = ("torch",)

    def __init__(self, labels: int = 2) -> None:
        self.labels = labels

    def scores(self, generator: torch.Generator, batch: int, n: int, dtype: torch.dtype = torch.float64) -> Scores:
        return {"scores": random(generator, batch, n, *[self.labels] * 3, dtype=dtype)}

    def build(self, scores: Scores, lengths: Tensor | None = None, **options: Any) -> Any:
        return structkd.SecondOrderChainCRF(scores["scores"], lengths=lengths, **options)

    def structures(self, n: int) -> Sequence[Structure]:
        return tag_sequences(n, self.labels)

    def cells(self, structure: Structure) -> list[Cell]:
        padded = (0, 0, *structure)
        return [("scores", (n, padded[n + 2], padded[n + 1], padded[n])) for n in range(len(structure))]

    def event_shape(self, n: int) -> tuple[int, ...]:
        return (n, *[self.labels] * 3)


class SemiMarkov(Family):
    name = "semi-markov"
    labels, longest = 2, 3
    paths = ("torch",)
    shiftable = ()  # segmentations have different numbers of segments
    torch_struct_class = torch_struct.SemiMarkovCRF
    one_word_events = False
    shortest = 2

    def scores(self, generator: torch.Generator, batch: int, n: int, dtype: torch.dtype = torch.float64) -> Scores:
        return {"scores": random(generator, batch, *self.event_shape(n), dtype=dtype)}

    def build(self, scores: Scores, lengths: Tensor | None = None, **options: Any) -> Any:
        return structkd.SemiMarkovCRF(scores["scores"], lengths=lengths, **options)

    def structures(self, n: int) -> Sequence[Structure]:
        return segment_starts(n, self.labels, self.longest)

    def cells(self, structure: Structure) -> list[Cell]:
        starts = [word for word, label in enumerate(structure) if label >= 0]
        return [
            ("scores", (start, after - start, structure[after], structure[start]))
            for start, after in itertools.pairwise(starts)
        ]

    def event_shape(self, n: int) -> tuple[int, ...]:
        return (n - 1, self.longest, self.labels, self.labels)


DENSE, FACTORED, BARE, MAXENT = DenseChain(), FactoredChain(True), FactoredChain(False), MaxEnt()
HEADS, HEADS_LABELLED = HeadSelection(), HeadSelection(2)
PROJECTIVE, PROJECTIVE_MULTI = Trees(True, False), Trees(True, True)
NONPROJECTIVE, NONPROJECTIVE_MULTI = Trees(False, False), Trees(False, True)
TREES = [PROJECTIVE, PROJECTIVE_MULTI, NONPROJECTIVE, NONPROJECTIVE_MULTI]
TREES_LABELLED = [Trees(projective, multiroot, 2) for projective in (True, False) for multiroot in (False, True)]
MEAN_FIELD = MeanField()
MEAN_FIELDS = [MEAN_FIELD, MeanField(grandparents=False), MeanField(siblings=False, iterations=1)]
HEAD_LABELING, SPANS = HeadLabeling(4), Spans()
SECOND_ORDER, SEMI_MARKOV = SecondOrderChain(), SemiMarkov()

ARCS = [HEADS, *TREES]
ARCS_LABELLED = [HEADS_LABELLED, *TREES_LABELLED]
FAMILIES: list[Family] = [
    *(DENSE, FACTORED, BARE, MAXENT, HEADS, HEADS_LABELLED),
    *TREES,
    *TREES_LABELLED,
    *MEAN_FIELDS,
    *(HEAD_LABELING, SPANS, SECOND_ORDER, SEMI_MARKOV),
]
