"""Carry out a profile of experiments/profiles.yaml and report on it: what `make reproduce` calls.

    python experiments/reproduce.py [--profile quick] [--jobs 2] [--work DIR] [--output DIR] [--dry-run]

Several processes share the trainings: a teacher serves all seeds and all scenarios it occurs in. Stopped at any time
and started again, it goes on: finished runs and trainings are kept, and unfinished ones continue from their last
checkpoint. A run that fails does not stop the others; it is named at the end, and tried again the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from planning import PROFILES, Command, Plan, Progress, next_command, plan, read_profiles, run_key

from structkd.records import Failure, RunFolder

HERE = Path(__file__).resolve().parent
#: Seconds between two lines on how far it is, where no training is finished in between.
SILENCE = 600.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default=os.environ.get("PROFILE") or "quick", help="quick, cpu, paper or tiny")
    parser.add_argument("--profiles", type=Path, default=PROFILES, help="the file that describes them")
    parser.add_argument("--jobs", type=int, default=2, help="processes at work at once, of one thread each")
    parser.add_argument("--work", type=Path, default=HERE / "runs", help="trainings and runs are kept in DIR/<profile>")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="the report goes to DIR/<profile>")
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what would be done, and how long it would take"
    )
    options = parser.parse_args()
    profiles = read_profiles(options.profiles)
    if options.profile not in profiles:
        sys.exit(f"Unknown profile {options.profile!r}: expected one of {', '.join(profiles)}.")
    if options.jobs < 1:
        sys.exit(f"--jobs must be at least 1, got {options.jobs}.")
    work, output = ((folder / options.profile).absolute() for folder in (options.work, options.output))

    from structkd.runs.fingerprint import code_fingerprint

    planned = plan(profiles[options.profile])
    progress = Progress(planned, work, code_fingerprint())
    progress.update()
    print(_outlook(options.profile, progress, options.jobs, output, every=options.dry_run), flush=True)
    if options.dry_run:
        return 0
    started = time.monotonic()
    missing = dict.fromkeys(_missing(planned.configurations))
    if missing:
        hint = "Files of your own are looked for in the folder that STRUCTKD_DATA names; docs/published.md says which."
        sys.exit(
            "\n".join(["Not everything that this profile needs is there:", *(f"- {each}" for each in missing), hint])
        )
    status = _carry_out(progress, options.jobs, work)
    failures = _failures(planned, work, status)
    minutes = _clock(time.monotonic() - started)
    note = (
        f"Made by `make reproduce PROFILE={options.profile}`: {len(planned.trainings)} trainings; its last part took "
        f"{minutes} with {options.jobs} processes on {os.cpu_count()} cores."
    )
    _report(planned, options.profile, work, output, [note])
    print(f"Took {minutes}.")
    if failures:
        print("\n".join(["", "Not everything was done; start again to try again:", *failures]), file=sys.stderr)
    return 1 if failures else 0


def _outlook(name: str, progress: Progress, jobs: int, output: Path, every: bool) -> str:
    """What is going to be done; with every command, or those of the first seeds alone."""
    planned = progress.plan
    done, all_of_them = len(progress.done), len(planned.trainings)
    shown = planned.commands if every else planned.rounds[0]
    others = [commands[0].arguments[-1] for commands in planned.rounds[1:] if not every]
    lines = [
        f"Profile {name}: {planned.about}.",
        f"{len(planned.runs)} runs by {len(planned.commands)} commands, in {jobs} processes:",
        *(f"    {command}" for command in shown),
        *([f"    and the same with {', then '.join(others)}"] if others else []),
        f"They share {all_of_them} trainings"
        + (f", of which {done} are done" if done else "")
        + f"; {_left(progress, jobs)}. Tables and plots go to {output}.",
        f"Trainings and runs are kept in {progress.work}; what is finished is not repeated.",
    ]
    return "\n".join(lines) + "\n"


def _left(progress: Progress, jobs: int) -> str:
    seconds = progress.remaining(jobs)
    if seconds is None:
        return "how long they take will be known when some are done"
    if seconds == 0:
        return "nothing is left to train"
    minutes = max(1, round(seconds / 60))
    return f"about {minutes // 60} h {minutes % 60:02d} min left" if minutes >= 60 else f"about {minutes} min left"


def _missing(configurations: tuple[dict[str, Any], ...]) -> Iterator[str]:
    """Load every corpus once, before several processes ask for it; tells what cannot be had, and how to get it."""
    from structkd.runs.instantiate import instantiate

    begun = time.monotonic()
    asked = set()
    for config in configurations:
        for node in filter(None, (config["data"], config["student"]["text"], *_pretrained(config))):
            # A corpus that is there for one task is there for all.
            key = json.dumps(_without(node, "task"), sort_keys=True)
            if key in asked:
                continue
            asked.add(key)
            try:
                found = _load(node, instantiate)
            except (FileNotFoundError, ValueError) as error:
                yield str(error)
            else:
                print(f"{_clock(time.monotonic() - begun)}  {found} is there", flush=True)


def _load(node: Mapping[str, Any], instantiate: Any) -> str:
    """Have what a node names; returns what it is called."""
    if "vectors" in node:
        path = Path(node["vectors"]).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}, a file of word vectors, is not there. Those of fastText are at "
                "https://fasttext.cc/docs/en/crawl-vectors.html; STRUCTKD_VECTORS names the folder that holds them."
            )
        return str(path)
    if "pretrained" in node:
        from transformers import AutoConfig

        from structkd.data import PackageFolder, cached_package_folder

        name = instantiate(node["pretrained"])
        if isinstance(name, PackageFolder):
            return str(cached_package_folder(name))
        try:
            AutoConfig.from_pretrained(name)
        except OSError as error:
            raise FileNotFoundError(
                f"The encoder {name} is no local folder, and the Hugging Face hub cannot be reached or lacks it. Fetch "
                "it where the hub can be reached, and set HF_HOME to that cache."
            ) from error
        return name
    found = instantiate(node)
    return getattr(found, "name", None) or str(node.get("path", node["_target_"]))


def _pretrained(config: Any) -> Iterator[dict[str, Any]]:
    """The pretrained encoders and files of word vectors that a configuration names."""
    if not isinstance(config, Mapping):
        return
    if config.get("_target_") == "structkd.models.TransformerRecipe":
        yield {"pretrained": config["name"]}
    elif config.get("vectors") is not None:
        yield {"vectors": config["vectors"]}
    for value in config.values():
        yield from _pretrained(value)


def _without(node: Any, key: str) -> Any:
    if not isinstance(node, Mapping):
        return node
    return {name: _without(value, key) for name, value in node.items() if name != key}


@dataclass
class Worker:
    """A command that is being carried out."""

    command: Command
    process: subprocess.Popen[bytes]
    log: Path


def _carry_out(progress: Progress, jobs: int, work: Path) -> dict[str, int]:
    """Carry out all commands, telling how far they are; returns the exit status of those that failed, by log."""
    begun = time.monotonic()
    logs = work / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    # One thread each: processes of several threads would only get in each other's way.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "STRUCTKD_WORK": str(work)}
    queue, running = list(progress.plan.commands), list[Worker]()
    failed: dict[str, int] = {}
    count = len(progress.plan.trainings)
    told, when = len(progress.done), begun
    print(f"0:00  training; what the processes say is in {logs}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: the processes end with this one
    try:
        while queue or running:
            for worker in [worker for worker in running if worker.process.poll() is not None]:
                running.remove(worker)
                if worker.process.returncode:
                    failed[str(worker.log)] = worker.process.returncode
            while queue and len(running) < jobs:
                progress.update()
                command = next_command(queue, [worker.command for worker in running], progress.done)
                running.append(_start(command, work, logs, environment))
            progress.update()
            done = len(progress.done)
            if done != told or time.monotonic() - when > SILENCE:
                told, when = done, time.monotonic()
                left = _left(progress, jobs)
                print(f"{_clock(when - begun)}  {done} of {count} trainings done, {left}", flush=True)
            time.sleep(0.5)
    except KeyboardInterrupt:
        sys.exit(f"Stopped after {_clock(time.monotonic() - begun)}. Started again, it goes on where it was.")
    finally:
        for worker in running:
            worker.process.terminate()
        for worker in running:
            worker.process.wait()
    return failed


def _start(command: Command, work: Path, logs: Path, environment: dict[str, str]) -> Worker:
    path = logs / f"{command.name}.log"
    arguments = [sys.executable, "-m", "structkd", *command.arguments]
    with path.open("w") as log:
        process = subprocess.Popen(arguments, env=environment, stdout=log, stderr=log)
    return Worker(command, process, path)


def _run_folders(planned: Plan, work: Path) -> dict[frozenset[str], Path]:
    """The folders of the profile's runs. Others in the same place, of an older profile say, are passed over."""
    found = {}
    for path in sorted((work / "runs").glob("*/.hydra/overrides.yaml")):
        run = run_key(yaml.safe_load(path.read_text(encoding="utf-8")) or [])
        if run in planned.runs:
            found[run] = path.parents[1]
    return found


def _failures(planned: Plan, work: Path, status: Mapping[str, int]) -> list[str]:
    """What was not done, one paragraph each."""
    folders = _run_folders(planned, work)
    lines = []
    for command in planned.commands:
        for run in command.runs:
            folder = folders.get(run)
            name = " ".join(sorted(run))
            failure = None if folder is None else Failure.find(RunFolder(folder).failure)
            if failure is not None:
                lines.append(f"- {name}: {failure.error}: {failure.message}")
            elif folder is None or not RunFolder(folder).metrics.is_file():
                lines.append(f"- {name}: not finished, see {work / 'logs' / command.name}.log")
    lines += [f"- exit status {code} of the command whose log is {log}" for log, code in status.items()]
    return lines


def _report(planned: Plan, profile: str, work: Path, output: Path, notes: list[str]) -> None:
    """Page, tables and plots of the profile's runs; those that failed or are not finished are listed."""
    folders = [folder for folder in _run_folders(planned, work).values() if folder.is_dir()]
    if not any(RunFolder(folder).metrics.is_file() for folder in folders):
        print("No run is finished: there is nothing to report.")
        return
    from structkd.reporting import Report

    report = Report.of(
        folders, f"Results, profile {profile}", notes, output=output, command=f"make reproduce PROFILE={profile}"
    )
    print(f"\n{report.terminal}")
    for path in report.save(output):
        print(f"written: {path}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


if __name__ == "__main__":
    sys.exit(main())
