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
from datasets import disable_progress_bars
from transformers.utils import logging as transformers_logging

from structkd import ConstantInterpolation, KDObjective, MaxEnt
from structkd.data.corpus import Corpus
from structkd.training import Regime, TeacherTargets, draw_regime, training_arguments, training_text

from .fingerprint import code_fingerprint, digest, plugin_fingerprints
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
    for role in ("teacher", "student"):
        _checked_settings(config[role]["trainer"], role, output)
    recipes = {role: _recipe(config[role]["model"], f"{role}.model") for role in ("teacher", "student")}
    corpus = instantiate(config["data"], "data")
    if not isinstance(corpus, Corpus):
        raise InstantiationError(f"data must name a function that loads a Corpus, got {type(corpus).__name__}.")
    teacher_config, student_config, seed = config["teacher"], config["student"], config["seed"]
    regime = draw_regime(
        corpus,
        teacher=teacher_config["labelled"],
        labelled=student_config["labelled"],
        unlabelled=student_config["unlabelled"],
        teacher_seed=teacher_config["seed"],
        seed=seed,
    )
    _describe(corpus, regime)

    # The same for all trainings of this run.
    common = {
        "format": 1,
        "code": code_fingerprint(),
        "torch": torch.__version__.split("+")[0],
        "corpus": [corpus.name, corpus.task, corpus.scheme, corpus.fingerprint],
    }
    work_dir = Path(config["work_dir"]).absolute()
    teacher = _training(
        "teacher", "teacher", common, teacher_config, recipes["teacher"], corpus, None, None, teacher_config["seed"],
        labelled=regime.teacher,
    )  # fmt: skip
    targets = _SharedTargets(teacher, recipes["teacher"], work_dir, regime)
    students = [
        _training(
            "student", method["name"], common, student_config, recipes["student"], corpus, method,
            teacher.key, seed, labelled=regime.labelled, unlabelled=regime.unlabelled, targets=targets,
        )
        for method in methods
    ]  # fmt: skip
    results: list[dict[str, Any]] = []
    # Students that need no teacher first: another process may be training it right now.
    for student in sorted(students, key=lambda training: training.targets is not None):
        if student.targets is not None and all(result["role"] != "teacher" for result in results):
            results.append(_result(teacher, work_dir))
        results.append(_result(student, work_dir))
    order = ["teacher", *(method["name"] for method in [*methods[1:], methods[0]])]  # the method after its baselines
    results.sort(key=lambda result: order.index(result["method"]))

    run = {
        "format": 1,
        "scenario": config["name"],
        "method": config["kd"]["name"],
        "seed": seed,
        "metric": "accuracy" if corpus.scheme is None else "f1",
        "data": {
            "name": corpus.name,
            "task": corpus.task,
            "scheme": corpus.scheme,
            "fingerprint": corpus.fingerprint,
            "licence": corpus.licence,
            "source": corpus.source,
            "notes": corpus.notes,
            "sentences": {split: len(sentences) for split, sentences in corpus.splits.items()},
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
        source = work_dir / result["folder"] / "predictions" / "test.jsonl.gz"
        shutil.copyfile(source, output / "predictions" / f"{result['method']}.jsonl.gz")
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
    data, spans = run["data"], run["metric"] == "f1"
    columns = [("F1", "f1"), ("precision", "precision"), ("recall", "recall")] if spans else []
    columns.append(("accuracy", "accuracy"))
    header = ["model", "labelled", "unlabelled", *(f"test {title}" for title, _ in columns), f"dev {columns[0][0]}"]
    lines = [
        f"### {run['scenario']}: {data['name']}, {data['task']}, seed {run['seed']}",
        "",
        "| " + " | ".join([*header, "training"]) + " |",
        "|---" + "|---:" * len(header) + "|",
    ]
    for result in run["results"]:
        name = "teacher" if result["role"] == "teacher" else f"student, {result['method']}"
        cells = [name, f"{result['labelled']:,}", f"{result['unlabelled']:,}"]
        cells += [f"{100 * result['test'][key]:.2f}" for _, key in columns]
        cells += [f"{100 * result['dev'][columns[0][1]]:.2f}", f"{result['seconds']:.0f} s"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"`{run['command']}`", ""])


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
            _tried(objective, where)
        methods[name] = {"name": name, "config": method, "objective": objective}
    return list(methods.values())


def _tried(objective: KDObjective, where: str) -> None:
    """Compute the loss once on a sentence of one word: options it refuses are refused before anything is trained."""
    word = MaxEnt(torch.zeros(1, 1, 2))
    try:
        objective(word, word, torch.zeros(1, 1, dtype=torch.long))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}.loss: {error}") from error


def _recipe(config: Mapping[str, Any], where: str) -> Any:
    recipe = instantiate(config, where)
    if not (hasattr(recipe, "create") and hasattr(recipe, "load")):
        raise InstantiationError(f"{where} must name a recipe with create and load, got {type(recipe).__name__}.")
    return recipe


def _checked_settings(settings: Mapping[str, Any], role: str, folder: Path) -> None:
    try:
        training_arguments(dict(settings), folder, 0, "accuracy")
    except TypeError as error:
        raise TypeError(f"{role}.trainer: {error}") from error


def _training(
    role: str,
    name: str,
    common: dict[str, Any],
    config: Mapping[str, Any],
    recipe: Any,
    corpus: Corpus,
    method: Mapping[str, Any] | None,
    teacher: str | None,
    seed: int,
    *,
    labelled: Any,
    unlabelled: Any = None,
    targets: Any = None,
) -> Training:
    objective = KDObjective(None) if method is None else method["objective"]
    if objective.kd is None:
        # Neither the teacher nor its text has any part in this training.
        teacher, unlabelled, targets = None, None, None
    settings = {
        "model": config["model"],
        "trainer": config["trainer"],
        "patience": config["patience"],
        "labelled": len(labelled),
        "unlabelled": len(unlabelled) if unlabelled is not None else 0,
        "method": None if method is None else dict(method["config"]),
    }
    depends_on = {
        **common,
        "role": role,
        "settings": settings,
        "seed": seed,
        "teacher": teacher,
        "text": digest([labelled["id"][:], unlabelled["id"][:] if unlabelled is not None else []]),
        "plugins": plugin_fingerprints(_targets(settings)),
    }
    return Training(
        role=role,
        name=name,
        depends_on=depends_on,
        recipe=recipe,
        settings=dict(config["trainer"]),
        seed=seed,
        patience=config["patience"],
        objective=objective,
        corpus=corpus,
        labelled=labelled,
        unlabelled=unlabelled,
        targets=targets,
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
    """Runs the teacher over the student's text when first asked, for all students of the run."""

    def __init__(self, teacher: Training, recipe: Any, work_dir: Path, regime: Regime) -> None:
        self._folder = work_dir / teacher.key / "model"
        self._recipe = recipe
        self._regime = regime
        self._targets: TeacherTargets | None = None

    def __call__(self) -> TeacherTargets:
        if self._targets is None:
            text = training_text(self._regime.labelled, self._regime.unlabelled)
            self._targets = TeacherTargets.compute(self._recipe.load(self._folder), text["tokens"])
        return self._targets


def _result(training: Training, work_dir: Path) -> dict[str, Any]:
    metrics = ensure(training, work_dir)
    # The name is the run's, not the folder's: a training may be known under another name elsewhere.
    return {**metrics, "method": training.name, "seed": training.seed, "settings": training.depends_on["settings"]}


def _describe(corpus: Corpus, regime: Regime) -> None:
    sentences = corpus.splits
    log.info(
        "%s (%s): %s; train/dev/test %d/%d/%d sentences; licence: %s",
        corpus.name,
        corpus.task,
        corpus.source,
        *(len(sentences[split]) for split in ("train", "dev", "test")),
        corpus.licence,
    )
    if corpus.notes:
        log.info("%s", corpus.notes)
    log.info(
        "teacher: %d labelled sentences; student: %d of these, and %d others without labels",
        len(regime.teacher),
        len(regime.labelled),
        len(regime.unlabelled),
    )


def typed_command() -> str:
    """The command line as it was typed, less where its folder lies: that is another place for everybody."""
    places = ("hydra.run.dir=", "hydra.sweep.dir=")
    return shlex.join(["structkd", *(argument for argument in sys.argv[1:] if not argument.startswith(places))])
