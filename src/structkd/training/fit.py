"""One training from beginning to end; it resumes from a checkpoint and ends with the best model on dev."""

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
from structkd.training.finite import DivergenceWarning
from structkd.training.processes import broadcast, is_main_process, process_count
from structkd.training.progress import MetricsLog, TrainingProgress
from structkd.training.teacher_scores import Teacher
from structkd.training.trainer import DistillationTrainer

__all__ = ["SELECTIONS", "FitResult", "fit", "main_metric", "trainer_settings", "training_arguments"]

#: Which model a training ends with: the best on dev, or that of the last step, which does not look at dev.
SELECTIONS = ("best", "last")

#: Settings that a configuration cannot change: the collator reads the columns itself, and two complete checkpoints
#: (the best and the last) are enough to resume.
_FIXED: dict[str, Any] = {
    "remove_unused_columns": False,
    "greater_is_better": True,
    "save_total_limit": 2,
    "save_only_model": False,
    "restore_callback_states_from_checkpoint": True,  # how long patience has been waiting
    "disable_tqdm": True,  # TrainingProgress shows a bar
}


@dataclass(frozen=True)
class FitResult:
    """How a training went.

    Attributes:
        steps: optimizer steps taken.
        best_step: the step whose model was kept.
        best_dev: its main metric on dev; None if the last model was kept.
        seconds: wall-clock time of this call; of a resumed training that is its last part.
        resumed_from: step of the checkpoint that the training continued from, or None.
        history: step and dev metrics of every evaluation, in order.
    """

    steps: int
    best_step: int | None
    best_dev: float | None
    seconds: float
    resumed_from: int | None
    history: list[dict[str, float]]


def main_metric(annotation: Annotation) -> str:
    """Return the name of the metric by which models are chosen and compared."""
    return next(iter(counts(annotation, [], [])))


def trainer_settings() -> set[str]:
    """Return the fields of transformers' TrainingArguments that a configuration may set."""
    known = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    fixed = {*_FIXED, "output_dir", "seed", "eval_strategy", "save_strategy", "save_steps"}
    fixed |= {"load_best_model_at_end", "metric_for_best_model"}
    # Nothing here reads them: the loss, the batches and the checkpoint to resume from are structkd's own.
    fixed |= {"label_smoothing_factor", "train_sampling_strategy", "length_column_name", "resume_from_checkpoint"}
    # A configuration may come from anybody: nothing is uploaded, and no file is read for its settings.
    fixed |= {name for name in known if name.startswith(("hub_", "push_to_hub", "trackio_"))}
    return known - fixed - {"deepspeed"}


def training_arguments(
    settings: dict[str, Any], folder: Path, seed: int, metric: str, select: str = "best"
) -> TrainingArguments:
    """Return transformers' TrainingArguments for plain settings.

    Args:
        settings: fields of TrainingArguments by their names. A checkpoint is saved with every evaluation: set
            ``eval_steps``.
        folder: for checkpoints.
        seed: of weights, order and dropout.
        metric: by which the best model is chosen.
        select: "best" (on dev) or "last".

    Raises:
        TypeError: TrainingArguments does not have a setting, or structkd fixes it.
        ValueError: the selection is unknown, or a tracker in ``report_to`` does not exist or is not installed.
    """
    if select not in SELECTIONS:
        raise ValueError(f"Unknown selection {select!r}; expected one of {', '.join(SELECTIONS)}.")
    known = trainer_settings()
    for name in settings:
        if name in known:
            continue
        if name in TrainingArguments.__dataclass_fields__:
            raise TypeError(f"The trainer setting {name!r} is fixed by structkd. Leave it out.")
        raise TypeError(
            f"Unknown trainer setting {name!r}; expected a field of transformers.TrainingArguments."
            f"{did_you_mean(name, known)}"
        )
    for name in ("fsdp_config", "accelerator_config", "liger_kernel_config"):
        if isinstance(settings.get(name), str):
            raise TypeError(f"The trainer setting {name!r} must be a mapping, not the name of a file.")
    _check_trackers(settings.get("report_to", "none"))
    strategy = "steps" if "eval_steps" in settings else "epoch"
    # Pinned memory speeds up copies to an accelerator; torch warns about it if there is none.
    defaults: dict[str, Any] = {"dataloader_pin_memory": torch.cuda.is_available()}
    if process_count() > 1 and not torch.accelerator.is_available():
        # By default accelerate takes processes without accelerators for trainings of one process each.
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
    """Train a model in place and leave it with its best weights on dev.

    Checkpoints go to ``folder``. If it holds complete ones of an interrupted training, that training continues to the
    same result, bit by bit. The folder can be deleted afterwards.

    Several processes (``torchrun --nproc_per_node 2``) train one model together: each has its own batch, all call this
    function, and all end with the same weights.

    Args:
        model: created under ``seed``.
        train: from :func:`~structkd.training.training_text`.
        dev: annotated sentences.
        objective, teacher, batch_words: as in :class:`~structkd.training.DistillationTrainer`.
        settings, seed, select: as in :func:`training_arguments`.
        patience: evaluations without a better dev metric after which training stops; None never stops early.
        description: shown beside the progress bar.
        log: file for :class:`~structkd.training.progress.MetricsLog`. Event files for TensorBoard, if the settings ask
            for them, go to the folder ``tensorboard`` beside it.

    Raises:
        ValueError: ``patience`` is given with ``select="last"``, which does not look at dev metrics; or a loss, a
            gradient or a weight is NaN or infinite (the message says at which step, and what to try).
    """
    if patience is not None and select == "last":
        raise ValueError("patience stops by dev metrics, which select='last' does not look at. Leave one of them out.")
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
        title=description,
        callbacks=[
            TrainingProgress(metric, description),
            DivergenceWarning(description or "training"),
            *([] if log is None else [MetricsLog(log, names)]),
            *([] if patience is None else [EarlyStoppingCallback(patience)]),
        ],
    )
    # A printed dictionary per evaluation would bury the table, and the bar and the history show the same.
    trainer.remove_callback(PrinterCallback)
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str((folder if log is None else log.parent) / "tensorboard")
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.check_weights("at the end")
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
    """Refuse trackers that do not exist or are not installed, before anything is trained."""
    names = [wanted] if isinstance(wanted, str) else list(wanted or [])
    for name in names:
        if name in ("none", "all"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise ValueError(f"Unknown tracker report_to={name!r}; expected none, all, or one of {known}.")
        # transformers does not tell whether flyte is installed.
        if name not in (*get_available_reporting_integrations(), "flyte"):
            raise ValueError(f"report_to={name!r} needs a package that is not installed. Run: pip install {name}.")
