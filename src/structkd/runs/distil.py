"""One run: a corpus, a teacher, a student by one method and by baselines, and a table."""

from __future__ import annotations

import gzip
import importlib.metadata
import importlib.util
import json
import logging
import math
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datasets import Dataset, disable_progress_bars
from transformers.utils import logging as transformers_logging

from structkd.data import Corpus, drawn
from structkd.evaluation import metric_rule, metric_title
from structkd.extras import how_to_report
from structkd.files import make_folder, replacing, write_text
from structkd.harmless import printable, without_places
from structkd.plugins import plugins
from structkd.records import (
    NOTHING_PREDICTED,
    Divergence,
    Result,
    RunCorpus,
    RunFolder,
    RunMetrics,
    RunRecord,
    RunTiming,
    Timing,
    TrainingFolder,
    compared,
)
from structkd.teachers import GivenModel
from structkd.training import TeacherScores, divergence, targets_metric, transition_kl, words_per_second
from structkd.training.processes import broadcast, is_main_process, wait_for_everyone

from .finished import Evidence
from .identity import digest
from .models import describe_models, gap_lines, link_models, usage_lines
from .plan import Plan, plan
from .sealing import is_sound, mend_run, seal_run
from .shared_scores import joined
from .training_folder import Training, ensure

__all__ = ["distil", "quiet"]

log = logging.getLogger(__name__)

#: Sentences of the development split on which the speed of decoding is taken.
_SPEED_SENTENCES = 100


def distil(config: Mapping[str, Any], output: Path, command: str = "", overrides: Sequence[str] = ()) -> RunMetrics:
    """Carry out one run, or find that it is finished.

    Args:
        config: plain data in the form of :class:`~structkd.commands.schema.ExperimentConfig`.
        output: the run's folder, which :mod:`structkd.records` describes.
        command: the command line as typed, which is kept with the results.
        overrides: the part of it that concerns this run (of several, under -m).

    Returns:
        The results, as ``metrics.json`` in the run's folder holds them.

    Raises:
        ValueError, TypeError, FileNotFoundError: for anything wrong with the configuration or the data, before
            any training.
    """
    quiet()
    # Connects the processes before transformers does, which lets none of them wait for more than half an hour.
    wait_for_everyone()
    evidence = Evidence(config, output)
    with evidence.gathered():
        planned = plan(config, output)
    folder = RunFolder(output)
    work_dir = Path(config["work_dir"]).absolute()
    finished = broadcast(_finished(folder, planned.fingerprint, work_dir) if is_main_process() else None)
    if finished is not None:
        if is_main_process():
            evidence.keep(planned.fingerprint)
        log.info("Finished before: %s", folder.results)
        for line in usage_lines(finished, work_dir, folder):
            log.info("%s", line)
        return finished
    # Results of other settings, or of other code, would stand beside the new ones while these are made.
    if is_main_process():
        folder.metrics.unlink(missing_ok=True)

    results: list[Result] = []
    # Students that need no teacher first: another process may be training it right now.
    alone = [student for student in planned.students if student.teacher is None]
    taught = [student for student in planned.students if student.teacher is not None]
    for training in [*alone, *(planned.every_teacher if taught else []), *taught]:
        results.append(_result(planned, training, work_dir))
    # The table lists the teachers first and the method after its baselines.
    order = [each.name for each in (*planned.every_teacher, *planned.students[1:], planned.students[0])]
    results.sort(key=lambda result: order.index(result.method))
    run: Any = None
    if is_main_process():
        results, speed = _measure(planned, results, work_dir)
        run = _run_metrics(config, planned, results)
        timings = [Timing.read(TrainingFolder(work_dir / result.folder).timing) for result in results]
        record = RunRecord(
            format=1,
            command=command,
            overrides=list(overrides),
            work_dir=_seen_from(output, work_dir),
            environment=environment(),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            results={
                result.method: RunTiming(
                    seconds=timing.seconds,
                    resumed_from=timing.resumed_from,
                    words_per_second=round(speed[result.method], 1) if result.method in speed else None,
                )
                for result, timing in zip(results, timings, strict=True)
            },
        )
        _write(run, record, folder)
        evidence.keep(planned.fingerprint)
        print(f"\n{folder.results.read_text(encoding='utf-8')}", flush=True)
        log.info("Written to %s", output)
        for line in gap_lines(run):
            log.warning("%s", line)
        if how_to_report():
            log.info("%s", how_to_report())
        if not work_dir.is_relative_to(Path.cwd()):  # otherwise the table has commands that can be typed here
            for line in usage_lines(run, work_dir, folder):
                log.info("%s", line)
    written: RunMetrics = broadcast(run)
    return written


def _finished(folder: RunFolder, fingerprint: str, work_dir: Path) -> RunMetrics | None:
    """Return the results of a run that was finished before.

    None if they are of other settings or another version, or if they, or a training of the run, are damaged: what is
    damaged is then made again.
    """
    try:
        found = RunMetrics.find(folder.metrics)
    except ValueError:  # damaged, or of another version
        found = None
    if found is not None and found.fingerprint != fingerprint:
        return None
    run = mend_run(folder)
    return run if run is not None and is_sound(run, work_dir) else None


def _run_metrics(config: Mapping[str, Any], planned: Plan, results: list[Result]) -> RunMetrics:
    source, target = planned.source, planned.target
    return RunMetrics(
        format=3,
        scenario=config["name"],
        method=config["kd"]["name"],
        seed=config["seed"],
        metric=planned.metric,
        data=RunCorpus(
            name=source.name if target is source else f"{source.name} -> {target.name}",
            task=target.task,
            annotation=target.annotation.description(),
            fingerprint=digest([corpus.fingerprint for corpus in dict.fromkeys((source, target))]),
            licence=_each(source, target, "licence"),
            source=_each(source, target, "source"),
            notes=" ".join(filter(None, [*planned.given_notes, _each(source, target, "notes"), planned.splits.note])),
            sentences={split: len(sentences) for split, sentences in target.splits.items()}
            | {"train": len(source.splits["train"])},
        ),
        comparisons=planned.comparisons,
        margin=planned.margin,
        elsewhere=list(planned.elsewhere) or None,
        fingerprint=planned.fingerprint,
        results=results,
    )


def _write(run: RunMetrics, record: RunRecord, folder: RunFolder) -> None:
    """Fill the run's folder; its metrics come last."""
    make_folder(folder.path / "predictions")
    work_dir = Path(os.path.normpath(folder.path.absolute() / record.work_dir))
    link_models(run, work_dir, folder)  # which the table names
    write_text(folder.results, printable(without_places(result_table(run, record, work_dir, folder.path))))
    for result in run.results:
        predictions = TrainingFolder(work_dir / result.folder).predictions("test")
        if not predictions.exists():  # of a teacher that does not know the test split
            continue
        with replacing(folder.predictions(result.method)) as temporary:
            shutil.copyfile(predictions, temporary)
    record.write(folder.run)
    describe_models(run, record, folder)
    seal_run(folder, run)


def quiet() -> None:
    """Turn off the progress bars of saved files, which would drown the progress of the training."""
    disable_progress_bars()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def _measure(planned: Plan, results: Sequence[Result], work_dir: Path) -> tuple[list[Result], dict[str, float]]:
    """Return the results with every student's divergence from the teacher, and the speed of every model."""
    trainings = {training.name: training for training in (*planned.every_teacher, *planned.students)}
    models: dict[str, Any] = {}
    for result in results:
        training = trainings[result.method]
        models[result.method] = training.recipe.load(TrainingFolder(work_dir / training.key).model)
    dev = planned.target.splits["dev"]
    # Without a method that distils, the teachers were not trained.
    on_dev = {
        each.key: TeacherScores.compute(models[each.name], dev, progress=False)
        for each in planned.every_teacher
        if each.name in models and _knows(models[each.name], dev)
    }
    # The entropy of a mixture of teachers is not tractable.
    scores = on_dev.get(planned.teachers[0].key) if len(planned.teachers) == 1 else None
    measured = []
    for result in results:
        if result.role == "student" and scores is not None:
            try:
                found = divergence(models[result.method], scores, dev)
                if not all(map(math.isfinite, found.values())):
                    raise NotImplementedError("it is infinite: the student excludes structures of the teacher")
                rounded = Divergence(kl=round(found["kl"], 6), kl_per_word=round(found["kl_per_word"], 6))
                result = replace(result, divergence=rounded)
            except NotImplementedError as error:
                # A user's pair of classes may be distilled by a user's loss and have no exact projection.
                log.info("%s: no divergence from the teacher (%s)", result.method, error)
        if result.role == "student" and (loss := trainings[result.method].objective.kd) is not None:
            sources = [on_dev[each.key] for each in planned.teachers_of(result.method) if each.key in on_dev]
            weights = planned.weights_of(result.method)
            figure = None
            if len(sources) == len(weights):  # a teacher of annotations may not know these sentences
                figure = targets_metric(models[result.method], loss, joined(sources, weights), dev)
            result = replace(result, targets_dev=None if figure is None else round(figure, 6))
        if result.role == "teacher" and (found_on_dev := on_dev.get(trainings[result.method].key)) is not None:
            moved = transition_kl(found_on_dev, dev)
            result = replace(result, transition_kl=None if moved is None else round(moved, 6))
        measured.append(result)
    timed = {name: each for name, each in models.items() if not isinstance(each, GivenModel) or each.runs}
    return measured, words_per_second(timed, drawn(dev, min(_SPEED_SENTENCES, len(dev)), 0))


def _knows(model: Any, text: Dataset) -> bool:
    """Return whether a model annotates all of a text; a teacher that looks its annotations up may not."""
    return not isinstance(model, GivenModel) or model.cover(text).rows is None


def _seen_from(folder: Path, path: Path) -> str:
    """Return the relative path, or the absolute one if there is none because the disks differ."""
    try:
        return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    except ValueError:
        return str(path)


def environment() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    packages = ["structkd", "torch", "torch-struct", "transformers", "datasets", "hydra-core", "numpy"]
    if importlib.util.find_spec("numba") is not None:
        packages.append("numba")  # the compiled kernels run
    versions = {package: importlib.metadata.version(package) for package in packages}
    found = {"python": platform.python_version(), "platform": platform.platform(), **versions}
    return {**found, "plug-ins": ",".join(plugins())} if plugins() else found


def result_table(run: RunMetrics, record: RunRecord, work_dir: Path, folder: Path) -> str:
    """Return the metrics of one run as a Markdown table, in percent, for a file in `folder`."""
    metric = run.metric
    # Models that are trained with legal sequences alone have no lenient figure.
    names = list(dict.fromkeys(name for result in run.results for name in result.test))
    header = ["model", "labelled", "unlabelled", *(f"test {metric_title(name)}" for name in names)]
    header += [f"dev {metric_title(metric)}", "training"]
    lines = [
        f"### {run.scenario}: {run.data.name}, {run.data.task}, seed {run.seed}",
        "",
        "| " + " | ".join(header) + " |",
        "|---" + "|---:" * (len(header) - 1) + "|",
    ]
    for result in run.results:
        name = result.method if result.role == "teacher" else f"student, {result.method}"
        cells = [name, f"{result.labelled:,}", f"{result.unlabelled:,}"]
        cells += [f"{100 * value:.2f}" if (value := result.test.get(key)) is not None else "" for key in names]
        cells += [f"{100 * value:.2f}" if (value := result.dev.get(metric)) is not None else ""]
        given = result.role == "teacher" and not result.steps
        cells.append("none" if given else took(record.results[result.method]))
        lines.append("| " + " | ".join(cells) + " |")
    rules = dict.fromkeys(map(metric_rule, names))
    # A file that may be published has no absolute path, so that a folder elsewhere is seen from the file.
    start = None if work_dir.is_relative_to(Path.cwd()) else folder
    where = "" if start is None else ", in the folder of this file"
    used = [f"Annotate text with these models{where} (`structkd predict --help`):", ""]
    used += [f"    {line}" for line in usage_lines(run, work_dir, RunFolder(folder), start)[1:]]
    notes = [line for part in (*rules, run.data.notes, *_remarks(run, work_dir)) if part for line in (part, "")]
    return "\n".join([*lines, "", *notes, *used, "", f"`{record.command_alone}`", ""])


def _remarks(run: RunMetrics, work_dir: Path) -> list[str]:
    """Return sentences on models that predict nothing, and on declared comparisons that the run cannot make."""
    empty = [result.method for result in run.results if _predicts_nothing(run, result, work_dir)]
    remarks = [f"{', '.join(empty)}: {NOTHING_PREDICTED}"] if empty else []
    names = {result.method for result in run.results if result.role == "student"}
    for pair in run.elsewhere or ():
        lacking = [name for name in dict.fromkeys(compared(each)[0] for each in pair) if name not in names]
        added = " ".join(f"+kd@baselines.{name}={name}" for name in lacking)
        remarks.append(
            f"Declared, not possible in this run: {pair[0]} against {pair[1]}; {' and '.join(lacking)} "
            f"{'is' if len(lacking) == 1 else 'are'} not in it. A report compares them if other runs have the same "
            f"settings and seeds. To compare them in every run, add {added}."
        )
    return remarks


def _predicts_nothing(run: RunMetrics, result: Result, work_dir: Path) -> bool:
    """Return whether a model predicts no span in the whole test split."""
    path = TrainingFolder(work_dir / result.folder).predictions("test")
    if result.test.get(run.metric) != 0 or not path.exists():
        return False
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return not any(json.loads(line).get("counts", {}).get(run.metric, (0, 0, 0))[1] for line in lines)


def took(timing: Timing | RunTiming) -> str:
    """Return the time of a training, as tables print it.

    >>> took(Timing(seconds=12.3, resumed_from=None)), took(Timing(seconds=1.2, resumed_from=200))
    ('12 s', '1 s since step 200')
    """
    since = "" if timing.resumed_from is None else f" since step {timing.resumed_from:,}"
    return f"{timing.seconds:.0f} s{since}"


def _result(planned: Plan, training: Training, work_dir: Path) -> Result:
    metrics = ensure(training, work_dir)
    of_methods = training.role == "teacher" and training.key not in [each.key for each in planned.teachers]
    # The name is the run's, not the folder's: a training may be known under another name elsewhere.
    return Result(
        method=training.name,
        seed=training.seed,
        settings=training.config.settings,
        divergence=None,
        of_methods=True if of_methods else None,
        **{field.name: getattr(metrics, field.name) for field in fields(metrics)},
    )


def _each(source: Corpus, target: Corpus, what: str) -> str:
    """Return the statement that both corpora make, or one for each if they differ."""
    statements: dict[str, str] = {corpus.name: getattr(corpus, what) for corpus in (source, target)}
    if len(set(statements.values())) == 1:
        return statements[source.name]
    return "; ".join(f"{name}: {statement}" for name, statement in statements.items() if statement)
