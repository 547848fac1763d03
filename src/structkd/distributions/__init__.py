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
from .empirical import Empirical
from .head_labeling import HeadLabeling
from .head_selection import HeadSelection
from .kernels.arithmetic import NEG_INF, working_precision
from .legality import legal
from .linear_chain import LinearChainCRF
from .maxent import MaxEnt
from .mean_field import MeanFieldDependency
from .mixture import Mixture
from .nonprojective import NonProjectiveDependencyCRF
from .projective import DependencyCRF
from .relabelled import Relabelled, relabel, retag
from .relations import RelationScores
from .second_order_chain import SecondOrderChainCRF
from .semi_markov import SemiMarkovCRF
from .span import Span, SpanCRF

__all__ = [
    "NEG_INF",
    "DependencyCRF",
    "Empirical",
    "HeadLabeling",
    "HeadSelection",
    "LinearChainCRF",
    "MaxEnt",
    "MeanFieldDependency",
    "Mixture",
    "NonProjectiveDependencyCRF",
    "Relabelled",
    "RelationScores",
    "SecondOrderChainCRF",
    "SemiMarkovCRF",
    "Span",
    "SpanCRF",
    "StructuredDistribution",
    "check_inventory",
    "check_labels",
    "check_scores",
    "legal",
    "relabel",
    "retag",
    "working_precision",
]
