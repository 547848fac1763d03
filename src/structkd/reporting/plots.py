"""Plots: each is drawn once, into a panel; panels are joined to PNGs and stand alone as SVGs in the page."""

from __future__ import annotations

import io
import json
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from .palette import GRID, INK, Style, styles, teacher_style, variables
from .scenarios import Row, Scenario, spread
from .settings import flat, titles

__all__ = ["Plot", "Plots"]

#: Settings along which curves are drawn where runs vary in them, and how the axis is called.
_SWEPT = {
    "unlabelled": "unlabelled sentences",
    "labelled": "labelled sentences",
    "method.loss.temperature": "temperature",
}
_WIDTH, _HEIGHT = 5.0, 3.7  # of a panel, in inches
_SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "text.color": INK[0],
    "text.parse_math": False,  # a name with two dollar signs is no formula
    "axes.labelcolor": INK[0],
    "axes.edgecolor": INK[0],
    "xtick.color": INK[0],
    "ytick.color": INK[0],
    "grid.color": GRID[0],
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "structkd",
}


@dataclass(frozen=True)
class Plot:
    """A kind of plot.

    Attributes:
        name: of the PNG.
        title: says what is seen.
        draw: into a panel.
        applies: whether there is anything to draw of a scenario.
        height: of the panel for a scenario, in inches.
    """

    name: str
    title: str
    draw: Callable[[Axes, Scenario], None]
    applies: Callable[[Scenario], bool]
    height: Callable[[Scenario], float]


@dataclass(frozen=True)
class Curve:
    """Rows that differ in one setting alone."""

    label: str
    method: str
    rows: Mapping[float, Row]


class Plots:
    """All plots of a report. A method looks the same in each."""

    def __init__(self, scenarios: Sequence[Scenario]) -> None:
        self._scenarios = scenarios
        self._styles = styles(row.method for scenario in scenarios for row in scenario.students)
        self.kinds = [
            Plot("results", "Test figures: mean, standard deviation and every seed", self._bars, _judged, _bars_height),
            Plot("learning_curves", "Learning curves on dev: mean over seeds, and the range of all seeds",
                 self._learning, _learned, self._with_legend),
            *(self._swept(name, axis) for name, axis in _SWEPT.items()),
            Plot("divergence", "How far from the teacher on dev, and how good on test: every seed",
                 self._divergence, _diverges, self._with_legend),
        ]  # fmt: skip

    def save(self, folder: Path) -> list[Path]:
        """Write a PNG per kind of plot, a panel per scenario, three a row; returns their paths."""
        paths = []
        for plot in self.kinds:
            shown = [scenario for scenario in self._scenarios if plot.applies(scenario)]
            if not shown:
                continue
            columns = min(len(shown), 3)
            rows = math.ceil(len(shown) / columns)
            heights = [
                max(plot.height(scenario) + 0.5 for scenario in shown[row * columns : (row + 1) * columns])
                for row in range(rows)
            ]
            with rc_context(_SETTINGS):
                layout = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.1)
                figure = Figure((_WIDTH * columns, sum(heights)), layout=layout, facecolor="white")
                FigureCanvasAgg(figure)  # no pyplot: it keeps state of its own and may look for a display
                panels = figure.subplots(rows, columns, squeeze=False, height_ratios=heights).flatten()
                for unused in panels[len(shown) :]:
                    unused.remove()
                for panel, scenario in zip(panels, shown, strict=False):
                    plot.draw(panel, scenario)
                    panel.set_title(textwrap.fill(scenario.title, 50), loc="left", fontweight="bold")
                paths.append(folder / f"{plot.name}.png")
                figure.savefig(paths[-1], dpi=150)
        return paths

    def svg(self, plot: Plot, scenario: Scenario) -> str:
        """A panel as an element of the page: colours are the page's, names are unique in it."""
        with rc_context(_SETTINGS):
            figure = Figure((_WIDTH, plot.height(scenario)), layout="constrained")
            plot.draw(figure.subplots(), scenario)
            buffer = io.StringIO()
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
        return _embedded(buffer.getvalue(), f"p{self.kinds.index(plot)}-{self._scenarios.index(scenario)}-")

    def _swept(self, name: str, axis: str) -> Plot:
        return Plot(
            name.rpartition(".")[2],
            f"Test figure over {axis}: mean and standard deviation",
            lambda panel, scenario: self._curves(panel, scenario, name),
            lambda scenario: bool(_curves(scenario, name)),
            lambda _: _HEIGHT + 0.4,
        )

    def _style(self, row: Row) -> Style:
        return teacher_style() if row.role == "teacher" else self._styles[row.method]

    def _bars(self, panel: Axes, scenario: Scenario) -> None:
        rows = [(row, _percents(row, scenario)) for row in scenario.rows]
        rows = [(row, values) for row, values in rows if values]
        least = min(min(values) - (spread(values) or 0.0) for _, values in rows)
        most = max(max([*values, fmean(values) + (spread(values) or 0.0)]) for _, values in rows)
        start = max(0, 5 * int((least - 0.15 * (most - least) - 2) // 5))
        for position, (row, values) in enumerate(rows):
            mean, deviation = fmean(values), spread(values)
            panel.barh(position, mean - start, left=start, height=0.64, color=self._style(row).colour, alpha=0.55)
            if deviation is not None:
                panel.errorbar(mean, position, xerr=deviation, color=INK[0], capsize=4, linewidth=1.3)
            offsets = [position + 0.2 * ((index % 3) - 1) * (len(values) > 1) for index in range(len(values))]
            panel.plot(values, offsets, "o", color=INK[0], markersize=3.2, alpha=0.75)
            end = max([*values, mean + (deviation or 0.0)])
            panel.annotate(
                f"{mean:.2f}", (end, position), (5, 0), textcoords="offset points", va="center", fontsize=9.5
            )
        panel.set_yticks(range(len(rows)), [textwrap.fill(_spaced(row.name), 26) for row, _ in rows])
        panel.invert_yaxis()
        panel.grid(axis="y", visible=False)
        panel.set_xlim(start, most + 0.16 * max(most - start, 1.0))
        panel.set_xlabel(f"test {scenario.metric_title}, %" + (f" (axis begins at {start})" if start else ""))

    def _learning(self, panel: Axes, scenario: Scenario) -> None:
        rows = [row for row in scenario.rows if _history(row, scenario.metric)]
        alike: dict[str, int] = {}
        for row in rows:
            history, style = _history(row, scenario.metric), self._style(row)
            index = alike[row.method] = alike.get(row.method, -1) + 1
            steps = sorted(history)
            panel.plot(
                steps,
                [fmean(history[step]) for step in steps],
                color=style.colour,
                linestyle=style.dash,
                marker=style.marker,
                # Variants of one method have its colour, and are told apart by the filling of their markers.
                markerfacecolor=style.colour if index == 0 else "none",
                markersize=4 + 1.2 * index,
                linewidth=1.8 if index == 0 else 1.2,
                markevery=max(1, len(steps) // 8),
                label=_spaced(row.name),
            )
            if any(len(history[step]) > 1 for step in steps):
                low, high = [min(history[step]) for step in steps], [max(history[step]) for step in steps]
                panel.fill_between(steps, low, high, color=style.colour, alpha=0.16, linewidth=0)
        panel.set_xlabel("training step")
        panel.set_ylabel(f"dev {scenario.metric_title}, %")
        _legend(panel)

    def _curves(self, panel: Axes, scenario: Scenario, name: str) -> None:
        curves = _curves(scenario, name)
        points = sorted({value for curve in curves for value in curve.rows})
        alike: dict[str, int] = {}
        for curve in curves:
            style = self._styles[curve.method]
            index = alike[curve.method] = alike.get(curve.method, -1) + 1
            found = {value: values for value, row in curve.rows.items() if (values := _percents(row, scenario))}
            panel.errorbar(
                list(found),
                [fmean(values) for values in found.values()],
                yerr=[spread(values) or 0.0 for values in found.values()],
                color=style.colour,
                linestyle=style.dash,
                marker=style.marker,
                markerfacecolor=style.colour if index == 0 else "none",
                capsize=4,
                label=_spaced(curve.label),
            )
        drawn = {row for curve in curves for row in curve.rows.values()}
        swept = {curve.method for curve in curves}
        for row in scenario.rows:
            values = _percents(row, scenario)
            if row not in drawn and row.method not in swept and values:
                style = self._style(row)
                panel.axhline(fmean(values), color=style.colour, linestyle=style.dash, label=_spaced(row.name))
        if points[0] > 0 and points[-1] >= 8 * points[0]:
            panel.set_xscale("log")
        panel.set_xticks(points, [f"{point:,g}" for point in points])
        panel.minorticks_off()
        panel.set_xlabel(_SWEPT[name])
        panel.set_ylabel(f"test {scenario.metric_title}, %")
        _legend(panel)

    def _divergence(self, panel: Axes, scenario: Scenario) -> None:
        alike: dict[str, int] = {}
        for row in scenario.students:
            style, test = self._style(row), row.figures("test", scenario.metric)
            seeds = [seed for seed in row.kl_per_word if seed in test]
            if seeds:
                index = alike[row.method] = alike.get(row.method, -1) + 1
                panel.plot(
                    [row.kl_per_word[seed] for seed in seeds],
                    [100 * test[seed] for seed in seeds],
                    linestyle="none",
                    marker=style.marker,
                    color=style.colour,
                    markerfacecolor=style.colour if index == 0 else "none",
                    markersize=5.5 + 1.2 * index,
                    alpha=0.8,
                    label=_spaced(row.name),
                )
        panel.set_xlabel("KL(teacher || student) on dev, nats a word")
        panel.set_ylabel(f"test {scenario.metric_title}, %")
        _legend(panel)

    def _with_legend(self, scenario: Scenario) -> float:
        return _HEIGHT + 0.2 * max(0, math.ceil(len(scenario.rows) / 2) - 1)


def _judged(scenario: Scenario) -> bool:
    return any(_percents(row, scenario) for row in scenario.rows)


def _bars_height(scenario: Scenario) -> float:
    lines = sum(len(textwrap.wrap(_spaced(row.name), 26)) > 1 for row in scenario.rows)
    return 0.9 + 0.42 * max(len(scenario.rows), 3) + 0.08 * lines


def _learned(scenario: Scenario) -> bool:
    return any(len(_history(row, scenario.metric)) > 1 for row in scenario.rows)


def _diverges(scenario: Scenario) -> bool:
    return any(row.kl_per_word for row in scenario.students)


def _percents(row: Row, scenario: Scenario) -> list[float]:
    return [100 * value for value in row.figures("test", scenario.metric).values()]


def _history(row: Row, metric: str) -> dict[int, list[float]]:
    """Dev figures of all seeds in percent, by step."""
    found: dict[int, list[float]] = {}
    for model in row.models.values():
        for entry in model.result.get("history", []):
            if entry.get(metric) is not None:
                found.setdefault(entry["step"], []).append(100 * entry[metric])
    return found


def _curves(scenario: Scenario, name: str) -> list[Curve]:
    """Rows that differ in one setting alone and have at least two values of it."""
    groups: dict[str, tuple[Row, dict[str, Any], dict[float, Row]]] = {}
    for row in scenario.students:
        settings = flat(row.settings)
        value = settings.pop(name, None)
        if isinstance(value, (int, float)):
            key = json.dumps([row.method, settings], sort_keys=True)
            groups.setdefault(key, (row, settings, {}))[2][float(value)] = row
    found = [group for group in groups.values() if len(group[2]) > 1]
    curves = []
    for row, settings, rows in found:
        same = [other for first, other, _ in found if first.method == row.method]
        apart = titles(same)[same.index(settings)]
        label = f"{row.method} ({apart})" if apart else row.method
        curves.append(Curve(label, row.method, dict(sorted(rows.items()))))
    return curves


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _legend(panel: Axes) -> None:
    """Below the axis, where it covers nothing."""
    handles, labels = panel.get_legend_handles_labels()
    wide = max((len(label) for label in labels), default=0) > 22
    panel.legend(
        handles,
        [textwrap.fill(label, 50 if wide else 24) for label in labels],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.19),
        ncols=1 if wide else 2,
        handlelength=2.8,
    )


def _embedded(svg: str, prefix: str) -> str:
    """An SVG document as an element within a page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = svg.replace('href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
    for name, light, _ in variables():
        svg = svg.replace(light, f"var(--{name})")
    return svg
