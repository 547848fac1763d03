"""Private methods of transformers' Trainer that DistillationTrainer overrides: a change there fails with a message."""

import inspect

import pytest
import transformers
from transformers import Trainer
from transformers.trainer_utils import rotate_checkpoints

from structkd.training import DistillationMixin, DistillationTrainer

#: The parameters of every private method that is overridden or called, and what depends on it.
PRIVATE = {
    "_get_eval_sampler": (["eval_dataset"], "evaluation pads sentences of similar length together"),
    "_get_num_items_in_batch": (["batch_samples", "device"], "the loss is divided by all sentences of a step"),
    "_get_output_dir": (["trial"], "an unfinished checkpoint has another name"),
    "_init_training_state": (
        ["max_steps", "num_update_steps_per_epoch", "num_train_epochs", "resume_from_checkpoint", "trial"],
        "a resumed training knows its best checkpoint in a folder that was moved",
    ),
    "_prepare_inputs": (["inputs"], "evaluation batches go to the model's device"),
    "_run_epoch": (
        ["model", "epoch", "train_dataloader", "steps_in_epoch", "num_update_steps_per_epoch", "trial",
         "ignore_keys_for_eval", "start_time", "resume_from_checkpoint", "epochs_trained",
         "steps_trained_in_current_epoch"],
        "a training that was interrupted after its last checkpoint takes no further step",
    ),
    "_get_grad_norm": (["model", "grad_norm"], "a gradient that is not finite stops the training before its step"),
    "_save_checkpoint": (["model", "trial"], "a checkpoint gets its name when it is complete"),
    "_set_signature_columns_if_needed": ([], "a data set keeps the columns of a teacher's outputs"),
}  # fmt: skip


@pytest.mark.parametrize("name", PRIVATE)
def test_transformers_still_has_the_method_and_calls_it(name: str) -> None:
    parameters, purpose = PRIVATE[name]
    hint = f"transformers {transformers.__version__} has changed Trainer.{name}, by which {purpose}"
    method = getattr(Trainer, name, None)
    assert method is not None, f"{hint}: the method is gone."
    assert list(inspect.signature(method).parameters) == ["self", *parameters], f"{hint}: its parameters are others."
    assert f"self.{name}" in inspect.getsource(inspect.getmodule(Trainer)), f"{hint}: nothing calls it."  # type: ignore[arg-type]


def test_every_private_method_that_is_overridden_is_listed() -> None:
    names = {*vars(DistillationTrainer), *vars(DistillationMixin)}
    overridden = {name for name in names if name.startswith("_") and not name.startswith("__")}
    assert {name for name in overridden if hasattr(Trainer, name)} == PRIVATE.keys() - {"_prepare_inputs"}


def test_the_private_attributes_and_functions_in_use_are_there() -> None:
    source = inspect.getsource(Trainer.__init__)
    for attribute in ("_train_batch_size", "model_accepts_loss_kwargs", "compute_loss_context_manager"):
        assert f"self.{attribute} = " in source or hasattr(Trainer, attribute), (
            f"transformers {transformers.__version__} no longer sets Trainer.{attribute}."
        )
    assert list(inspect.signature(rotate_checkpoints).parameters)[:3] == [
        "output_dir", "save_total_limit", "best_model_checkpoint",
    ]  # fmt: skip
