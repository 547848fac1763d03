"""Sweeps: run folders named by their overrides, and failed runs that do not stop the others.

A run folder has the same name whether the run was started alone or in a sweep, by whatever launcher, so that a command
given again finds what it finished before. How each run of a sweep ended is written to ``<sweep folder>/.sweeps/`` by
the process that carried it out, and read by the process that started the sweep: they may be on different machines.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import multiprocessing
import os
import shutil
import sys
import traceback
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from structkd.extras import how_to_report
from structkd.files import remove_unfinished, unfinished_prefix
from structkd.records import Failure, RunFolder, SweepRecord

from . import schema  # noqa: F401 - registers a resolver, too
from .index import lists, write_index
from .messages import explain, is_closed_pipe
from .progress import Progress, number_of_runs, seeds_remark
from .terminal import guard_log, guard_process, hide_folders

__all__ = ["Outcomes", "report_sweep", "run_name"]

log = logging.getLogger(__name__)

#: Environment variable of the process that started a sweep: the folder of its records.
_RECORDS = "STRUCTKD_SWEEP_RECORDS"
#: Folder names that are longer end in a hash.
_LONGEST = 120
_NO_PART_OF_NAMES = (["work_dir"], ["trust"])
#: Written as they are, beside letters and digits; legal in file names everywhere.
_LEGAL = "=,.-_+~@[]{}()!&^; "


def run_name(overrides: Sequence[str]) -> str:
    """Return the name of a run's folder: its overrides in alphabetical order, joined by commas.

    Equal for equal overrides in whatever order and spacing they were typed, and different for different ones; a prefix
    (``+x=1``) and quotes (``x="1"``) count as a difference. ``work_dir`` is left out, for the folder lies in it, and so
    is ``trust``, which does not affect the result. Characters that some file system refuses are written as in
    addresses, %2F for a slash. A name of more than 120 characters begins with the keys without a point
    (``kd=structural,seed=0``), is cut, and ends in a hash of the whole. If a file system takes ``BIO`` and ``bio`` for
    one name, two runs may share a folder. Their results have fingerprints, which differ.

    Args:
        overrides: as typed or as a sweeper wrote them, without those of Hydra's own configuration.

    Returns:
        A name of at most 120 ASCII characters; ``defaults`` if nothing was overridden.
    """
    parsed = [
        each
        for each in OverridesParser.create().parse_overrides(list(overrides))
        if _path(each) not in _NO_PART_OF_NAMES
    ]
    written = [_written(each) for each in parsed]
    name = _joined(sorted(written))
    # The order of two overrides of one key matters: the last one decides.
    full = "\n".join(written) if _overlap(parsed) else name
    long = len(name) > _LONGEST
    if long:
        name = _joined(sorted(written, key=lambda each: ("." in each.partition("=")[0], each)))
    if long or full != name:
        name = f"{name[: _LONGEST - 11]}-{hashlib.sha256(full.encode()).hexdigest()[:10]}"
    return name or "defaults"


def _joined(overrides: Sequence[str]) -> str:
    name = urllib.parse.quote(",".join(overrides), safe=_LEGAL)
    return f"{name[:-1]}%{ord(name[-1]):02X}" if name.endswith((".", " ")) else name


def _written(override: Override) -> str:
    if override.is_sweep_override():
        return str(override.input_line)
    key, value = override.get_key_element(), override.get_value_element_as_str()
    # A sweeper writes ~key=null for an override that was typed as ~key.
    return key if override.is_delete() and value in ("", "null") else f"{key}={value}"


def _path(override: Override) -> list[str]:
    return override.get_key_element().lstrip("+~").split(".")


def _overlap(overrides: Sequence[Override]) -> bool:
    paths = [_path(override) for override in overrides]
    return any(
        first == second[: len(first)]
        for row, first in enumerate(paths)
        for column, second in enumerate(paths)
        if row != column
    )


#: How far the sweep of this process is. Not an attribute of the callback, which launchers send to other processes.
_PROGRESS: list[Progress] = []


# Here and not in main(): processes that carry out the runs of a sweep import this module and no more.
OmegaConf.register_new_resolver("run_name", run_name, replace=True)


class Outcomes(Callback):
    """Keeps a sweep going when one of its runs fails, and reports at its end how each run ended.

    An error is written to ``failed.json`` in the run's folder. In a sweep the run then returns nothing, which a sweeper
    that optimises takes for a failed trial; a run that is not part of a sweep is left to fail.
    """

    def __init__(self) -> None:
        self._sweep: str | None = None
        self._records: Path | None = None
        self._command = ""
        self._parallel = False
        self._before: int | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Prepare the records, in the process that starts the sweep; launchers send this object to all others."""
        self._sweep = f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}-{os.getpid()}"
        sweeps = Path(config.hydra.sweep.dir).absolute() / ".sweeps"
        # Named like unfinished files: the next sweep of this machine removes those of sweeps that were killed.
        self._records = sweeps / f"{unfinished_prefix()}{os.getpid()}.{self._sweep}"
        with contextlib.suppress(OSError):  # the launcher meets it again, and there it stops the sweep
            remove_unfinished(sweeps)
            self._records.mkdir(parents=True)
        # main() reports these records if a launcher or a sweeper gives up.
        os.environ[_RECORDS] = str(self._records)
        self._command = os.environ.get("STRUCTKD_COMMAND", "")
        launcher = config.hydra.launcher._target_
        self._parallel = not launcher.endswith(".BasicLauncher")
        if self._parallel and not launcher.endswith(".SlurmLauncher"):
            # Several processes on this machine would each take every core.
            os.environ.setdefault("OMP_NUM_THREADS", "1")
        if os.environ.get("RANK", "0") == "0":
            typed = _swept(config)
            _PROGRESS[:] = [
                Progress(self._records, number_of_runs(config), lambda line: print(line, flush=True), typed)
            ]
            if self._parallel:
                _PROGRESS[0].watch()
            remark = seeds_remark(typed)
            if remark and config.comparisons != []:
                print(remark, flush=True)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if self._command:
            # Not every scheduler hands on the environment, and a process may have served another sweep.
            os.environ["STRUCTKD_COMMAND"] = self._command
        if self._parallel:
            guard_process()
        logging.raiseExceptions = False  # as in main(), which not every process comes from
        if multiprocessing.get_start_method(allow_none=True) not in (None, *multiprocessing.get_all_start_methods()):
            # joblib's workers have a start method that torch's data loaders cannot use.
            multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
        folder = RunFolder(Path(config.hydra.runtime.output_dir))
        self._before = _written_at(folder)
        for name in ("hydra.yaml", "config.yaml", "overrides.yaml"):
            hide_folders(folder.hydra / name)
        if self._records is not None:
            overrides = list(config.hydra.overrides.task)
            record = SweepRecord(folder=str(folder.path), overrides=overrides, status="started")
            with contextlib.suppress(OSError):  # the run itself meets it again
                record.write(self._record(config))
        if self._parallel:
            # Lines of several runs mix; their numbers are those in the launcher's list.
            for handler in logging.getLogger().handlers:
                if type(handler) is logging.StreamHandler:
                    handler.setFormatter(logging.Formatter(f"#{config.hydra.job.num}  %(message)s"))
        guard_log()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Record how a run ended, in the process that carried it out."""
        error = _error(job_return)
        if error is not None:
            job_return.__class__ = _Failed
        if error is not None and is_closed_pipe(error):
            return  # The run has not failed: main() ends with status 1, and the same command goes on from here.
        try:
            self._keep(config, job_return, error)
        except OSError as full:
            # The outcome of the run cannot be kept, and the sweep therefore ends.
            job_return.__class__ = _Failed
            job_return.status, job_return.return_value = JobStatus.FAILED, error or full

    def _keep(self, config: DictConfig, job_return: JobReturn, error: Exception | None) -> None:
        folder = RunFolder(Path(config.hydra.runtime.output_dir))
        if error is None:
            if folder.failure.exists():  # on a read-only file system nothing is to be removed
                folder.failure.unlink(missing_ok=True)
            if os.environ.get("RANK", "0") == "0":
                work_dir = Path(config.work_dir)
                if _written_at(folder) not in (None, self._before):
                    write_index(work_dir, Path(config.hydra.sweep.dir))
                elif not lists(work_dir, folder):  # the process was killed before it wrote the index
                    with contextlib.suppress(OSError):  # on a read-only file system results can be looked at
                        write_index(work_dir, Path(config.hydra.sweep.dir))
        overrides = list(job_return.overrides or [])
        status, message = "finished", ""
        if error is not None:
            status, message = "failed", explain(error)
            failure = Failure(
                error=type(error).__name__,
                message=message,
                traceback="".join(traceback.format_exception(error)),
                overrides=overrides,
                sweep=self._sweep,
                time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            )
            # If torchrun started several processes, one fails first, and its failure makes the others fail.
            if os.environ.get("RANK", "0") == "0" or not folder.failure.exists():
                failure.write(folder.failure)
        if self._records is None:
            return
        if error is not None:
            if "RANK" in os.environ:
                # Other processes wait in the middle of this run: none of them can go on to the next. torchrun ends
                # them when this one ends, and Hydra would let no exception through.
                print(f"structkd: {message}", file=sys.stderr, flush=True)
                os._exit(1)
            log.error("Failed, the sweep goes on: %s", message)
            job_return.status, job_return.return_value = JobStatus.COMPLETED, None
        elif self._before is not None and self._before == _written_at(folder):
            status = "before"
        record = SweepRecord(folder=str(folder.path), overrides=overrides, status=status, message=message)
        record.write(self._record(config))
        if not self._parallel and _PROGRESS:
            _PROGRESS[0].report()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report the sweep, in the process that started it, after its last run."""
        hide_folders(Path(config.hydra.sweep.dir) / "multirun.yaml")
        if report_sweep():
            # Hydra drops the errors of callbacks, but not an exit.
            sys.exit(1)

    def _record(self, config: DictConfig) -> Path:
        assert self._records is not None
        return self._records / f"{int(config.hydra.job.num):06}.json"


def report_sweep() -> bool:
    """Report how the runs of this process's sweep ended, and return whether any of them is not finished.

    Every sweep is reported once. Nothing is printed if there was none.
    """
    folder = os.environ.pop(_RECORDS, None)
    if folder is None:
        return False
    kept = Path(folder)
    for progress in _PROGRESS:
        progress.close()
    _PROGRESS.clear()
    records = [SweepRecord.read(path) for path in sorted(kept.glob("*.json"))]
    shutil.rmtree(kept, ignore_errors=True)
    with contextlib.suppress(OSError):  # another sweep's records are there
        kept.parent.rmdir()
    if records and os.environ.get("RANK", "0") == "0":
        _report(records, os.path.relpath(kept.parent.parent))
    return any(record.status in ("failed", "started") for record in records)


def _report(records: Sequence[SweepRecord], where: str) -> None:
    failed = [record for record in records if record.status == "failed"]
    cut_off = [record for record in records if record.status == "started"]
    before = sum(record.status == "before" for record in records)
    finished = len(records) - len(failed) - len(cut_off)
    counted = [f"{finished} finished ({before} of them before)", f"{len(failed)} failed"]
    counted += [f"{len(cut_off)} not finished"] if cut_off else []
    print(f"\n{len(records)} {'run' if len(records) == 1 else 'runs'} in {where}: {', '.join(counted)}.")
    if any(RunFolder(Path(record.folder)).metrics.exists() for record in records):
        print(f"Report of all runs in that folder: structkd report {where} --output report")
        if how_to_report():
            print(how_to_report())
    sys.stdout.flush()
    for record in failed:
        print(f"\nfailed: {' '.join(record.overrides)}\n  {record.message}", file=sys.stderr)
        print(f"  ({RunFolder(Path(record.folder)).failure} shows where this was noticed.)", file=sys.stderr)
    for record in cut_off:
        print(
            f"\nnot finished: {' '.join(record.overrides)}\n  It was killed, ran out of time, or had no room "
            "to say how it ended.",
            file=sys.stderr,
        )
    if failed or cut_off:
        print("\nGiven again, the command carries out these and leaves the others as they are.", file=sys.stderr)


def _swept(config: DictConfig) -> list[str]:
    """Return the overrides of a sweep: those of a file, then those that were typed, which count."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    return [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]


class _Failed(JobReturn):
    """The end of a run that failed. Hydra's class would print a line beside the message that main() prints."""

    @property
    def return_value(self) -> Any:
        if self.status == JobStatus.COMPLETED:
            return self._return_value
        raise self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


def _error(job_return: JobReturn) -> Exception | None:
    return None if job_return.status == JobStatus.COMPLETED else job_return._return_value


def _written_at(folder: RunFolder) -> int | None:
    try:
        return folder.metrics.stat().st_mtime_ns
    except FileNotFoundError:
        return None
