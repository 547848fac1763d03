"""Tables and a plot of many runs, written from their result files and never by hand."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structkd.evaluation.spans import span_counts, tag_counts
from structkd.evaluation.statistics import Interval, paired_bootstrap, sign_flip_test, smallest_p

__all__ = ["Row", "Scenario", "collect", "markdown", "read_runs", "rows_as_csv", "save_plot", "write_report"]

#: What the tables call "no difference we could have missed": p below it counts as evidence.
SIGNIFICANCE = 0.05


@dataclass
class Row:
    """One model of a scenario, over all seeds it was trained with.

    Attributes:
        role: "teacher" or "student".
        method: name of the method; where runs under one name differ in their settings, the settings that differ follow.
        results: per seed, the figures as the run wrote them.
        predictions: per seed, the file with the test predictions.
    """

    role: str
    method: str
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    predictions: dict[int, Path] = field(default_factory=dict)

    def values(self, split: str, metric: str) -> list[float]:
        """One figure per seed, in the order of the seeds."""
        return [self.results[seed][split][metric] for seed in sorted(self.results)]


@dataclass
class Scenario:
    """Everything found about one scenario on one corpus."""

    name: str
    data: Mapping[str, Any]
    metric: str
    rows: list[Row] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """For headings."""
        return f"{self.name}: {self.data['name']}, {self.data['task']}"

    @property
    def metric_title(self) -> str:
        """The figure by which models are compared."""
        return "span F1" if self.metric == "f1" else "accuracy"

    def row(self, method: str) -> Row | None:
        """The student trained by this method, if there is one."""
        return next((row for row in self.rows if row.role == "student" and row.method == method), None)


def read_runs(folders: Iterable[str | Path]) -> list[dict[str, Any]]:
    """The result files of all runs below some folders, each with its ``folder``.

    Raises:
        FileNotFoundError: if a folder does not exist or there is no run in any.
        ValueError: if a result file cannot be read.
    """
    runs = []
    roots = [Path(folder) for folder in folders]
    for folder in roots:
        if not folder.is_dir():
            raise FileNotFoundError(f"No folder {folder}: give the folders of runs, such as structkd-runs.")
        for path in sorted(folder.rglob("metrics.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except json.JSONDecodeError as error:
                raise ValueError(f"{path} is not a result file ({error}); remove it and run again.") from error
            if "results" in content:  # a run's; single trainings have a file of the same name
                runs.append(content | {"folder": path.parent})
    if not runs:
        raise FileNotFoundError(
            f"No finished run below {', '.join(map(str, roots))}: nothing there has a metrics.json with results."
        )
    return runs


def collect(runs: Sequence[Mapping[str, Any]]) -> list[Scenario]:
    """Group the results of runs by scenario and corpus, method and seed; what several runs share counts once."""
    scenarios: dict[tuple[Any, ...], Scenario] = {}
    found: dict[tuple[Any, ...], dict[str, tuple[Mapping[str, Any], Row]]] = {}
    for run in runs:
        data = run["data"]
        key = (run["scenario"], data["name"], data["task"], data["fingerprint"])
        scenario = scenarios.setdefault(key, Scenario(run["scenario"], data, run["metric"]))
        if run["command"] not in scenario.commands:
            scenario.commands.append(run["command"])
        for result in run["results"]:
            settings = json.dumps([result["role"], result["method"], result["settings"]], sort_keys=True)
            _, row = found.setdefault(key, {}).setdefault(settings, (result, Row(result["role"], result["method"])))
            row.results[result["seed"]] = result
            row.predictions[result["seed"]] = run["folder"] / "predictions" / f"{result['method']}.jsonl.gz"
    for group, scenario in scenarios.items():
        _name_apart(list(found[group].values()))
        scenario.rows = sorted((row for _, row in found[group].values()), key=_position)
    return sorted(scenarios.values(), key=lambda scenario: scenario.title)


def _position(row: Row) -> tuple[int, str]:
    """Teacher, plain student, other methods by name, structural KD last."""
    if row.role == "teacher":
        return 0, row.method
    name = row.method.split(" ")[0]
    return {"none": 1, "structural": 3}.get(name, 2), row.method


def _name_apart(entries: list[tuple[Mapping[str, Any], Row]]) -> None:
    """Where rows of one name differ in their settings, add the settings that differ to the name."""
    by_name: dict[tuple[str, str], list[tuple[Mapping[str, Any], Row]]] = {}
    for result, row in entries:
        by_name.setdefault((row.role, row.method), []).append((result, row))
    for group in by_name.values():
        flat = [_flat(result["settings"]) for result, _ in group]
        names = sorted(set().union(*flat))
        different = [name for name in names if len({json.dumps(settings.get(name)) for settings in flat}) > 1]
        for (_, row), settings in zip(group, flat, strict=True):
            if different:
                row.method += f" ({', '.join(f'{name}={settings.get(name)}' for name in different)})"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {
        name: inner
        for key, part in value.items()
        for name, inner in _flat(part, f"{prefix}.{key}" if prefix else str(key)).items()
    }


@dataclass(frozen=True)
class Comparison:
    """Structural KD against another student, on the seeds both have."""

    seeds: int
    difference: float
    p: float
    interval: Interval | None

    @property
    def verdict(self) -> str:
        """p in words; with too few seeds nothing can be concluded, whatever the difference."""
        least = smallest_p(self.seeds)
        if least >= SIGNIFICANCE:
            return f"inconclusive ({self.seeds} seed{'s' * (self.seeds > 1)}: p cannot be below {least:.2g})"
        return f"p = {self.p:.3g}" + ("" if self.p < SIGNIFICANCE else " (no evidence of a difference)")


def compare(scenario: Scenario, one: Row, other: Row) -> Comparison | None:
    """The difference one - other, paired by seed; None without a common seed."""
    seeds = sorted(one.results.keys() & other.results.keys())
    if not seeds:
        return None
    differences = [
        one.results[seed]["test"][scenario.metric] - other.results[seed]["test"][scenario.metric] for seed in seeds
    ]
    files = [(one.predictions[seed], other.predictions[seed]) for seed in seeds]
    interval = None
    if all(path.is_file() for pair in files for path in pair):
        counts = [np.stack([_counts(pair[side], scenario.data["scheme"]) for pair in files]) for side in (0, 1)]
        interval = paired_bootstrap(counts[0], counts[1])
    return Comparison(len(seeds), fmean(differences), sign_flip_test(differences), interval)


def _counts(path: Path, scheme: str | None) -> NDArray[np.int64]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        sentences = [json.loads(line) for line in lines]
    gold, predicted = ([sentence[side] for sentence in sentences] for side in ("gold", "predicted"))
    return tag_counts(gold, predicted) if scheme is None else span_counts(gold, predicted, scheme)


def _gap_closed(scenario: Scenario, row: Row) -> float | None:
    """Share of the distance from the plain student to the teacher that a method covers."""
    teacher, plain = next((each for each in scenario.rows if each.role == "teacher"), None), scenario.row("none")
    if teacher is None or plain is None or row.role == "teacher" or row is plain:
        return None
    seeds = sorted(row.results.keys() & plain.results.keys())
    if not seeds:
        return None
    figure = [fmean(each.results[seed]["test"][scenario.metric] for seed in seeds) for each in (row, plain)]
    gap = fmean(teacher.values("test", scenario.metric)) - figure[1]
    return (figure[0] - figure[1]) / gap if gap > 0 else None


def markdown(scenarios: Sequence[Scenario]) -> str:
    """One table per scenario: every model's figures, and structural KD against every other student."""
    lines: list[str] = []
    for scenario in scenarios:
        structural = scenario.row("structural")
        lines += [f"## {scenario.title}", ""]
        lines.append(
            f"Test {scenario.metric_title} in percent; {scenario.data['sentences']['test']:,} test sentences. "
            f"Data: {scenario.data['source']}; licence: {scenario.data['licence']}. {scenario.data['notes']}".strip()
        )
        lines += [
            "",
            "| model | parameters | labelled | unlabelled | test mean ± sd | every seed | gap closed | dev | "
            "structural KD is ahead by | exact sign-flip test |",
            "|---|---:|---:|---:|---:|---|---:|---:|---|---|",
        ]
        for row in scenario.rows:
            first = next(iter(row.results.values()))
            test, dev = row.values("test", scenario.metric), row.values("dev", scenario.metric)
            spread = f" ± {100 * stdev(test):.2f}" if len(test) > 1 else ""
            closed = _gap_closed(scenario, row)
            cells = [
                "teacher" if row.role == "teacher" else f"student, {row.method}",
                f"{first['parameters']:,}",
                f"{first['labelled']:,}",
                f"{first['unlabelled']:,}",
                f"{100 * fmean(test):.2f}{spread}",
                ", ".join(
                    f"{100 * value:.2f} (seed {seed})" for seed, value in zip(sorted(row.results), test, strict=True)
                ),
                "" if closed is None else f"{100 * closed:.0f} %",
                f"{100 * fmean(dev):.2f}",
            ]
            comparison = None
            if structural is not None and row.role == "student" and row is not structural:
                comparison = compare(scenario, structural, row)
            if comparison is None:
                cells += ["", ""]
            else:
                interval = comparison.interval
                limits = "" if interval is None else f" [{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]"
                cells += [f"{100 * comparison.difference:+.2f}{limits}", comparison.verdict]
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", "Commands:", "", *(f"- `{command}`" for command in scenario.commands), ""]
    lines += [
        "Differences are means over paired seeds; in brackets 95 % BCa bootstrap intervals over test sentences. "
        "The exact sign-flip test is two-sided over seeds. "
        "Gap closed: the share of the distance from the plain student to the teacher.",
        "",
    ]
    return "\n".join(lines)


def rows_as_csv(scenarios: Sequence[Scenario]) -> str:
    """One line per trained model."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    metrics = ("f1", "precision", "recall", "accuracy")
    writer.writerow(
        ["scenario", "data", "task", "role", "method", "seed", "labelled", "unlabelled", "parameters", "seconds"]
        + [f"{split}_{metric}" for split in ("dev", "test") for metric in metrics]
        + ["folder"]
    )
    for scenario in scenarios:
        for row in scenario.rows:
            for seed, result in sorted(row.results.items()):
                figures = [result[split].get(metric, "") for split in ("dev", "test") for metric in metrics]
                writer.writerow(
                    [scenario.name, scenario.data["name"], scenario.data["task"], row.role, row.method, seed]
                    + [result[name] for name in ("labelled", "unlabelled", "parameters", "seconds")]
                    + figures
                    + [result["folder"]]
                )
    return buffer.getvalue()


def save_plot(scenarios: Sequence[Scenario], path: Path) -> None:
    """A bar per model with its standard deviation, and a point for every seed; one panel per scenario."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # No pyplot: it keeps state of its own and may look for a display.
    figure = Figure(figsize=(1.5 + 4.5 * len(scenarios), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for panel, scenario in zip(figure.subplots(1, len(scenarios), squeeze=False)[0], scenarios, strict=True):
        lowest = []
        for position, row in enumerate(scenario.rows):
            values = [100 * value for value in row.values("test", scenario.metric)]
            colour = {"teacher": "0.55", "structural": "tab:blue"}.get(row.method, "tab:cyan")
            panel.bar(
                position,
                fmean(values),
                yerr=stdev(values) if len(values) > 1 else None,
                color=colour,
                alpha=0.75,
                capsize=4,
                width=0.7,
            )
            panel.plot([position] * len(values), values, "o", color="black", markersize=3.5, alpha=0.8)
            top = max([*values, fmean(values) + (stdev(values) if len(values) > 1 else 0.0)])
            panel.annotate(
                f"{fmean(values):.1f}", (position, top), (0, 4), textcoords="offset points", ha="center", fontsize=9
            )
            lowest.append(min(values))
        panel.set_xticks(
            range(len(scenario.rows)), [row.method.replace("_", " ") for row in scenario.rows], rotation=30, ha="right"
        )
        bottom = max(0, 5 * int((min(lowest) - 5) // 5))
        panel.set_ylim(bottom, panel.get_ylim()[1] + 2)
        panel.set_title(scenario.title, fontsize=10)
        panel.set_ylabel(f"test {scenario.metric_title}, %" + (f" (axis begins at {bottom})" if bottom else ""))
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def write_report(
    folders: Iterable[str | Path], output: str | Path, title: str = "Results", notes: Sequence[str] = ()
) -> list[Path]:
    """Write ``results.md``, ``results.csv`` and ``results.png`` about all runs below some folders.

    Args:
        folders: searched for runs.
        output: where to write; created if need be.
        title: heading of the Markdown file.
        notes: lines to close it with.

    Returns:
        The files written.
    """
    runs = read_runs(folders)
    scenarios = collect(runs)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    environments = {json.dumps(run["environment"], sort_keys=True) for run in runs}
    versions = [
        ", ".join(f"{name} {version}" for name, version in json.loads(environment).items())
        for environment in sorted(environments)
    ]
    text = f"# {title}\n\n![Test figures of every model](results.png)\n\n{markdown(scenarios)}\n"
    text += "\n\n".join([*(f"Run with {version}." for version in versions), *notes]) + "\n"
    paths = [output / f"results.{ending}" for ending in ("md", "csv", "png")]
    paths[0].write_text(text, encoding="utf-8")
    paths[1].write_text(rows_as_csv(scenarios), encoding="utf-8")
    save_plot(scenarios, paths[2])
    return paths
