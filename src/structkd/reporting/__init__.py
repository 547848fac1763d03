"""Reports on many runs: tables, tests and plots, written from run folders and never by hand."""

from structkd.reporting.report import Report, write_report
from structkd.reporting.runs import read_runs
from structkd.reporting.scenarios import collect

__all__ = ["Report", "collect", "read_runs", "write_report"]
