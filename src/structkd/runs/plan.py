"""The plan of a run, checked and ready to be carried out: data, splits, trainings, teacher scores."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from structkd import ConstantInterpolation, KDObjective
from structkd.data import Annotation, Corpus, Transfer, drawn
from structkd.models import ModelRecipe
from structkd.records import Settings, TrainingConfig, compared
from structkd.teachers import GivenModel, GivenTeacher, Opened
from structkd.training import (
    Collator,
    Coverage,
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

from . import identity
from .configuration import check_configuration
from .fingerprint import code_fingerprint, file_fingerprints, plugin_fingerprints, text_fingerprint
from .instantiate import InstantiationError, instantiate, with_defaults
from .shared_scores import SharedScores, joined
from .training_folder import Training

__all__ = ["Method", "Plan", "complete", "plan"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """One run before anything of it is trained.

    Attributes:
        scenario: its name.
        source, target: the corpora of the teacher and of the student; most often the same.
        splits: who sees which sentences.
        teachers: their trainings, the first one's before those of an ensemble.
        own_teachers: trainings of the teachers of single methods, by name.
        students: the trainings of the method, first, and of its baselines.
        comparisons: which students' figures are to be compared, (method, baseline).
        scores: teachers' scores of the student's text, by their source ("store" or "live") and the name of the teacher
            of single methods, None for the run's teachers.
        sources: the teachers and their weights that every method which distils learns from.
        margin: differences of the metric, 0 to 1, that count as none; None if none was declared.
        given_notes: sentences on the teachers that train nothing, for those who read the results.
        elsewhere: declared comparisons with a method that the run does not have.
        remarks: sentences for those who start the run.
    """

    scenario: str
    source: Corpus
    target: Corpus
    splits: Splits
    teachers: list[Training]
    students: list[Training]
    comparisons: list[tuple[str, str]]
    scores: Mapping[tuple[str, str | None], SharedScores]
    own_teachers: Mapping[str, Training]
    sources: Mapping[str, tuple[list[Training], list[float]]]
    margin: float | None
    given_notes: tuple[str, ...] = ()
    elsewhere: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()

    def teachers_of(self, method: str) -> list[Training]:
        """Return the teachers that a method learns from."""
        return self.sources[method][0]

    def weights_of(self, method: str) -> list[float]:
        """Return the weights of the teachers that a method learns from."""
        return self.sources[method][1]

    @property
    def every_teacher(self) -> list[Training]:
        """The run's teachers, then those of single methods; a training that is both counts once."""
        known = {teacher.key for teacher in self.teachers}
        return [*self.teachers, *(each for each in self.own_teachers.values() if each.key not in known)]

    @property
    def metric(self) -> str:
        """The figure by which models are chosen and compared."""
        return main_metric(self.target.annotation)

    @property
    def fingerprint(self) -> str:
        """The digest of everything that the results depend on."""
        trainings = [[each.name, each.key] for each in (*self.every_teacher, *self.students)]
        return identity.digest([3, self.scenario, trainings, self.comparisons, self.margin])


def plan(config: Mapping[str, Any], output: Path) -> Plan:
    """Check a configuration and lay out its run.

    Args:
        config: plain data in the form of :class:`~structkd.commands.schema.ExperimentConfig`.
        output: the run's folder (transformers checks a path; nothing is written).

    Raises:
        ValueError, TypeError, FileNotFoundError: for anything wrong with the configuration or the data.
    """
    check_configuration(config)
    parts = _resolve(config, output)
    splits = _draw(config, parts)
    alone = [method for method in parts.methods if not method.distils]
    if alone and not len(splits.labelled):
        raise ValueError(
            f"student.labelled=0: The method {alone[0].where} learns from labels alone, and there are none. Leave it "
            "out (~kd@baselines.none), or give the student labelled sentences."
        )
    _try(parts, splits)
    _describe(parts, splits)
    return _lay_out(config, parts, splits)


@dataclass(frozen=True)
class Method:
    """A way of training the student.

    Attributes:
        where: its place in the configuration, for messages.
        config: loss and interpolation, as they were given.
        objective: the loss that is minimized.
        teacher: name of its own teacher; None for the run's.
    """

    where: str
    config: Mapping[str, Any]
    objective: KDObjective
    teacher: str | None = None

    @property
    def name(self) -> str:
        """The name in tables."""
        return str(self.config["name"])

    @property
    def distils(self) -> bool:
        """Whether the method uses a teacher."""
        return self.objective.kd is not None


@dataclass(frozen=True)
class _Teacher:
    config: Mapping[str, Any]
    recipe: Any
    given: GivenModel | None = None

    @property
    def seen(self) -> int | None:
        """The teacher's sentences of the training split; None for all of them, or for none if it trains nothing."""
        seen: int | None = self.config["labelled"]
        return seen


@dataclass(frozen=True)
class _Parts:
    """The objects that a configuration names.

    Attributes:
        teachers: by their places in the configuration.
        own_teachers: those of single methods, by name.
        student: its recipe.
        methods: the method, first, and its baselines.
        source, target: the corpora of the teacher and of the student; most often the same.
        text: the student's text without labels, if it has one of its own.
        comparisons: pairs of methods to be compared.
        elsewhere: declared pairs of which the run lacks a method.
    """

    teachers: dict[str, _Teacher]
    own_teachers: dict[str, _Teacher]
    student: ModelRecipe
    methods: list[Method]
    source: Corpus
    target: Corpus
    text: Dataset | None
    comparisons: list[tuple[str, str]]
    elsewhere: tuple[tuple[str, str], ...]


def _resolve(config: Mapping[str, Any], output: Path) -> _Parts:
    """Create the objects of a configuration, and refuse all that can be refused before the data are read."""
    methods = [
        _method(where, method, identity.teacher_of(config, method))
        for where, method in identity.methods(config).items()
    ]
    if config["store"]["dtype"] not in DTYPES:
        raise ValueError(f"store.dtype={config['store']['dtype']}: Expected one of {', '.join(DTYPES)}.")
    comparisons, elsewhere = _comparisons(config["comparisons"], methods)
    if config["margin"] is not None and not 0 < config["margin"] < 100:
        raise ValueError(
            f"margin={config['margin']}: Expected points of the metric, between 0 and 100, such as 0.2, or null."
        )
    teachers, student = identity.teachers(config), config["student"]
    for where, each in teachers.items():
        if not each["weight"] > 0:
            raise ValueError(f"{where}.weight must be positive, got {each['weight']}.")
    _check_settings(student["trainer"], student["select"], "student", output)
    recipes = {where: _recipe(each["model"], f"{where}.model") for where, each in teachers.items()}
    for where, recipe in recipes.items():
        _check_teacher(where, recipe, teachers[where], output)
    own = {}
    for name, each in identity.teachers_of_methods(config).items():
        where = f"teachers.{name}"
        _check_settings(each["trainer"], "best", where, output)
        own[name] = _Teacher(each, _recipe(each["model"], f"{where}.model"))
    student_recipe = _recipe(student["model"], "student.model")
    data = instantiate(config["data"], "data")
    if not isinstance(data, (Corpus, Transfer)):
        raise InstantiationError(
            f"data: The _target_ must name a function that loads a Corpus, got {type(data).__name__}."
        )
    text = None if student["text"] is None else instantiate(student["text"], "student.text")
    if text is not None and not isinstance(text, Dataset):
        raise InstantiationError(
            f"student.text: The _target_ must name a function that loads a Dataset, got {type(text).__name__}."
        )
    source, target = (data.source, data.target) if isinstance(data, Transfer) else (data, data)
    opened = {where: _opened(where, teachers[where], recipe, source.annotation) for where, recipe in recipes.items()}
    return _Parts(opened, own, student_recipe, methods, source, target, text, comparisons, elsewhere)


def _draw(config: Mapping[str, Any], parts: _Parts) -> Splits:
    """Draw the sentences of the teachers and of the student."""
    available = len(parts.source.splits["train"])
    # A teacher that trains nothing has seen the sentences that its user says, or else none.
    sizes = {where: each.seen for where, each in parts.teachers.items() if each.given is None or each.seen is not None}
    given = [each.given for each in parts.teachers.values() if each.given is not None]
    sizes |= {f"teachers.{name}": each.config["labelled"] for name, each in parts.own_teachers.items()}
    for where, size in sizes.items():
        if size is not None and not 1 <= size <= available:
            raise ValueError(
                f"{where}.labelled={size}: {parts.source.name} has {available} training sentences. Lower it, or "
                f"take all with {where}.labelled=null; unless it has a text of its own (student.text), the student's "
                "unlabelled sentences (student.unlabelled) come out of the rest."
            )
    numbers = list(sizes.values()) or [config["student"]["labelled"]]
    known = [number for number in numbers if number is not None]
    return draw_splits(
        parts.source if parts.target is parts.source else Transfer(parts.source, parts.target),
        # No teacher has seen the student's unlabelled text.
        teacher=None if len(known) < len(numbers) else max(known),
        labelled=config["student"]["labelled"],
        unlabelled=config["student"]["unlabelled"],
        text=parts.text,
        teacher_seed=config["teacher"]["seed"] if sizes else config["seed"],
        seed=config["seed"],
        cover=functools.partial(_covered, given) if given else None,
    )


def _covered(teachers: Sequence[GivenModel], text: Dataset) -> Coverage:
    """Return the sentences of a text that all teachers know."""
    found = [teacher.cover(text) for teacher in teachers]
    known = [set(each.rows) for each in found if each.rows is not None]
    rows = sorted(set.intersection(*known)) if known else None
    return Coverage(rows, [note for each in found for note in each.notes])


def _lay_out(config: Mapping[str, Any], parts: _Parts, splits: Splits) -> Plan:
    """Name the trainings of a run by all that they depend on."""
    source, target, student = parts.source, parts.target, config["student"]
    common = _common(dict.fromkeys((source, target)))
    # Trainings have most of their text in common.
    fingerprint_of = functools.cache(text_fingerprint)
    judged = {split: target.splits[split] for split in ("dev", "test")}
    seed = config["teacher"]["seed"]

    def teacher(name: str, each: _Teacher) -> Training:
        return _training(
            common, fingerprint_of, "teacher", name, each.config, each.recipe,
            seed=each.config["seed"], select="best", annotation=source.annotation,
            labelled=_labelled(each, splits, seed),
            annotated=splits.teacher, dev=source.splits["dev"], judged=judged, given=each.given,
        )  # fmt: skip

    taught = [teacher(where.replace("ensemble.", "teacher-"), each) for where, each in parts.teachers.items()]
    own = {name: teacher(f"teacher-{name}", each) for name, each in parts.own_teachers.items()}
    groups: dict[str | None, tuple[list[Training], list[float]]] = {
        None: (taught, [each.config["weight"] for each in parts.teachers.values()]),
        **{name: ([training], [1.0]) for name, training in own.items()},
    }
    scores = {
        (way, name): SharedScores(
            way,
            *groups[name],
            Path(config["work_dir"]).absolute(),
            training_text(source.annotation, splits.labelled, splits.unlabelled),
            dtype=config["store"]["dtype"],
            shard_sentences=config["store"]["shard_sentences"],
        )
        for way, name in dict.fromkeys(
            (method.config["targets"], method.teacher) for method in parts.methods if method.distils
        )
    }
    sources_of = {method.name: groups[method.teacher] for method in parts.methods if method.distils}
    students = []
    for method in parts.methods:
        text: dict[str, Any] = {}
        if method.distils:  # otherwise neither the teachers nor their text affect the training
            sources = [(teacher.key, weight) for teacher, weight in zip(*groups[method.teacher], strict=True)]
            source_of = scores[method.config["targets"], method.teacher]
            text = {"unlabelled": splits.unlabelled, "scores": source_of, "teachers": sources}
        students.append(
            _training(
                common, fingerprint_of, "student", method.name, student, parts.student, method, seed=config["seed"],
                select=student["select"], annotation=target.annotation, labelled=splits.labelled,
                annotated=splits.teacher, dev=target.splits["dev"], judged=judged, **text,
            )
        )  # fmt: skip
    margin = None if config["margin"] is None else config["margin"] / 100
    names, places = (config["name"], source, target, splits), (scores, own, sources_of)
    return Plan(
        *names,
        taught,
        students,
        parts.comparisons,
        *places,
        margin,
        tuple(_notes(parts)),
        parts.elsewhere,
        tuple(_text_note(parts, splits)),
    )


def _labelled(teacher: _Teacher, splits: Splits, seed: int) -> Dataset:
    """Return the sentences that a teacher is trained on."""
    if teacher.given is not None:
        return splits.teacher.select([])
    return drawn(splits.teacher, teacher.seen or len(splits.teacher), seed)


def _notes(parts: _Parts) -> list[str]:
    """Return a sentence on every teacher that trains nothing."""
    return [
        f"{where.removeprefix('ensemble.')} trains nothing: {'. '.join([each.given.title, *each.given.remarks])}."
        for where, each in parts.teachers.items()
        if each.given is not None
    ]


def _text_note(parts: _Parts, splits: Splits) -> list[str]:
    """Return a sentence if methods that distil get a part of train alone, because all of it is the teacher's."""
    train, few = len(parts.source.splits["train"]), len(splits.labelled)
    distils = any(method.distils for method in parts.methods)
    if not distils or len(splits.unlabelled) or few >= train or len(splits.teacher) < train:
        return []
    return [
        f"The student learns from the teacher on its {few:,} labelled sentences and on no other text: all {train:,} "
        "sentences of train are the teacher's. Lower teacher.labelled, raise student.labelled, or give a text "
        "(student.text=FILE)."
    ]


def _common(corpora: Iterable[Corpus]) -> dict[str, Any]:
    """Return the fields of a training's configuration that all trainings of a run share."""
    return {
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
            (corpus.name, corpus.task, corpus.annotation.description(), corpus.fingerprint) for corpus in corpora
        ],
    }


def _method(where: str, config: Mapping[str, Any], teacher: str | None = None) -> Method:
    if config["targets"] not in SharedScores.WAYS:
        raise ValueError(f"{where}.targets={config['targets']!r}: Expected one of {', '.join(SharedScores.WAYS)}.")
    loss = instantiate(config["loss"], f"{where}.loss")
    interpolation = instantiate(config["interpolation"], f"{where}.interpolation")
    if loss is None:
        return Method(where, config, KDObjective(None))
    if not callable(loss):
        raise InstantiationError(f"{where}.loss must be callable; set _partial_: true for a function.")
    if isinstance(interpolation, dict) or (interpolation is not None and not callable(interpolation)):
        raise InstantiationError(f"{where}.interpolation must name a schedule such as structkd.LinearAnnealing.")
    return Method(where, config, KDObjective(loss, interpolation=interpolation or ConstantInterpolation(1.0)), teacher)


def _comparisons(
    declared: Sequence[Sequence[str]] | None, methods: Sequence[Method]
) -> tuple[list[tuple[str, str]], tuple[tuple[str, str], ...]]:
    """Return the declared comparisons, by default those of the method, if it distils, with every baseline.

    A sweep over methods declares the comparisons of all its runs, and a run has some of them. Those with a method that
    the run lacks are returned apart.
    """
    names = [method.name for method in methods]
    if declared is None:
        return ([(names[0], baseline) for baseline in names[1:]] if methods[0].distils else []), ()
    for pair in declared:
        if len(pair) != 2 or pair[0] == pair[1]:
            raise ValueError(f"comparisons: Expected pairs of a method and its baseline, got {list(pair)}.")
    pairs = [(one, other) for one, other in declared]
    here = [pair for pair in pairs if {compared(name)[0] for name in pair} <= set(names)]
    return here, tuple(pair for pair in pairs if pair not in here)


def _try(parts: _Parts, splits: Splits) -> None:
    """Compute every loss once with untrained models, so that a pair that cannot work is refused before any training."""
    annotation = parts.source.annotation
    given = any(each.given is not None for each in parts.teachers.values())
    # A teacher that looks its answers up is asked for all of them here, and knows other sentences not at all.
    text = training_text(annotation, splits.labelled, splits.unlabelled) if given else None
    sample = training_text(annotation, splits.teacher.select([0])) if text is None else text.select([0])
    student = parts.student.create(annotation, sample, splits.teacher).eval()
    weights = [each.config["weight"] for each in parts.teachers.values()]
    found = []
    for each in parts.teachers.values():
        known = each.given.of_text(text) if each.given is not None and text is not None else None
        model = each.recipe.create(annotation, sample, splits.teacher)
        found.append(_FirstSentence(known) if known else TeacherScores.compute(model, sample, progress=False))
    run: Teacher = joined(found, weights)
    teachers: dict[str | None, Teacher] = {None: run}
    for name, each in parts.own_teachers.items():
        model = each.recipe.create(annotation, sample, splits.teacher)
        teachers[name] = TeacherScores.compute(model, sample, progress=False)
    for method in parts.methods:
        teacher = teachers[method.teacher]
        batch = Collator(student, teacher)([sample[0]])
        gold, labelled, teacher_batch, _ = (batch.pop(name) for name in ("gold", "labelled", "teacher", "ids"))
        with torch.no_grad():
            output = student(**batch)
        try:
            method.objective(
                student.conditioned(teacher.distribution(teacher_batch, batch["lengths"])),
                student.distribution(output, batch["lengths"]),
                gold,
                labelled=labelled,
            )
        except (TypeError, ValueError, NotImplementedError) as error:
            # A baseline is chosen by default, and need not mean something for every teacher.
            leave = f" Leave it out with ~kd@{method.where}." if given and method.where != "kd" else ""
            raise type(error)(f"{method.where}.loss: {error}{leave}") from error


class _FirstSentence:
    """A teacher of a text, for the first sentence of this text alone."""

    def __init__(self, teacher: Teacher) -> None:
        self.batch, self.distribution = teacher.batch, teacher.distribution

    def __len__(self) -> int:
        return 1


def _opened(where: str, config: Mapping[str, Any], recipe: Any, annotation: Annotation) -> _Teacher:
    """Return a teacher to be trained, or open one that trains nothing."""
    if not isinstance(recipe, GivenTeacher):
        return _Teacher(config, recipe)
    try:
        model = recipe.open(annotation)
    except (ValueError, FileNotFoundError) as error:
        # Messages name keys of the first teacher.
        message = str(error).replace("teacher.", f"{where}.")
        raise type(error)(f"{where}: {message}") from error
    return _Teacher(config, Opened(model), model)


def _check_teacher(where: str, recipe: Any, config: Mapping[str, Any], output: Path) -> None:
    """Refuse settings of training for a teacher that trains nothing, and the other way round."""
    if not isinstance(recipe, GivenTeacher):
        given = [name for name in ("path", "map") if config.get(name)]
        if given:
            raise ValueError(
                f"{where}.{given[0]}={config[given[0]]}: This teacher is trained here, and nothing is read from there. "
                f"A model of structkd's is read with {where}=trained, a stock classifier with "
                f"{where}=token_classification."
            )
        _check_settings(config["trainer"], "best", where, output)
        return
    set_here = [f"trainer.{name}" for name in config["trainer"]]
    set_here += [name for name in ("patience", "batch_words") if config.get(name) is not None]
    if set_here:
        raise ValueError(f"{where}.{set_here[0]}: This teacher trains nothing. Leave the setting out.")


def _recipe(config: Mapping[str, Any], where: str) -> Any:
    recipe = instantiate(config, where)
    if isinstance(recipe, GivenTeacher):
        return recipe
    if not (hasattr(recipe, "create") and hasattr(recipe, "load")):
        raise InstantiationError(f"{where} must name a recipe with create and load, got {type(recipe).__name__}.")
    if isinstance(encoder := getattr(recipe, "encoder", None), str):
        raise InstantiationError(f"{where}.encoder is chosen from a group: write encoder@{where}.encoder={encoder}.")
    return recipe


def _check_settings(settings: Mapping[str, Any], select: str, role: str, folder: Path) -> None:
    settings = identity.trainer_settings(settings)
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


def _training(
    common: Mapping[str, Any],
    fingerprint_of: Callable[[Dataset], str],
    role: str,
    name: str,
    config: Mapping[str, Any],
    recipe: ModelRecipe,
    method: Method | None = None,
    *,
    seed: int,
    select: str,
    annotation: Annotation,
    labelled: Dataset,
    annotated: Dataset,
    dev: Dataset,
    judged: Mapping[str, Dataset],
    unlabelled: Dataset | None = None,
    scores: SharedScores | None = None,
    teachers: list[tuple[str, float]] | None = None,
    given: GivenModel | None = None,
) -> Training:
    settings = Settings(
        **identity.chosen_settings(complete(config), None if method is None else method.config),
        patience=config["patience"],
        batch_words=config["batch_words"],
        select=select,
        labelled=len(labelled),
        unlabelled=len(unlabelled) if unlabelled is not None else 0,
        processes=process_count() if process_count() > 1 else None,  # each adds its own batch
        targets=None if scores is None else scores.precision,
        weights=identity.canonical([weight for _, weight in teachers]) if teachers and len(teachers) > 1 else None,
    )
    texts = (labelled, unlabelled, annotated) if given is None else (None, None, None)
    labelled_text, unlabelled_text, annotated_text = (None if text is None else fingerprint_of(text) for text in texts)
    return Training(
        role=role,
        name=name,
        config=TrainingConfig(
            **common,
            role=role,
            settings=settings,
            seed=seed,
            teachers=teachers,
            text=(labelled_text, unlabelled_text, annotated_text),
            plugins=plugin_fingerprints(_named_in(settings.plain())),
            files=file_fingerprints(config["model"]) if given is None else {"given": given.identity},
        ),
        recipe=recipe,
        settings=identity.trainer_settings(config["trainer"]),
        seed=seed,
        patience=config["patience"],
        batch_words=config["batch_words"],
        select=select,
        objective=KDObjective(None) if method is None else method.objective,
        annotation=annotation,
        labelled=labelled,
        unlabelled=unlabelled,
        annotated=annotated,
        dev=dev,
        judged=judged,
        teacher=scores,
        given=given,
    )


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a teacher or student with all settings of its model, and not those given alone."""
    return {**config, "model": with_defaults(config["model"])}


def _named_in(config: Any) -> list[str]:
    """Yield every name of a class or function in a configuration."""
    if isinstance(config, Mapping):
        inner = [name for value in config.values() for name in _named_in(value)]
        return [*inner, config["_target_"]] if "_target_" in config else inner
    if isinstance(config, list):
        return [name for value in config for name in _named_in(value)]
    return []


def _describe(parts: _Parts, splits: Splits) -> None:
    for corpus in dict.fromkeys((parts.source, parts.target)):
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
    for note in _notes(parts):
        log.info("%s", note)
    for note in _text_note(parts, splits):
        log.info("%s", note)
    learns = any(each.given is None for each in parts.teachers.values())
    log.info(
        "%sstudent: %d %slabelled sentences, and %d others without labels%s",
        f"teacher: {len(splits.teacher)} labelled sentences; " if learns else "",
        len(splits.labelled),
        "of these " if learns else "",
        len(splits.unlabelled),
        f". {splits.note}" if splits.note else "",
    )
    losses = {method.name: method.config["loss"] for method in parts.methods if method.distils}
    temperatures = {
        name: identity.canonical(loss["temperature"]) for name, loss in losses.items() if "temperature" in loss
    }
    if len(set(temperatures.values())) > 1:
        # kd.loss.temperature belongs to the method: its baselines keep theirs.
        log.info("temperatures differ: %s", ", ".join(f"{name} {value}" for name, value in temperatures.items()))
