"""Run the scenarios and write experiments/results: what `make reproduce` calls.

    python experiments/reproduce.py [--profile quick] [--jobs 2] [--work DIR] [--output DIR]

Several processes share the trainings: a teacher serves all seeds and all scenarios it occurs in, and a file lock sees
to it that it is trained once. Interrupted and started again, it continues: finished trainings are kept and unfinished
ones go on from their last checkpoint.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent


#: Decoding the development split takes its time, above all that of trees; so do parsers.
RARELY = "teacher.trainer.eval_steps=200 student.trainer.eval_steps=200"
BRIEFLY = f"{RARELY} teacher.trainer.max_steps=400 student.trainer.max_steps=400"


@dataclass(frozen=True)
class Profile:
    """What a profile runs.

    Attributes:
        runs: arguments of the commands, each a process of its own; they start in this order.
        trainings: models trained in all.
        minutes: of the data, the trainings and the report, on two cores.
        corpora: fetch PetroGold and Porttinari beforehand.
    """

    runs: tuple[str, ...]
    trainings: int
    minutes: tuple[float, float, float]
    corpora: bool = True


PROFILES = {
    "quick": Profile(
        # Scenarios that share a student come late after each other, so that no process waits for another's.
        runs=tuple(
            f"-m scenario={scenario} seed=0,1 {BRIEFLY if scenario.endswith('b') else RARELY}"
            for scenario in ("case1b", "case4", "case2b", "case2a", "case3", "case1a")
        ),
        # 5 teachers (1a and 2a have the same); for every seed 4 students without a teacher (1b and 2b, 2a and 4 have
        # the same), and in every scenario one by token and one by structural KD
        trainings=5 + 2 * (4 + 6 * 2),
        minutes=(0.5, 12.0, 0.2),
    ),
    # A made-up language, to see whether everything works.
    "tiny": Profile(
        runs=("-m scenario=case1a,case1b,case2a +debug=tiny", "-m scenario=case4,case2b,case3 +debug=tiny"),
        trainings=5 + 4 + 6 * 2,
        minutes=(0.0, 1.0, 0.2),
        corpora=False,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default=os.environ.get("PROFILE") or "quick", help=", ".join(PROFILES))
    parser.add_argument("--jobs", type=int, default=2, help="processes at work at once, of one thread each")
    parser.add_argument("--work", type=Path, default=HERE / "runs", help="where trainings are kept")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="where the report goes")
    options = parser.parse_args()
    if options.profile not in PROFILES:
        sys.exit(f"Unknown profile {options.profile!r}: expected one of {', '.join(PROFILES)}.")
    if options.jobs < 1:
        sys.exit(f"--jobs must be at least 1, got {options.jobs}.")
    profile = PROFILES[options.profile]
    work, output = options.work.absolute(), options.output.absolute()

    data, training, report = profile.minutes
    print(f"Profile {options.profile}: about {data + training + report:.1f} minutes on two cores. It will")
    if profile.corpora:
        print(f"  - load PetroGold and Porttinari, fetched from a package index the first time (about {data:.1f} min)")
    print(f"  - train {profile.trainings} models in {options.jobs} processes (about {training:.1f} min):")
    for run in profile.runs:
        print(f"      structkd {run}")
    print(f"  - write tables and a plot to {output} (about {report:.1f} min)")
    print(f"Trainings are kept in {work}; those that are finished are not repeated.\n", flush=True)

    started = time.monotonic()
    measured = []
    if profile.corpora:
        measured.append(("corpora", _fetch()))
    runs = work / "reproduce" / options.profile
    # Run folders only point at trainings. Old ones go, so that the report speaks of this code and this profile alone.
    shutil.rmtree(runs, ignore_errors=True)
    measured.append(("trainings", _train(profile, options.jobs, work, runs)))
    begun = time.monotonic()
    from structkd.reporting import write_report

    note = (
        f"Made by `make reproduce PROFILE={options.profile}` in {_clock(time.monotonic() - started)} minutes with "
        f"{options.jobs} processes on {os.cpu_count()} cores (a training done before costs nothing)."
    )
    paths = write_report([runs], output, title=f"Results, profile {options.profile}", notes=[note])
    measured.append(("report", time.monotonic() - begun))
    print("\n" + paths[0].read_text(encoding="utf-8"))
    print("Minutes: " + ", ".join(f"{name} {_clock(seconds)}" for name, seconds in measured))
    for path in paths:
        print(f"written: {path}")


def _fetch() -> float:
    """Load the corpora once, before several processes ask for them; returns seconds."""
    begun = time.monotonic()
    from structkd.data import load_petrogold, load_porttinari

    for load in (load_petrogold, load_porttinari):
        corpus = load(task="upos")
        splits = ", ".join(f"{name} {sentences.num_rows}" for name, sentences in corpus.splits.items())
        elapsed = _clock(time.monotonic() - begun)
        print(f"{elapsed}  {corpus.name} is there (sentences: {splits}; licence: {corpus.licence})", flush=True)
    return time.monotonic() - begun


@dataclass
class Worker:
    """Takes commands from a queue and carries them out one after the other."""

    queue: list[list[str]]
    log: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    failed: bool = field(default=False, init=False)

    def step(self) -> bool:
        """Start the next command if the last one is through; False when there is nothing left to do."""
        if self.process is not None:
            status = self.process.poll()
            if status is None:
                return True
            self.failed = status != 0
        if self.failed or not self.queue:
            return False
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.queue.pop(0), env=self.environment, stdout=log, stderr=log)
        return True

    def stop(self) -> None:
        """End the command that is running."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


def _train(profile: Profile, jobs: int, work: Path, runs: Path) -> float:
    """Carry out all runs, telling how far they are; returns seconds."""
    begun = time.monotonic()
    logs = work / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    # One thread each: processes of several threads would only get in each other's way.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "STRUCTKD_WORK": str(work)}
    queue = []
    for number, run in enumerate(profile.runs):
        folder = f"hydra.{'sweep' if run.startswith('-m ') else 'run'}.dir={runs / str(number)}"
        queue.append([sys.executable, "-m", "structkd.commands.main", *shlex.split(run), folder])
    workers = [Worker(queue, logs / f"worker-{number}.log", environment) for number in range(jobs)]
    print(f"0:00  training; what the processes say is in {logs}", flush=True)
    before, told = _finished(work), 0
    try:
        while sum([worker.step() for worker in workers]) and not any(worker.failed for worker in workers):
            done = len(_finished(work) - before)
            if done != told:
                told = done
                print(f"{_clock(time.monotonic() - begun)}  {done} trainings done", flush=True)
            time.sleep(0.5)
    finally:
        for worker in workers:
            worker.stop()
    for worker in workers:
        if worker.failed:
            print(worker.log.read_text(encoding="utf-8")[-3000:], file=sys.stderr)
            sys.exit("A run failed, see above. Start again: it continues where it stopped.")
    return time.monotonic() - begun


def _finished(work: Path) -> set[str]:
    return {path.parent.name for path in work.glob("*-*/metrics.json")}


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


if __name__ == "__main__":
    main()
