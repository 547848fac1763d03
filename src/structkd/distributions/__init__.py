"""Distributions over structures. The only room that imports torch_struct.

`NEG_INF` is the score of an impossible part. `working_precision` gives the dtype that recursions run in.

Example:
    >>> import torch
    >>> import structkd
    >>> structkd.working_precision(torch.zeros(2)), structkd.NEG_INF
    (torch.float64, -inf)
"""

from .base import StructuredDistribution
from .checks import check_inventory, check_labels, check_scores
from .head_labeling import HeadLabeling
from .head_selection import HeadSelection
from .kernels.arithmetic import NEG_INF, working_precision
from .linear_chain import LinearChainCRF
from .maxent import MaxEnt
from .mean_field import MeanFieldDependency
from .mixture import Mixture
from .nonprojective import NonProjectiveDependencyCRF
from .projective import DependencyCRF
from .relations import RelationScores
from .span import Span, SpanCRF

__all__ = [
    "NEG_INF",
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
    "StructuredDistribution",
    "check_inventory",
    "check_labels",
    "check_scores",
    "working_precision",
]
