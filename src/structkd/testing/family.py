"""The hooks by which a distribution class is tested, and the expected values that follow by enumeration."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from structkd.testing.enumeration import Enumeration, Structure

__all__ = ["TOLERANCE", "Cell", "Family", "Scores", "agrees", "lengths_tensor", "remembered", "seeded"]

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
    """The hooks of a distribution class under test. A subclass writes the six methods that raise NotImplementedError.

    Scores are a dictionary of tensors; a *cell* is the name of a tensor and an index into it, without the batch index.
    Structures are tuples, listed for sentences of a few words. Everything that is expected follows from these.

    Attributes:
        name: how failures call the family.
        batched: tensors with a batch axis.
        maskable: tensors in which -inf means impossible.
        shiftable: tensors to which a constant may be added without changing a probability.
        shared: tensors that two distributions have in common if they are compared with each other.
        lengths: of the sentences of a batch; every structure of the longest is listed.
        shortest: how many words a sentence has at least if it is alone in its batch.
        torch_struct_class: the class of torch-struct that the distribution is an instance of, if there is one.
        partition_is_sum: whether the partition is the log-sum-exp of the listed scores.
        one_word_events: whether the event of a one-word sentence identifies its structure.
    """

    name: str
    batched: tuple[str, ...] = ("scores",)  # tensors with a batch axis
    maskable: tuple[str, ...] = ("scores",)  # tensors in which -inf means impossible
    shiftable: tuple[str, ...] = ("scores",)  # tensors to which a constant may be added without changing anything
    shared: tuple[str, ...] = ()  # tensors that two distributions have in common if they are compared
    lengths: tuple[int, ...] = (3, 1, 4, 2)
    shortest = 1
    torch_struct_class: type | None = None
    partition_is_sum = True  # partition is the log-sum-exp of the enumerated scores
    one_word_events = True  # the event of a one-word sentence identifies its structure

    # the hooks
    def scores(self, generator: torch.Generator, batch: int, n: int, dtype: torch.dtype = torch.float64) -> Scores:
        """Draw random scores for `batch` sentences of at most `n` words."""
        raise NotImplementedError

    def build(self, scores: Scores, lengths: Tensor | None = None, **options: Any) -> Any:
        """Build the distribution; without lengths every sentence is as long as the tensors allow."""
        raise NotImplementedError

    def structures(self, n: int) -> Sequence[Structure]:
        """List every structure of a sentence of `n` words."""
        raise NotImplementedError

    def cells(self, structure: Structure) -> list[Cell]:
        """Return the score cells that a structure sums, without the batch index."""
        raise NotImplementedError

    def event_cells(self, structure: Structure) -> list[tuple[int, ...]]:
        """Return the cells of the event that a structure sets to 1; those of the scores unless overridden."""
        return [index for _, index in self.cells(structure)]

    def event_shape(self, n: int) -> tuple[int, ...]:
        """Return the shape of the marginals of one sentence."""
        raise NotImplementedError

    def decoded(self, structure: Structure, width: int) -> Any:
        """Return the result of `decode` for a structure in a batch of `width` words, as a list."""
        row = list(structure)
        return row + [-1] * (width - len(row))

    # results that follow from the hooks
    def __repr__(self) -> str:
        return self.name

    @functools.cache  # noqa: B019  (families live as long as the test run)
    def _structures(self, n: int) -> tuple[tuple[Structure, tuple[Cell, ...]], ...]:
        return tuple((y, tuple(self.cells(y))) for y in self.structures(n))

    @functools.cache  # noqa: B019
    def live(self, n: int) -> frozenset[Cell]:
        """Return every cell that some structure of n words uses."""
        return frozenset(cell for _, cells in self._structures(n) for cell in cells)

    def place(self, cell: Cell, item: int) -> tuple[str, tuple[int, ...]]:
        """Return a cell's index in the tensor that holds it."""
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
        """Compute event marginals by enumeration, [B, *event]."""
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
        """Return the structure of an event, or None for an illegal event; one-word chains give any structure."""
        return self._by_event(n).get(frozenset(tuple(i) for i in event.nonzero().tolist()))

    @functools.cache  # noqa: B019
    def _by_event(self, n: int) -> dict[frozenset[tuple[int, ...]], Structure]:
        return {frozenset(self.event_cells(y)): y for y in self.structures(n)}

    # ways of changing scores
    def floats(self, scores: Scores) -> list[str]:
        return [name for name, tensor in scores.items() if tensor.is_floating_point()]

    def map(self, scores: Scores, function: Any) -> Scores:
        """Apply `function` to the floating-point tensors."""
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
        """Return boolean masks of the cells of batched tensors that no structure of the sentence uses."""
        masks = {n: torch.ones_like(scores[n], dtype=torch.bool) for n in self.floats(scores) if n in self.batched}
        for item, n in enumerate(lengths):
            for cell in self.live(n):
                name, index = self.place(cell, item)
                if name in masks:
                    masks[name][index] = False
        return masks

    def poisoned(self, scores: Scores, lengths: Sequence[int], value: float) -> Scores:
        """Return the same scores with `value` in every cell that is to be ignored."""
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
        """Set random cells to -inf, but keep one structure of each sentence (of `among`) possible."""
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
        """Return scores under which the given structures are the only possible ones."""
        result = {name: torch.full_like(t, -math.inf) if name in self.maskable else t for name, t in scores.items()}
        for item, (n, chosen) in enumerate(zip(lengths, structures, strict=True)):
            for cell in dict(self._structures(n))[chosen]:
                name, index = self.place(cell, item)
                if name in self.maskable:
                    result[name][index] = scores[name][index]
        return result

    def gradients(self, scores: Scores, counts: Sequence[dict[Cell, float]]) -> Scores:
        """Return tensors shaped like the scores that hold the given expected counts."""
        result = {name: torch.zeros(scores[name].shape, dtype=torch.float64) for name in self.floats(scores)}
        for item, expected in enumerate(counts):
            for cell, value in expected.items():
                name, index = self.place(cell, item)
                result[name][index] += value
        return result


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


#: The relative and the absolute tolerance.
TOLERANCE = {
    torch.float64: (1e-9, 1e-10),
    torch.float32: (1e-4, 1e-4),
    torch.float16: (4e-3, 4e-3),
    torch.bfloat16: (2e-2, 2e-2),
}


def agrees(actual: Tensor, expected: Tensor | Sequence[float], dtype: torch.dtype | None = None) -> bool:
    """Whether the values agree at the tolerance of `dtype` (default: the actual's own); -inf and +inf match themselves.

    Raises AssertionError with the differences, so that a failing `assert agrees(...)` says where.
    """
    wanted = torch.as_tensor(expected, dtype=torch.float64)
    relative, absolute = TOLERANCE[dtype or actual.dtype]
    torch.testing.assert_close(actual.detach().double(), wanted.detach().double(), rtol=relative, atol=absolute)
    return True


def lengths_tensor(lengths: Iterable[int]) -> Tensor:
    return torch.tensor(list(lengths), dtype=torch.long)
