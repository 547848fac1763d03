"""Distillation in a Trainer of one's own: a mixin in front of transformers' Trainer."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from structkd import KDObjective
from structkd.numbering import UNLABELLED
from structkd.training.token_columns import STORED, WORD_COLUMNS

__all__ = ["DistillationMixin"]


class DistillationMixin:
    """Train with a :class:`structkd.KDObjective` in a subclass of transformers' Trainer.

    Write ``class MyTrainer(DistillationMixin, transformers.Trainer)`` with a method :meth:`distribution`, which builds
    a distribution from the outputs of a model. The student's outputs and the teacher's both go through it. Override
    :meth:`teacher_distribution` if the teacher has label names, transitions or a tokenizer of its own.

    The loss of accumulated batches, of all processes, is divided once, by the number of their sentences. Under
    DistributedDataParallel the loss belongs to the module's output, so that parameters of a distribution (a CRF's
    transitions) are waited for. Dynamic programs run in working precision under autocast.

    Args:
        args, kwargs: those of the Trainer.
        objective: to be minimized; a loss such as ``structkd.StructuralKDLoss()`` stands for distillation alone,
            ``structkd.KDObjective(loss, interpolation=1.0)``.
        teacher: a module, which stays in evaluation mode and gets no gradient. It gets the student's inputs, or, if the
            data set has a column ``teacher_input_ids``, the columns that begin with ``teacher_``. Or a function from a
            batch to a distribution. None takes the teacher's outputs from the columns of the data set that begin with
            ``teacher_`` (``teacher_logits`` becomes ``outputs.logits``); without such columns an evaluation reports the
            supervised loss.

    Columns that the model's ``forward`` does not take, such as ``word_mask``, stay in the batch for
    :meth:`distribution`; ``word_mask``, ``word_ids`` and the teacher's columns are kept although
    ``remove_unused_columns`` is on. :class:`TokenCollator` pads them.

    Set ``decode_predictions = True`` in your class, and ``compute_metrics`` gets the best structures of words instead
    of logits: ``predictions`` are those of ``decode()``, and ``label_ids`` those of :meth:`gold`, both [sentences, N]
    and negative in the padding.

    The teacher belongs to no checkpoint.

    Raises:
        TypeError: if the objective or the teacher cannot be called, or the mixin does not come first.
        ValueError: from a training step, if teacher and student number other labels and share :meth:`distribution`.

    >>> import structkd, transformers
    >>> from structkd.training import DistillationMixin
    >>> class Tagging(DistillationMixin, transformers.Trainer):
    ...     def distribution(self, outputs, inputs):
    ...         return structkd.MaxEnt(outputs.logits, lengths=inputs["attention_mask"].sum(1))
    >>> Tagging.__mro__[1].__name__
    'DistillationMixin'
    """

    #: Whether compute_metrics gets decoded structures of words, rather than the model's outputs.
    decode_predictions = False

    objective: Any
    teacher: Any
    # The Trainer's attributes that the mixin uses.
    accelerator: Any
    args: Any
    state: Any
    model: Any
    train_dataset: Any
    eval_dataset: Any
    label_names: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        before = cls.__mro__[: cls.__mro__.index(DistillationMixin)]
        if any(issubclass(kind, Trainer) and not issubclass(kind, DistillationMixin) for kind in before):
            raise TypeError(
                f"DistillationMixin comes first: write class {cls.__name__}(DistillationMixin, transformers.Trainer), "
                f"got the bases {[base.__name__ for base in cls.__bases__]}."
            )

    def __init__(
        self,
        *args: Any,
        objective: Callable[..., Tensor],
        teacher: nn.Module | Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not callable(objective) or isinstance(objective, type):
            given = f"the class {objective.__name__}" if isinstance(objective, type) else type(objective).__name__
            raise TypeError(
                f"The objective must be a structkd.KDObjective, got {given}. Give an instance, such as "
                "structkd.KDObjective(structkd.StructuralKDLoss(), interpolation=0.5)."
            )
        if _is_loss(objective):
            objective = KDObjective(objective, interpolation=1.0)
        if teacher is not None and not callable(teacher):
            raise TypeError(
                f"The teacher must be a module, a function from a batch to a distribution, or None for stored columns, "
                f"got {type(teacher).__name__}."
            )
        self.objective = objective
        self.teacher = teacher
        self._built = False
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
        """Return the teacher's distribution of a batch, or None if there is no teacher for it.

        By default it is :meth:`distribution` of :meth:`teacher_outputs`. Override it if the teacher has label names,
        parameters (a CRF's transitions) or words of its own, which ``self.model`` does not know:
        ``from_hf(self.teacher_outputs(inputs), self.teacher.config, mask=inputs["word_mask"])``.
        """
        if self.teacher is not None and not isinstance(self.teacher, nn.Module):
            return self.teacher(inputs)
        outputs = self.teacher_outputs(inputs)
        if outputs is None:
            return None
        theirs, ours = _names(self.teacher), _names(self._student())
        if theirs is not None and ours is not None and theirs != ours:
            raise ValueError(
                f"The teacher's labels are {theirs} and the student's {ours}, and one method `distribution` would give "
                f"both the same names. Write {type(self).__name__}.teacher_distribution(self, inputs), which builds "
                "the teacher's distribution of self.teacher_outputs(inputs) with self.teacher.config."
            )
        try:
            found = self.distribution(outputs, inputs)
        except Exception as error:
            error.add_note(
                "This happened while the teacher's distribution was built by the method `distribution`, which gets the "
                "outputs of both models. If the teacher differs from the student, override `teacher_distribution`."
            )
            raise
        if not self._built:
            self._built = True
            self._check_parameters(found)
        return found

    def teacher_outputs(self, inputs: Mapping[str, Any]) -> Any:
        """Return the teacher's outputs of a batch: of the module, or the stored columns; None if there are none."""
        teacher = self.teacher
        if teacher is None:
            stored = _stored(inputs)
            return _Outputs(stored) if stored else None
        device = next((value.device for value in inputs.values() if isinstance(value, Tensor)), None)
        teacher.eval().to(device)
        return teacher(**self.teacher_inputs(inputs))

    def teacher_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs of a teacher that is a module: the columns of its own, or those of the student."""
        stored = _stored(inputs)
        named, _ = _parameters(self.teacher)
        if not named and "input_ids" in stored:
            named = frozenset(stored).difference(WORD_COLUMNS)
        own = {name: value for name, value in stored.items() if name in named and name != "labels"}
        if own:
            return own
        columns = [name for name in inputs if name.startswith(STORED)]
        if columns:
            raise ValueError(
                f"The batch has the columns {columns}, which {type(self.teacher).__name__} does not read, and a "
                "teacher was given, too. Give teacher=None to train on stored outputs, or remove these columns."
            )
        if type(self).model_inputs is not DistillationMixin.model_inputs:
            return self.model_inputs(inputs)
        return self._inputs_of(self.teacher, inputs)

    def gold(self, inputs: Mapping[str, Any], student: Any) -> tuple[Any, Tensor | None]:
        """Return the gold structures of a batch and which sentences have one.

        By default these are the ``labels`` of a token classifier at the positions of ``word_mask``. If the batch has no
        such column, positions that have -100 are no words. A sentence whose labels are all -100 is unlabelled.
        """
        labels = inputs.get("labels")
        if labels is None:
            return None, None
        known = labels != UNLABELLED
        if labels.shape != (*student.batch_shape, student.words):
            words = inputs.get("word_mask")
            at = known if words is None or words.shape != labels.shape else words.bool()
            counts, lengths = at.sum(1), student.lengths
            if not (counts[counts > 0] == lengths[counts > 0]).all():
                raise ValueError(
                    f"The labels mark {counts.tolist()} words, and the distribution has {lengths.tolist()}. Label the "
                    "first piece of every word, give a column `word_mask` if not every word has a label, or override "
                    "the method `gold`."
                )
            packed = labels.new_full((len(labels), student.words), UNLABELLED)
            packed[torch.arange(student.words, device=labels.device) < counts.unsqueeze(1)] = labels[at]
            labels, known = packed, packed != UNLABELLED
        labelled = known.any(1)
        return labels, None if labelled.all() else labelled

    def model_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the part of a batch that the student's ``forward`` takes, without ``labels``."""
        return self._inputs_of(self._student(), inputs)

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

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """Return loss, outputs and labels as the Trainer does; if ``decode_predictions``, of words and decoded."""
        trainer: Any = super()
        if prediction_loss_only or not self.decode_predictions:
            known = any(inputs.get(name) is not None for name in self.label_names)
            given = inputs if known else self.model_inputs(inputs)
            return trainer.prediction_step(model, given, prediction_loss_only, ignore_keys)  # type: ignore[no-any-return]
        inputs = trainer._prepare_inputs(inputs)
        with torch.no_grad(), trainer.compute_loss_context_manager():
            if inputs.get("labels") is None:
                loss, outputs = None, model(**self.model_inputs(inputs))
            else:
                loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
                loss = loss.detach()
            student = self.distribution(outputs, inputs)
            return loss, student.decode(), self.gold(inputs, student)[0]

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor | None:
        """Count the sentences of all accumulated batches of all processes."""
        if not batch_samples:
            return None
        count = torch.tensor(sum(self.sentences(batch) for batch in batch_samples), device=device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            count = self.accelerator.gather(count).sum()
        return count

    def _set_signature_columns_if_needed(self) -> None:
        """Keep the columns of words and of the teacher, which the student does not read."""
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        kept: list[str] = getattr(self, "_signature_columns")  # noqa: B009
        for dataset in (self.train_dataset, self.eval_dataset):
            columns = getattr(dataset, "column_names", None)
            if isinstance(columns, list):
                own = [name for name in columns if name.startswith(STORED) or name in WORD_COLUMNS]
                kept += [name for name in own if name not in kept]

    def _student(self) -> nn.Module:
        """Return the student without what wraps it for several processes."""
        student: nn.Module = self.accelerator.unwrap_model(self.model)
        return student

    def _inputs_of(self, model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the part of a batch that a model's ``forward`` takes, without labels and the teacher's columns."""
        named, others = _parameters(model)
        return {
            name: value
            for name, value in inputs.items()
            if (name in named or (others and name not in WORD_COLUMNS))
            and name != "labels"
            and not name.startswith(STORED)
        }

    def _check_parameters(self, teacher: Any) -> None:
        """Warn if a teacher's scores are parameters of the student, such as the transitions of its CRF."""
        scores = teacher.sources() if hasattr(teacher, "sources") else ()
        places = {score.untyped_storage().data_ptr(): list(score.shape) for score in scores if score.numel()}
        for name, parameter in self._student().named_parameters():
            shape = places.get(parameter.untyped_storage().data_ptr())
            if shape is not None:
                warnings.warn(
                    f"The teacher's distribution has the student's parameter {name!r} among its scores: the method "
                    "`distribution` built it, which gets the outputs of both models. If the teacher has such "
                    f"parameters of its own, write {type(self).__name__}.teacher_distribution(self, inputs).",
                    stacklevel=2,
                )


def _is_loss(objective: Callable[..., Any]) -> bool:
    """Return whether an objective is a loss of teacher and student alone, which knows of no gold structures."""
    function = objective.forward if isinstance(objective, nn.Module) else objective
    try:
        names = signature(function).parameters
    except (TypeError, ValueError):
        return False
    return {"teacher", "student", "reduction"} <= set(names) and "gold" not in names


def _names(model: Any) -> list[str] | None:
    """Return the label names of a model of transformers in order; None for one without, or with LABEL_0, LABEL_1..."""
    names = getattr(getattr(model, "config", None), "id2label", None)
    if not isinstance(names, Mapping) or all(re.fullmatch(r"LABEL_\d+", str(name)) for name in names.values()):
        return None
    return [str(names[number]) for number in sorted(names, key=int)]


def _stored(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the teacher's columns of a batch, without the prefix."""
    return {name.removeprefix(STORED): value for name, value in inputs.items() if name.startswith(STORED)}


def _parameters(model: nn.Module) -> tuple[frozenset[str], bool]:
    """Return the names of the arguments of a model's ``forward``, and whether it takes others as well."""
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return _parameters_of(type(base).forward)


@lru_cache
def _parameters_of(forward: Callable[..., Any]) -> tuple[frozenset[str], bool]:
    parameters = list(signature(forward).parameters.values())[1:]
    variable = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
    named = frozenset(parameter.name for parameter in parameters if parameter.kind not in variable)
    return named, any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters)


class _Outputs(dict[str, Any]):
    """A teacher's outputs by name, as attributes or as keys."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(f"The data set has no column {STORED}{name}; it has {[STORED + n for n in self]}.")
        return self[name]
