"""A report as one page of HTML that needs no other file, no network and no script."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from . import findings
from .links import Linker
from .palette import variables
from .plots import Plots
from .report import Report, about
from .scenarios import Scenario
from .tables import comparison_table, method_table, model_table

__all__ = ["page"]


def page(report: Report, link: Linker, plots: Plots) -> str:
    """Return the page. Text from result files is escaped.

    Args:
        report: to be written.
        link: from the folder of the page.
        plots: to be drawn into it.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    taken: set[str] = set()
    sections = [_section(report, scenario, _anchor(scenario, taken), link, plots) for scenario in report.scenarios]
    return environment.get_template("page.html.jinja").render(
        report=report,
        sections=sections,
        link=link,
        colours=variables(),
        explanations=findings.EXPLANATIONS,
    )


def _section(report: Report, scenario: Scenario, anchor: str, link: Linker, plots: Plots) -> dict[str, Any]:
    """Return the values of a scenario's section."""
    rows = [f"{anchor}-model-{number}" for number in range(1, len(scenario.rows) + 1)]
    return {
        "anchor": anchor,
        "scenario": scenario,
        "about": about(scenario),
        "findings": report.findings_of(scenario),
        "methods": method_table(scenario, link),
        "rows": rows,
        "comparisons": comparison_table(report.comparisons_of(scenario)),
        "models": model_table(scenario, link),
        # Links lead to the first line of a row.
        "names": [
            name if first else ""
            for name, row in zip(rows, scenario.rows, strict=True)
            for first in [True, *[False] * (len(row.models) - 1)]
        ],
        "plots": [(plot.title, Markup(plots.svg(plot, scenario))) for plot in plots.types if plot.applies(scenario)],
    }


def _anchor(scenario: Scenario, taken: set[str]) -> str:
    """Return a name for the section that no other section has."""
    plain = re.sub(r"[^a-z0-9]+", "-", scenario.title.lower()).strip("-") or "scenario"
    number = next(count for count in range(1, len(taken) + 2) if _numbered(plain, count) not in taken)
    taken.add(_numbered(plain, number))
    return _numbered(plain, number)


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"
