"""Run by test_processes.py in one process and in two connected ones: the same trainings, on as large batches in all.

For each training every process writes its final weights to FOLDER/NAME/PROCESS.safetensors.
"""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import save_file
from test_distillation_trainer import ANNOTATION, tagger, text
from transformers import set_seed

from structkd import (
    KDObjective,
    LinearAnnealing,
    LinearChainCRF,
    MaxEnt,
    structural_kd_loss,
    supervised_loss,
    token_kd_loss,
)
from structkd.data import TreeAnnotation
from structkd.models import BiLSTMRecipe, HeadLabelerRecipe, ParserRecipe
from structkd.training import FitResult, TeacherScores, fit, training_text
from structkd.training.processes import broadcast, is_main_process, process_count, wait_for_everyone

TREES = TreeAnnotation(("root", "nsubj", "obj"))


def trees(count: int, seed: int, labelled: bool = True) -> Dataset:
    """Sentences whose words all depend on the word before."""
    plain = text(count, seed).to_dict()
    lengths = [len(tokens) for tokens in plain["tokens"]]
    return Dataset.from_dict(
        {
            "id": plain["id"],
            "tokens": plain["tokens"],
            "upos": [["NOUN"] * length for length in lengths],
            "heads": [list(range(length)) if labelled else [-100] * length for length in lengths],
            "relations": [[0, *[1] * (length - 1)] if labelled else [-100] * length for length in lengths],
        }
    )


def small() -> BiLSTMRecipe:
    sizes = {"word_size": 6, "character_size": 4, "character_filters": 4, "hidden_size": 6, "layers": 1}
    return BiLSTMRecipe(**sizes, locked_dropout=0.0, word_dropout=0.0)


def parser(recipe: Any, seed: int = 0) -> Any:
    set_seed(seed)
    return recipe.create(TREES, trees(20, 0), trees(20, 0))


student_tagger = partial(tagger, locked_dropout=0.0, word_dropout=0.0)
biaffine = ParserRecipe(encoder=small(), arc_size=5, relation_size=4, dropout=0.0)
#: name -> text, student, teacher, loss of distillation, settings, options
TRAININGS: dict[str, tuple[Any, Any, Any, Any, dict[str, Any], dict[str, Any]]] = {
    # The last batch of an epoch has one sentence.
    "crf": (text, partial(student_tagger, "crf"), partial(tagger, "crf", seed=9), structural_kd_loss, {}, {}),
    "accumulated": (
        *(text, partial(student_tagger, "maxent"), partial(tagger, "crf", seed=9), structural_kd_loss),
        *({"gradient_accumulation_steps": 2}, {"unlabelled": 12}),
    ),
    "words": (
        *(text, partial(student_tagger, "maxent"), partial(tagger, "maxent", seed=9), token_kd_loss),
        *({"optim": "adamw_torch", "learning_rate": 0.01}, {"batch_words": 30, "select": "last", "dev": 1}),
    ),
    # At first all is distillation, to which the relations of a parser contribute nothing.
    "parser": (
        *(trees, partial(parser, biaffine), partial(parser, biaffine, seed=9)),
        *(structural_kd_loss, {}, {}),
    ),
    "head labels": (
        *(trees, partial(parser, HeadLabelerRecipe(encoder=small()))),
        *(partial(parser, biaffine, seed=9), structural_kd_loss, {}, {}),
    ),
    "dropout": (
        *(text, partial(tagger, "crf", locked_dropout=0.3), partial(tagger, "crf", seed=9)),
        *(structural_kd_loss, {"max_steps": 7}, {}),
    ),
}


def train(folder: Path, name: str) -> FitResult:
    text, student, teacher, loss, settings, options = TRAININGS[name]
    options = {"unlabelled": 19, "dev": 5} | options
    if "batch_words" in options:
        options["batch_words"] //= process_count()
    annotation = TREES if text is trees else ANNOTATION
    train = training_text(annotation, text(22, 1), text(options.pop("unlabelled"), 2, labelled=False))
    model = student()
    result = fit(
        model,
        train,
        text(options.pop("dev"), 3),
        objective=KDObjective(loss, supervised_loss, LinearAnnealing(1.0, 0.5)),
        settings={
            "max_steps": 10,
            "eval_steps": 3,
            "logging_steps": 1,
            "optim": "sgd",
            "learning_rate": 0.2,
            "per_device_train_batch_size": 8 // process_count(),
            "per_device_eval_batch_size": 2,
        }
        | settings,
        folder=folder / "checkpoints",
        seed=5,
        teacher=TeacherScores.compute(teacher(), train, progress=False),
        log=folder / "metrics.jsonl",
        **options,
    )
    if is_main_process():
        folder.mkdir(exist_ok=True)
    wait_for_everyone()
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / f"{0 if is_main_process() else 1}.safetensors")
    assert broadcast(replace(result, seconds=0.0)) == replace(result, seconds=0.0)
    return result


def loss_under_ddp(path: Path) -> None:
    """Write the loss and the gradient of a model, and those of the same model in DistributedDataParallel."""
    torch.manual_seed(0)
    lengths = torch.tensor([4, 1, 3])
    inputs = torch.randn(3, 4, 6, dtype=torch.float64)
    scores, transitions = torch.randn(3, 4, 5, dtype=torch.float64), torch.randn(5, 5, dtype=torch.float64)
    teacher = LinearChainCRF.from_scores(scores, transitions, lengths=lengths)
    plain = torch.nn.Linear(6, 5, dtype=torch.float64)
    results = {}
    for name, model in (("", plain), ("wrapped ", torch.nn.parallel.DistributedDataParallel(plain))):
        plain.zero_grad()
        loss = structural_kd_loss(teacher, MaxEnt(model(inputs), lengths), temperature=2.0)
        loss.backward()
        results |= {f"{name}loss": loss.detach(), f"{name}gradient": plain.weight.grad.clone()}
    save_file(results, path)


def train_all(folder: Path) -> None:
    for name in TRAININGS:
        train(folder / name, name)
    # The last again, from a checkpoint before its last.
    again = folder / "again" / "checkpoints"
    if is_main_process():
        shutil.copytree(folder / name / "checkpoints", again)
        shutil.rmtree(again / "checkpoint-7")
    wait_for_everyone()
    assert train(folder / "again", name).resumed_from in (3, 6)


def connected(folder: Path) -> None:
    """Called in each of the two processes."""
    wait_for_everyone()
    loss_under_ddp(folder / f"wrapped-{0 if is_main_process() else 1}.safetensors")
    train_all(folder)
