"""What a configuration asks for, checked and ready to be carried out: data, regime, trainings, teacher targets."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from structkd import ConstantInterpolation, KDObjective
from structkd.data import Corpus, Transfer, drawn
from structkd.records import MethodSettings, Settings, TrainingConfig
from structkd.training import (
    Collator,
    Splits,
    Teacher,
    TeacherScores,
    draw_splits,
    main_metric,
    training_arguments,
    training_text,
)
from structkd.training.processes import process_count
from structkd.training.score_store import DTYPES

from .fingerprint import canonical, code_fingerprint, digest, file_fingerprints, plugin_fingerprints, text_fingerprint
from .instantiate import InstantiationError, instantiate, with_defaults
from .stores import SharedScores, joined
from .work import Training

__all__ = ["Plan", "given", "plan"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """One run before anything of it is trained.

    Attributes:
        scenario: its name.
        source, target: the corpora of the teacher and of the student; most often the same.
        regime: who sees which sentences.
        teachers: their trainings, the first one's before those of an ensemble.
        students: the trainings of the method, first, and of its baselines.
        comparisons: which students' figures are to be compared, (method, baseline).
        scores: the teachers' scores of the student's text, by where they come from ("store" or "live").
    """

    scenario: str
    source: Corpus
    target: Corpus
    regime: Splits
    teachers: list[Training]
    students: list[Training]
    comparisons: list[tuple[str, str]]
    scores: Mapping[str, SharedScores]

    @property
    def metric(self) -> str:
        """The figure by which models are chosen and compared."""
        return main_metric(self.target.annotation)

    @property
    def fingerprint(self) -> str:
        """Of all that the results depend on."""
        trainings = [[each.name, each.key] for each in (*self.teachers, *self.students)]
        return digest([2, self.scenario, trainings, self.comparisons])


def plan(config: Mapping[str, Any], output: Path) -> Plan:
    """Check a configuration and lay out its run.

    Args:
        config: plain data in the form of :class:`~structkd.commands.schema.ExperimentConfig`.
        output: the run's folder (transformers checks a path; nothing is written).

    Raises:
        ValueError, TypeError, FileNotFoundError: for anything wrong with the configuration or the data.
    """
    methods = _methods(config)
    if config["store"]["dtype"] not in DTYPES:
        raise ValueError(f"store.dtype={config['store']['dtype']}: expected one of {', '.join(DTYPES)}.")
    comparisons = _comparisons(config["comparisons"], methods)
    student_config, seed = config["student"], config["seed"]
    teachers = {"teacher": config["teacher"]} | {f"ensemble.{name}": each for name, each in config["ensemble"].items()}
    for where, each in teachers.items():
        _check_settings(each["trainer"], "best", where, output)
        if not each["weight"] > 0:
            raise ValueError(f"{where}.weight must be positive, got {each['weight']}.")
    _check_settings(student_config["trainer"], student_config["select"], "student", output)
    recipes = {where: _recipe(each["model"], f"{where}.model") for where, each in teachers.items()}
    student_recipe = _recipe(student_config["model"], "student.model")
    data = instantiate(config["data"], "data")
    if not isinstance(data, (Corpus, Transfer)):
        raise InstantiationError(f"data must name a function that loads a Corpus, got {type(data).__name__}.")
    source, target = (data.source, data.target) if isinstance(data, Transfer) else (data, data)
    available = len(source.splits["train"])
    for where, each in teachers.items():
        if each["labelled"] is not None and not 1 <= each["labelled"] <= available:
            raise ValueError(
                f"{where}.labelled={each['labelled']}: {source.name} has {available} training sentences. Lower it, or "
                f"take all with {where}.labelled=null; unless it has a text of its own (student.text), the student's "
                "unlabelled sentences (student.unlabelled) come out of the rest."
            )
    text = None if student_config["text"] is None else instantiate(student_config["text"], "student.text")
    if text is not None and not isinstance(text, Dataset):
        raise InstantiationError(f"student.text must name a function that loads a Dataset, got {type(text).__name__}.")
    regime = draw_splits(
        data,
        # The student's unlabelled text is news to every teacher.
        teacher=None if None in (sizes := [each["labelled"] for each in teachers.values()]) else max(sizes),
        labelled=student_config["labelled"],
        unlabelled=student_config["unlabelled"],
        text=text,
        teacher_seed=config["teacher"]["seed"],
        seed=seed,
    )
    _describe(source, target, regime, methods)
    weights = [each["weight"] for each in teachers.values()]
    alone = [method for method in methods if method["objective"].kd is None]
    if alone and not len(regime.labelled):
        raise ValueError(
            f"student.labelled=0: {alone[0]['where']} learns from labels alone, and there are none. Leave it out "
            "(~kd@baselines.none), or give the student labelled sentences."
        )
    _try(methods, recipes, weights, student_recipe, source, regime)

    # The same for all trainings of this run.
    common: dict[str, Any] = {
        "format": TrainingConfig.FORMAT,
        "code": code_fingerprint(),
        # Checkpoints and the last bits of a result depend on these, too.
        "versions": {
            # whatever the build, as 2.13.0+cpu
            name: importlib.metadata.version(name).partition("+")[0]
            for name in ("torch", "transformers", "accelerate")
        },
        "compiled": importlib.util.find_spec("numba") is not None,
        "accelerator": str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else None,
        "corpora": [
            (corpus.name, corpus.task, corpus.annotation.description(), corpus.fingerprint)
            for corpus in dict.fromkeys((source, target))
        ],
    }
    # Trainings have most of their text in common.
    fingerprint_of = functools.cache(text_fingerprint)
    judged = {split: target.splits[split] for split in ("dev", "test")}
    taught = [
        _training(
            "teacher", where.replace("ensemble.", "teacher-"), common, each, recipes[where], None, None, each["seed"],
            select="best", annotation=source.annotation, dev=source.splits["dev"], judged=judged,
            labelled=drawn(regime.teacher, each["labelled"] or len(regime.teacher), config["teacher"]["seed"]),
            unlabelled=None, annotated=regime.teacher, scores=None, fingerprint_of=fingerprint_of,
        )
        for where, each in teachers.items()
    ]  # fmt: skip
    scores = {
        way: SharedScores(
            way,
            taught,
            weights,
            Path(config["work_dir"]).absolute(),
            training_text(source.annotation, regime.labelled, regime.unlabelled),
            dtype=config["store"]["dtype"],
            shard_sentences=config["store"]["shard_sentences"],
        )
        for way in dict.fromkeys(each["config"]["targets"] for each in methods if each["objective"].kd is not None)
    }
    students = [
        _training(
            "student", method["name"], common, student_config, student_recipe, method,
            [(teacher.key, weight) for teacher, weight in zip(taught, weights, strict=True)], seed,
            select=student_config["select"], annotation=target.annotation, dev=target.splits["dev"], judged=judged,
            labelled=regime.labelled, unlabelled=regime.unlabelled, annotated=regime.teacher,
            scores=scores.get(method["config"]["targets"]), fingerprint_of=fingerprint_of,
        )
        for method in methods
    ]  # fmt: skip
    return Plan(config["name"], source, target, regime, taught, students, comparisons, scores)


def _methods(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The method and its baselines, each once, with their objectives."""
    methods: dict[str, dict[str, Any]] = {}
    for where, method in [("kd", config["kd"])] + [(f"baselines.{n}", m) for n, m in config["baselines"].items()]:
        name = method["name"]
        if name in methods:
            if methods[name]["config"] != method:
                raise ValueError(
                    f"kd and {where} are both called {name!r} but differ; give one of them another name, "
                    f"for instance kd.name={name}-mine."
                )
            continue
        if method["targets"] not in SharedScores.WAYS:
            raise ValueError(f"{where}.targets={method['targets']!r}: expected one of {', '.join(SharedScores.WAYS)}.")
        loss = instantiate(method["loss"], f"{where}.loss")
        interpolation = instantiate(method["interpolation"], f"{where}.interpolation")
        if loss is None:
            objective = KDObjective(None)
        elif not callable(loss):
            raise InstantiationError(f"{where}.loss must be callable; set _partial_: true for a function.")
        elif isinstance(interpolation, dict) or (interpolation is not None and not callable(interpolation)):
            raise InstantiationError(f"{where}.interpolation must name a schedule such as structkd.LinearAnnealing.")
        else:
            objective = KDObjective(loss, interpolation=interpolation or ConstantInterpolation(1.0))
        methods[name] = {"name": name, "where": where, "config": method, "objective": objective}
    return list(methods.values())


def _comparisons(
    declared: Sequence[Sequence[str]] | None, methods: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """The comparisons declared in the configuration; by default of the method, if it distils, with each baseline."""
    names = [method["name"] for method in methods]
    if declared is None:
        return [] if methods[0]["objective"].kd is None else [(names[0], baseline) for baseline in names[1:]]
    for pair in declared:
        if len(pair) != 2 or pair[0] == pair[1]:
            raise ValueError(f"comparisons: expected pairs of a method and its baseline, got {list(pair)}.")
    # A sweep over methods declares what concerns all its runs; this run has some of them.
    return [(method, baseline) for method, baseline in declared if method in names and baseline in names]


def _try(
    methods: Sequence[Mapping[str, Any]],
    teachers: Mapping[str, Any],
    weights: Sequence[float],
    student_recipe: Any,
    source: Corpus,
    regime: Splits,
) -> None:
    """Compute every loss once with untrained models, so that what cannot work is refused before anything is trained."""
    sample = training_text(source.annotation, regime.teacher.select([0]))
    student = student_recipe.create(source.annotation, sample, regime.teacher).eval()
    models = [recipe.create(source.annotation, sample, regime.teacher) for recipe in teachers.values()]
    teacher: Teacher = joined([TeacherScores.compute(model, sample, progress=False) for model in models], weights)
    batch = Collator(student, teacher)([sample[0]])
    gold, labelled, teacher_batch = (batch.pop(name) for name in ("gold", "labelled", "teacher"))
    with torch.no_grad():
        output = student(**batch)
    for method in methods:
        try:
            method["objective"](
                teacher.distribution(teacher_batch, batch["lengths"]),
                student.distribution(output, batch["lengths"]),
                gold,
                labelled=labelled,
            )
        except (TypeError, ValueError, NotImplementedError) as error:
            raise type(error)(f"{method['where']}.loss: {error}") from error


def _recipe(config: Mapping[str, Any], where: str) -> Any:
    recipe = instantiate(config, where)
    if not (hasattr(recipe, "create") and hasattr(recipe, "load")):
        raise InstantiationError(f"{where} must name a recipe with create and load, got {type(recipe).__name__}.")
    if isinstance(encoder := getattr(recipe, "encoder", None), str):
        raise InstantiationError(f"{where}.encoder is chosen from a group: write encoder@{where}.encoder={encoder}.")
    return recipe


def _check_settings(settings: Mapping[str, Any], select: str, role: str, folder: Path) -> None:
    settings = given(settings)
    steps, epochs = settings.get("max_steps", -1), settings.get("num_train_epochs")
    if epochs is not None and isinstance(steps, int) and steps > 0:
        raise ValueError(
            f"{role}.trainer.max_steps={steps} and {role}.trainer.num_train_epochs={epochs} exclude each other. Add "
            f"{role}.trainer.max_steps=null to train for epochs, or {role}.trainer.num_train_epochs=null for steps."
        )
    try:
        training_arguments(settings, folder, 0, "accuracy", select)
    except TypeError as error:
        raise TypeError(f"{role}.trainer: {error}") from error
    except ValueError as error:
        raise ValueError(f"{role}: {error}") from error


def given(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return trainer settings without a length of training that is null, as it gives way to the other one."""
    lengths = ("max_steps", "num_train_epochs")
    return {name: value for name, value in trainer.items() if not (name in lengths and value is None)}


def _training(
    role: str,
    name: str,
    common: dict[str, Any],
    config: Mapping[str, Any],
    recipe: Any,
    method: Mapping[str, Any] | None,
    teachers: list[Any] | None,
    seed: int,
    *,
    labelled: Any,
    unlabelled: Any,
    annotated: Any,
    scores: SharedScores | None,
    fingerprint_of: Callable[[Dataset], str],
    select: str,
    **texts: Any,
) -> Training:
    objective = KDObjective(None) if method is None else method["objective"]
    if objective.kd is None:
        # Neither the teacher nor its text has any part in this training.
        teachers, unlabelled, scores = None, None, None
    settings = Settings(
        model=canonical(with_defaults(config["model"])),
        # Where metrics are reported to does not affect the result.
        trainer=canonical({name: value for name, value in given(config["trainer"]).items() if name != "report_to"}),
        patience=config["patience"],
        batch_words=config["batch_words"],
        select=select,
        labelled=len(labelled),
        unlabelled=len(unlabelled) if unlabelled is not None else 0,
        method=None
        if method is None
        else MethodSettings(
            name=method["name"],
            loss=canonical(method["config"]["loss"]),
            interpolation=canonical(method["config"]["interpolation"]),
        ),
        processes=process_count() if process_count() > 1 else None,  # each adds its own batch
        targets=None if scores is None else scores.precision,
        weights=canonical([weight for _, weight in teachers]) if teachers is not None and len(teachers) > 1 else None,
    )
    labelled_text, unlabelled_text, annotated_text = (
        None if text is None else fingerprint_of(text) for text in (labelled, unlabelled, annotated)
    )
    training_config = TrainingConfig(
        **common,
        role=role,
        settings=settings,
        seed=seed,
        teachers=teachers,
        text=(labelled_text, unlabelled_text, annotated_text),
        plugins=plugin_fingerprints(_targets(settings.plain())),
        files=file_fingerprints(config["model"]),
    )
    return Training(
        role=role,
        name=name,
        config=training_config,
        recipe=recipe,
        settings=given(config["trainer"]),
        seed=seed,
        patience=config["patience"],
        batch_words=config["batch_words"],
        select=select,
        objective=objective,
        labelled=labelled,
        unlabelled=unlabelled,
        annotated=annotated,
        teacher=scores,
        **texts,
    )


def _targets(config: Any) -> list[str]:
    """Everything named by a configuration."""
    if isinstance(config, Mapping):
        inner = [name for value in config.values() for name in _targets(value)]
        return [*inner, config["_target_"]] if "_target_" in config else inner
    if isinstance(config, list):
        return [name for value in config for name in _targets(value)]
    return []


def _describe(source: Corpus, target: Corpus, regime: Splits, methods: Sequence[Mapping[str, Any]]) -> None:
    for corpus in dict.fromkeys((source, target)):
        log.info(
            "%s (%s): %s; train/dev/test %d/%d/%d sentences; licence: %s",
            corpus.name,
            corpus.task,
            corpus.source,
            *(len(corpus.splits[split]) for split in ("train", "dev", "test")),
            corpus.licence,
        )
        if corpus.notes:
            log.info("%s", corpus.notes)
    log.info(
        "teacher: %d labelled sentences; student: %d of these, and %d others without labels%s",
        len(regime.teacher),
        len(regime.labelled),
        len(regime.unlabelled),
        f". {regime.note}" if regime.note else "",
    )
    losses = {method["name"]: method["config"]["loss"] for method in methods if method["config"]["loss"] is not None}
    temperatures = {name: canonical(loss["temperature"]) for name, loss in losses.items() if "temperature" in loss}
    if len(set(temperatures.values())) > 1:
        # kd.loss.temperature is that of the method: its baselines keep theirs.
        log.info("temperatures differ: %s", ", ".join(f"{name} {value}" for name, value in temperatures.items()))
