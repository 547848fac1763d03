"""The models of a run: links to them in the run's folder, model cards, and the commands that use them."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from structkd.harmless import without_places
from structkd.records import Result, RunFolder, RunMetrics, RunRecord, TrainingConfig, TrainingFolder

from .sealing import finished_run

__all__ = ["LARGEST_GAP", "describe_models", "gap_lines", "link_models", "source_of", "usage", "usage_lines"]

_RESAMPLES = 1000
#: Points between the figures on dev and test beyond which a run remarks on them.
LARGEST_GAP = 20


def link_models(run: RunMetrics, work_dir: Path, folder: RunFolder) -> None:
    """Make links in a run's folder to its models: ``models/<method>``, and ``student`` to that of the method.

    They are relative, so that the working folder can be moved. File systems without links go without.
    """
    shutil.rmtree(folder.models, ignore_errors=True)
    places = [(folder.models / result.method, result) for result in run.results]
    for place, result in [*places, (folder.student, run.student)]:
        target = TrainingFolder(work_dir / result.folder).model
        if not target.is_dir():  # a teacher of which nothing was trained
            continue
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            place.symlink_to(os.path.relpath(target, place.parent.resolve()), target_is_directory=True)
        except (OSError, ValueError):  # no links here, or another drive
            return


def source_of(model: str) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a trained model and the facts of the run that trained it; {} for a model of no run."""
    # Loads transformers: not before a model is wanted.
    from structkd.models.loading import described, model_folder

    folder = model_folder(model)
    return folder, described(folder).get("run", {})


def usage(work_dir: Path, result: Result, link: Path | None = None, start: Path | None = None) -> str:
    """Return the command that annotates text with a model, as it is typed in the current folder, or in `start`.

    Args:
        work_dir: the folder of the trainings.
        result: of the model.
        link: a link to the model, which is named if it is there and its name is shorter.
        start: the folder in which the command is typed; None: the current one. Links are not followed from elsewhere.
    """
    names = [_seen_from(work_dir / result.folder, start)]
    if start is None and link is not None and link.is_dir():
        names.append(_seen_from(link, None))
    return shlex.join(["structkd", "predict", min(names, key=len)])


def _seen_from(path: Path, start: Path | None) -> str:
    if start is not None:
        return os.path.relpath(path, start)
    relative = os.path.relpath(path)
    return str(path.absolute()) if relative.startswith("..") else relative


def usage_lines(run: RunMetrics, work_dir: Path, folder: RunFolder, start: Path | None = None) -> list[str]:
    """Return a heading, and a line with the command for every student, that of the method first.

    Args:
        run: the results.
        work_dir: the folder of the trainings.
        folder: that of the run, which has links to the models.
        start: as in `usage`.
    """
    students = [each for each in run.results if each.role == "student"]
    students.sort(key=lambda each: each.method != run.method)
    width = max(len(each.method) for each in students)
    links = [folder.student, *(folder.models / each.method for each in students[1:])]
    lines = [
        f"student {each.method:<{width}}  {usage(work_dir, each, link, start)} FILE"
        for each, link in zip(students, links, strict=True)
    ]
    return ["Annotate text with these models:", *lines]


def gap_lines(run: RunMetrics) -> list[str]:
    """Return a remark on every model whose figures on dev and test are more than :data:`LARGEST_GAP` points apart."""
    return [
        f"{each.role} {each.method}: {run.metric} is {100 * each.dev[run.metric]:.2f} on dev and "
        f"{100 * each.test[run.metric]:.2f} on test, more than {LARGEST_GAP} points apart. Either split may be of "
        "another kind of text, or small: see `structkd check-data`."
        for each in run.results
        if run.metric in each.dev
        and run.metric in each.test
        and 100 * abs(each.dev[run.metric] - each.test[run.metric]) > LARGEST_GAP
    ]


def describe_models(run: RunMetrics, record: RunRecord, folder: RunFolder) -> None:
    """Write the model cards of a run, README.md in the folder of each model."""
    # Loads transformers, as the models did.
    from structkd.models.card import write_card
    from structkd.models.loading import describe_again, described

    for result in run.results:
        place = TrainingFolder(folder.path / record.work_dir / result.folder).model
        if not place.is_dir():
            continue
        facts = described(place)
        if not facts:  # a model of the version before
            continue
        facts["run"] = _facts(run, record, result, folder)
        describe_again(place, facts)
        write_card(place, facts)


def _facts(run: RunMetrics, record: RunRecord, result: Result, folder: RunFolder) -> dict[str, Any]:
    taught = result.role == "student" and result.settings.distils
    config = TrainingConfig.find(TrainingFolder(folder.path / record.work_dir / result.folder).config)
    folders = [name for name, _ in (config.teachers or [] if config else [])]
    teachers = {each.method: each for each in run.results if each.role == "teacher" and each.folder in folders}
    facts: dict[str, Any] = without_places(
        {
            "scenario": run.scenario,
            "role": result.role,
            "method": result.method,
            "metric": run.metric,
            "data": {
                name: getattr(run.data, name) for name in ("name", "task", "source", "licence", "notes", "sentences")
            },
            "labelled": result.labelled,
            "unlabelled": result.unlabelled,
            "teachers": {name: _teacher(each, run.metric) for name, each in teachers.items()} if taught else {},
            "temperature": result.settings.temperature if taught else None,
            "words_per_second": record.results[result.method].words_per_second,
            "seeds": _seeds(run, result, folder),
            "command": record.command or "structkd",
            "versions": record.environment,
        }
    )
    return facts


def _teacher(result: Result, metric: str) -> str:
    target = str(result.settings.model.get("_target_", "")).rpartition(".")[2].removesuffix("Recipe")
    stated = f"{target}, {result.labelled:,} sentences with labels, {result.parameters:,} parameters"
    # Annotations of the student's text alone have no figure on test.
    return f"{stated}, test {metric} {100 * result.test[metric]:.2f}" if metric in result.test else stated


def _seeds(run: RunMetrics, result: Result, folder: RunFolder) -> list[dict[str, Any]]:
    """Return the figures of this model, and of those of other seeds of the same settings in runs beside this one."""
    found = {result.seed: (result, folder)}
    if result.role == "student":
        for path in sorted(folder.path.parent.glob("*/metrics.json")):
            beside = RunFolder(path.parent)
            if beside.path == folder.path:
                continue
            try:
                other = finished_run(beside)
            except (ValueError, OSError):  # the version before made it, or it is damaged
                continue
            if other is None:
                continue
            if (other.scenario, other.data.fingerprint) != (run.scenario, run.data.fingerprint):
                continue
            for each in other.results:
                if (each.role, each.method, each.settings) == (result.role, result.method, result.settings):
                    found.setdefault(each.seed, (each, beside))
    return [
        {"seed": seed, "test": each.test, "interval": _interval(place.predictions(each.method), run.metric)}
        for seed, (each, place) in found.items()
    ]


def _interval(path: Path, metric: str) -> Sequence[float] | None:
    """Return the 95 % bootstrap interval of a metric over test sentences, by the percentile method."""
    if not path.is_file():
        return None
    import numpy as np  # not before it is needed: this module belongs to a command that answers at once

    with gzip.open(path, "rt", encoding="utf-8") as lines:
        counted = [json.loads(line).get("counts", {}).get(metric) for line in lines]
    if not counted or None in counted:
        return None
    counts = np.array(counted, dtype=float)
    generator = np.random.default_rng(0)
    drawn = np.array([counts[generator.integers(len(counts), size=len(counts))].sum(0) for _ in range(_RESAMPLES)])
    values = 2 * drawn[:, 0] / np.maximum(drawn[:, 1] + drawn[:, 2], 1)
    low, high = np.quantile(values, (0.025, 0.975))
    return [round(float(low), 6), round(float(high), 6)]
