"""Teacher marginals over the student's substructures: a registry, and one file for every family of pairs."""

from . import empirical, labels, mixtures, relabelled, second_order, semi_markov, spans
from .dependencies import uncovered
from .registry import fused, matrix, project, register_projection

__all__ = [
    "empirical",
    "fused",
    "labels",
    "matrix",
    "mixtures",
    "project",
    "register_projection",
    "relabelled",
    "second_order",
    "semi_markov",
    "spans",
    "uncovered",
]
