"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from . import findings
from .links import Linker
from .report import Report, about
from .runs import Attempt
from .tables import as_markdown, comparison_table, escaped, method_table, model_table

__all__ = ["markdown"]


def markdown(report: Report, link: Linker, pictures: Sequence[str] = ()) -> str:
    """Return the findings, a section per scenario, runs without results, and how the report was made.

    Args:
        report: to be written.
        link: from the folder of the file.
        pictures: names of images in that folder.
    """
    lines = [f"# {escaped(report.title)}", "", f"Made {report.when}.", "", f"**{escaped(report.findings)}**", ""]
    for scenario in report.scenarios:
        lines.append(f"- **{escaped(scenario.title)}**: {escaped(' '.join(report.findings_of(scenario)))}")
    for picture in pictures:
        lines += ["", f"![{picture.removesuffix('.png').replace('_', ' ')}]({picture})"]
    for scenario in report.scenarios:
        lines += ["", f"## {escaped(scenario.title)}", "", escaped(about(scenario)), ""]
        lines += [as_markdown(method_table(scenario, link))]
        comparisons = report.comparisons_of(scenario)
        if comparisons:
            lines += ["", as_markdown(comparison_table(comparisons))]
        lines += ["", "<details><summary>Every model: files and commands</summary>", ""]
        lines += [as_markdown(model_table(scenario, link)), "", "</details>"]
    if report.runs.failed or report.runs.damaged or report.runs.unfinished:
        lines += ["", "## Runs without results", ""]
        lines += [_listed("failed", attempt, link) for attempt in report.runs.failed]
        lines += [_listed("damaged, left out", attempt, link) for attempt in report.runs.damaged]
        lines += [f"- unfinished: {_linked(attempt, link)}" for attempt in report.runs.unfinished]
    lines += ["", "## How to read the tables", ""]
    lines += [f"- **{term}**: {escaped(text)}" for term, text in findings.EXPLANATIONS]
    lines += ["", "## How all this was made", ""]
    lines += [f"- Run with {escaped(versions)}." for versions in report.versions]
    lines += [f"- Runs finished: {report.finished}."] * bool(report.finished)
    lines += [
        f"- Data: {escaped(f'{name}: {source}; licence: {licence}.')}" for name, source, licence in report.corpora
    ]
    lines += [f"- {escaped(note)}" for note in report.notes]
    commands = [*report.commands, report.command]
    return "\n".join([*lines, "", *(f"    {line}" for command in commands for line in command.splitlines()), ""])


def _linked(attempt: Attempt, link: Linker) -> str:
    url = link(attempt.folder)
    return f"[{escaped(attempt.title)}]({url})" if url else escaped(attempt.title)


def _listed(state: str, attempt: Attempt, link: Linker) -> str:
    return f"- {state}: {_linked(attempt, link)}: {escaped(attempt.message)}"
