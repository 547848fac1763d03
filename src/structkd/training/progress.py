"""A progress bar and a log file of a training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from structkd.files import write_text

__all__ = ["MetricsLog", "TrainingProgress"]


class TrainingProgress(TrainerCallback):
    """Show steps, loss and the dev metric while a training runs, if the output is a terminal.

    Args:
        metric: name of the dev metric.
        description: of the training.
    """

    def __init__(self, metric: str, description: str = "") -> None:
        self.metric = metric
        self.description = description
        self.bar: tqdm | None = None
        self.shown: dict[str, str] = {}

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
                self.shown[label] = f"{logs[name]:.3f}"
        if self.bar is not None:
            self.bar.set_postfix(self.shown)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class MetricsLog(TrainerCallback):
    """Write one line of JSON for every log entry of a training.

    A line has ``step`` and ``epoch``, and either ``loss`` (the mean since the last entry), ``grad_norm`` and
    ``learning_rate``, or the dev metrics (``eval_f1``). null stands for NaN and infinity, which JSON does not have. A
    line has no times, so the file depends on the training alone: a training that was interrupted and resumed writes the
    same bytes.

    Args:
        path: of the file; an older one is replaced.
        metrics: names of the dev metrics.
    """

    def __init__(self, path: Path, metrics: Sequence[str]) -> None:
        self.path = path
        self.names = ["step", "epoch", "loss", "grad_norm", "learning_rate", *(f"eval_{name}" for name in metrics)]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            # The history of a resumed training ends at its checkpoint; the file may go on beyond it.
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, "".join(map(self._line, state.log_history)))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(self._line(state.log_history[-1]))

    def _line(self, entry: Mapping[str, float]) -> str:
        """Return an entry as a line; nothing for the summary at the end of a training, which holds times."""
        # A gradient's norm may be infinite in float16, whose scaler then leaves the step out.
        content = {name: _number(entry[name]) for name in self.names if name in entry}
        return json.dumps(content, allow_nan=False) + "\n" if content.keys() - {"step", "epoch"} else ""


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
