"""Tables of a report: their cells, and the tables as text for a terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from structkd.evaluation import metric_title
from structkd.harmless import cell

from .comparisons import Comparison
from .links import Linker
from .runs import Model
from .scenarios import Row, Scenario, spread

__all__ = [
    "Cell",
    "Table",
    "as_markdown",
    "comparison_table",
    "comparisons_csv",
    "escaped",
    "intervals",
    "mean_and_spread",
    "method_table",
    "model_table",
    "models_csv",
    "percent",
    "terminal",
]


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        parts: pieces of text, comparison with the URL that it links to, if any.
        mark: its style: "name" heads a line, "number" is aligned right, "code" is set in a typewriter font; others are
            styles of the page.
    """

    parts: tuple[tuple[str, str | None], ...]
    mark: str = ""

    @property
    def text(self) -> str:
        """The text without links."""
        return ", ".join(part for part, _ in self.parts)


@dataclass(frozen=True)
class Table:
    """A header and lines of as many cells."""

    header: Sequence[str]
    lines: Sequence[Sequence[Cell]]


def number(text: str) -> Cell:
    """Return a cell with a number."""
    return Cell(((text, None),), "number")


def percent(values: Iterable[float] | Mapping[int, float]) -> str:
    """Return the mean in percent; empty without values."""
    found = list(values.values() if isinstance(values, Mapping) else values)
    return f"{100 * fmean(found):.2f}" if found else ""


def mean_and_spread(values: Mapping[int, float]) -> str:
    """Return mean and standard deviation over seeds in percent; the mean alone for one seed."""
    deviation = spread(values.values())
    return percent(values) + (f" ± {100 * deviation:.2f}" if deviation is not None else "")


def method_table(scenario: Scenario, link: Linker) -> Table:
    """Return a line per row of a scenario: means over seeds, and every seed's test metric."""
    metric = scenario.metric_title
    # Precision and recall are in the CSV file.
    others = [name for name in scenario.metrics if name not in (scenario.metric, "precision", "recall")]
    header = ["model", f"test {metric}", f"dev {metric}", "gap closed", "every seed"]
    header += [f"test {metric_title(name)}" for name in others]
    header += [f"targets, dev {metric}", "KL a word", "transitions' KL", "words/s (ratio)", "parameters", "sentences"]
    header.append("steps")
    lines = []
    for row in scenario.rows:
        first, closed, speed = row.first.result, scenario.gap_closed(row), row.words_per_second
        test = row.metrics("test", scenario.metric)
        divergence = row.kl_per_word
        cells = [
            Cell(((row.name, None),), "name"),
            number(mean_and_spread(test)),
            number(percent(row.metrics("dev", scenario.metric))),
            number("" if closed is None else f"{100 * closed:.0f} %"),
            Cell(tuple((percent([value]), link(row.models[seed].run.folder)) for seed, value in test.items()), "seeds"),
            *(number(percent(row.metrics("test", name))) for name in others),
            number(percent(row.targets_dev)),
            number(f"{fmean(divergence.values()):.3f}" if divergence else ""),
            number(f"{fmean(row.transition_kl.values()):.2g}" if row.transition_kl else ""),
            number(_speed(speed) + _ratio(scenario, row)),
            number(_span(f"{model.result.parameters:,}" for model in row.models.values())),
            number(f"{first.labelled:,}" + (f" + {first.unlabelled:,}" if first.unlabelled else "")),
            number(_span(f"{model.result.steps:,}" for model in row.models.values())),
        ]
        lines.append(cells)
    return _without_empty(Table(header, lines))


def _speed(words: float | None) -> str:
    return "" if words is None else f"{words:,.0f}"


def _ratio(scenario: Scenario, row: Row) -> str:
    speed, teachers = row.words_per_second, scenario.teachers_speed(row)
    if row.role == "teacher" or speed is None or teachers is None:
        return ""
    return f" ({speed / teachers:.{1 if speed >= teachers else 2}f} ×)"  # noqa: RUF001


def _span(values: Iterable[str]) -> str:
    """Return the one value, or the smallest and the largest."""
    found = sorted(set(values), key=lambda value: int(value.replace(",", "")))
    return found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"


def _without_empty(table: Table) -> Table:
    """Leave out the columns that are empty."""
    columns = [column for column in range(len(table.header)) if any(line[column].text for line in table.lines)]
    lines = [[line[column] for column in columns] for line in table.lines]
    return Table([table.header[column] for column in columns], lines)


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Return a line per comparison."""
    unit = "teachers" if any(comparison.by_teacher for comparison in comparisons) else "seeds"
    header = ["comparison", "mean difference", f"95 % interval over {unit}", "95 % interval over test sentences"]
    header += ["verdict", "p, Holm", "p", "smallest possible p", "detectable difference", "p, equivalent"]
    header += ["paired seeds", "teachers"]
    lines = []
    for comparison in comparisons:
        interval = comparison.interval
        lines.append(
            [
                Cell(((comparison.title, None),), "name"),
                number(f"{100 * comparison.difference:+.2f}"),
                number(_limits(comparison.over_units)),
                number("" if interval is None else _limits((interval.low, interval.high))),
                Cell(((comparison.verdict, None),), comparison.outcome.replace(" ", "-")),
                number(f"{comparison.adjusted:.3g}"),
                number(f"{comparison.p:.3g}"),
                number(f"{comparison.smallest:.3g}"),
                number("" if (effect := comparison.detectable) is None else f"{100 * effect:.2f}"),
                number("" if comparison.equivalence is None else f"{comparison.equivalence:.3g}"),
                number(str(len(comparison.differences))),
                number(str(len(comparison.units)) if comparison.by_teacher else ""),
            ]
        )
    return _without_empty(Table(header, lines)) if lines else Table(header, [])


def _limits(limits: tuple[float, float] | None) -> str:
    """Return an interval in points; empty without one."""
    return "" if limits is None else f"[{100 * limits[0]:+.2f}, {100 * limits[1]:+.2f}]"


def intervals(comparison: Comparison) -> str:
    """Return the 95 % intervals of a comparison, in parentheses, with the units that they are over."""
    sentences = comparison.interval
    limits = {
        "teachers" if comparison.by_teacher else "seeds": comparison.over_units,
        "test sentences": None if sentences is None else (sentences.low, sentences.high),
    }
    found = [f"over {name} {_limits(each)}" for name, each in limits.items() if each is not None]
    return f" (95 % interval {', '.join(found)})" if found else ""


def model_table(scenario: Scenario, link: Linker) -> Table:
    """Return a line per trained model, with its files, the command that uses it and the one that makes it again."""
    metric = scenario.metric_title
    header = ["model", "seed", f"test {metric}", f"dev {metric}", "KL a word", "words/s", "steps (best)"]
    header += ["files", "use", "command"]
    lines = []
    for row in scenario.rows:
        for seed, model in row.models.items():
            divergence = model.kl_per_word
            best = "" if model.result.best_step is None else f" ({model.result.best_step:,})"
            lines.append(
                [
                    Cell(((row.name, None),), "name"),
                    number(str(seed)),
                    number(_metric(model, "test", scenario.metric)),
                    number(_metric(model, "dev", scenario.metric)),
                    number("" if divergence is None else f"{divergence:.3f}"),
                    number(_speed(model.words_per_second)),
                    number(f"{model.result.steps:,}{best}"),
                    Cell(tuple(_files(model, link)), "files"),
                    Cell(((model.usage, None),), "code"),
                    Cell(((model.run.command, None),), "code"),
                ]
            )
    return _without_empty(Table(header, lines))


def _metric(model: Model, split: str, metric: str) -> str:
    value = model.metric(split, metric)
    return "" if value is None else f"{100 * value:.2f}"


def best_usage(scenario: Scenario) -> str:
    """Return the command that uses the student with the best figure on dev, after its name; "" if no model is there.

    Dev decides here, and test does in the findings: a model that was chosen by its test figure would have no fair one.
    """
    students = [(row, seed, model) for row in scenario.students for seed, model in row.models.items() if model.usage]
    if not students:
        return ""
    row, seed, best = max(students, key=lambda each: each[2].metric("dev", scenario.metric) or 0.0)
    figure = percent(found) if (found := [value for value in [best.metric("dev", scenario.metric)] if value]) else ""
    return f"best on dev{f' ({figure})' * bool(figure)}, {row.name}, seed {seed}: {best.usage}"


def _files(model: Model, link: Linker) -> Iterable[tuple[str, str | None]]:
    places = {"run": model.run.folder, "config": model.run.config, "predictions": model.predictions}
    if model.folder is not None:
        places["model"] = model.folder
    return ((name, link(path)) for name, path in places.items() if path.exists())


def as_markdown(table: Table) -> str:
    """Return a pipe table."""
    numbers = [all(line[column].mark == "number" for line in table.lines) for column in range(len(table.header))]
    lines = [list(map(escaped, table.header)), ["---:" if right else "---" for right in numbers]]
    lines += [[_markdown_cell(cell) for cell in line] for line in table.lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_cell(cell: Cell) -> str:
    if cell.mark == "code":
        # A pipe ends a cell even between back quotes.
        text = cell.text.replace("|", "\\|").replace("\n", " ")
        return f"`` {text} ``" if "`" in text else f"`{text}`"
    return ", ".join(escaped(text) if url is None else f"[{escaped(text)}]({url})" for text, url in cell.parts)


def escaped(text: str) -> str:
    """Escape text so that Markdown prints it literally, in one line."""
    text = re.sub(r"[\\|<>*`]|\b_|_\b|\](?=[(\[:])", r"\\\g<0>", text)
    return " ".join(text.split())


def models_csv(scenarios: Sequence[Scenario], link: Linker) -> str:
    """Return one line per trained model, unrounded and with all columns."""
    metrics = list(dict.fromkeys(name for scenario in scenarios for name in scenario.metrics))
    header = ["scenario", "data", "task", "teacher", "role", "method", "differs_in", "seed", "labelled", "unlabelled"]
    header += ["parameters", "steps", "best_step", "seconds", "words_per_second", "kl_per_word"]
    header += ["targets_dev", "transition_kl", "teacher_seeds"]
    header += [f"{split}_{metric}" for split in ("dev", "test") for metric in metrics]
    header += ["training", "run", "config", "predictions", "command"]
    lines: list[list[Any]] = []
    for scenario in scenarios:
        for row in scenario.rows:
            for seed, model in row.models.items():
                result = model.result
                lines.append([scenario.name, scenario.data.name, scenario.data.task, scenario.teacher])
                lines[-1] += [row.role, row.method, row.variant, seed]
                lines[-1] += [result.labelled, result.unlabelled, result.parameters, result.steps]
                lines[-1] += [result.best_step, model.seconds, model.words_per_second, model.kl_per_word]
                lines[-1] += [model.targets_dev, model.transition_kl, " ".join(map(str, model.teacher_seeds))]
                lines[-1] += [model.metric(split, name) for split in ("dev", "test") for name in metrics]
                lines[-1] += [result.folder, link(model.run.folder), link(model.run.config), link(model.predictions)]
                lines[-1].append(model.run.command)
    return _as_csv(header, lines)


def comparisons_csv(comparisons: Sequence[Comparison]) -> str:
    """Return one line per comparison, unrounded."""
    header = ["scenario", "data", "task", "teacher", "method", "baseline", "seeds", "difference", "low", "high"]
    header += ["p", "smallest_p", "p_holm", "smallest_p_holm", "family", "outcome"]
    header += ["unit", "units", "low_over_units", "high_over_units", "detectable", "margin", "p_equivalent"]
    lines: list[list[Any]] = []
    for comparison in comparisons:
        scenario, interval = comparison.scenario, comparison.interval
        lines.append([scenario.name, scenario.data.name, scenario.data.task, scenario.teacher])
        lines[-1] += [
            comparison.method.name,
            comparison.baseline.name,
            " ".join(map(str, comparison.differences)),
            comparison.difference,
        ]
        lines[-1] += [None, None] if interval is None else [interval.low, interval.high]
        lines[-1] += [
            comparison.p,
            comparison.smallest,
            comparison.adjusted,
            comparison.attainable,
            comparison.family,
            comparison.outcome,
            "teacher" if comparison.by_teacher else "seed",
            len(comparison.units),
            *(comparison.over_units or (None, None)),
            comparison.detectable,
            scenario.margin,
            comparison.equivalence,
        ]
    return _as_csv(header, lines)


def _as_csv(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    lines = ([cell(value) for value in line] for line in lines)
    writer.writerow(header)
    writer.writerows(lines)
    return buffer.getvalue()


def terminal(scenarios: Sequence[Scenario], comparisons: Sequence[Comparison], width: int = 100) -> str:
    """Return the most important columns and the verdicts of comparisons, for a terminal."""
    lines: list[str] = []
    for scenario in scenarios:
        header = ["model", f"test {scenario.metric_title}", "dev", "gap closed", "KL a word", "words/s", "seeds"]
        cells = [header]
        for row in scenario.rows:
            closed, divergence = scenario.gap_closed(row), row.kl_per_word
            test = row.metrics("test", scenario.metric)
            cells.append([row.name, mean_and_spread(test), percent(row.metrics("dev", scenario.metric))])
            cells[-1].append("" if closed is None else f"{100 * closed:.0f} %")
            cells[-1].append(f"{fmean(divergence.values()):.3f}" if divergence else "")
            cells[-1] += [_speed(row.words_per_second), str(len(row.models))]
        widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
        widths[0] = min(widths[0], width - sum(widths[1:]) - 2 * (len(widths) - 1))
        lines += [*textwrap.wrap(scenario.title, width), ""]
        for index, line in enumerate(cells):
            name = textwrap.wrap(line[0], widths[0], subsequent_indent="  ") or [""]
            numbers = [cell.rjust(size) for cell, size in zip(line[1:], widths[1:], strict=True)]
            lines.append("  ".join([name[0].ljust(widths[0]), *numbers]).rstrip())
            lines += name[1:]
            lines += ["  ".join("-" * size for size in widths)] * (index == 0)
        lines.append("")
        for comparison in (comparison for comparison in comparisons if comparison.scenario is scenario):
            text = f"{comparison.title}: {100 * comparison.difference:+.2f}{intervals(comparison)}"
            text += f", {comparison.verdict}"
            lines += textwrap.wrap(text, width, subsequent_indent="    ")
        lines += [
            part for remark in scenario.remarks for part in textwrap.wrap(remark, width, subsequent_indent="    ")
        ]
        if usage := best_usage(scenario):
            lines.append(usage)
        lines.append("")
    return "\n".join(lines)
