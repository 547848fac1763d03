"""The console command ``structkd``."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import re
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf

from structkd.harmless import printable
from structkd.plugins import freeze_plugins, plugins
from structkd.records import RunFolder, RunMetrics
from structkd.runs.finished import find
from structkd.runs.models import usage_lines
from structkd.spelling import did_you_mean

from . import sweep  # registers the resolver that names run folders, too
from .arguments import without_dashes
from .help import help_text
from .messages import explain, is_closed, is_closed_pipe, is_read_only, is_user_error, silence_output
from .schema import register_schema
from .shorthand import written_out
from .terminal import guarded_output, print_traceback
from .vetting import trust_typed, vetted

__all__ = ["main"]

register_schema()

log = logging.getLogger(__name__)

#: Commands that read their own arguments: each is the function ``command`` of the module of its name, hyphens aside.
_OF_THEIR_OWN = ("report", "predict", "evaluate", "export", "benchmark", "list", "check-data", "env")
#: Commands that may stand in place of the first key=value.
_COMMANDS = ("targets", *_OF_THEIR_OWN, "demo")
#: Commands that do nothing but print, if they have no --output.
_PRINTING = ("predict", "evaluate", "benchmark", "report", "list", "check-data", "env", "--help", "-h", "--version")
#: Words that other tools start a training with.
_TRAINING = ("train", "distil", "distill", "fit", "run")
#: Options of Hydra.
_OPTIONS = (
    *("--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun", "--info"),
    *("--shell-completion", "--config-path", "--config-name", "--config-dir", "--experimental-rerun"),
)
#: The folder of a command is different for every user, and is left out of the command that is kept.
_PLACES = ("hydra.run.dir=", "hydra.sweep.dir=")


def distil_job(config: DictConfig) -> float:
    """Carry out one run, and return the value that a sweeper may optimize: the method's main dev metric."""
    run = _distilled(config)
    return run.student.dev[run.metric]


def demo_job(config: DictConfig) -> None:
    """Carry out the run of ``structkd demo``, and explain what came out."""
    from structkd.runs.demonstration import conclude  # loads datasets, as the run does

    run = _distilled(config)
    conclude(run, Path(_job(config)[0]["work_dir"]))


def _distilled(config: DictConfig) -> RunMetrics:
    job = _job(config)
    run = find(*job[:2])
    if run is not None:
        log.info("Finished before: %s", RunFolder(job[1]).results)
        for line in usage_lines(run, Path(job[0]["work_dir"]), RunFolder(job[1])):
            log.info("%s", line)
    else:
        # Loads transformers and datasets: not before they are needed.
        from structkd.runs.distil import distil

        run = distil(*job)
    return run


def targets_job(config: DictConfig) -> None:
    """Compute and keep the teacher's scores for the text of one run."""
    from structkd.runs.store_scores import store_scores

    store_scores(*_job(config))


def _job(config: DictConfig) -> tuple[dict[str, Any], Path, str, list[str]]:
    """Return the configuration, the output folder, the command as typed, and the overrides of this run."""
    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    # Hydra changes the working directory if hydra.job.chdir is true.
    plain["work_dir"] = to_absolute_path(os.path.expanduser(plain["work_dir"]))
    job = HydraConfig.get()
    overrides = list(job.overrides.task)
    # The launchers of some clusters do not hand on the environment. The loader has refused a trust that was not typed.
    trust_typed(overrides)
    if plain.pop("trust", None) is not None:
        log.info("Trusted by this command: %s", ", ".join(plugins()))
    # Some launchers' processes, Ray's on other machines, do not inherit the environment.
    command = os.environ.get("STRUCTKD_COMMAND") or shlex.join(["structkd", *overrides])
    return plain, Path(job.runtime.output_dir), command, overrides


def main() -> None:
    """Run a command such as ``structkd report ...``, or hand the command line to Hydra.

    A user's error is one paragraph and exit status 1; HYDRA_FULL_ERROR=1 shows where it was raised. If nobody reads
    the output any more, as after ``| head``, the command ends with no word: with status 0 if it only prints, and
    otherwise with status 1, as something is left undone.
    """
    typed = sys.argv[1:]
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the one who started the command, as by 2>&-
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    freeze_plugins()
    own = bool(typed) and typed[0] in _OF_THEIR_OWN
    # Jobs in other processes inherit it.
    os.environ["STRUCTKD_COMMAND"] = shlex.join(["structkd", *(each for each in typed if not each.startswith(_PLACES))])
    said = os.environ.get("HYDRA_FULL_ERROR")
    wanted = said not in (None, "", "0")
    # Hydra would print tracebacks of its own and exit; the message is decided here instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    before = signal.signal(signal.SIGTERM, _terminate)
    # A full disk or a closed pipe is met again by the next write; logging would only add a traceback.
    raising, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        with guarded_output():
            _run_and_flush(typed)
    except KeyboardInterrupt as stop:
        continues = "" if own else " The same command continues where it stopped; what is finished is not done again."
        print(f"structkd: interrupted.{continues}", file=sys.stderr)
        sys.exit(143 if isinstance(stop, _Terminated) else 130)
    except Exception as error:
        closed = is_closed_pipe(error)
        enough = _only_prints(typed) and is_closed(sys.stdout)  # the reader has all that it wanted
        if closed or not _is_writable(sys.stdout):
            silence_output(sys.stdout)
        if closed and not wanted:
            silence_output(sys.stderr)
            sweep.report_sweep()
            sys.exit(0 if enough else 1)
        # A launcher whose worker was killed, or a sweeper without one good run, gives up before the report.
        if sweep.report_sweep() and not wanted:
            kind = "" if is_user_error(error) else f"{type(error).__name__}: "
            print(f"structkd: {kind}{printable(explain(error))}", file=sys.stderr)
            sys.exit(1)
        if wanted or not is_user_error(error):
            # The interpreter prints it, after the streams are unguarded; it may quote a file.
            sys.excepthook = print_traceback
            raise
        message = explain(error, "--output") if own else explain(error)
        print(f"structkd: {printable(message)}", file=sys.stderr)
        print("(HYDRA_FULL_ERROR=1 shows where this was noticed.)", file=sys.stderr)
        sys.exit(1)
    finally:
        logging.raiseExceptions = raising
        signal.signal(signal.SIGTERM, before)
        if said is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = said


def _run_and_flush(typed: list[str]) -> None:
    """Run the command, and notice here if its last output cannot be written."""
    try:
        _run(typed)
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _only_prints(typed: list[str]) -> bool:
    """Return whether a command does nothing but print."""
    return bool(typed) and typed[0] in _PRINTING and not any(each.startswith("--output") for each in typed)


def _is_writable(stream: Any) -> bool:
    try:
        stream.flush()
    except OSError:
        return False
    return True


def _run(typed: list[str]) -> None:
    if typed and typed[0] in _OF_THEIR_OWN:
        # A module with its libraries is loaded when its command is given.
        module = importlib.import_module(f".{typed[0].replace('-', '_')}", __package__)
        module.command(typed[1:])
        return
    if typed in (["--help"], ["-h"]):
        print(help_text())
        return
    if typed == ["--version"]:
        print(f"structkd {importlib.metadata.version('structkd')}")
        return
    if (
        typed
        and re.fullmatch("[A-Za-z_-]+", typed[0])
        and typed[0] not in ("targets", "demo")
        and not typed[0].startswith("-")
    ):
        meant = did_you_mean(typed[0], (*_COMMANDS, *_TRAINING))
        if any(repr(word) in meant for word in _TRAINING):
            meant = " A training has no word for a command: structkd scenario=case2a data=..."
        raise ValueError(
            f"{typed[0]!r} is neither a command ({', '.join(_COMMANDS)}) nor key=value.{meant} See structkd --help."
        )
    for each in typed:
        option = each.partition("=")[0]
        if option.startswith("--") and not any(known.startswith(option) for known in _OPTIONS):
            hint = without_dashes(each) or did_you_mean(option, _OPTIONS) or " See structkd --help."
            raise ValueError(f"There is no option {option}.{hint}")
    if any(each.startswith("--experimental-rerun") for each in typed):
        raise ValueError("--experimental-rerun reads a pickle, which can run code. Give the command of the run again.")
    job: Any = distil_job
    if typed[:1] == ["demo"]:
        from .demo import overrides_of

        job, typed = demo_job, overrides_of(typed[1:])
    typed = written_out(typed)
    trusted = trust_typed(typed)
    sys.argv[1:] = typed
    if typed[:1] == ["targets"]:
        job = targets_job
        # A report recognizes a run by its .hydra/, so this folder must not have one.
        sys.argv[1:] = [*typed[1:], "hydra.output_subdir=null"]
    # For conf/config.yaml, and for jobs in other processes, which inherit it.
    os.environ["STRUCTKD_RUNS"] = "targets" if job is targets_job else "runs"
    if os.environ.get("RANK", "0") != "0":
        # Only one of the processes that torchrun started prints.
        sys.argv += ["hydra/job_logging=disabled", "hydra/hydra_logging=disabled", "hydra.output_subdir=null"]
    if trusted and os.environ.get("RANK", "0") == "0":
        print(f"Trusted by this command: {', '.join(trusted)}", file=sys.stderr)
    # Not as a decorator: launchers send the job to other processes by its name, which must be its own.
    command = hydra.main(version_base="1.3", config_path="pkg://structkd.conf", config_name="config")(job)
    given = list(sys.argv)
    with vetted():
        try:
            command()
        except Exception as error:
            if job is not distil_job or {"-m", "--multirun"} & set(given) or not is_read_only(error):
                raise
            # A finished run can be looked at where nothing can be written: without Hydra's copies and its log file.
            sys.argv = [*given, "hydra.output_subdir=null", "hydra/job_logging=stdout"]
            try:
                command()
            except Exception:
                raise error from None


class _Terminated(KeyboardInterrupt):
    pass


def _terminate(signum: int, frame: Any) -> None:
    raise _Terminated


if __name__ == "__main__":
    main()
