"""Distillation as a subclass of transformers' Trainer."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import EvalPrediction, Trainer, TrainingArguments

from structkd import KDObjective
from structkd.data import UNLABELLED
from structkd.evaluation import counts, figures
from structkd.models import StructuredModel
from structkd.training.collate import Collator
from structkd.training.sampling import LengthBucketSampler, SortedSampler
from structkd.training.targets import Targets

__all__ = ["DistillationTrainer"]


class DistillationTrainer(Trainer):
    """Trains a model on gold annotation, on a teacher's distributions, or on both, in one code path.

    Everything a Trainer does (checkpoints, resuming, accumulation, mixed precision, several processes, logging) is
    its own. What differs: the loss is a :class:`structkd.KDObjective`; ``num_items_in_batch`` counts sentences,
    unlabelled ones included; batches hold sentences of like length; evaluation decodes to legal structures and
    reports the figures of the annotation (span F1, attachment scores). The teacher is present only as its scores, so
    no checkpoint can contain it.

    Args:
        model: the student (or a teacher being trained on gold annotation).
        args: transformers' training arguments.
        train_dataset: from :func:`~structkd.training.training_text`.
        eval_dataset: the development split, annotated.
        objective: what to minimise.
        targets: the teacher's scores for ``train_dataset``; needed where the objective distils.
    """

    def __init__(
        self,
        model: StructuredModel,
        args: TrainingArguments,
        train_dataset: Dataset,
        eval_dataset: Dataset | None,
        *,
        objective: KDObjective,
        targets: Targets | None = None,
        **kwargs: Any,
    ) -> None:
        if targets is not None and len(targets) != len(train_dataset):
            raise ValueError(
                f"The teacher's scores cover {len(targets)} sentences, the training text has {len(train_dataset)}."
            )
        if args.remove_unused_columns:
            raise ValueError("Set remove_unused_columns=False: the collator reads columns the model does not take.")
        for text in (train_dataset, eval_dataset):
            if text is not None:
                model.encoder.check(text)
        self.objective: KDObjective = objective
        self.targets = targets
        self.annotation = model.annotation
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=Collator(model, targets),
            compute_metrics=self._metrics,
            **kwargs,
        )
        self._eval_collator = Collator(model, evaluation=True)
        # compute_loss divides by the sentences of all accumulated batches: the Trainer must not divide once more.
        self.model_accepts_loss_kwargs = True

    @property
    def progress(self) -> float:
        """Share of the training that is done, 0 to 1; drives the interpolation schedule."""
        return min(1.0, self.state.global_step / max(1, self.state.max_steps))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The objective of a batch, divided by ``num_items_in_batch`` sentences (by the batch's own if None)."""
        inputs = dict(inputs)
        gold, labelled = inputs.pop("gold"), inputs.pop("labelled")
        teacher_scores = inputs.pop("teacher", None)
        output = model(**inputs)
        lengths = inputs["lengths"]
        student = self.accelerator.unwrap_model(model).distribution(output, lengths)
        teacher = None
        if self.targets is not None and teacher_scores is not None:
            teacher = self.targets.distribution(teacher_scores, lengths)
        loss = self.objective(
            teacher,
            student,
            gold,
            progress=self.progress,
            labelled=labelled,
            num_items=num_items_in_batch,
        )
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            # Gradients are averaged over processes while num_items_in_batch already counts all of them.
            loss = loss * self.accelerator.num_processes
        return (loss, output) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor | None:
        """Sentences of all accumulated batches, of all processes."""
        if not batch_samples:
            return None
        count = torch.tensor(sum(len(batch["lengths"]) for batch in batch_samples), device=device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            count = self.accelerator.gather(count).sum()
        return count

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return LengthBucketSampler(dataset["length"], self.args.train_batch_size, seed)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler:
        return SortedSampler([len(tokens) for tokens in eval_dataset["tokens"]])

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """As the Trainer's; the teacher has no scores for the sentences of this split."""
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
        """Decoded and gold columns, {column: [B, N]}, -100 in the padding; no loss: structures are judged."""
        inputs = self._prepare_inputs(dict(inputs))
        gold = inputs.pop("annotation")
        with torch.no_grad(), self.compute_loss_context_manager():
            output = model(**inputs)
        student = self.accelerator.unwrap_model(model)
        return None, student.decode(student.scores(output), inputs["lengths"]), gold

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        predicted: Any = prediction.predictions
        gold: Any = prediction.label_ids
        inside = next(iter(gold.values())) != UNLABELLED

        def sentences(columns: dict[str, Any]) -> list[dict[str, list[int]]]:
            return [
                {column: values[row][inside[row]].tolist() for column, values in columns.items()}
                for row in range(len(inside))
            ]

        return figures(counts(self.annotation, sentences(gold), sentences(predicted)))
