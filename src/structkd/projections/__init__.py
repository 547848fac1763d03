"""Teacher marginals over the student's substructures: a registry, and one file for every family of pairs."""

from . import labels, mixtures, spans
from .dependencies import uncovered
from .registry import fused, project, register_projection

__all__ = ["fused", "labels", "mixtures", "project", "register_projection", "spans", "uncovered"]
