"""Distillation in a Trainer of one's own: a mixin in front of transformers' Trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from structkd import KDObjective
from structkd.numbering import UNLABELLED

__all__ = ["STORED", "DistillationMixin", "StoredColumns"]

STORED = "teacher_"
"""The prefix of the columns in which a data set holds a teacher's outputs."""


class DistillationMixin:
    """Train with a :class:`structkd.KDObjective` in a subclass of transformers' Trainer.

    Write ``class MyTrainer(DistillationMixin, transformers.Trainer)`` with a method :meth:`distribution`, which builds
    a distribution from the outputs of a model. The student's outputs and the teacher's go through it; override
    :meth:`teacher_distribution` if the teacher's need another one.

    The loss of accumulated batches, of all processes, is divided once, by the number of their sentences. Under
    DistributedDataParallel the loss belongs to the module's output, so that parameters of a distribution (a CRF's
    transitions) are waited for. Dynamic programs run in working precision under autocast.

    Args:
        args, kwargs: those of the Trainer.
        objective: to be minimized.
        teacher: a module, which gets the student's inputs, stays in evaluation mode and gets no gradient; or a function
            from a batch to a distribution. None takes the teacher's outputs from the columns of the data set that begin
            with ``teacher_`` (``teacher_logits`` becomes ``outputs.logits``); without such columns an evaluation
            reports the supervised loss.

    The teacher belongs to no checkpoint.

    Raises:
        TypeError: if the objective or the teacher cannot be called.

    >>> import structkd, transformers
    >>> from structkd.training import DistillationMixin
    >>> class Tagging(DistillationMixin, transformers.Trainer):
    ...     def distribution(self, outputs, inputs):
    ...         return structkd.MaxEnt(outputs.logits, lengths=inputs["attention_mask"].sum(1))
    >>> Tagging.__mro__[1].__name__
    'DistillationMixin'
    """

    objective: Any
    teacher: Any
    # The Trainer's attributes that the mixin uses.
    accelerator: Any
    args: Any
    state: Any
    model: Any
    train_dataset: Any
    eval_dataset: Any

    def __init__(
        self,
        *args: Any,
        objective: Callable[..., Tensor],
        teacher: nn.Module | Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not callable(objective):
            raise TypeError(f"The objective must be a structkd.KDObjective, got {type(objective).__name__}.")
        if teacher is not None and not callable(teacher):
            raise TypeError(
                f"The teacher must be a module, a function from a batch to a distribution, or None for stored columns, "
                f"got {type(teacher).__name__}."
            )
        self.objective = objective
        self.teacher = teacher
        super().__init__(*args, **kwargs)
        # compute_loss divides by the sentences of all accumulated batches; the Trainer must not divide again.
        self.model_accepts_loss_kwargs = True

    # -- to be written or overridden ------------------------------------------------------------------------------

    def distribution(self, outputs: Any, inputs: Mapping[str, Any]) -> Any:
        """Return the distribution of a batch from a model's outputs; ``inputs`` is the batch as it was collated."""
        raise NotImplementedError(
            f"{type(self).__name__} needs a method distribution(self, outputs, inputs) that returns a distribution, "
            "such as structkd.MaxEnt(outputs.logits, lengths)."
        )

    def teacher_distribution(self, inputs: Mapping[str, Any]) -> Any:
        """Return the teacher's distribution of a batch, or None if there is no teacher for it."""
        teacher = self.teacher
        if teacher is None:
            stored = {name.removeprefix(STORED): value for name, value in inputs.items() if name.startswith(STORED)}
            return self.distribution(_Outputs(stored), inputs) if stored else None
        if not isinstance(teacher, nn.Module):
            return teacher(inputs)
        device = next((value.device for value in inputs.values() if isinstance(value, Tensor)), None)
        teacher.eval().to(device)
        return self.distribution(teacher(**self.model_inputs(inputs)), inputs)

    def gold(self, inputs: Mapping[str, Any], student: Any) -> tuple[Any, Tensor | None]:
        """Return the gold structures of a batch and which sentences have one.

        By default these are the ``labels`` of a token classifier, without the positions that have -100; a sentence
        whose labels are all -100 is unlabelled.
        """
        labels = inputs.get("labels")
        if labels is None:
            return None, None
        known = labels != UNLABELLED
        if labels.shape != (*student.batch_shape, student.words):
            counts, lengths = known.sum(1), student.lengths
            if not (counts[counts > 0] == lengths[counts > 0]).all():
                raise ValueError(
                    f"The labels mark {counts.tolist()} words, and the distribution has {lengths.tolist()}. Label the "
                    "first piece of every word, or override the method `gold`."
                )
            packed = labels.new_full((len(labels), student.words), UNLABELLED)
            packed[torch.arange(student.words, device=labels.device) < counts.unsqueeze(1)] = labels[known]
            labels = packed
        labelled = known.any(1)
        return labels, None if labelled.all() else labelled

    def model_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the part of a batch that models read: all but ``labels`` and the teacher's columns."""
        return {name: value for name, value in inputs.items() if name != "labels" and not name.startswith(STORED)}

    def sentences(self, inputs: Mapping[str, Any]) -> int:
        """Return the number of sentences of a batch, by which the loss is divided."""
        return len(next(value for value in inputs.values() if isinstance(value, Tensor)))

    # -- in place of the Trainer's ------------------------------------------------------------------------------------

    @property
    def progress(self) -> float:
        """Share of the training that is done, 0 to 1; the interpolation schedule depends on it."""
        share: float = self.state.global_step / max(1, self.state.max_steps)
        return min(1.0, share)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Compute the objective of a batch, divided by ``num_items_in_batch`` (None: by the batch's sentences)."""
        outputs = []

        def loss_of(module: Any, arguments: Any, output: Any) -> Tensor:
            outputs.append(output)
            with torch.no_grad():
                teacher = self.teacher_distribution(inputs)
            student = self.distribution(output, inputs)
            gold, labelled = self.gold(inputs, student)
            objective = self.objective
            if teacher is None and not model.training and isinstance(objective, KDObjective):
                objective = KDObjective(None, objective.supervised)
            options = {"progress": self.progress, "labelled": labelled, "num_items": num_items_in_batch}
            loss: Tensor = objective(teacher, student, gold, **options)
            return loss

        given = self.model_inputs(inputs)
        if isinstance(model, nn.parallel.DistributedDataParallel):
            # DDP searches the module's output for the parameters whose gradients it has to wait for. Scores do not
            # lead to a CRF's transitions, and lead to parameters that this loss does not depend on. The loss does not.
            with self.accelerator.unwrap_model(model).register_forward_hook(loss_of):
                loss = model(**given)
        else:
            loss = loss_of(model, (), model(**given))
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            # Gradients are averaged over processes, although num_items_in_batch counts the sentences of all of them.
            loss = loss * self.accelerator.num_processes
        return (loss, outputs[0]) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor | None:
        """Count the sentences of all accumulated batches of all processes."""
        if not batch_samples:
            return None
        count = torch.tensor(sum(self.sentences(batch) for batch in batch_samples), device=device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            count = self.accelerator.gather(count).sum()
        return count

    def _set_signature_columns_if_needed(self) -> None:
        """Keep the teacher's columns, which no model reads."""
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        kept: list[str] = getattr(self, "_signature_columns")  # noqa: B009
        for dataset in (self.train_dataset, self.eval_dataset):
            columns = getattr(dataset, "column_names", None)
            if isinstance(columns, list):
                kept += [name for name in columns if name.startswith(STORED) and name not in kept]


class StoredColumns:
    """A collator that pads a teacher's stored columns, in front of the collator of the other columns.

    Args:
        collator: from a list of examples to a batch, such as ``DataCollatorForTokenClassification(tokenizer)``.

    A column ``teacher_NAME`` holds, for every example, one entry per position: [S, ...]. The batch gets a tensor
    [B, S, ...] with zeros in the padding, on the side where ``attention_mask`` has it.

    >>> import torch
    >>> from structkd.training import StoredColumns
    >>> def collator(examples):
    ...     return {"input_ids": torch.tensor([example["input_ids"] + [0] for example in examples])}
    >>> batch = StoredColumns(collator)([{"input_ids": [5, 6], "teacher_logits": [[1.0], [2.0]]}])
    >>> batch["teacher_logits"].tolist()
    [[[1.0], [2.0], [0.0]]]
    """

    def __init__(self, collator: Callable[[list[dict[str, Any]]], Any]) -> None:
        self.collator = collator

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Any:
        """Return the batch of some examples."""
        names = [name for name in examples[0] if name.startswith(STORED)]
        others = [{name: value for name, value in one.items() if name not in names} for one in examples]
        batch = self.collator(others)
        positions = batch["input_ids"].shape[1]
        mask = batch.get("attention_mask")
        for name in names:
            columns = [torch.as_tensor(one[name]) for one in examples]
            padded = columns[0].new_zeros(len(columns), positions, *columns[0].shape[1:])
            for item, values in enumerate(columns):
                if len(values) > positions:
                    raise ValueError(
                        f"The column {name!r} has {len(values)} positions in an example of {positions}. Store the "
                        "teacher's outputs for the same tokens."
                    )
                left = mask is not None and positions > len(values) and not bool(mask[item, 0])
                start = positions - len(values) if left else 0
                padded[item, start : start + len(values)] = values
            batch[name] = padded
        return batch


class _Outputs(dict[str, Any]):
    """A teacher's outputs by name, as attributes or as keys."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(f"The data set has no column {STORED}{name}; it has {[STORED + n for n in self]}.")
        return self[name]
