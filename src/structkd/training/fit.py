"""One training from beginning to end: resumes what was interrupted, ends with the best model on dev."""

from __future__ import annotations

import dataclasses
import difflib
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import EarlyStoppingCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from structkd import KDObjective
from structkd.evaluation import Legality
from structkd.models import Tagger
from structkd.training.progress import TrainingProgress
from structkd.training.targets import TeacherTargets
from structkd.training.trainer import DistillationTrainer

__all__ = ["FitResult", "fit", "training_arguments"]

#: What a tagger's training fixes and a configuration cannot: the collator reads the columns itself, the best model
#: on dev is the one kept, and two checkpoints (the best and the last) are enough to resume.
_FIXED: dict[str, Any] = {
    "remove_unused_columns": False,
    "load_best_model_at_end": True,
    "greater_is_better": True,
    "save_total_limit": 2,
    "disable_tqdm": True,  # for a bar of our own, see TrainingProgress
}


@dataclass(frozen=True)
class FitResult:
    """How a training went.

    Attributes:
        steps: optimizer steps taken.
        best_step: the one whose model was kept.
        best_dev: its figure on dev (F1, or accuracy without a scheme).
        seconds: wall-clock time of this call; a resumed training counts its last part only.
        resumed_from: step of the checkpoint it continued from, or None.
        history: dev figures in order, one per evaluation.
    """

    steps: int
    best_step: int | None
    best_dev: float | None
    seconds: float
    resumed_from: int | None
    history: list[dict[str, float]]


def training_arguments(settings: dict[str, Any], folder: Path, seed: int, metric: str) -> TrainingArguments:
    """transformers' TrainingArguments out of plain settings.

    Args:
        settings: fields of TrainingArguments by their own names. Evaluation and saving go together: set ``eval_steps``.
        folder: for checkpoints.
        seed: of weights, order and dropout.
        metric: "f1" or "accuracy", by which the best model is chosen.

    Raises:
        TypeError: for a setting that TrainingArguments does not have or that a training fixes itself.
    """
    known = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    fixed = {*_FIXED, "output_dir", "seed", "metric_for_best_model", "eval_strategy", "save_strategy", "save_steps"}
    for name in settings:
        if name in fixed:
            raise TypeError(f"Trainer setting {name!r} is fixed by structkd and cannot be given.")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"Unknown trainer setting {name!r}: not a field of transformers.TrainingArguments.{hint}")
    strategy = "steps" if "eval_steps" in settings else "epoch"
    # Pinned memory only speeds up copies to an accelerator; without one torch warns about it.
    settings = {"dataloader_pin_memory": torch.cuda.is_available()} | settings
    return TrainingArguments(
        output_dir=str(folder),
        seed=seed,
        metric_for_best_model=metric,
        eval_strategy=strategy,
        save_strategy=strategy,
        **({"save_steps": settings["eval_steps"]} if strategy == "steps" else {}),
        **_FIXED,
        **settings,
    )


def fit(
    model: Tagger,
    train: Dataset,
    dev: Dataset,
    *,
    objective: KDObjective,
    settings: dict[str, Any],
    folder: Path,
    seed: int,
    targets: TeacherTargets | None = None,
    scheme: str | None = None,
    legal: Legality | None = None,
    patience: int | None = None,
    description: str = "",
) -> FitResult:
    """Train ``model`` in place and leave it with its best weights on dev.

    Checkpoints go to ``folder``; if it holds complete ones from an interrupted training, that training continues
    to the same result. The folder can be deleted afterwards.

    Args:
        model: created under ``seed``.
        train: from :func:`~structkd.training.training_text`.
        dev: columns ``tokens`` and ``labels``.
        objective, targets, scheme, legal: as in :class:`~structkd.training.DistillationTrainer`.
        settings, seed: as in :func:`training_arguments`.
        patience: evaluations without a better dev figure after which training stops; None never stops early.
        description: shown beside the progress bar.
    """
    arguments = training_arguments(settings, folder, seed, "accuracy" if scheme is None else "f1")
    trainer = DistillationTrainer(
        model,
        arguments,
        train,
        dev,
        objective=objective,
        targets=targets,
        scheme=scheme,
        legal=legal,
        callbacks=[
            TrainingProgress(description),
            *([] if patience is None else [EarlyStoppingCallback(patience)]),
        ],
    )
    # The bar and the history say it all; one printed dictionary per evaluation would bury the table.
    trainer.remove_callback(PrinterCallback)
    checkpoint = _last_complete_checkpoint(folder)
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    state = trainer.state
    history = [
        {"step": entry["step"], **{name[5:]: value for name, value in entry.items() if name in _HISTORY}}
        for entry in state.log_history
        if "eval_accuracy" in entry
    ]
    return FitResult(
        steps=state.global_step,
        best_step=state.best_global_step,
        best_dev=state.best_metric,
        seconds=time.perf_counter() - started,
        resumed_from=None if checkpoint is None else int(checkpoint.name.rsplit("-", 1)[1]),
        history=history,
    )


_HISTORY = frozenset({"eval_accuracy", "eval_f1", "eval_precision", "eval_recall"})


def _last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint whose saving was finished; others are removed.

    The Trainer writes trainer_state.json last: a checkpoint without a readable one was cut off, and the Trainer
    would pick it all the same.
    """
    complete = []
    for candidate in folder.glob("checkpoint-*"):
        try:
            json.loads((candidate / "trainer_state.json").read_text(encoding="utf-8"))
            complete.append(candidate)
        except (OSError, ValueError):
            shutil.rmtree(candidate, ignore_errors=True)
    return max(complete, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)
