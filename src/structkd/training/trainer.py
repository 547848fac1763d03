"""Distillation as a subclass of transformers' Trainer."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import EvalPrediction, Trainer, TrainingArguments

from structkd import KDObjective
from structkd.evaluation import Legality, tagging_metrics, viterbi
from structkd.models import Tagger
from structkd.training.collate import UNLABELLED, TaggingCollator
from structkd.training.sampling import LengthBucketSampler, SortedSampler
from structkd.training.targets import TeacherTargets

__all__ = ["DistillationTrainer"]


class DistillationTrainer(Trainer):
    """Trains a tagger on gold labels, on a teacher's distributions, or on both, in one code path.

    Everything a Trainer does (checkpoints, resuming, accumulation, mixed precision, several processes, logging) is
    its own. What differs: the loss is a :class:`structkd.KDObjective`; ``num_items_in_batch`` counts sentences,
    unlabelled ones included; batches hold sentences of like length; evaluation decodes to legal tag sequences and
    reports span F1. The teacher is present only as its scores, so no checkpoint can contain it.

    Args:
        model: the student (or a teacher being trained on gold labels).
        args: transformers' training arguments.
        train_dataset: from :func:`~structkd.training.training_text`.
        eval_dataset: the development split; columns ``tokens`` and ``labels``.
        objective: what to minimise.
        targets: the teacher's scores for ``train_dataset``; needed where the objective distils.
        scheme: tag scheme of the labels for span F1, or None (accuracy only).
        legal: which tag sequences decoding may produce; None for all.
    """

    def __init__(
        self,
        model: Tagger,
        args: TrainingArguments,
        train_dataset: Dataset,
        eval_dataset: Dataset | None,
        *,
        objective: KDObjective,
        targets: TeacherTargets | None = None,
        scheme: str | None = None,
        legal: Legality | None = None,
        **kwargs: Any,
    ) -> None:
        if model.features is None:
            raise ValueError("The model has no vocabulary and cannot read text: create it by its recipe or load it.")
        if targets is not None:
            if targets.labels != model.config.labels:
                raise ValueError(
                    "Teacher and student must have the same tag inventory, in the same order.\n"
                    f"teacher: {targets.labels}\nstudent: {model.config.labels}"
                )
            if len(targets) != len(train_dataset):
                raise ValueError(
                    f"The teacher's scores cover {len(targets)} sentences, the training text has {len(train_dataset)}."
                )
        if args.remove_unused_columns:
            raise ValueError("Set remove_unused_columns=False: the collator reads columns the model does not take.")
        self.objective: KDObjective = objective
        self.targets = targets
        self.labels = model.config.labels
        self.scheme = scheme
        self.legal = legal
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=TaggingCollator(model.features, targets),
            compute_metrics=self._metrics,
            **kwargs,
        )
        self._eval_collator = TaggingCollator(model.features)
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
        labels, labelled = inputs.pop("labels"), inputs.pop("labelled")
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
            # Gold of unlabelled sentences is never read, but has to be a label number.
            labels.clamp(min=0),
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
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Decoded labels and gold labels [B, N], -100 in the padding; no loss (the decoder judges, not the scores)."""
        inputs = self._prepare_inputs(dict(inputs))
        labels = inputs.pop("labels")
        inputs.pop("labelled")
        with torch.no_grad(), self.compute_loss_context_manager():
            output = model(**inputs)
        scores = self.accelerator.unwrap_model(model).scores(output)
        decoded = viterbi(**scores, lengths=inputs["lengths"], legal=self.legal)
        return None, decoded.masked_fill(decoded < 0, UNLABELLED), labels

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        gold: list[list[str]] = []
        predicted: list[list[str]] = []
        sides: Any = zip(prediction.label_ids, prediction.predictions, strict=True)
        for truth, guess in sides:
            inside = truth != UNLABELLED
            gold.append([self.labels[label] for label in truth[inside]])
            predicted.append([self.labels[label] for label in guess[inside]])
        return tagging_metrics(gold, predicted, self.scheme)
