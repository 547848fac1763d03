"""Mixtures of teachers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.distributions import Distribution

from .base import adopt
from .checks import check_number, check_temperature


class Mixture(Distribution):
    """A weighted mixture of teachers of the same sentences: their marginals average exactly. Teacher only.

    Args:
        components: distributions with equal batches and lengths, not necessarily of one class: each is projected onto
            the student's parts on its own.
        weights: non-negative numbers, one per component, that sum to 1; None means equal weights.

    Temperature applies to every component. Raises TypeError or ValueError for a wrong kind, number or value.

    Example:
        >>> import torch
        >>> import structkd
        >>> teachers = [structkd.MaxEnt(torch.tensor([[[0.0, x]]])) for x in (0.0, 2.0)]
        >>> student = structkd.MaxEnt(torch.zeros(1, 1, 2))
        >>> loss = structkd.structural_kd_loss(Mixture(teachers, weights=[0.25, 0.75]), student)
        >>> round(loss.item(), 4)  # log 2, since the student is uniform
        0.6931
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - the name and type torch.distributions reads

    def __init__(
        self,
        components: Sequence[Distribution],
        weights: Sequence[float] | torch.Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        components = [components] if isinstance(components, Distribution) else list(components)
        if not components:
            raise ValueError("A Mixture needs at least one component, got none.")
        for component in components:
            if not isinstance(component, Distribution):
                raise TypeError(f"The components must be distributions, got {type(component).__name__}.")
        self.components = [adopt(component) for component in components]
        self.weights = _check_weights(weights, len(components))
        first = self.components[0]
        for component in self.components[1:]:
            if component.batch_shape != first.batch_shape:
                raise ValueError(
                    "The components must have equal batch shapes, got "
                    f"{list(first.batch_shape)} and {list(component.batch_shape)}."
                )
            lengths = getattr(component, "lengths", None), getattr(first, "lengths", None)
            if None not in lengths and lengths[0].tolist() != lengths[1].tolist():  # type: ignore[union-attr]
                raise ValueError(
                    f"The components must have equal lengths, got {lengths[1].tolist()} and {lengths[0].tolist()}."  # type: ignore[union-attr]
                )
        self.lengths = getattr(first, "lengths", None)
        super().__init__(first.batch_shape, validate_args=validate_args)

    def __repr__(self) -> str:
        return f"Mixture({self.components}, weights={self.weights})"

    def alone(self) -> Mixture:
        """Return the mixture of the components in which every word chooses by its own scores."""
        alone = [component.alone() if hasattr(component, "alone") else component for component in self.components]
        return Mixture(alone, self.weights)

    def tempered(self, temperature: float) -> Mixture:
        """Return the mixture of the components, each with its scores divided by `temperature`."""
        temperature = check_temperature(temperature)
        if temperature == 1:
            return self
        return Mixture([component.tempered(temperature) for component in self.components], self.weights)


def _check_weights(weights: Any, components: int) -> list[float]:
    if weights is None:
        return [1.0 / components] * components
    values = weights.tolist() if isinstance(weights, torch.Tensor) else weights
    if not isinstance(values, Iterable):
        raise TypeError(f"The weights must be a sequence of {components} numbers, got {type(weights).__name__}.")
    values = [check_number("weights", weight) for weight in values]
    if len(values) != components:
        raise ValueError(f"The weights must be one number per component ({components}), got {len(values)}.")
    if any(not math.isfinite(w) or w < 0 for w in values):
        raise ValueError(f"The weights must be finite and not negative, got {values}.")
    if abs(sum(values) - 1.0) > 1e-6:
        raise ValueError(f"The weights must sum to 1, got {values} with sum {sum(values)}.")
    return values
