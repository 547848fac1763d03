"""One run: a corpus, a teacher, a student by one method and by baselines, and a table."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import platform
import shlex
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datasets import disable_progress_bars
from transformers.utils import logging as transformers_logging

from structkd.data import Corpus, drawn
from structkd.evaluation import figure_rule, figure_title
from structkd.files import read_json, write_json, write_text
from structkd.models import StructuredModel
from structkd.training import TeacherTargets, divergence, words_per_second
from structkd.training.processes import broadcast, is_main_process, wait_for_everyone

from .fingerprint import digest
from .plan import Plan, plan
from .work import Training, ensure

__all__ = ["distil", "quiet"]

log = logging.getLogger(__name__)

#: Sentences of the development split on which the speed of decoding is taken.
_SPEED_SENTENCES = 100


def distil(config: Mapping[str, Any], output: Path, command: str = "", overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Carry out one run, or find that it is finished.

    Args:
        config: plain data in the form of :class:`~structkd.commands.schema.ExperimentConfig`.
        output: the run's folder. ``metrics.json`` in it says what came out, ``run.json`` how it was made.
        command: what was typed, and
        overrides: what of it concerns this run (of several, under -m), to be kept with the results.

    Returns:
        What is written to ``metrics.json``.

    Raises:
        ValueError, TypeError, FileNotFoundError: for anything wrong with the configuration or the data, before
            any training.
    """
    quiet()
    # Connects the processes before transformers does, which lets none of them wait for more than half an hour.
    wait_for_everyone()
    planned = plan(config, output)
    finished = broadcast(read_json(output / "metrics.json") if (output / "metrics.json").exists() else None)
    if finished is not None and finished.get("fingerprint") == planned.fingerprint:
        log.info("Finished before: %s", output / "results.md")
        return finished
    # Results of other settings, or of other code, would stand beside the new ones while these are made.
    if is_main_process():
        (output / "metrics.json").unlink(missing_ok=True)

    work_dir = Path(config["work_dir"]).absolute()
    results: list[dict[str, Any]] = []
    # Students that need no teacher first: another process may be training it right now.
    alone = [student for student in planned.students if student.targets is None]
    taught = [student for student in planned.students if student.targets is not None]
    for training in [*alone, *(planned.teachers if taught else []), *taught]:
        results.append(_result(training, work_dir))
    # the teachers first, the method after its baselines
    order = [each.name for each in (*planned.teachers, *planned.students[1:], planned.students[0])]
    results.sort(key=lambda result: order.index(result["method"]))
    run: Any = None
    if is_main_process():
        run = _results(config, planned, results)
        speed = _measure(planned, results, work_dir)
        made = {
            "format": 1,
            "command": command,
            "overrides": list(overrides),
            "work_dir": str(work_dir),
            "environment": environment(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "results": {
                result["method"]: {
                    **read_json(work_dir / result["folder"] / "timing.json"),
                    "words_per_second": round(speed[result["method"]], 1),
                }
                for result in results
            },
        }
        _write(run, made, output)
        print(f"\n{(output / 'results.md').read_text(encoding='utf-8')}", flush=True)
        log.info("Written to %s", output)
    return broadcast(run)


def _results(config: Mapping[str, Any], planned: Plan, results: list[dict[str, Any]]) -> dict[str, Any]:
    source, target = planned.source, planned.target
    return {
        "format": 2,
        "scenario": config["name"],
        "method": config["kd"]["name"],
        "seed": config["seed"],
        "metric": planned.metric,
        "data": {
            "name": source.name if target is source else f"{source.name} -> {target.name}",
            "task": target.task,
            "annotation": target.annotation.description(),
            "fingerprint": digest([corpus.fingerprint for corpus in dict.fromkeys((source, target))]),
            "licence": _each(source, target, "licence"),
            "source": _each(source, target, "source"),
            "notes": " ".join(part for part in (_each(source, target, "notes"), planned.regime.note) if part),
            "sentences": {split: len(sentences) for split, sentences in target.splits.items()}
            | {"train": len(source.splits["train"])},
        },
        "comparisons": [list(pair) for pair in planned.comparisons],
        "fingerprint": planned.fingerprint,
        "results": results,
    }


def _write(run: Mapping[str, Any], made: Mapping[str, Any], output: Path) -> None:
    """Fill the run's folder; what says that it is finished comes last."""
    (output / "predictions").mkdir(parents=True, exist_ok=True)
    write_text(output / "results.md", result_table(run, made))
    for result in run["results"]:
        predictions = Path(made["work_dir"]) / result["folder"] / "predictions" / "test.jsonl.gz"
        shutil.copyfile(predictions, output / "predictions" / f"{result['method']}.jsonl.gz")
    write_json(output / "run.json", made)
    write_json(output / "metrics.json", run)


def quiet() -> None:
    """Trainings show their own progress; a bar for every file saved would drown it."""
    disable_progress_bars()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def _measure(planned: Plan, results: Sequence[dict[str, Any]], work_dir: Path) -> dict[str, float]:
    """Add every student's divergence from the teacher to its results; returns the speed of every model."""
    trainings = {training.name: training for training in (*planned.teachers, *planned.students)}
    models: dict[str, StructuredModel] = {}
    for result in results:
        training = trainings[result["method"]]
        models[result["method"]] = training.recipe.load(work_dir / training.key / "model")
    dev = planned.target.splits["dev"]
    teachers = [models[each.name] for each in planned.teachers if each.name in models]
    # The entropy of a mixture of teachers is not tractable.
    targets = TeacherTargets.compute(teachers[0], dev, progress=False) if len(teachers) == 1 else None
    for result in results:
        measured = None
        if result["role"] == "student" and targets is not None:
            try:
                found = divergence(models[result["method"]], targets, dev)
                measured = {name: round(value, 6) for name, value in found.items()}
            except NotImplementedError as error:
                # A pair of one's own may be distilled by a loss of one's own, and have no exact projection.
                log.info("%s: no divergence from the teacher (%s)", result["method"], error)
        result["divergence"] = measured
    return words_per_second(models, drawn(dev, min(_SPEED_SENTENCES, len(dev)), 0))


def environment() -> dict[str, str]:
    """Versions that a result may depend on."""
    packages = ["structkd", "torch", "torch-struct", "transformers", "datasets", "hydra-core", "numpy"]
    if importlib.util.find_spec("numba") is not None:
        packages.append("numba")  # the compiled kernels run
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version(), "platform": platform.platform(), **versions}


def result_table(run: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """The figures of one run as a Markdown table, in percent.

    Args:
        run, made: the contents of ``metrics.json`` and ``run.json``.
    """
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
        cells += [f"{100 * result['dev'][metric]:.2f}", f"{made['results'][result['method']].get('seconds', 0):.0f} s"]
        lines.append("| " + " | ".join(cells) + " |")
    rule = figure_rule(metric)
    return "\n".join(
        [*lines, "", *([rule, ""] if rule else []), f"`{shlex.join(['structkd', *made['overrides']])}`", ""]
    )


def _result(training: Training, work_dir: Path) -> dict[str, Any]:
    metrics = ensure(training, work_dir)
    # The name is the run's, not the folder's: a training may be known under another name elsewhere.
    return {
        "role": training.role,
        "method": training.name,
        "seed": training.seed,
        **metrics,
        "settings": training.depends_on["settings"],
    }


def _each(source: Corpus, target: Corpus, what: str) -> str:
    """One statement where both corpora make the same, else one for each."""
    statements = {corpus.name: getattr(corpus, what) for corpus in (source, target)}
    if len(set(statements.values())) == 1:
        return statements[source.name]
    return "; ".join(f"{name}: {statement}" for name, statement in statements.items() if statement)
