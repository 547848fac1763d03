"""Numbers that are not: loss, gradients and weights are checked before a step, an evaluation or a checkpoint uses them.

One NaN spreads to every weight in a step. A checkpoint with such weights would be resumed from for ever, and a model
with them would be kept, so a training stops at the first one and says where.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["DivergenceWarning", "holds_no_number", "sentences", "weights_not_finite"]

log = logging.getLogger(__name__)

#: Sentences that a message names.
_SHOWN = 8
#: A loss that is so many times the first one, and as large as that, is one of a training that diverges.
_GROWN = 100.0


def weights_not_finite(model: nn.Module) -> list[str]:
    """Return the names of the parameters that hold NaN or infinity, in order."""
    return [name for name, weights in model.named_parameters() if not bool(torch.isfinite(weights).all())]


def holds_no_number(value: Any) -> bool:
    """Return whether NaN or +inf is in a tensor, or in one of nested mappings and sequences of tensors."""
    return any(not bool((tensor < torch.inf).all()) for tensor in _tensors(value) if tensor.is_floating_point())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value.detach()
    elif isinstance(value, Mapping | list | tuple):
        inner: Iterable[Any] = value.values() if isinstance(value, Mapping) else value
        for each in inner:
            yield from _tensors(each)


def sentences(ids: Sequence[str]) -> str:
    """Return the ids of some sentences for a message, the first of them if they are many."""
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return f"{', '.join(repr(each) for each in ids[:_SHOWN])}{more}"


class DivergenceWarning(TrainerCallback):
    """Log one warning if the loss grows far beyond the first that was logged, as too high a learning rate makes it.

    Args:
        title: of the training.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.warned = False

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        if self.warned or not losses or not state.is_world_process_zero:
            return
        if losses[-1] > _GROWN * max(1.0, abs(losses[0])):
            self.warned = True
            log.warning(
                "%s: the loss is %.3g at step %d, and the first that was logged is %.3g. The training diverges: lower "
                "learning_rate (%g now).",
                self.title,
                losses[-1],
                state.global_step,
                losses[0],
                args.learning_rate,
            )
