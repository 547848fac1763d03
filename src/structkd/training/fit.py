"""One training from beginning to end: resumes what was interrupted, ends with the best model on dev."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import EarlyStoppingCallback, TrainingArguments
from transformers.integrations import (
    INTEGRATION_TO_CALLBACK,
    TensorBoardCallback,
    get_available_reporting_integrations,
)
from transformers.trainer_callback import PrinterCallback

from structkd import KDObjective
from structkd.data import Annotation
from structkd.evaluation import compute_metrics, counts
from structkd.models import StructuredModel
from structkd.spelling import did_you_mean
from structkd.training.checkpoints import last_complete_checkpoint
from structkd.training.processes import broadcast, is_main_process, process_count
from structkd.training.progress import MetricsLog, TrainingProgress
from structkd.training.teacher_scores import Teacher
from structkd.training.trainer import DistillationTrainer

__all__ = ["SELECTIONS", "FitResult", "fit", "main_metric", "training_arguments"]

#: Which model a training ends with: the best on dev, or the one of the last step, where dev must not be looked at.
SELECTIONS = ("best", "last")

#: What a training fixes and a configuration cannot: the collator reads the columns itself, and two checkpoints (the
#: best and the last) with all that is in them are enough to resume.
_FIXED: dict[str, Any] = {
    "remove_unused_columns": False,
    "greater_is_better": True,
    "save_total_limit": 2,
    "save_only_model": False,
    "restore_callback_states_from_checkpoint": True,  # how long patience has been waiting
    "disable_tqdm": True,  # for a bar of our own, see TrainingProgress
}


@dataclass(frozen=True)
class FitResult:
    """How a training went.

    Attributes:
        steps: optimizer steps taken.
        best_step: the one whose model was kept.
        best_dev: its main figure on dev; None where the last model was kept whatever its figure.
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


def main_metric(annotation: Annotation) -> str:
    """Name of the figure by which models are chosen and compared."""
    return next(iter(counts(annotation, [], [])))


def training_arguments(
    settings: dict[str, Any], folder: Path, seed: int, metric: str, select: str = "best"
) -> TrainingArguments:
    """transformers' TrainingArguments out of plain settings.

    Args:
        settings: fields of TrainingArguments by their own names. Evaluation and saving go together: set ``eval_steps``.
        folder: for checkpoints.
        seed: of weights, order and dropout.
        metric: name of the figure by which the best model is chosen.
        select: "best" (on dev) or "last".

    Raises:
        TypeError: for a setting that TrainingArguments does not have or that a training fixes itself.
        ValueError: for an unknown selection, or a tracker in ``report_to`` that does not exist or is not installed.
    """
    if select not in SELECTIONS:
        raise ValueError(f"Unknown selection {select!r}: expected one of {', '.join(SELECTIONS)}.")
    known = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    fixed = {*_FIXED, "output_dir", "seed", "eval_strategy", "save_strategy", "save_steps"}
    fixed |= {"load_best_model_at_end", "metric_for_best_model"}
    # Nothing here reads them: the loss, the batches and the checkpoint to resume from are structkd's own.
    fixed |= {"label_smoothing_factor", "train_sampling_strategy", "length_column_name", "resume_from_checkpoint"}
    for name in settings:
        if name in fixed:
            raise TypeError(f"Trainer setting {name!r} is fixed by structkd and cannot be given.")
        if name not in known:
            raise TypeError(
                f"Unknown trainer setting {name!r}: not a field of transformers.TrainingArguments."
                f"{did_you_mean(name, known)}"
            )
    _check_trackers(settings.get("report_to", "none"))
    strategy = "steps" if "eval_steps" in settings else "epoch"
    # Pinned memory only speeds up copies to an accelerator; without one torch warns about it.
    defaults: dict[str, Any] = {"dataloader_pin_memory": torch.cuda.is_available()}
    if process_count() > 1 and not torch.accelerator.is_available():
        # Unless told so, accelerate takes processes without accelerators for trainings of one process each.
        defaults |= {"use_cpu": True, "ddp_backend": "gloo"}
    return TrainingArguments(
        output_dir=str(folder),
        seed=seed,
        load_best_model_at_end=select == "best",
        metric_for_best_model=metric,
        eval_strategy=strategy,
        save_strategy=strategy,
        **({"save_steps": settings["eval_steps"]} if strategy == "steps" else {}),
        **_FIXED,
        **(defaults | settings),
    )


def fit(
    model: StructuredModel,
    train: Dataset,
    dev: Dataset,
    *,
    objective: KDObjective,
    settings: dict[str, Any],
    folder: Path,
    seed: int,
    teacher: Teacher | None = None,
    select: str = "best",
    patience: int | None = None,
    batch_words: int | None = None,
    description: str = "",
    log: Path | None = None,
) -> FitResult:
    """Train ``model`` in place and leave it with its best weights on dev.

    Checkpoints go to ``folder``; if it holds complete ones from an interrupted training, that training continues
    to the same result, bit by bit. The folder can be deleted afterwards.

    Several processes (``torchrun --nproc_per_node 2``) train one model together, on as many times the batch; all call
    this function and end with the same weights.

    Args:
        model: created under ``seed``.
        train: from :func:`~structkd.training.training_text`.
        dev: annotated sentences.
        objective, teacher, batch_words: as in :class:`~structkd.training.DistillationTrainer`.
        settings, seed, select: as in :func:`training_arguments`.
        patience: evaluations without a better dev figure after which training stops; None never stops early.
        description: shown beside the progress bar.
        log: file for :class:`~structkd.training.progress.MetricsLog`; event files for TensorBoard, if ``settings`` ask
            for them, go to the folder ``tensorboard`` beside it.

    Raises:
        ValueError: for ``patience`` beside ``select="last"``, which does not look at dev figures.
    """
    if patience is not None and select == "last":
        raise ValueError("patience stops by dev figures, which select='last' does not look at: leave one of them out.")
    metric = main_metric(model.annotation)
    names = list(compute_metrics(counts(model.annotation, [], [])))
    checkpoint = broadcast(last_complete_checkpoint(folder, process_count()) if is_main_process() else None)
    trainer = DistillationTrainer(
        model,
        training_arguments(settings, folder, seed, metric, select),
        train,
        dev,
        objective=objective,
        teacher=teacher,
        batch_words=batch_words,
        callbacks=[
            TrainingProgress(metric, description),
            *([] if log is None else [MetricsLog(log, names)]),
            *([] if patience is None else [EarlyStoppingCallback(patience)]),
        ],
    )
    # The bar and the history say it all; one printed dictionary per evaluation would bury the table.
    trainer.remove_callback(PrinterCallback)
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str((folder if log is None else log.parent) / "tensorboard")
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    state = trainer.state
    history = [
        {"step": entry["step"], **{name: entry[f"eval_{name}"] for name in names}}
        for entry in state.log_history
        if f"eval_{metric}" in entry
    ]
    return FitResult(
        steps=state.global_step,
        best_step=state.best_global_step if select == "best" else state.global_step,
        best_dev=state.best_metric if select == "best" else None,
        seconds=time.perf_counter() - started,
        resumed_from=None if checkpoint is None else int(checkpoint.name.rsplit("-", 1)[1]),
        history=history,
    )


def _check_trackers(wanted: str | list[str] | None) -> None:
    """Refuse what cannot be reported to, before anything is trained: the Trainer would find out only then."""
    names = [wanted] if isinstance(wanted, str) else list(wanted or [])
    for name in names:
        if name in ("none", "all"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise ValueError(f"Unknown tracker report_to={name!r}: transformers knows none, all, {known}.")
        # transformers does not say whether flyte is there.
        if name not in (*get_available_reporting_integrations(), "flyte"):
            raise ValueError(f"report_to={name!r} needs a package that is not installed: pip install {name}")
