"""A report: the content that all its files have in common, and the files."""

from __future__ import annotations

import functools
import json
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from structkd.files import write_text
from structkd.records import RunRecord

from . import findings, tables
from .comparisons import Comparison, compare_all
from .links import Linker
from .runs import Runs, read_runs
from .scenarios import Scenario, collect

__all__ = ["Report", "write_report"]


@dataclass(frozen=True)
class Report:
    """The content of a report on some runs.

    Attributes:
        title: heading.
        command: that makes the report again.
        runs: all that were found.
        scenarios: of the finished runs.
        notes: closing lines.
        created: time of the report.
    """

    title: str
    command: str
    runs: Runs
    scenarios: Sequence[Scenario]
    notes: Sequence[str]
    created: datetime

    @classmethod
    def of(
        cls,
        folders: Sequence[str | Path],
        title: str = "Results",
        notes: Sequence[str] = (),
        *,
        output: str | Path | None = None,
        command: str | None = None,
    ) -> Report:
        """Read all runs below some folders.

        Args:
            folders: searched for runs.
            title: heading.
            notes: closing lines.
            output: folder that the report is going to be written to, for the command.
            command: that makes the report again; by default ``structkd report`` with these folders.

        Raises:
            FileNotFoundError: a folder does not exist, or no run is finished.
            ValueError: no run is finished, and some are damaged.
        """
        runs = read_runs(folders)
        if command is None:
            typed = ["structkd", "report", *map(str, folders), *(["--output", str(output)] if output else [])]
            command = shlex.join(typed + (["--title", title] if title != "Results" else []))
        return cls(title, command, runs, collect(runs.finished), notes, datetime.now(UTC))

    def save(self, output: str | Path) -> list[Path]:
        """Write ``results.md``, ``results.csv``, ``comparisons.csv``, ``results.html`` and PNGs.

        Args:
            output: folder; created if need be. Links lead from it to the runs.

        Returns:
            The files written, ``results.md`` first.
        """
        # The tables of a terminal need neither matplotlib nor Jinja, which load slowly.
        from .markdown import markdown
        from .page import page
        from .plots import Plots

        output = Path(output)
        output.mkdir(parents=True, exist_ok=True)
        link, plots = Linker(output), Plots(self.scenarios)
        pictures = plots.save(output)
        files = {
            "results.md": markdown(self, link, [path.name for path in pictures]),
            "results.csv": tables.models_csv(self.scenarios, link),
            "comparisons.csv": tables.comparisons_csv(self.comparisons),
            "results.html": page(self, link, plots),
        }
        for name, content in files.items():
            write_text(output / name, content)
        return [*(output / name for name in files), *pictures]

    @functools.cached_property
    def comparisons(self) -> list[Comparison]:
        """All comparisons that the configurations declare, corrected as one family."""
        return compare_all(self.scenarios)

    @property
    def terminal(self) -> str:
        """The report for a terminal of 100 columns."""
        lines = [f"failed: {attempt.title}: {attempt.message}" for attempt in self.runs.failed]
        lines += [f"damaged, left out: {attempt.title}: {attempt.message}" for attempt in self.runs.damaged]
        lines += [f"unfinished: {attempt.title}" for attempt in self.runs.unfinished]
        wrapped = [textwrap.fill(line, 100, subsequent_indent="    ", break_long_words=False) for line in lines]
        closing = textwrap.fill(self.findings, 100)
        return "\n".join([tables.terminal(self.scenarios, self.comparisons), *wrapped, closing])

    @property
    def findings(self) -> str:
        """The outcomes of all comparisons, and the number of runs that damage leaves out, in sentences."""
        found = findings.of_all(self.scenarios, self.comparisons)
        if number := len(self.runs.damaged):
            found += f" {number} damaged run{'s are' if number > 1 else ' is'} left out: see Runs without results."
        return found

    @property
    def correction(self) -> str:
        """Over how many comparisons p is corrected, in a sentence."""
        return findings.correction(self.comparisons)

    def findings_of(self, scenario: Scenario) -> list[str]:
        """Return the findings of a scenario, in sentences."""
        return findings.of_scenario(scenario, self.comparisons)

    def comparisons_of(self, scenario: Scenario) -> list[Comparison]:
        """Return the comparisons between rows of a scenario."""
        return [comparison for comparison in self.comparisons if comparison.scenario is scenario]

    @property
    def when(self) -> str:
        """The time of the report, in words."""
        return self.created.strftime("%Y-%m-%d %H:%M UTC")

    @property
    def versions(self) -> list[str]:
        """Versions that the runs were made with, the most frequent first; if they differ, with the number of runs."""
        found = Counter(json.dumps(record.environment) for record in self._records)
        versions = []
        for environment, count in found.most_common():
            text = ", ".join(f"{name} {version}" for name, version in json.loads(environment).items())
            versions.append(text + (f" ({count} runs)" if len(found) > 1 else ""))
        return versions

    @property
    def commands(self) -> list[str]:
        """The commands of the runs, as typed."""
        return list(dict.fromkeys(record.command for record in self._records if record.command))

    @property
    def corpora(self) -> list[tuple[str, str, str]]:
        """Name, source and licence of every corpus."""
        data = [run.metrics.data for run in self.runs.finished]
        return list(dict.fromkeys((corpus.name, corpus.source, corpus.licence) for corpus in data))

    @property
    def _records(self) -> list[RunRecord]:
        return [run.record for run in self.runs.finished if run.record is not None]

    @property
    def finished(self) -> str:
        """When the first and the last run were finished; empty if that is unknown."""
        times = sorted(run.finished for run in self.runs.finished if run.finished)
        return (
            " to ".join(dict.fromkeys(time[:16].replace("T", " ") for time in (times[0], times[-1]))) if times else ""
        )


def about(scenario: Scenario) -> str:
    """Return the remarks below a scenario's title."""
    test = scenario.data.sentences["test"]
    parts = [f"Test {scenario.metric_title} in percent; {test:,} test sentences.", scenario.rule]
    parts.append(scenario.data.notes)
    if scenario.replaced:
        parts.append(
            f"{len(scenario.replaced)} run{'s' * (len(scenario.replaced) > 1)} of the same settings and seeds, but of "
            "other code or data, do not count: later ones replace them."
        )
    return " ".join(filter(None, parts))


def write_report(
    folders: Iterable[str | Path],
    output: str | Path,
    title: str = "Results",
    notes: Sequence[str] = (),
    *,
    command: str | None = None,
) -> list[Path]:
    """Write a report on all runs below some folders: :meth:`Report.of` and :meth:`Report.save`."""
    return Report.of(list(folders), title, notes, output=output, command=command).save(output)
