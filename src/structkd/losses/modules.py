"""The losses as modules, for configs and for models that keep their loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.distributions import Distribution

from .baselines import emission_kd_loss, posterior_kd_loss, token_kd_loss, topk_kd_loss
from .structural import structural_kd_loss


class KDLoss(nn.Module):
    """Base of the distillation losses as modules: options are kept, `forward` takes the two sides."""

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
        """The loss; `reduction`, if given, replaces the module's own for this call."""
        options = self.options if reduction is None else {**self.options, "reduction": reduction}
        return type(self).function(teacher, student, num_items=num_items, **options)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


class StructuralKDLoss(KDLoss):
    """`structkd.structural_kd_loss` as a module."""

    function = staticmethod(structural_kd_loss)


class TokenKDLoss(KDLoss):
    """`structkd.token_kd_loss` as a module."""

    function = staticmethod(token_kd_loss)


class PosteriorKDLoss(KDLoss):
    """`structkd.posterior_kd_loss` as a module."""

    function = staticmethod(posterior_kd_loss)


class EmissionKDLoss(KDLoss):
    """`structkd.emission_kd_loss` as a module."""

    function = staticmethod(emission_kd_loss)


class TopKKDLoss(KDLoss):
    """`structkd.topk_kd_loss` as a module."""

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
