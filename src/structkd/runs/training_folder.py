"""Trainings that are named by their inputs, done once, and shared by all runs.

:mod:`structkd.records` describes the folder of a training.
"""

from __future__ import annotations

import gzip
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import torch
from datasets import Dataset
from transformers import set_seed

from structkd import KDObjective
from structkd.data import Annotation
from structkd.evaluation import compute_metrics, counts, lenient_counts
from structkd.files import make_folder, remove_unfinished, replacing
from structkd.models import ModelRecipe, StructuredModel
from structkd.records import Timing, TrainingConfig, TrainingFolder, TrainingMetrics
from structkd.teachers import GivenModel
from structkd.training import FitResult, Teacher, fit, predict_by, share_of_illegal, training_text
from structkd.training.checkpoints import last_complete_checkpoint
from structkd.training.processes import broadcast, is_main_process, process_count

from .identity import digest
from .sealing import finished_training, mend_training, seal_training

__all__ = ["Training", "ensure", "locked"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """One model to be trained.

    Attributes:
        role: "teacher" or "student".
        name: of the method, for messages and tables.
        config: everything that decides the result; its digest names the folder.
        recipe, settings, seed, patience, batch_words, select, objective: the model and the way of training.
        annotation: the annotation that is predicted.
        labelled, unlabelled: the training text.
        annotated: sentences that inventories of structures are collected from.
        dev: annotated sentences by which the model is chosen.
        judged: annotated sentences, by the name of their split, on which the model's figures are taken.
        teacher: gives the teacher when it is needed; None for training on labels alone.
        given: the teacher, if it trains nothing; only its figures are taken then.
    """

    role: str
    name: str
    config: TrainingConfig
    recipe: ModelRecipe
    settings: dict[str, Any]
    seed: int
    patience: int | None
    batch_words: int | None
    select: str
    objective: KDObjective
    annotation: Annotation
    labelled: Dataset
    unlabelled: Dataset | None
    annotated: Dataset
    dev: Dataset
    judged: Mapping[str, Dataset]
    teacher: Callable[[], Teacher] | None
    given: GivenModel | None = None

    @property
    def title(self) -> str:
        """The name in messages."""
        return self.name if self.role == "teacher" else f"{self.role} {self.name}"

    @property
    def key(self) -> str:
        """The name of the folder."""
        return f"{self.role}-{digest(self.config.plain())[:16]}"


def ensure(training: Training, work_dir: Path) -> TrainingMetrics:
    """Return the metrics of a training: read them if it is finished, and train now if not.

    The files of a finished training are compared with its manifest; one that is damaged is moved aside and done again.

    If several processes ask for the same training, one trains, and the others wait and read. Processes that torchrun
    started train together.
    """
    folder = TrainingFolder(work_dir / training.key)
    metrics = broadcast(_finished(folder))
    if metrics is None:
        with locked(folder.path, f"{training.title}: another process is training it, waiting"):
            metrics = broadcast(mend_training(folder) if is_main_process() else None)
            if metrics is None:
                return _train(training, folder)
    if is_main_process() and folder.checkpoints.exists():  # killed between its last two steps
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
    log.info("%s: done before, taken from %s", training.title, folder.path)
    return metrics


def _finished(folder: TrainingFolder) -> TrainingMetrics | None:
    """Return the metrics of a training that is finished and sound; None if that has to be seen under its lock."""
    try:
        return finished_training(folder) if is_main_process() else None
    except (ValueError, OSError):
        return None


def _train(training: Training, folder: TrainingFolder) -> TrainingMetrics:
    if training.given is not None:
        taken: Any = _take(training, training.given, folder) if is_main_process() else None
        figures: TrainingMetrics = broadcast(taken)
        return figures
    annotation = training.annotation
    text = training_text(annotation, training.labelled, training.unlabelled)
    if is_main_process():
        make_folder(folder.path)
        for place in (folder.path, folder.predictions("dev").parent):
            remove_unfinished(place, locked=True)
        training.config.write(folder.config)
    log.info(
        "%s: training on %d labelled and %d unlabelled sentences in %s",
        training.title,
        len(training.labelled),
        len(text) - len(training.labelled),
        folder.path,
    )
    set_seed(training.seed)
    model = training.recipe.create(annotation, text, training.annotated)
    for sentences in training.judged.values():
        model.encoder.check(sentences)
    teacher = training.teacher() if training.teacher is not None else None
    if teacher is not None and (share := share_of_illegal(model, teacher, text)):
        log.warning(
            "%s: the teacher gives legal tag sequences less than 1e-6 of its probability in %.2g %% of sentences. The "
            "student learns from the rest of it there. Train the teacher with legal sequences, too.",
            training.title,
            100 * share,
        )
    checkpoint = last_complete_checkpoint(folder.checkpoints, process_count()) if is_main_process() else None
    if checkpoint is not None:
        steps = training.settings.get("max_steps") or -1
        log.info(
            "%s: continues from step %s%s",
            training.title,
            checkpoint.name.rpartition("-")[2],
            f" of {steps}" if steps > 0 else "",
        )
    result = fit(
        model,
        text,
        training.dev,
        objective=training.objective,
        settings=training.settings,
        folder=folder.checkpoints,
        seed=training.seed,
        teacher=teacher,
        select=training.select,
        patience=training.patience,
        batch_words=training.batch_words,
        description=training.title,
        log=folder.log,
    )
    metrics: Any = _keep(training, model, result, len(text), folder) if is_main_process() else None
    kept: TrainingMetrics = broadcast(metrics)
    return kept


def _take(training: Training, teacher: GivenModel, folder: TrainingFolder) -> TrainingMetrics:
    """Take the figures of a teacher that trains nothing, on the splits that it knows in full."""
    begun = time.perf_counter()
    log.info("%s: trains nothing; its figures are taken", training.title)
    make_folder(folder.path)
    training.config.write(folder.config)
    if torch.accelerator.is_available():
        teacher.to(torch.accelerator.current_accelerator())
    figures = {
        split: _judge(teacher, sentences, folder.predictions(split)) if teacher.cover(sentences).rows is None else {}
        for split, sentences in training.judged.items()
    }
    teacher.to("cpu")
    metrics = TrainingMetrics(
        role=training.role,
        folder=folder.path.name,
        labelled=0,
        unlabelled=0,
        parameters=sum(parameter.numel() for parameter in teacher.parameters()),
        steps=0,
        best_step=None,
        history=[],
        dev=figures["dev"],
        test=figures["test"],
    )
    Timing(seconds=round(time.perf_counter() - begun, 2), resumed_from=None).write(folder.timing)
    seal_training(folder, metrics)
    known = ", ".join(f"{name} {100 * value:.2f}" for name, value in metrics.dev.items())
    log.info("%s: %s", training.title, f"dev {known}" if known else "it does not know all of dev")
    return metrics


def _keep(
    training: Training, model: StructuredModel, result: FitResult, sentences: int, folder: TrainingFolder
) -> TrainingMetrics:
    """Write the results of a training; its metrics last."""
    _save_model(model, folder.model)
    dev, test = (_judge(model, training.judged[split], folder.predictions(split)) for split in ("dev", "test"))
    metrics = TrainingMetrics(
        role=training.role,
        folder=folder.path.name,
        labelled=len(training.labelled),
        unlabelled=sentences - len(training.labelled),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        steps=result.steps,
        best_step=result.best_step,
        history=result.history,
        dev=dev,
        test=test,
    )
    Timing(seconds=round(result.seconds, 2), resumed_from=result.resumed_from).write(folder.timing)
    seal_training(folder, metrics)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    log.info(
        "%s: dev %s after step %s of %d, %.0f s%s",
        training.title,
        ", ".join(f"{name} {100 * value:.2f}" for name, value in dev.items()),
        result.best_step,
        result.steps,
        result.seconds,
        "" if result.resumed_from is None else f" since step {result.resumed_from}",
    )
    return metrics


@contextmanager
def locked(folder: Path, message: str) -> Iterator[None]:
    """Hold the lock of a folder of shared work; ``message`` is logged if another process has it.

    Of processes that were started together the main one holds it, for all of them.
    """
    if not is_main_process():
        yield
        return
    locks = folder.parent / "locks"
    make_folder(locks)
    lock = filelock.FileLock(locks / f"{folder.name}.lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        log.info("%s", message)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _save_model(model: StructuredModel, folder: Path) -> None:
    # An older model was left by a training that was interrupted after this: the folder has no metrics yet.
    with replacing(folder) as temporary:
        model.save_pretrained(temporary)


def _judge(model: StructuredModel | GivenModel, sentences: Dataset, path: Path) -> dict[str, float]:
    """Return the model's metrics on some sentences, and write its predictions to ``path``."""
    annotation = model.annotation
    predicted, published = predict_by(model, sentences, [model.decode, model.decode_published])
    content = sentences.to_dict()
    gold = [{column: content[column][row] for column in annotation.columns} for row in range(len(sentences))]
    counted = counts(annotation, gold, predicted)
    if all(published):
        counted |= lenient_counts(annotation, gold, published)
    make_folder(path.parent)
    # Without a time stamp in its header the same predictions are the same bytes.
    with (
        replacing(path) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed,
    ):
        for row, (name, tokens) in enumerate(zip(content["id"], content["tokens"], strict=True)):
            line = {
                "id": name,
                "tokens": tokens,
                "gold": annotation.names(gold[row]),
                "predicted": annotation.names(predicted[row]),
                "counts": {figure: table[row].tolist() for figure, table in counted.items()},
            }
            packed.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
    return compute_metrics(counted)
