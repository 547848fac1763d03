"""Distributions over structures. The only room that imports torch_struct."""

from .head_labeling import HeadLabeling
from .head_selection import HeadSelection
from .linear_chain import LinearChainCRF
from .maxent import MaxEnt
from .mean_field import MeanFieldDependency
from .mixture import Mixture
from .nonprojective import NonProjectiveDependencyCRF
from .projective import DependencyCRF
from .relations import RelationScores
from .span import Span, SpanCRF

__all__ = [
    "DependencyCRF",
    "HeadLabeling",
    "HeadSelection",
    "LinearChainCRF",
    "MaxEnt",
    "MeanFieldDependency",
    "Mixture",
    "NonProjectiveDependencyCRF",
    "RelationScores",
    "Span",
    "SpanCRF",
]
