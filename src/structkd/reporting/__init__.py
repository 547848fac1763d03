"""Reports on many runs: tables, significance tests and plots, generated from run folders."""

from structkd.reporting.report import Report, write_report
from structkd.reporting.runs import read_runs
from structkd.reporting.scenarios import collect

__all__ = ["Report", "collect", "read_runs", "write_report"]
