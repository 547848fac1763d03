"""structkd: structural knowledge distillation for sequence labelling and dependency parsing, on pytorch-struct.

    teacher = structkd.LinearChainCRF.from_scores(emissions, transitions, lengths=lengths)
    student = structkd.MaxEnt(logits, lengths=lengths)
    structkd.structural_kd_loss(teacher, student).backward()

This module loads torch and torch-struct only; models, data and the command live in subpackages of their own.
"""

from .distributions import (
    DependencyCRF,
    HeadLabeling,
    HeadSelection,
    LinearChainCRF,
    MaxEnt,
    MeanFieldDependency,
    Mixture,
    NonProjectiveDependencyCRF,
    RelationScores,
    Span,
    SpanCRF,
)
from .losses import (
    ConstantInterpolation,
    EmissionKDLoss,
    KDObjective,
    LinearAnnealing,
    PosteriorKDLoss,
    StructuralKDLoss,
    TokenKDLoss,
    TopKKDLoss,
    emission_kd_loss,
    posterior_kd_loss,
    structural_kd_loss,
    supervised_loss,
    token_kd_loss,
    topk_kd_loss,
)
from .projections import project, register_projection, uncovered

__version__ = "0.1.0"

__all__ = [
    "ConstantInterpolation",
    "DependencyCRF",
    "EmissionKDLoss",
    "HeadLabeling",
    "HeadSelection",
    "KDObjective",
    "LinearAnnealing",
    "LinearChainCRF",
    "MaxEnt",
    "MeanFieldDependency",
    "Mixture",
    "NonProjectiveDependencyCRF",
    "PosteriorKDLoss",
    "RelationScores",
    "Span",
    "SpanCRF",
    "StructuralKDLoss",
    "TokenKDLoss",
    "TopKKDLoss",
    "emission_kd_loss",
    "posterior_kd_loss",
    "project",
    "register_projection",
    "structural_kd_loss",
    "supervised_loss",
    "token_kd_loss",
    "topk_kd_loss",
    "uncovered",
]
