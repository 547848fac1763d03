"""Run sweeps on a real Slurm and disturb them, one on Ray, and a training of two processes: `make test-cluster`.

    python tests_cluster/run.py [--only cancelled preempted ...] [--place DIR]

Every disturbed sweep has to end with the bytes of one that nobody disturbed. If Slurm requeues jobs by itself, nothing
is typed again; otherwise the same command is given once more.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from slurm import Slurm

ROOT = Path(__file__).resolve().parents[1]
# Ray gives its processes one thread, and other numbers of threads give other last digits.
os.environ.setdefault("OMP_NUM_THREADS", "1")
TINY = (
    *("+debug=tiny", "~kd@baselines.token", "~kd@baselines.none", "student.labelled=5", "student.unlabelled=8"),
    *("teacher.trainer.max_steps=4", "teacher.trainer.eval_steps=2"),
    *("student.trainer.max_steps=300", "student.trainer.eval_steps=20"),
)
SWEEP = ("-m", *TINY, "seed=0,1")
ON_SLURM = (
    *("hydra/launcher=submitit_slurm", "hydra.launcher.partition=main", "hydra.launcher.cpus_per_task=1"),
    *("hydra.launcher.mem_gb=1", "hydra.launcher.timeout_min=30"),
)
LIMIT = 600.0
# Ray's launcher asks for a store of its own, which a cluster that is up refuses.
NO_STORE = "+hydra.launcher.ray.init.object_store_memory=null"
RAY = Path(__file__).parent / ".ray" / "packages"


def results(work: Path) -> dict[str, str]:
    """Return the sha256 of the files that are the same however they are made."""
    names = ("metrics.json", "model.safetensors", "test.jsonl.gz", "dev.jsonl.gz")
    files = [path for path in work.rglob("*") if path.name in names and not path.is_symlink()]
    return {
        str(path.relative_to(work)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
        if "checkpoints" not in path.parts and "models" not in path.parts
    }


class Sweep:
    """The command of a sweep, in a folder of its own."""

    def __init__(self, folder: Path, slurm: Slurm, *settings: str) -> None:
        self.folder, self.slurm, self.settings = folder, slurm, settings
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log.txt"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def work(self) -> Path:
        """The working folder."""
        return self.folder / "structkd-runs"

    def start(self) -> Sweep:
        """Give the command."""
        command = [sys.executable, "-m", "structkd", *SWEEP, *ON_SLURM, *self.settings]
        self.process = subprocess.Popen(
            command, cwd=self.folder, env=self.slurm.environment, stdout=self.log.open("ab"), stderr=subprocess.STDOUT
        )
        return self

    def wait_until_training(self) -> list[str]:
        """Return the jobs that run, when a student has a checkpoint."""
        deadline = time.monotonic() + LIMIT
        while not list(self.work.glob("student-*/checkpoints/checkpoint-*")):
            if time.monotonic() > deadline or (self.process is not None and self.process.poll() is not None):
                raise RuntimeError(f"No student began to train: {self.log.read_text()[-2000:]}")
            time.sleep(0.1)
        return self.slurm.running()

    def end_or_interrupt(self) -> int:
        """Return the exit status; if Slurm keeps no accounts, submitit waits for killed jobs until it is stopped."""
        assert self.process is not None
        while self.process.poll() is None and self.slurm.call("squeue", "-h", check=False).strip():
            time.sleep(1)
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGINT)
            return self.end()

    def end(self) -> int:
        """Return the command's exit status."""
        assert self.process is not None
        return self.process.wait(timeout=LIMIT)


def plain(sweep: Sweep, slurm: Slurm) -> int:
    """Nobody disturbs it."""
    return sweep.start().end()


def cancelled(sweep: Sweep, slurm: Slurm) -> int:
    """One job is killed by scancel; the command says so, and is given again."""
    sweep.start()
    slurm.call("scancel", sweep.wait_until_training()[0])
    if sweep.end_or_interrupt() == 0:
        raise RuntimeError("The command ended with status 0 although a job was killed.")
    return sweep.start().end()


def preempted(sweep: Sweep, slurm: Slurm) -> int:
    """Jobs of a higher partition take the node; Slurm requeues the sweep's jobs, and nothing is typed."""
    sweep.start().wait_until_training()
    slurm.call("sbatch", "-p", "urgent", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3")
    return sweep.end()


def drained(sweep: Sweep, slurm: Slurm) -> int:
    """The node is drained in the middle and its jobs are requeued; later it comes back, and nothing is typed."""
    jobs = sweep.start().wait_until_training()
    slurm.call("scontrol", "update", f"nodename={slurm.host}", "state=drain", "reason=test")
    for job in jobs:
        slurm.call("scontrol", "requeue", job, check=False)
    time.sleep(3)
    slurm.call("scontrol", "update", f"nodename={slurm.host}", "state=resume")
    return sweep.end()


def out_of_time(sweep: Sweep, slurm: Slurm) -> int:
    """The time limit is reached: submitit requeues the jobs before it, and nothing is typed."""
    jobs = sweep.start().wait_until_training()
    # The signal that Slurm sends to the job's steps before the limit, without the wait for it.
    for job in jobs:
        slurm.call("scancel", "--signal=USR2", job)
    return sweep.end()


SCENARIOS: dict[str, tuple[Callable[[Sweep, Slurm], int], tuple[str, ...]]] = {
    "plain": (plain, ()),
    "cancelled": (cancelled, ()),
    "preempted": (preempted, ()),
    "drained": (drained, ()),
    "out of time": (out_of_time, ("hydra.launcher.max_num_timeout=3",)),
}


def ray(place: Path, wanted: dict[str, str]) -> str:
    """Run the sweep on a cluster of Ray, which is started and stopped."""
    if not RAY.is_dir():
        return f"bad: there is no {RAY}; make test-cluster installs Ray there"
    folder = place / "ray"
    folder.mkdir(parents=True)
    paths = [str(RAY), *filter(None, [os.environ.get("PYTHONPATH")])]
    # Ray's processes have the environment in which it was started.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "RAY_USAGE_STATS_ENABLED": "0"}
    log = (folder / "log.txt").open("ab")

    def call(*command: str) -> int:
        return subprocess.run(
            [sys.executable, "-m", *command], cwd=folder, env=environment, stdout=log, stderr=log, check=False
        ).returncode

    call("ray.scripts.scripts", "start", "--head", "--num-cpus=2", "--include-dashboard=false", "--port=0")
    try:
        status = call("structkd", *SWEEP, "hydra/launcher=ray", "hydra.launcher.ray.init.address=auto", NO_STORE)
    finally:
        call("ray.scripts.scripts", "stop", "--force")
    if status:
        return f"bad: the command ended with status {status}; see {folder / 'log.txt'}"
    same = results(folder / "structkd-runs") == wanted
    return "good: status 0 and the same bytes" if same else f"bad: other bytes; see {folder}"


def torchrun(place: Path) -> str:
    """Kill one of two processes of a training: the other ends within a minute, and the same command goes on."""
    folder = place / "torchrun"
    folder.mkdir(parents=True)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--max-restarts=0",
        "-m",
        "structkd",
    ]
    log = (folder / "log.txt").open("ab")
    process = subprocess.Popen([*command, *TINY], cwd=folder, stdout=log, stderr=log)
    deadline = time.monotonic() + LIMIT
    while not list(folder.glob("structkd-runs/student-*/checkpoints/checkpoint-*")):
        if time.monotonic() > deadline or process.poll() is not None:
            return f"no student began to train: {(folder / 'log.txt').read_text()[-2000:]}"
        time.sleep(0.1)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    begun = time.monotonic()
    status = process.wait(timeout=LIMIT)
    seconds = time.monotonic() - begun
    if status == 0 or seconds > 60:
        return f"it ended with status {status} after {seconds:.0f} s"
    again = subprocess.run([*command, *TINY], cwd=folder, stdout=log, stderr=log, check=False)
    finished = list((folder / "structkd-runs" / "runs").glob("*/metrics.json"))
    if again.returncode or not finished:
        return f"the same command ended with status {again.returncode}: {(folder / 'log.txt').read_text()[-2000:]}"
    return f"good: the others ended after {seconds:.0f} s, and the same command finished"


def main() -> None:
    """Run the scenarios, and say how each ended."""
    # A shell that starts this in the background has it ignore Ctrl-C, and the commands would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*SCENARIOS, "ray", "torchrun"]
    parser.add_argument("--only", nargs="+", choices=every, default=every)
    parser.add_argument("--place", type=Path, default=None, help="folder to work in, to be looked at afterwards")
    options = parser.parse_args()
    place = (options.place or Path(tempfile.mkdtemp(prefix="structkd-cluster-"))).resolve()
    shutil.rmtree(place, ignore_errors=True)
    (place / "alone").mkdir(parents=True)
    alone = subprocess.run(
        [sys.executable, "-m", "structkd", *SWEEP], cwd=place / "alone", capture_output=True, text=True, check=False
    )
    if alone.returncode:
        sys.exit(f"The sweep failed without a cluster: {alone.stderr[-2000:]}")
    wanted, bad = results(place / "alone" / "structkd-runs"), []

    def say(name: str, outcome: str, begun: float) -> None:
        print(f"{name}: {outcome} ({time.monotonic() - begun:.0f} s)", flush=True)
        if not outcome.startswith("good"):
            bad.append(name)

    chosen = [name for name in SCENARIOS if name in options.only]
    if chosen:
        with Slurm(place / "slurm") as slurm:
            for name in chosen:
                begun, (scenario, settings) = time.monotonic(), SCENARIOS[name]
                sweep = Sweep(place / name.replace(" ", "-"), slurm, *settings)
                try:
                    status = scenario(sweep, slurm)
                    same = results(sweep.work) == wanted
                    outcome = "good: status 0 and the same bytes" if status == 0 and same else "bad: "
                    outcome += (
                        "" if status == 0 and same else f"status {status}, {'the same' if same else 'other'} bytes"
                    )
                except (RuntimeError, subprocess.SubprocessError, IndexError) as error:
                    outcome = f"bad: {error!r}"
                if not outcome.startswith("good"):
                    outcome += f"; see {sweep.log}"
                say(name, outcome, begun)
    if "ray" in options.only:
        begun = time.monotonic()
        say("ray", ray(place, wanted), begun)
    if "torchrun" in options.only:
        begun = time.monotonic()
        say("torchrun", torchrun(place), begun)
    if not bad and options.place is None:
        shutil.rmtree(place, ignore_errors=True)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
