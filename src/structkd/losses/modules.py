"""The losses as modules, for configurations and for models that hold their loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.distributions import Distribution

from structkd.configurable import configurable

from .baselines import emission_kd_loss, logit_matching_loss, posterior_kd_loss, token_kd_loss, topk_kd_loss
from .structural import structural_kd_loss


class KDLoss(nn.Module):
    """Base of the distillation losses as modules: the constructor takes options, and `forward` takes the two sides."""

    function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self, temperature: float = 1.0, temperature_mode: str = "global", reduction: str = "batchmean", **options: Any
    ) -> None:
        super().__init__()
        self.options = {
            "temperature": temperature,
            "temperature_mode": temperature_mode,
            "reduction": reduction,
            **options,
        }

    def forward(
        self,
        teacher: Distribution | Tensor,
        student: Distribution,
        num_items: float | Tensor | None = None,
        reduction: str | None = None,
    ) -> Tensor:
        """Compute the loss; a `reduction` that is given here replaces the module's for this call."""
        options = self.options if reduction is None else {**self.options, "reduction": reduction}
        return type(self).function(teacher, student, num_items=num_items, **options)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


@configurable
class StructuralKDLoss(KDLoss):
    """`structkd.structural_kd_loss` as a module.

    Args:
        temperature, temperature_mode, reduction: as in the function.

    >>> import structkd, torch
    >>> teacher = structkd.MaxEnt(torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]))
    >>> student = structkd.MaxEnt(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    >>> loss = structkd.StructuralKDLoss(temperature=2.0)
    >>> round(loss(teacher, student).item(), 4)
    5.2068
    """

    function = staticmethod(structural_kd_loss)


@configurable
class TokenKDLoss(KDLoss):
    """`structkd.token_kd_loss` as a module.

    Args:
        temperature, temperature_mode, reduction: as in the function.

    >>> import structkd, torch
    >>> teacher = structkd.MaxEnt(torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]))
    >>> student = structkd.MaxEnt(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    >>> loss = structkd.TokenKDLoss(temperature=2.0)
    >>> round(loss(teacher, student).item(), 4)
    5.2068
    """

    function = staticmethod(token_kd_loss)


@configurable
class PosteriorKDLoss(KDLoss):
    """`structkd.posterior_kd_loss` as a module.

    Args:
        temperature, temperature_mode, reduction: as in the function.

    >>> import structkd, torch
    >>> teacher = structkd.MaxEnt(torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]))
    >>> student = structkd.MaxEnt(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    >>> loss = structkd.PosteriorKDLoss(temperature=2.0)
    >>> round(loss(teacher, student).item(), 4)
    5.2068
    """

    function = staticmethod(posterior_kd_loss)


@configurable
class EmissionKDLoss(KDLoss):
    """`structkd.emission_kd_loss` as a module.

    Args:
        temperature, temperature_mode, reduction: as in the function.

    >>> import structkd, torch
    >>> teacher = structkd.LinearChainCRF.from_scores(torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), torch.eye(2))
    >>> student = structkd.MaxEnt(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    >>> loss = structkd.EmissionKDLoss(temperature=2.0)
    >>> round(loss(teacher, student).item(), 4)
    5.2068
    """

    function = staticmethod(emission_kd_loss)


@configurable
class LogitMatchingLoss(KDLoss):
    """`structkd.logit_matching_loss` as a module.

    Args:
        temperature, temperature_mode, reduction: as in the function.

    >>> import structkd, torch
    >>> teacher = structkd.MaxEnt(torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]))
    >>> student = structkd.MaxEnt(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    >>> loss = structkd.LogitMatchingLoss(reduction="sum")
    >>> round(loss(teacher, student).item(), 4)
    0.5
    """

    function = staticmethod(logit_matching_loss)


@configurable
class TopKKDLoss(KDLoss):
    """`structkd.topk_kd_loss` as a module.

    Args:
        k, weighted, temperature, temperature_mode, reduction: as in the function.

    >>> import structkd, torch
    >>> teacher = structkd.MaxEnt(torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]))
    >>> student = structkd.MaxEnt(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    >>> loss = structkd.TopKKDLoss(k=2)
    >>> round(loss(teacher, student).item(), 4)
    1.0064
    """

    function = staticmethod(topk_kd_loss)

    def __init__(
        self,
        k: int,
        weighted: bool = False,
        temperature: float = 1.0,
        temperature_mode: str = "global",
        reduction: str = "batchmean",
    ) -> None:
        super().__init__(temperature, temperature_mode, reduction, k=k, weighted=weighted)
