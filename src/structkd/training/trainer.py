"""Distillation as a subclass of transformers' Trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from transformers import (
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import rotate_checkpoints

from structkd import KDObjective
from structkd.data import UNLABELLED
from structkd.distributions.checks import TooLargeError
from structkd.evaluation import compute_metrics, counts
from structkd.models import StructuredModel
from structkd.training.checkpoints import SAVING, checkpoint_name, newest_checkpoint, seal
from structkd.training.collate import Collator
from structkd.training.finite import holds_no_number, sentences, weights_not_finite
from structkd.training.mixin import DistillationMixin
from structkd.training.sampling import LengthBatches, SharedBatches, SortedSampler, WordBatches
from structkd.training.teacher_scores import Teacher, sentence_lengths

__all__ = ["DistillationTrainer"]


class DistillationTrainer(DistillationMixin, Trainer):
    """Train a model on gold annotation, on a teacher's distributions, or on both.

    Resuming, accumulation, mixed precision, several processes and logging are those of transformers' Trainer. These
    things differ:

    - The loss is a :class:`structkd.KDObjective`; ``num_items_in_batch`` counts all sentences, labelled or not.
    - Batches hold sentences of similar length.
    - Evaluation decodes legal structures and reports the metrics of the annotation (span F1, attachment scores).
    - The teacher does not belong to the model, so that no checkpoint contains it.
    - A loss, a gradient or a weight that is NaN or infinite stops the training before anything uses it.
    - A checkpoint gets its name when it is complete (:mod:`~structkd.training.checkpoints`), and a resumed training
      equals an uninterrupted one, bit by bit.

    Args:
        model: the student, or a teacher that is trained on gold annotation.
        args: transformers' training arguments.
        train_dataset: from :func:`~structkd.training.training_text`.
        eval_dataset: the development split, annotated.
        objective: to be minimized.
        teacher: of the sentences of ``train_dataset``; needed if the objective distils.
        batch_words: about how many words a batch has on every device; ``per_device_train_batch_size`` then limits its
            sentences. None gives every batch as many sentences, whatever their length.
        title: of the training, for messages.

    Raises:
        ValueError: the teacher does not have the sentences of ``train_dataset``, a setting does not fit, or the model
            cannot read a sentence.
    """

    _begins_step = True
    objective: KDObjective  # the Trainer has an attribute of this name for the search of settings

    def __init__(
        self,
        model: StructuredModel,
        args: TrainingArguments,
        train_dataset: Dataset,
        eval_dataset: Dataset | None,
        *,
        objective: KDObjective,
        teacher: Teacher | None = None,
        batch_words: int | None = None,
        title: str = "",
        **kwargs: Any,
    ) -> None:
        if teacher is not None and len(teacher) != len(train_dataset):
            raise ValueError(
                f"The teacher has {len(teacher)} sentences, and the training text has {len(train_dataset)}; expected "
                "the same text."
            )
        if batch_words is not None and batch_words < 1:
            raise ValueError(f"batch_words must be at least 1, or None for no limit; got {batch_words}.")
        if args.remove_unused_columns:
            raise ValueError(
                "remove_unused_columns is true. Set it to false: the collator reads more columns than the model."
            )
        for text in (train_dataset, eval_dataset):
            if text is not None:
                model.encoder.check(text)
        model.check_gold(train_dataset)
        self.batch_words = batch_words
        self.annotation = model.annotation
        super().__init__(
            objective=objective,
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=Collator(model, teacher),
            compute_metrics=self._metrics,
            **kwargs,
        )
        self._eval_collator = Collator(model, evaluation=True)
        self._saving: Path | None = None
        self._ended = False
        self.title = title or "The training"
        # A model may be given with weights of -inf that hide something.
        self._given = set(weights_not_finite(model))
        self._ids: list[str] = []
        self.add_callback(_LogBeforeSaving)
        self.teacher = teacher

    def distribution(self, outputs: Any, inputs: Mapping[str, Any]) -> Any:
        """Return the student's distribution of a batch."""
        student = self.accelerator.unwrap_model(self.model)
        try:
            return student.distribution(outputs, inputs["lengths"])
        except ValueError as error:
            self.check_weights("before this step")
            if holds_no_number(student.scores(outputs)):
                raise self._stopped("the model's scores are not finite", error) from error
            raise

    def teacher_distribution(self, inputs: Mapping[str, Any]) -> Any:
        """Return the teacher's distribution of a batch; None if the batch has no teacher."""
        if self.teacher is None or "teacher" not in inputs:
            return None
        try:
            given = self.teacher.distribution(inputs["teacher"], inputs["lengths"])
        except ValueError as error:
            if holds_no_number(inputs["teacher"]):
                raise self._stopped("the teacher's scores are not finite", error) from error
            raise
        return self.accelerator.unwrap_model(self.model).conditioned(given)

    def gold(self, inputs: Mapping[str, Any], student: Any) -> tuple[Any, Tensor | None]:
        """Return the gold structures of a batch and which sentences have one."""
        return inputs["gold"], inputs["labelled"]

    def model_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the part of a batch that the model reads."""
        return {name: value for name, value in inputs.items() if name not in ("gold", "labelled", "teacher", "ids")}

    def sentences(self, inputs: Mapping[str, Any]) -> int:
        """Return the number of sentences of a batch."""
        return len(inputs["lengths"])

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Compute loss and gradients of a batch, and refuse a loss that is not finite before a step uses it."""
        if self._begins_step:
            self._ids = []
        self._ids += inputs.get("ids", [])
        self._begins_step = False
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        # After the gradients: by then all processes have met, and each of them stops.
        if not bool(torch.isfinite(loss)):
            raise self._stopped(f"the loss is {float(loss)}")
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # In float16 infinite gradients are expected: the loss is scaled, and the scaler leaves such steps out.
        if norm is not None and self.accelerator.scaler is None and not math.isfinite(norm):
            raise self._stopped(f"the norm of the gradient is {float(norm)}")
        self._begins_step = True
        return norm

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate as the Trainer does, but never a model with weights that are not finite."""
        self.check_weights("before an evaluation")
        return super().evaluate(*args, **kwargs)

    def check_weights(self, when: str) -> None:
        """Refuse weights that are NaN or infinite.

        Args:
            when: for the message.

        Raises:
            ValueError: names the step, its sentences, the last good checkpoint and possible remedies.
        """
        names = [name for name in weights_not_finite(self.model) if name not in self._given]
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise self._stopped(f"weights are NaN or infinite {when}: {', '.join(names[:3])}{more}")

    def _stopped(self, reason: str, error: Exception | None = None) -> ValueError:
        """Return the error that ends a training whose numbers are not finite."""
        args, folder = self.args, Path(self._get_output_dir(None))
        last = newest_checkpoint(folder)
        step = self.state.global_step + (not self._begins_step)
        kept = "No checkpoint was saved before." if last is None else f"The last good checkpoint is {last}."
        said = "" if error is None else f" ({str(error).rstrip('.')})"
        return ValueError(
            f"{self.title} stops at step {step} of {self.state.max_steps}: {reason}{said}. "
            f"Sentences of the step: {sentences(self._ids) or 'none'}. {kept} Nothing after it was kept, and the same "
            f"command continues from there. Try a lower learning_rate ({args.learning_rate:g} now), a lower "
            f"max_grad_norm ({args.max_grad_norm:g} now), warm-up (warmup_steps), or float32 instead of fp16 or bf16; "
            "look at these sentences, and at a loss or scores of your own."
        )

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the objective; scores that are too large for it stop the training as NaN does."""
        try:
            return super().compute_loss(*args, **kwargs)
        except TooLargeError as error:
            raise self._stopped("the model's scores are too large", error) from error

    def get_train_dataloader(self) -> DataLoader:
        """Return this process's part of the batches of all processes.

        The Trainer would give every process batches of its own, repeat sentences at the end of an epoch, and expect all
        batches to be of one size.
        """
        args, dataset = self.args, cast(Dataset, self.train_dataset)
        lengths, seed = dataset["length"][:], args.seed if args.data_seed is None else args.data_seed
        size = self._train_batch_size * args.world_size
        batches: LengthBatches | WordBatches
        if self.batch_words is None:
            batches = LengthBatches(lengths, size, seed, drop_last=args.dataloader_drop_last)
        else:
            batches = WordBatches(lengths, self.batch_words * args.world_size, size, seed)
        loader: DataLoader = DataLoader(
            cast(Any, dataset),
            batch_sampler=SharedBatches(batches, args.process_index, args.world_size),
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )
        # Batches are already divided between the processes, so that accelerate must see one process only.
        prepared: DataLoader = prepare_data_loader(
            loader, self.accelerator.device, num_processes=1, process_index=0, put_on_device=True
        )
        return prepared

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler:
        return SortedSampler(sentence_lengths(eval_dataset).tolist())

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Return the Trainer's loader, but without the teacher, which does not know the sentences of this split."""
        training_collator, self.data_collator = self.data_collator, self._eval_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training_collator

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """Return no loss, decoded columns, and gold columns: {column: [B, N]}, gold -100 in the padding."""
        inputs = self._prepare_inputs(dict(inputs))
        gold = inputs.pop("annotation")
        with torch.no_grad(), self.compute_loss_context_manager():
            output = model(**inputs)
        student = self.accelerator.unwrap_model(model)
        return None, student.decode(student.scores(output), inputs["lengths"]), gold

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._saving is None else str(self._saving)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save as the Trainer does, but into another folder, which becomes the checkpoint when it is complete."""
        self.check_weights("before a checkpoint")
        folder = Path(self._get_output_dir(trial))
        name = checkpoint_name(self.state.global_step)
        self._saving = folder / f"{SAVING}{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
        finally:
            saving, self._saving = self._saving, None
        if self.state.best_global_step:
            self.state.best_model_checkpoint = str(folder / checkpoint_name(self.state.best_global_step))
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            # Where the best model lies is known by its step, and the arguments have paths and are not needed to go on.
            best, self.state.best_model_checkpoint = self.state.best_model_checkpoint, None
            self.state.save_to_json(str(saving / name / TRAINER_STATE_NAME))
            self.state.best_model_checkpoint = best
            (saving / name / TRAINING_ARGS_NAME).unlink(missing_ok=True)
            seal(saving / name, folder / name, self.args.world_size)
            saving.rmdir()
            rotate_checkpoints(str(folder), self.args.save_total_limit, self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        begin = super()._init_training_state(*args, **kwargs)
        # The state has the path at which it was saved, and the folder may have been moved since.
        if self.state.best_global_step:
            best = Path(self._get_output_dir(None)) / checkpoint_name(self.state.best_global_step)
            self.state.best_model_checkpoint = str(best) if best.is_dir() else None
        # The checkpoint knows whether training should stop; the Trainer is about to reset that.
        self._ended = self.state.global_step > 0 and self.control.should_training_stop
        return begin

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # A training that was interrupted after its last checkpoint would take one step too many.
        if self._ended:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        predicted: Any = prediction.predictions
        gold: Any = prediction.label_ids
        inside = next(iter(gold.values())) != UNLABELLED

        def sentences(columns: dict[str, Any]) -> list[dict[str, list[int]]]:
            return [
                {column: values[row][inside[row]].tolist() for column, values in columns.items()}
                for row in range(len(inside))
            ]

        return compute_metrics(counts(self.annotation, sentences(gold), sentences(predicted)))


class _LogBeforeSaving(TrainerCallback):
    """Log before every checkpoint, which does not contain the Trainer's sum of losses since the last log."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        control.should_log |= control.should_save

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        control.should_log |= control.should_save
