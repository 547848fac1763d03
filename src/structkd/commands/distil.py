"""One run: a corpus, a teacher, a student by one method and by baselines, and a table."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import platform
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from transformers.utils import logging as transformers_logging

from structkd import ConstantInterpolation, KDObjective
from structkd.data import Corpus, Transfer, drawn
from structkd.evaluation import figure_rule, figure_title
from structkd.training import (
    Collator,
    MixtureTargets,
    Regime,
    Targets,
    TeacherTargets,
    draw_regime,
    main_figure,
    training_arguments,
    training_text,
)

from .fingerprint import code_fingerprint, digest, file_fingerprints, plugin_fingerprints
from .instantiate import InstantiationError, instantiate
from .work import Training, ensure, write_json

__all__ = ["distil"]

log = logging.getLogger(__name__)


def distil(config: Mapping[str, Any], output: Path, command: str = "", overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Carry out one run.

    Args:
        config: plain data in the form of :class:`~structkd.commands.schema.ExperimentConfig`.
        output: folder for the table, the figures and the predictions.
        command: what was typed, and
        overrides: what of it concerns this run (of several, under -m), to be kept with the results.

    Returns:
        What is written to ``metrics.json``.

    Raises:
        ValueError, TypeError, FileNotFoundError: for anything wrong with the configuration or the data, before
            any training.
    """
    # Trainings show their own progress; a bar for every file saved would drown it.
    disable_progress_bars()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()

    methods = _methods(config)
    student_config, seed = config["student"], config["seed"]
    teachers = {"teacher": config["teacher"]} | {f"ensemble.{name}": each for name, each in config["ensemble"].items()}
    for where, each in teachers.items():
        _checked_settings(each["trainer"], "best", where, output)
        if not each["weight"] > 0:
            raise ValueError(f"{where}.weight must be positive, got {each['weight']}.")
    _checked_settings(student_config["trainer"], student_config["select"], "student", output)
    recipes = {where: _recipe(each["model"], f"{where}.model") for where, each in teachers.items()}
    student_recipe = _recipe(student_config["model"], "student.model")
    data = instantiate(config["data"], "data")
    if not isinstance(data, (Corpus, Transfer)):
        raise InstantiationError(f"data must name a function that loads a Corpus, got {type(data).__name__}.")
    source, target = (data.source, data.target) if isinstance(data, Transfer) else (data, data)
    text = None if student_config["text"] is None else instantiate(student_config["text"], "student.text")
    if text is not None and not isinstance(text, Dataset):
        raise InstantiationError(f"student.text must name a function that loads a Dataset, got {type(text).__name__}.")
    regime = draw_regime(
        data,
        # The student's unlabelled text is news to every teacher.
        teacher=None if None in (sizes := [each["labelled"] for each in teachers.values()]) else max(sizes),
        labelled=student_config["labelled"],
        unlabelled=student_config["unlabelled"],
        text=text,
        teacher_seed=config["teacher"]["seed"],
        seed=seed,
    )
    _describe(source, target, regime)
    weights = [each["weight"] for each in teachers.values()]
    _tried(methods, recipes, weights, student_recipe, source, regime)

    # The same for all trainings of this run.
    common: dict[str, Any] = {
        "format": 2,
        "code": code_fingerprint(),
        "torch": torch.__version__.split("+")[0],
        "corpora": [
            [corpus.name, corpus.task, corpus.annotation.description(), corpus.fingerprint]
            for corpus in dict.fromkeys((source, target))
        ],
    }
    judged = {split: target.splits[split] for split in ("dev", "test")}
    work_dir = Path(config["work_dir"]).absolute()
    taught = [
        _training(
            "teacher", where.replace("ensemble.", "teacher-"), common, each, recipes[where], None, None, each["seed"],
            select="best", annotation=source.annotation, dev=source.splits["dev"], judged=judged,
            labelled=drawn(regime.teacher, each["labelled"] or len(regime.teacher), config["teacher"]["seed"]),
            unlabelled=None, annotated=regime.teacher, targets=None,
        )
        for where, each in teachers.items()
    ]  # fmt: skip
    targets = _SharedTargets(taught, list(recipes.values()), weights, work_dir, regime)
    students = [
        _training(
            "student", method["name"], common, student_config, student_recipe, method,
            [[teacher.key, weight] for teacher, weight in zip(taught, weights, strict=True)], seed,
            select=student_config["select"], annotation=target.annotation, dev=target.splits["dev"], judged=judged,
            labelled=regime.labelled, unlabelled=regime.unlabelled, annotated=regime.teacher, targets=targets,
        )
        for method in methods
    ]  # fmt: skip
    results: list[dict[str, Any]] = []
    # Students that need no teacher first: another process may be training it right now.
    for student in sorted(students, key=lambda training: training.targets is not None):
        if student.targets is not None and all(result["role"] != "teacher" for result in results):
            results += [_result(teacher, work_dir) for teacher in taught]
        results.append(_result(student, work_dir))
    # the teachers first, the method after its baselines
    order = [each.name for each in taught] + [method["name"] for method in [*methods[1:], methods[0]]]
    results.sort(key=lambda result: order.index(result["method"]))

    run = {
        "format": 1,
        "scenario": config["name"],
        "method": config["kd"]["name"],
        "seed": seed,
        "metric": main_figure(target.annotation),
        "data": {
            "name": source.name if target is source else f"{source.name} -> {target.name}",
            "task": target.task,
            "annotation": target.annotation.description(),
            "fingerprint": digest([corpus[-1] for corpus in common["corpora"]]),
            "licence": _each(source, target, "licence"),
            "source": _each(source, target, "source"),
            "notes": " ".join(part for part in (_each(source, target, "notes"), regime.note) if part),
            "sentences": {
                "train": len(source.splits["train"]),
                **{split: len(sentences) for split, sentences in judged.items()},
            },
        },
        "results": results,
        "command": command,
        "overrides": list(overrides),
        "work_dir": str(work_dir),
        "environment": environment(),
    }
    table = result_table(run)
    print(f"\n{table}", flush=True)
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.md").write_text(table, encoding="utf-8")
    (output / "predictions").mkdir(exist_ok=True)
    for result in results:
        predictions = work_dir / result["folder"] / "predictions" / "test.jsonl.gz"
        shutil.copyfile(predictions, output / "predictions" / f"{result['method']}.jsonl.gz")
    write_json(output / "metrics.json", run)
    log.info("Written to %s", output)
    return run


def environment() -> dict[str, str]:
    """Versions that a result may depend on."""
    packages = ["structkd", "torch", "torch-struct", "transformers", "datasets", "hydra-core", "numpy"]
    if importlib.util.find_spec("numba") is not None:
        packages.append("numba")  # the compiled kernels run
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version(), "platform": platform.platform(), **versions}


def result_table(run: Mapping[str, Any]) -> str:
    """The figures of one run as a Markdown table, in percent."""
    data, metric = run["data"], run["metric"]
    names = list(run["results"][0]["test"])
    header = ["model", "labelled", "unlabelled", *(f"test {figure_title(name)}" for name in names)]
    header += [f"dev {figure_title(metric)}", "training"]
    lines = [
        f"### {run['scenario']}: {data['name']}, {data['task']}, seed {run['seed']}",
        "",
        "| " + " | ".join(header) + " |",
        "|---" + "|---:" * (len(header) - 1) + "|",
    ]
    for result in run["results"]:
        name = result["method"] if result["role"] == "teacher" else f"student, {result['method']}"
        cells = [name, f"{result['labelled']:,}", f"{result['unlabelled']:,}"]
        cells += [f"{100 * result['test'][key]:.2f}" for key in names]
        cells += [f"{100 * result['dev'][metric]:.2f}", f"{result['seconds']:.0f} s"]
        lines.append("| " + " | ".join(cells) + " |")
    rule = figure_rule(metric)
    return "\n".join([*lines, "", *([rule, ""] if rule else []), f"`{run['command']}`", ""])


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


def _tried(
    methods: Sequence[Mapping[str, Any]],
    teachers: Mapping[str, Any],
    weights: Sequence[float],
    student_recipe: Any,
    source: Corpus,
    regime: Regime,
) -> None:
    """Compute every loss once with untrained models, so that what cannot work is refused before anything is trained."""
    sample = training_text(source.annotation, regime.labelled.select([0]))
    student = student_recipe.create(source.annotation, sample, regime.teacher).eval()
    models = [recipe.create(source.annotation, sample, regime.teacher) for recipe in teachers.values()]
    targets = _joined([TeacherTargets.compute(model, sample, progress=False) for model in models], weights)
    batch = Collator(student, targets)([sample[0]])
    gold, labelled, scores = (batch.pop(name) for name in ("gold", "labelled", "teacher"))
    with torch.no_grad():
        output = student(**batch)
    for method in methods:
        try:
            method["objective"](
                targets.distribution(scores, batch["lengths"]),
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
    return recipe


def _checked_settings(settings: Mapping[str, Any], select: str, role: str, folder: Path) -> None:
    try:
        training_arguments(dict(settings), folder, 0, "accuracy", select)
    except TypeError as error:
        raise TypeError(f"{role}.trainer: {error}") from error
    except ValueError as error:
        raise ValueError(f"{role}: {error}") from error


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
    targets: Any,
    select: str,
    **texts: Any,
) -> Training:
    objective = KDObjective(None) if method is None else method["objective"]
    if objective.kd is None:
        # Neither the teacher nor its text has any part in this training.
        teachers, unlabelled, targets = None, None, None
    settings = {
        "model": config["model"],
        "trainer": config["trainer"],
        "patience": config["patience"],
        "select": select,
        "labelled": len(labelled),
        "unlabelled": len(unlabelled) if unlabelled is not None else 0,
        "method": None if method is None else dict(method["config"]),
    }
    if teachers is not None and len(teachers) > 1:
        settings["weights"] = [weight for _, weight in teachers]
    depends_on = {
        **common,
        "role": role,
        "settings": settings,
        "seed": seed,
        "teachers": teachers,
        "text": digest(
            [None if text is None else [text["id"][:], text["tokens"][:]] for text in (labelled, unlabelled, annotated)]
        ),
        "plugins": plugin_fingerprints(_targets(settings)),
        "files": file_fingerprints(config["model"]),
    }
    return Training(
        role=role,
        name=name,
        depends_on=depends_on,
        recipe=recipe,
        settings=dict(config["trainer"]),
        seed=seed,
        patience=config["patience"],
        select=select,
        objective=objective,
        labelled=labelled,
        unlabelled=unlabelled,
        annotated=annotated,
        targets=targets,
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


class _SharedTargets:
    """Runs the teachers over the student's text when first asked, for all students of the run."""

    def __init__(
        self,
        teachers: Sequence[Training],
        recipes: Sequence[Any],
        weights: Sequence[float],
        work_dir: Path,
        regime: Regime,
    ) -> None:
        self._folders = [work_dir / teacher.key / "model" for teacher in teachers]
        self._recipes = recipes
        self._weights = weights
        self._regime = regime
        self._targets: Targets | None = None

    def __call__(self) -> Targets:
        if self._targets is None:
            models = [recipe.load(folder) for recipe, folder in zip(self._recipes, self._folders, strict=True)]
            text = training_text(models[0].annotation, self._regime.labelled, self._regime.unlabelled)
            for model in models:
                model.encoder.check(text)
            self._targets = _joined([TeacherTargets.compute(model, text) for model in models], self._weights)
        return self._targets


def _joined(targets: Sequence[TeacherTargets], weights: Sequence[float]) -> Targets:
    return targets[0] if len(targets) == 1 else MixtureTargets(targets, weights)


def _result(training: Training, work_dir: Path) -> dict[str, Any]:
    metrics = ensure(training, work_dir)
    # The name is the run's, not the folder's: a training may be known under another name elsewhere.
    return {**metrics, "method": training.name, "seed": training.seed, "settings": training.depends_on["settings"]}


def _describe(source: Corpus, target: Corpus, regime: Regime) -> None:
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


def _each(source: Corpus, target: Corpus, what: str) -> str:
    """One statement where both corpora make the same, else one for each."""
    statements = {corpus.name: getattr(corpus, what) for corpus in (source, target)}
    if len(set(statements.values())) == 1:
        return statements[source.name]
    return "; ".join(f"{name}: {statement}" for name, statement in statements.items() if statement)


def typed_command() -> str:
    """The command line as it was typed, less where its folder lies: that is another place for everybody."""
    places = ("hydra.run.dir=", "hydra.sweep.dir=")
    return shlex.join(["structkd", *(argument for argument in sys.argv[1:] if not argument.startswith(places))])
