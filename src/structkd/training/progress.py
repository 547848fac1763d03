"""One progress bar per training, with the latest figures beside it."""

from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["TrainingProgress"]


class TrainingProgress(TrainerCallback):
    """Shows steps, loss and the dev figure; nothing where the output is not a terminal.

    Args:
        metric: name of the dev figure.
        description: what is being trained.
    """

    def __init__(self, metric: str, description: str = "") -> None:
        self.metric = metric
        self.description = description
        self.bar: tqdm | None = None
        self.figures: dict[str, str] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc=self.description,
                unit="step",
                dynamic_ncols=True,
                disable=None,
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        for name, label in (("loss", "loss"), (f"eval_{self.metric}", f"dev {self.metric}")):
            if logs and name in logs:
                self.figures[label] = f"{logs[name]:.3f}"
        if self.bar is not None:
            self.bar.set_postfix(self.figures)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
