"""Plots of a report: a panel per scenario, joined to PNGs, and as separate SVGs in the page."""

from __future__ import annotations

import io
import json
import math
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase

from .palette import GRID, INK, Style, styles, teacher_style, variables
from .scenarios import Row, Scenario, spread
from .settings import flat, titles

__all__ = ["Plot", "Plots"]

#: Settings over which curves are drawn if runs differ in them, and the title of the axis.
_SWEPT = {
    "unlabelled": "unlabelled sentences",
    "labelled": "labelled sentences",
    "method.loss.temperature": "temperature",
}
_WIDTH, _HEIGHT = 4.5, 3.1  # of a panel without its legend, in inches
_NAME = 26  # characters of a name in a line beside an axis
_FILLINGS: Any = ("full", "none", "left", "right", "top", "bottom")
_SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.labelsize": 10.5,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "text.color": INK[0],
    "text.parse_math": False,  # a name with two dollar signs is not a formula
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
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
    "svg.fonttype": "none",
    "svg.hashsalt": "structkd",
}


@dataclass(frozen=True)
class Plot:
    """A type of plot.

    Attributes:
        name: of the PNG.
        title: of the plot.
        draw: draws a scenario into a figure or a part of one.
        applies: whether a scenario has the data.
        height: of the panel for a scenario, in inches.
    """

    name: str
    title: str
    draw: Callable[[FigureBase, Scenario], None]
    applies: Callable[[Scenario], bool]
    height: Callable[[Scenario], float]


@dataclass(frozen=True)
class Curve:
    """Rows that differ in one setting only, by its value."""

    label: str
    method: str
    rows: Mapping[float, Row]


class Plots:
    """All plots of a report. A method has the same style in all of them."""

    def __init__(self, scenarios: Sequence[Scenario]) -> None:
        self._scenarios = scenarios
        self._styles = styles(row.method for scenario in scenarios for row in scenario.students)
        self.types = [
            Plot("results", "Test figures: mean, standard deviation and every seed", self._bars, _tested, _bars_height),
            Plot("learning_curves", "Learning curves on dev: mean over seeds, and the range of all seeds",
                 self._learning, _learned, lambda scenario: _with_legend([row.name for row in _leading(scenario)])),
            *(self._swept(name, axis) for name, axis in _SWEPT.items()),
            Plot("divergence", "How far from the teacher on dev, and how good on test: every seed",
                 self._divergence, _diverges, lambda scenario: _with_legend([row.method for row in scenario.students])),
        ]  # fmt: skip

    def save(self, folder: Path) -> list[Path]:
        """Write a PNG per type of plot, with a panel per scenario, three in a row; return their paths."""
        paths = []
        for plot in self.types:
            scenarios = [scenario for scenario in self._scenarios if plot.applies(scenario)]
            if not scenarios:
                continue
            columns = min(len(scenarios), 3)
            rows = math.ceil(len(scenarios) / columns)
            heights = [
                max(plot.height(scenario) for scenario in scenarios[row * columns : (row + 1) * columns]) + 0.5
                for row in range(rows)
            ]
            with rc_context(_SETTINGS):
                figure = Figure((_WIDTH * columns, sum(heights)), layout="constrained", facecolor="white")
                FigureCanvasAgg(figure)  # pyplot would keep global state and might look for a display
                # Every panel has its own layout, so that a long name in one takes no room from another.
                places = figure.subfigures(rows, columns, squeeze=False, height_ratios=heights).flatten()
                for place, scenario in zip(places, scenarios, strict=False):
                    plot.draw(place, scenario)
                    place.suptitle(textwrap.fill(scenario.title, 42), x=0.02, ha="left", fontweight="bold")
                paths.append(folder / f"{plot.name}.png")
                figure.savefig(paths[-1], dpi=150)
        return paths

    def svg(self, plot: Plot, scenario: Scenario) -> str:
        """Return a panel as an element of the page, with the page's colors and names that are unique in it."""
        with rc_context(_SETTINGS):
            figure = Figure((_WIDTH, plot.height(scenario)), layout="constrained")
            plot.draw(figure, scenario)
            buffer = io.StringIO()
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
        return _embedded(buffer.getvalue(), f"p{self.types.index(plot)}-{self._scenarios.index(scenario)}-")

    def _swept(self, name: str, axis: str) -> Plot:
        return Plot(
            name.rpartition(".")[2],
            f"Test figure over {axis}: mean and standard deviation",
            lambda place, scenario: self._curves(place, scenario, name),
            lambda scenario: bool(_curves(scenario, name)),
            lambda scenario: _with_legend(_curve_labels(scenario, name)),
        )

    def _style(self, row: Row) -> Style:
        return teacher_style() if row.role == "teacher" else self._styles[row.method]

    def _bars(self, place: FigureBase, scenario: Scenario) -> None:
        panel = place.subplots()
        rows = [(row, _percents(row, scenario)) for row in scenario.rows]
        rows = [(row, values) for row, values in rows if values]
        least = min(min([*values, fmean(values) - (spread(values) or 0.0)]) for _, values in rows)
        most = max(max([*values, fmean(values) + (spread(values) or 0.0)]) for _, values in rows)
        start = max(0, 5 * int((least - 0.15 * (most - least) - 2) // 5))
        for position, (row, values) in enumerate(rows):
            mean, deviation = fmean(values), spread(values)
            panel.barh(position, mean - start, left=start, height=0.66, color=self._style(row).colour, alpha=0.55)
            if deviation is not None:
                panel.errorbar(mean, position, xerr=deviation, color=INK[0], capsize=4, linewidth=1.3)
            offsets = [position + 0.2 * ((index % 3) - 1) * (len(values) > 1) for index in range(len(values))]
            panel.plot(values, offsets, "o", color=INK[0], markersize=3.2, alpha=0.75)
            end = max([*values, mean + (deviation or 0.0)])
            panel.annotate(f"{mean:.2f}", (end, position), (5, 0), textcoords="offset points", va="center", fontsize=10)
        panel.set_yticks(range(len(rows)), [textwrap.fill(_spaced(row.name), _NAME) for row, _ in rows])
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.grid(visible=False)
        panel.set_xlim(start, most + 0.2 * max(most - start, 1.0))
        panel.set_xlabel(f"test {scenario.metric_title}, %" + (f" (axis begins at {start})" if start else ""))

    def _learning(self, place: FigureBase, scenario: Scenario) -> None:
        panel = place.subplots()
        labelled = _leading(scenario)
        for row in scenario.rows:
            if not _history(row, scenario.metric):
                continue
            history, style = _history(row, scenario.metric), self._style(row)
            steps = sorted(history)
            means = [fmean(history[step]) for step in steps]
            if row not in labelled:
                panel.plot(steps, means, color=style.colour, linewidth=0.8, alpha=0.45)
                continue
            panel.plot(
                steps,
                means,
                color=style.colour,
                linestyle=style.dash,
                marker=style.marker,
                markersize=4.5,
                markevery=max(1, len(steps) // 8),
                label=_spaced(row.name),
                zorder=3,
            )
            if any(len(values) > 1 for values in history.values()):
                low, high = [min(history[step]) for step in steps], [max(history[step]) for step in steps]
                panel.fill_between(steps, low, high, color=style.colour, alpha=0.16, linewidth=0)
        panel.set_xlabel("training step")
        panel.set_ylabel(f"dev {scenario.metric_title}, %")
        if len(labelled) < len(scenario.rows):
            panel.plot([], [], color=INK[0], linewidth=0.8, alpha=0.45, label="other settings")
        _legend(place, panel)

    def _curves(self, place: FigureBase, scenario: Scenario, name: str) -> None:
        panel = place.subplots()
        curves = _curves(scenario, name)
        points = sorted({value for curve in curves for value in curve.rows})
        drawn: Counter[str] = Counter()
        for curve in curves:
            style = self._styles[curve.method]
            found = {value: values for value, row in curve.rows.items() if (values := _percents(row, scenario))}
            panel.errorbar(
                list(found),
                [fmean(values) for values in found.values()],
                yerr=[spread(values) or 0.0 for values in found.values()],
                color=style.colour,
                linestyle=style.dash,
                marker=style.marker,
                # Several curves of a method have its color and differ in the filling of their markers.
                fillstyle=_FILLINGS[drawn[curve.method] % len(_FILLINGS)],
                markerfacecoloralt="none",
                markersize=7,
                capsize=4,
                elinewidth=1.2,
                label=_spaced(curve.label),
            )
            drawn[curve.method] += 1
        for row in _references(scenario, curves):
            style = self._style(row)
            mean = fmean(_percents(row, scenario))
            panel.axhline(mean, color=style.colour, linestyle=style.dash, label=_spaced(row.name))
        if points[0] > 0 and points[-1] >= 8 * points[0]:
            panel.set_xscale("log")
        panel.margins(x=0.07)
        panel.set_xticks(points, [f"{point:,g}" for point in points])
        panel.minorticks_off()
        panel.set_xlabel(_SWEPT[name])
        panel.set_ylabel(f"test {scenario.metric_title}, %")
        _legend(place, panel)

    def _divergence(self, place: FigureBase, scenario: Scenario) -> None:
        panel = place.subplots()
        points: dict[str, list[tuple[float, float]]] = {}
        for row in scenario.students:
            test, divergence = row.metrics("test", scenario.metric), row.kl_per_word
            found = points.setdefault(row.method, [])
            found += [(divergence[seed], 100 * test[seed]) for seed in divergence if seed in test]
        for method, found in points.items():
            style = self._styles[method]
            across, up = zip(*found, strict=True) if found else ((), ())
            panel.plot(across, up, style.marker, color=style.colour, markersize=6, alpha=0.7, label=_spaced(method))
        panel.margins(0.08)
        panel.locator_params(axis="x", nbins=6)
        panel.set_xlabel("KL(teacher || student) on dev, nats a word")
        panel.set_ylabel(f"test {scenario.metric_title}, %")
        _legend(place, panel)


def _tested(scenario: Scenario) -> bool:
    return any(_percents(row, scenario) for row in scenario.rows)


def _bars_height(scenario: Scenario) -> float:
    lines = sum(len(textwrap.wrap(_spaced(row.name), _NAME)) for row in scenario.rows)
    return 0.7 + 0.24 * len(scenario.rows) + 0.16 * lines


def _with_legend(labels: Sequence[str]) -> float:
    """Return the height of a panel with a legend below it."""
    return _HEIGHT + 0.22 * math.ceil(len(labels) / _columns(labels))


def _leading(scenario: Scenario) -> list[Row]:
    """Return, for every method, the row that is best on dev: more curves would cover each other."""
    best: dict[tuple[str, str], tuple[float, Row]] = {}
    for row in scenario.rows:
        dev = row.metrics("dev", scenario.metric)
        candidate = (fmean(dev.values()) if dev else 0.0, row)
        known = best.get((row.role, row.method), candidate)
        best[row.role, row.method] = max(known, candidate, key=lambda pair: pair[0])
    return [row for _, row in best.values()]


def _learned(scenario: Scenario) -> bool:
    return any(len(_history(row, scenario.metric)) > 1 for row in scenario.rows)


def _diverges(scenario: Scenario) -> bool:
    return any(row.kl_per_word for row in scenario.students)


def _percents(row: Row, scenario: Scenario) -> list[float]:
    return [100 * value for value in row.metrics("test", scenario.metric).values()]


def _history(row: Row, metric: str) -> dict[int, list[float]]:
    """Return the dev metrics of all seeds in percent, by step."""
    found: dict[int, list[float]] = {}
    for model in row.models.values():
        for entry in model.result.history:
            if metric in entry:
                found.setdefault(int(entry["step"]), []).append(100 * entry[metric])
    return found


def _curves(scenario: Scenario, name: str) -> list[Curve]:
    """Return rows that differ in one setting only, if they have at least two values of it."""
    groups: dict[str, tuple[Row, dict[str, Any], dict[float, Row]]] = {}
    for row in scenario.students:
        settings = flat(row.settings.plain())
        value = settings.pop(name, None)
        if isinstance(value, (int, float)):
            key = json.dumps([row.method, settings], sort_keys=True)
            groups.setdefault(key, (row, settings, {}))[2][float(value)] = row
    found = [group for group in groups.values() if len(group[2]) > 1]
    curves = []
    for row, settings, rows in found:
        same = [other for first, other, _ in found if first.method == row.method]
        variant = titles(same)[same.index(settings)]
        label = f"{row.method} ({variant})" if variant else row.method
        curves.append(Curve(label, row.method, dict(sorted(rows.items()))))
    return curves


def _references(scenario: Scenario, curves: Sequence[Curve]) -> list[Row]:
    """Return the models without a curve; for a method with several settings, the best on dev."""
    swept = {curve.method for curve in curves}
    return [row for row in _leading(scenario) if row.method not in swept and _percents(row, scenario)]


def _curve_labels(scenario: Scenario, name: str) -> list[str]:
    curves = _curves(scenario, name)
    return [curve.label for curve in curves] + [row.name for row in _references(scenario, curves)]


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _columns(labels: Sequence[str]) -> int:
    return 1 if max(map(len, labels), default=0) > 24 else 2


def _legend(place: FigureBase, panel: Axes) -> None:
    """Draw the legend below the axis, so that it covers nothing."""
    handles, labels = panel.get_legend_handles_labels()
    place.legend(handles, labels, loc="outside lower center", ncols=_columns(labels), handlelength=2.8)


def _embedded(svg: str, prefix: str) -> str:
    """Return an SVG document as an element of a page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = svg.replace('href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
    for name, light, _ in variables():
        svg = svg.replace(light, f"var(--{name})")
    return svg
