"""What a training shows and leaves behind while it runs: a progress bar, and a file of its figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from structkd.files import write_text

__all__ = ["MetricsLog", "TrainingProgress"]


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


class MetricsLog(TrainerCallback):
    """Writes one line of JSON for every log entry of the training: ``step``, ``epoch`` and what was logged there.

    ``loss`` (mean since the last entry), ``grad_norm`` and ``learning_rate``, or the dev figures (``eval_f1``). No
    times, so the file depends on the training alone: interrupted and resumed it has the same bytes.

    Args:
        path: of the file; one that is there is replaced.
        figures: names of the dev figures.
    """

    def __init__(self, path: Path, figures: Sequence[str]) -> None:
        self.path = path
        self.names = ["step", "epoch", "loss", "grad_norm", "learning_rate", *(f"eval_{name}" for name in figures)]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            # A resumed training has in its history what was logged before its checkpoint; the file may have more.
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, "".join(map(self._line, state.log_history)))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(self._line(state.log_history[-1]))

    def _line(self, entry: Mapping[str, float]) -> str:
        """One entry as a line; nothing for the summary at the end of a training, which is about time."""
        content = {name: entry[name] for name in self.names if name in entry}
        return json.dumps(content) + "\n" if content.keys() - {"step", "epoch"} else ""
