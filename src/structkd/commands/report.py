"""``structkd report``: tables, tests and plots of finished runs."""

from __future__ import annotations

from pathlib import Path

from structkd.extras import how_to_report

from .arguments import parser_of

__all__ = ["command"]

_DESCRIPTION = """\
Tables, tests and plots of all runs found below some folders.

Runs of one scenario, corpus and teacher make a table: a line per method and setting, its mean and standard deviation
over seeds, the gap to the teacher closed, KL(teacher || student), words per second. If teachers differ, a table's
title says in what. The comparisons that the configurations declare are tested over paired seeds (exact sign-flip test,
Holm-corrected over the whole report; with too few seeds the verdict is "inconclusive") and over test sentences (95 %
BCa bootstrap interval). Runs that failed or are not finished are listed.
"""

_EPILOG = """\
files in --output:
  results.html        everything, in one page that needs no other file and no network
  results.md          the same as Markdown, with the plots beside it
  results.csv         one line per trained model, unrounded
  comparisons.csv     one line per comparison
  *.png               bars, learning curves, divergence; curves over temperature, labelled and unlabelled sentences
                      if runs vary in them
Links to run folders are relative: move the report and the runs together.

examples:
  structkd report structkd-runs --output results
  structkd report structkd-runs/runs/scenario=case1a* --output case1a --title "Case 1a"
  structkd report structkd-runs                               # on the terminal only
"""


def command(arguments: list[str]) -> None:
    """Read the results of runs, print them, and write them to a folder if one is given."""
    parser = parser_of("report", _DESCRIPTION, _EPILOG)
    parser.add_argument("folders", nargs="+", metavar="RUNS", help="folders that hold runs, such as structkd-runs")
    parser.add_argument("--output", metavar="DIR", type=Path, help="where to write; without it nothing is written")
    parser.add_argument("--title", default="Results", help="heading of the report (default: Results)")
    options = parser.parse_args(arguments)
    if how_to_report():
        raise NotImplementedError(f"{how_to_report()}. A run's own table is in the file results.md of its folder.")
    if options.output is not None and (options.output / "metrics.json").exists():
        raise ValueError(
            f"{options.output} is the folder of a run, whose results.md would be replaced; name another folder for "
            "--output."
        )
    # Loads matplotlib and scipy: not before they are needed.
    from structkd.reporting import Report

    found = Report.of(options.folders, options.title, output=options.output)
    print(found.terminal)
    if options.output is not None:
        for path in found.save(options.output):
            print(f"written: {path}")
