"""structkd: structural knowledge distillation for sequence labelling and dependency parsing, on pytorch-struct.

    teacher = structkd.LinearChainCRF.from_scores(emissions, transitions, lengths=lengths)
    student = structkd.MaxEnt(logits, lengths=lengths)
    structkd.structural_kd_loss(teacher, student).backward()

    structkd.load("structkd-runs/student-0123456789abcdef").annotate("Ana lives in Porto.")

The names below need torch and torch-struct only, which are loaded when the first of them is used: the command answers
many questions without them. Models, data and the command live in subpackages of their own; `load`, for trained models,
needs transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .distributions import (
        NEG_INF,
        DependencyCRF,
        Empirical,
        HeadLabeling,
        HeadSelection,
        LinearChainCRF,
        MaxEnt,
        MeanFieldDependency,
        Mixture,
        NonProjectiveDependencyCRF,
        Relabelled,
        RelationScores,
        SecondOrderChainCRF,
        SemiMarkovCRF,
        Span,
        SpanCRF,
        StructuredDistribution,
        check_inventory,
        check_labels,
        check_scores,
        legal,
        relabel,
        retag,
        working_precision,
    )
    from .losses import (
        ConstantInterpolation,
        EmissionKDLoss,
        KDObjective,
        LinearAnnealing,
        LogitMatchingLoss,
        PosteriorKDLoss,
        StructuralKDLoss,
        TokenKDLoss,
        TopKKDLoss,
        emission_kd_loss,
        logit_matching_loss,
        posterior_kd_loss,
        structural_kd_loss,
        supervised_loss,
        token_kd_loss,
        topk_kd_loss,
    )
    from .models.loading import load
    from .projections import fused, project, register_projection, uncovered

__version__ = "0.1.0"

__all__ = [
    "NEG_INF",
    "ConstantInterpolation",
    "DependencyCRF",
    "EmissionKDLoss",
    "Empirical",
    "HeadLabeling",
    "HeadSelection",
    "KDObjective",
    "LinearAnnealing",
    "LinearChainCRF",
    "LogitMatchingLoss",
    "MaxEnt",
    "MeanFieldDependency",
    "Mixture",
    "NonProjectiveDependencyCRF",
    "PosteriorKDLoss",
    "Relabelled",
    "RelationScores",
    "SecondOrderChainCRF",
    "SemiMarkovCRF",
    "Span",
    "SpanCRF",
    "StructuralKDLoss",
    "StructuredDistribution",
    "TokenKDLoss",
    "TopKKDLoss",
    "check_inventory",
    "check_labels",
    "check_scores",
    "emission_kd_loss",
    "fused",
    "legal",
    "load",
    "logit_matching_loss",
    "posterior_kd_loss",
    "project",
    "register_projection",
    "relabel",
    "retag",
    "structural_kd_loss",
    "supervised_loss",
    "token_kd_loss",
    "topk_kd_loss",
    "uncovered",
    "working_precision",
]

if not TYPE_CHECKING:  # a type checker sees the names themselves

    def __getattr__(name: str) -> Any:
        """Load the mathematics when a name of it is first asked for."""
        rooms = ("projections", "losses", "distributions")
        if name in rooms:
            return importlib.import_module(f"{__name__}.{name}")
        if name == "load":  # the one name that needs transformers
            return globals().setdefault(name, importlib.import_module(f"{__name__}.models.loading").load)
        if name in __all__:
            for room in rooms:
                module = importlib.import_module(f"{__name__}.{room}")
                if hasattr(module, name):
                    return globals().setdefault(name, getattr(module, name))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
