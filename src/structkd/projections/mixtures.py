"""The projection of mixtures of teachers onto any student."""

from __future__ import annotations

from torch.distributions import Distribution

from ..distributions import Mixture
from ..distributions.base import Parts, StructuredDistribution
from .registry import register_projection, targets


@register_projection(Mixture, Distribution)
def _(teacher: Mixture, student: StructuredDistribution) -> Parts:
    """Return sum_t w_t P_t(u); each component is projected, and conditioned on the student's space, separately."""
    projected = [targets(component, student) for component in teacher.components]
    weighted = [
        tuple(weight * part for part in parts) for weight, parts in zip(teacher.weights, projected, strict=True)
    ]
    return tuple(sum(parts[1:], start=parts[0]) for parts in zip(*weighted, strict=True))
