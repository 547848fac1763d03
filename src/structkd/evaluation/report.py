"""Tables and a plot of many runs, written from their result files and never by hand."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structkd.evaluation.figures import figure_rule, figure_title
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

    def values(self, split: str, metric: str) -> dict[int, float]:
        """A figure of every seed that has it, in the order of the seeds."""
        found = {seed: self.results[seed].get(split, {}).get(metric) for seed in sorted(self.results)}
        return {seed: value for seed, value in found.items() if value is not None}

    @property
    def title(self) -> str:
        """For tables."""
        return self.method if self.role == "teacher" else f"student, {self.method}"


@dataclass
class Scenario:
    """Everything found about one scenario on one corpus, with one teacher (or one ensemble of them).

    Attributes:
        name: of the scenario.
        data: what the runs say of the corpus: its name, task, annotation, notes, licence, source, sentences.
        metric: the figure by which models are compared.
        teacher: what sets the teacher apart, where the same scenario was run with several.
    """

    name: str
    data: Mapping[str, Any]
    metric: str
    rows: list[Row] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    teacher: str = ""

    @property
    def title(self) -> str:
        """For headings."""
        apart = f" (teacher: {self.teacher})" if self.teacher else ""
        return f"{self.name}{apart}: {self.data['name']}, {self.data['task']}"

    @property
    def metric_title(self) -> str:
        """The figure by which models are compared, as tables print it."""
        return figure_title(self.metric)

    @property
    def figures(self) -> list[str]:
        """Names of all test figures that any model has, the compared one first."""
        found = [name for row in self.rows for result in row.results.values() for name in result.get("test", {})]
        return list(dict.fromkeys([self.metric, *found]))

    @property
    def rule(self) -> str:
        """What has to be said of how the figures are counted; may be empty."""
        return " ".join(dict.fromkeys(filter(None, map(figure_rule, self.figures))))

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
    """Group the results of runs by scenario, corpus and teacher, then by method and seed.

    What several runs share counts once. A run in which no teacher took part (a student without KD) belongs to every
    teacher's group of its scenario.
    """
    groups: dict[tuple[str, ...], dict[str, list[Mapping[str, Any]]]] = {}
    for run in runs:
        data = run["data"]
        by_teacher = groups.setdefault((run["scenario"], data["name"], data["task"], data["fingerprint"]), {})
        by_teacher.setdefault(json.dumps(_teachers(run), sort_keys=True), []).append(run)
    scenarios = []
    for by_teacher in groups.values():
        without = by_teacher.pop("[]", [])
        found = [members + without for members in by_teacher.values()] or [without]
        apart = _differences([_teachers(members[0]) for members in found])
        for members, teacher in zip(found, apart, strict=True):
            scenario = _scenario(members)
            scenario.teacher = teacher
            scenarios.append(scenario)
    return sorted(scenarios, key=lambda scenario: scenario.title)


def _teachers(run: Mapping[str, Any]) -> list[Any]:
    """Settings of every teacher of a run."""
    return [result["settings"] for result in run["results"] if result["role"] == "teacher"]


def _scenario(runs: Sequence[Mapping[str, Any]]) -> Scenario:
    scenario = Scenario(runs[0]["scenario"], runs[0]["data"], runs[0]["metric"])
    found: dict[str, tuple[Mapping[str, Any], Row]] = {}
    for run in runs:
        if run["command"] not in scenario.commands:
            scenario.commands.append(run["command"])
        for result in run["results"]:
            settings = json.dumps([result["role"], result["method"], result["settings"]], sort_keys=True)
            _, row = found.setdefault(settings, (result, Row(result["role"], result["method"])))
            row.results[result["seed"]] = result
            row.predictions[result["seed"]] = run["folder"] / "predictions" / f"{result['method']}.jsonl.gz"
    _name_apart(list(found.values()))
    scenario.rows = sorted((row for _, row in found.values()), key=_position)
    return scenario


def _position(row: Row) -> tuple[int, str]:
    """Teachers, plain student, other methods by name, structural KD last."""
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
        apart = _differences([result["settings"] for result, _ in group])
        for (_, row), difference in zip(group, apart, strict=True):
            if difference:
                row.method += f" ({difference})"


def _differences(settings: Sequence[Any]) -> list[str]:
    """Of each settings, those in which any of them differ; empty where all are alike."""
    flat = [_flat(one) for one in settings]
    names = sorted(set().union(*flat))
    different = [name for name in names if len({json.dumps(one.get(name)) for one in flat}) > 1]
    return [", ".join(f"{name}={one.get(name)}" for name in different) for one in flat]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names. A list of one is its element: most runs have one teacher."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    elif isinstance(value, list) and all(isinstance(part, Mapping) for part in value):
        value = dict(enumerate(value))
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
    figures = [row.values("test", scenario.metric) for row in (one, other)]
    seeds = sorted(figures[0].keys() & figures[1].keys())
    if not seeds:
        return None
    differences = [figures[0][seed] - figures[1][seed] for seed in seeds]
    counts = [[_counts(row.predictions[seed], scenario.metric) for seed in seeds] for row in (one, other)]
    interval = None
    if all(table is not None for side in counts for table in side):
        interval = paired_bootstrap(*(np.stack([table for table in side if table is not None]) for side in counts))
    return Comparison(len(seeds), fmean(differences), sign_flip_test(differences), interval)


def _counts(path: Path, metric: str) -> NDArray[np.int64] | None:
    """What the predictions of a test text count for a figure, [sentences, 3]; None where that was not kept."""
    if not path.is_file():
        return None
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        counts = [json.loads(line).get("counts", {}).get(metric) for line in lines]
    return None if not counts or None in counts else np.array(counts, dtype=np.int64)


def _gap_closed(scenario: Scenario, row: Row) -> float | None:
    """Share of the distance from the plain student to the teacher (the best, of several) that a method covers."""
    plain = scenario.row("none")
    teachers = [each.values("test", scenario.metric) for each in scenario.rows if each.role == "teacher"]
    ceilings = [fmean(values.values()) for values in teachers if values]
    if not ceilings or plain is None or row.role == "teacher" or row is plain:
        return None
    figures = [each.values("test", scenario.metric) for each in (row, plain)]
    seeds = figures[0].keys() & figures[1].keys()
    if not seeds:
        return None
    reached, floor = (fmean(values[seed] for seed in seeds) for values in figures)
    gap = max(ceilings) - floor
    return (reached - floor) / gap if gap > 0 else None


def markdown(scenarios: Sequence[Scenario]) -> str:
    """One table per scenario: every model's figures, and structural KD against every other student."""
    lines: list[str] = []
    for scenario in scenarios:
        data, metric = scenario.data, scenario.metric
        structural = scenario.row("structural")
        # precision and recall stand in the CSV file
        others = [name for name in scenario.figures if name not in (metric, "precision", "recall")]
        about = [
            f"Test {scenario.metric_title} in percent; {data['sentences']['test']:,} test sentences.",
            scenario.rule,
            f"Data: {data['source']}; licence: {data['licence']}.",
            data["notes"],
        ]
        header = ["model", "parameters", "labelled", "unlabelled", f"test {scenario.metric_title}, mean ± sd"]
        header += ["every seed", *(f"test {figure_title(name)}" for name in others), f"dev {scenario.metric_title}"]
        header += ["gap closed", "structural KD is ahead by", "exact sign-flip test"]
        align = ["---", "---:", "---:", "---:", "---:", "---", *["---:"] * (len(others) + 2), "---", "---"]
        lines += [f"## {scenario.title}", "", " ".join(filter(None, about)), ""]
        lines += ["| " + " | ".join(header) + " |", "|" + "|".join(align) + "|"]
        for row in scenario.rows:
            first = next(iter(row.results.values()))
            test = row.values("test", metric)
            closed = _gap_closed(scenario, row)
            cells = [row.title, *(f"{first[name]:,}" for name in ("parameters", "labelled", "unlabelled"))]
            cells.append(_percent(test) + (f" ± {100 * stdev(test.values()):.2f}" if len(test) > 1 else ""))
            cells.append(", ".join(f"{100 * value:.2f} (seed {seed})" for seed, value in test.items()))
            cells += [_percent(row.values("test", name)) for name in others]
            cells.append(_percent(row.values("dev", metric)))
            cells.append("" if closed is None else f"{100 * closed:.0f} %")
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
        "Gap closed: the share of the distance from the plain student to the teacher (the best, where there are "
        "several).",
        "",
    ]
    return "\n".join(lines)


def _percent(values: Mapping[int, float]) -> str:
    return f"{100 * fmean(values.values()):.2f}" if values else ""


def rows_as_csv(scenarios: Sequence[Scenario]) -> str:
    """One line per trained model."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    metrics = list(dict.fromkeys(name for scenario in scenarios for name in scenario.figures))
    writer.writerow(
        ["scenario", "data", "task", "role", "method", "seed", "labelled", "unlabelled", "parameters", "seconds"]
        + [f"{split}_{metric}" for split in ("dev", "test") for metric in metrics]
        + ["folder"]
    )
    for scenario in scenarios:
        for row in scenario.rows:
            for seed, result in sorted(row.results.items()):
                figures = [result.get(split, {}).get(name, "") for split in ("dev", "test") for name in metrics]
                writer.writerow(
                    [scenario.name, scenario.data["name"], scenario.data["task"], row.role, row.method, seed]
                    + [result[name] for name in ("labelled", "unlabelled", "parameters", "seconds")]
                    + figures
                    + [result["folder"]]
                )
    return buffer.getvalue()


def save_plot(scenarios: Sequence[Scenario], path: Path) -> None:
    """A bar per model with its standard deviation, and a point for every seed; a panel per scenario, three a row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # No pyplot: it keeps state of its own and may look for a display.
    columns = min(len(scenarios), 3)
    rows = math.ceil(len(scenarios) / columns)
    figure = Figure(figsize=(0.6 + 4.8 * columns, 4.4 * rows), layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.08))
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for unused in panels[len(scenarios) :]:
        unused.remove()
    for panel, scenario in zip(panels, scenarios, strict=False):
        models = [
            (row, [100 * value for value in row.values("test", scenario.metric).values()]) for row in scenario.rows
        ]
        models = [(row, values) for row, values in models if values]
        low, high = 100.0, 0.0
        for position, (row, values) in enumerate(models):
            mean, spread = fmean(values), stdev(values) if len(values) > 1 else 0.0
            top = max([*values, mean + spread])
            low, high = min([low, *values]), max(high, top)
            panel.bar(
                position,
                mean,
                yerr=spread or None,
                color="0.55" if row.role == "teacher" else _COLOURS.get(row.method.split(" ")[0], "tab:cyan"),
                alpha=0.75,
                capsize=4,
                width=0.7,
            )
            panel.plot([position] * len(values), values, "o", color="black", markersize=3.5, alpha=0.8)
            panel.annotate(f"{mean:.1f}", (position, top), (0, 4), textcoords="offset points", ha="center", fontsize=9)
        names = [textwrap.fill(row.method.replace("_", " "), 22) for row, _ in models]
        panel.set_xticks(range(len(models)), names, rotation=35, ha="right", rotation_mode="anchor", fontsize=9)
        bottom = max(0, 5 * int((low - 5) // 5))
        panel.set_ylim(bottom, high + 0.1 * max(high - bottom, 1.0))
        panel.set_title(textwrap.fill(scenario.title, 52), fontsize=10)
        panel.set_ylabel(f"test {scenario.metric_title}, %" + (f" (axis begins at {bottom})" if bottom else ""))
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


_COLOURS = {"none": "tab:orange", "structural": "tab:blue"}


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
