"""The registry of distributions under test: a family supplies a handful of hooks and gets every shared test.

A family makes random scores, builds the library's distribution from them, lists the structures of a sentence of n
words, and says of each structure which score cells it sums (`cells`), which cells of the event it sets (`event_cells`)
and what `decode` returns for it (`decoded`). Enumeration, marginals, closed-form gradients and padding all follow.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch_struct
from oracles import (
    Enumeration,
    Structure,
    head_choices,
    mean_field,
    segmentations,
    tag_sequences,
    trees,
    with_relations,
)
from torch import Tensor

import structkd

Scores = dict[str, Tensor]
Cell = tuple[str, tuple[int, ...]]


def remembered(method: Callable[..., Any]) -> Callable[..., Any]:
    """Work out an expected value once for the same arguments: every path of the kernels is compared with it."""
    values: dict[Any, Any] = {}

    def key(argument: Any) -> Any:
        if isinstance(argument, dict):
            return tuple((name, t.shape, t.detach().double().numpy().tobytes()) for name, t in argument.items())
        return tuple(argument) if isinstance(argument, list) else argument

    @functools.wraps(method)
    def remember(self: Any, *arguments: Any, **options: Any) -> Any:
        known = (self, *map(key, arguments), *options.items())
        if known not in values:
            if len(values) == 32:  # the paths of a test follow one another
                del values[next(iter(values))]
            values[known] = method(self, *arguments, **options)
        return values[known]

    return remember


class Family:
    """Hooks of one distribution class; `name` is the test id."""

    name: str
    batched: tuple[str, ...] = ("scores",)  # tensors with a batch axis
    maskable: tuple[str, ...] = ("scores",)  # tensors in which -inf means impossible
    shiftable: tuple[str, ...] = ("scores",)  # tensors to which a constant may be added without changing anything
    lengths: tuple[int, ...] = (3, 1, 4, 2)
    ragged: tuple[int, ...] = (3, 1, 5, 2, 4)  # for the losses
    torch_struct_class: type | None = None
    partition_is_sum = True  # partition is the log-sum-exp of the enumerated scores
    score_is_event = True  # `scores` and the events have the same cells, so d partition / d scores = marginals
    one_word_events = True  # the event of a one-word sentence says which structure it is
    student = True
    paths: tuple[str, ...] = ("compiled", "torch")  # the paths of the kernels on which its results are worked out

    # what a family says of itself
    def scores(self, generator: torch.Generator, batch: int, n: int, dtype: torch.dtype = torch.float64) -> Scores:
        raise NotImplementedError

    def build(self, scores: Scores, lengths: Tensor | None = None, **options: Any) -> Any:
        raise NotImplementedError

    def structures(self, n: int) -> Sequence[Structure]:
        raise NotImplementedError

    def cells(self, structure: Structure) -> list[Cell]:
        """The score cells a structure sums, without the batch index."""
        raise NotImplementedError

    def event_cells(self, structure: Structure) -> list[tuple[int, ...]]:
        return [index for _, index in self.cells(structure)]

    def event_shape(self, n: int) -> tuple[int, ...]:
        raise NotImplementedError

    def decoded(self, structure: Structure, width: int) -> Any:
        row = list(structure)
        return row + [-1] * (width - len(row))

    # what follows
    def __repr__(self) -> str:
        return self.name

    @functools.cache  # noqa: B019  (families live as long as the test run)
    def _structures(self, n: int) -> tuple[tuple[Structure, tuple[Cell, ...]], ...]:
        return tuple((y, tuple(self.cells(y))) for y in self.structures(n))

    @functools.cache  # noqa: B019
    def live(self, n: int) -> frozenset[Cell]:
        """Every cell that some structure of n words uses."""
        return frozenset(cell for _, cells in self._structures(n) for cell in cells)

    def place(self, cell: Cell, item: int) -> tuple[str, tuple[int, ...]]:
        """A cell's index in the tensor that holds it."""
        name, index = cell
        return name, ((item, *index) if name in self.batched else index)

    @remembered
    def enumerate(self, scores: Scores, lengths: Sequence[int], temperature: float = 1.0) -> list[Enumeration]:
        tables = {name: tensor.tolist() for name, tensor in scores.items()}
        return [self._enumerate(tables, item, n, temperature) for item, n in enumerate(lengths)]

    def _enumerate(self, tables: dict[str, Any], item: int, n: int, temperature: float) -> Enumeration:
        values: dict[Cell, float] = {}
        for cell in self.live(n):
            name, index = self.place(cell, item)
            value = tables[name]
            for axis in index:
                value = value[axis]
            values[cell] = value / temperature
        return Enumeration({y: math.fsum(values[c] for c in cells) for y, cells in self._structures(n)})

    def marginals(self, scores: Scores, lengths: Sequence[int], width: int, temperature: float = 1.0) -> Tensor:
        """Event marginals by enumeration, [B, *event]."""
        return self.events(self.enumerate(scores, lengths, temperature), width)

    def events(self, enumerations: Sequence[Enumeration], width: int) -> Tensor:
        expected = torch.zeros(len(enumerations), *self.event_shape(width), dtype=torch.float64)
        for item, enumeration in enumerate(enumerations):
            for index, value in enumeration.expectation(self.event_cells).items():
                expected[(item, *index)] = value
        return expected

    def event(self, structure: Structure, width: int) -> Tensor:
        event = torch.zeros(self.event_shape(width), dtype=torch.float64)
        for index in self.event_cells(structure):
            event[index] = 1.0
        return event

    def structure_of(self, event: Tensor, n: int) -> Structure | None:
        """The structure whose event this is, None for an illegal event; one-word chains give some structure."""
        return self._by_event(n).get(frozenset(tuple(i) for i in event.nonzero().tolist()))

    @functools.cache  # noqa: B019
    def _by_event(self, n: int) -> dict[frozenset[tuple[int, ...]], Structure]:
        return {frozenset(self.event_cells(y)): y for y in self.structures(n)}

    # ways of changing scores
    def floats(self, scores: Scores) -> list[str]:
        return [name for name, tensor in scores.items() if tensor.is_floating_point()]

    def map(self, scores: Scores, function: Any) -> Scores:
        """`function` applied to the floating-point tensors."""
        names = self.floats(scores)
        return {name: function(tensor) if name in names else tensor for name, tensor in scores.items()}

    def to(self, scores: Scores, dtype: torch.dtype) -> Scores:
        return self.map(scores, lambda tensor: tensor.to(dtype))

    def with_grad(self, scores: Scores) -> Scores:
        return self.map(scores, lambda tensor: tensor.detach().clone().requires_grad_())

    def shifted(self, scores: Scores, constant: float) -> Scores:
        return {name: t + constant if name in self.shiftable else t for name, t in scores.items()}

    def permuted(self, scores: Scores, order: Tensor) -> Scores:
        return {name: t[order] if name in self.batched else t for name, t in scores.items()}

    def padding(self, scores: Scores, lengths: Sequence[int]) -> dict[str, Tensor]:
        """Boolean masks of the cells of the batched tensors that no structure of the sentence uses."""
        masks = {n: torch.ones_like(scores[n], dtype=torch.bool) for n in self.floats(scores) if n in self.batched}
        for item, n in enumerate(lengths):
            for cell in self.live(n):
                name, index = self.place(cell, item)
                if name in masks:
                    masks[name][index] = False
        return masks

    def poisoned(self, scores: Scores, lengths: Sequence[int], value: float) -> Scores:
        """The same scores with `value` in every cell that is to be ignored."""
        masks = self.padding(scores, lengths)
        return {name: t.masked_fill(masks[name], value) if name in masks else t for name, t in scores.items()}

    def masked(
        self,
        scores: Scores,
        lengths: Sequence[int],
        generator: torch.Generator,
        rate: float = 0.3,
        among: Callable[[int], Iterable[Structure]] | None = None,
    ) -> tuple[Scores, list[Structure]]:
        """Random cells set to -inf, around one structure of each sentence (of `among`) that stays possible."""
        masks = {n: torch.rand(scores[n].shape, generator=generator) < rate for n in self.maskable if n in scores}
        kept = []
        for item, n in enumerate(lengths):
            allowed = None if among is None else set(among(n))
            choices = [one for one in self._structures(n) if allowed is None or one[0] in allowed]
            structure, cells = choices[int(torch.randint(len(choices), (1,), generator=generator))]
            kept.append(structure)
            for cell in cells:
                name, index = self.place(cell, item)
                if name in masks:
                    masks[name][index] = False
        return {name: t.masked_fill(masks[name], -math.inf) if name in masks else t for name, t in scores.items()}, kept

    def only(self, scores: Scores, lengths: Sequence[int], structures: Sequence[Structure]) -> Scores:
        """Scores under which the given structures are the only possible ones."""
        result = {name: torch.full_like(t, -math.inf) if name in self.maskable else t for name, t in scores.items()}
        for item, (n, chosen) in enumerate(zip(lengths, structures, strict=True)):
            for cell in dict(self._structures(n))[chosen]:
                name, index = self.place(cell, item)
                if name in self.maskable:
                    result[name][index] = scores[name][index]
        return result

    def gradients(self, scores: Scores, counts: Sequence[dict[Cell, float]]) -> Scores:
        """Tensors shaped as the scores that hold the given expected counts."""
        result = {name: torch.zeros(scores[name].shape, dtype=torch.float64) for name in self.floats(scores)}
        for item, expected in enumerate(counts):
            for cell, value in expected.items():
                name, index = self.place(cell, item)
                result[name][index] += value
        return result


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

    def __init__(self, ends: bool) -> None:
        self.ends = ends
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


DENSE, FACTORED, BARE, MAXENT = DenseChain(), FactoredChain(True), FactoredChain(False), MaxEnt()
HEADS, HEADS_LABELLED = HeadSelection(), HeadSelection(2)
PROJECTIVE, PROJECTIVE_MULTI = Trees(True, False), Trees(True, True)
NONPROJECTIVE, NONPROJECTIVE_MULTI = Trees(False, False), Trees(False, True)
TREES = [PROJECTIVE, PROJECTIVE_MULTI, NONPROJECTIVE, NONPROJECTIVE_MULTI]
TREES_LABELLED = [Trees(projective, multiroot, 2) for projective in (True, False) for multiroot in (False, True)]
MEAN_FIELD = MeanField()
MEAN_FIELDS = [MEAN_FIELD, MeanField(grandparents=False), MeanField(siblings=False, iterations=1)]
HEAD_LABELING, SPANS = HeadLabeling(4), Spans()

ARCS = [HEADS, *TREES]
ARCS_LABELLED = [HEADS_LABELLED, *TREES_LABELLED]
FAMILIES: list[Family] = [
    *(DENSE, FACTORED, BARE, MAXENT, HEADS, HEADS_LABELLED),
    *TREES,
    *TREES_LABELLED,
    *MEAN_FIELDS,
    *(HEAD_LABELING, SPANS),
]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


TOLERANCE = {
    torch.float64: {"rtol": 1e-9, "atol": 1e-10},
    torch.float32: {"rtol": 1e-4, "atol": 1e-4},
    torch.float16: {"rtol": 4e-3, "atol": 4e-3},
    torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2},
}


def agrees(actual: Tensor, expected: Tensor | Sequence[float], dtype: torch.dtype | None = None) -> bool:
    """Whether the values agree at the tolerance of `dtype` (default: the actual's own); -inf and +inf match themselves.

    Raises AssertionError with the differences, so that a failing `assert agrees(...)` says where.
    """
    wanted = torch.as_tensor(expected, dtype=torch.float64)
    tolerance = TOLERANCE[dtype or actual.dtype]
    torch.testing.assert_close(actual.detach().double(), wanted.detach().double(), **tolerance)
    return True


def lengths_tensor(lengths: Iterable[int]) -> Tensor:
    return torch.tensor(list(lengths), dtype=torch.long)
