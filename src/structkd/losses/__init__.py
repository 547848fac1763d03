"""Losses between teacher and student distributions: pure tensors."""

from .baselines import emission_kd_loss, logit_matching_loss, posterior_kd_loss, token_kd_loss, topk_kd_loss
from .modules import EmissionKDLoss, LogitMatchingLoss, PosteriorKDLoss, StructuralKDLoss, TokenKDLoss, TopKKDLoss
from .objective import ConstantInterpolation, KDObjective, LinearAnnealing
from .structural import structural_kd_loss, supervised_loss

__all__ = [
    "ConstantInterpolation",
    "EmissionKDLoss",
    "KDObjective",
    "LinearAnnealing",
    "LogitMatchingLoss",
    "PosteriorKDLoss",
    "StructuralKDLoss",
    "TokenKDLoss",
    "TopKKDLoss",
    "emission_kd_loss",
    "logit_matching_loss",
    "posterior_kd_loss",
    "structural_kd_loss",
    "supervised_loss",
    "token_kd_loss",
    "topk_kd_loss",
]
