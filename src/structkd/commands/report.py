"""``structkd report``: tables and a plot of finished runs."""

from __future__ import annotations

import argparse
import sys

from structkd.evaluation.report import collect, markdown, read_runs, write_report

__all__ = ["report"]


def report(arguments: list[str] | None = None) -> None:
    """Read the results of runs and write results.md, results.csv and results.png."""
    parser = argparse.ArgumentParser(
        prog="structkd report",
        description="Tables and a plot of all runs found below some folders, from their metrics.json.",
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folders of runs, such as structkd-runs")
    parser.add_argument("--output", metavar="DIR", help="where to write; without it the tables are printed only")
    parser.add_argument("--title", default="Results", help="heading of results.md")
    options = parser.parse_args(sys.argv[2:] if arguments is None else arguments)
    print(markdown(collect(read_runs(options.folders))))
    if options.output is not None:
        for path in write_report(options.folders, options.output, options.title):
            print(f"written: {path}")
