"""A real Slurm on this machine, for tests: one node, partition `main`, and `urgent`, which preempts it by requeueing.

It needs Debian's packages slurm-wlm and munge (no munge daemon runs) and permission to act as SlurmUser root.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

__all__ = ["Slurm"]

_CONFIGURATION = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/none
CredType=cred/none
SlurmctldPort={port}
SlurmdPort={next_port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/log/slurmctld
SlurmdLogFile={folder}/log/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptMode=REQUEUE
PreemptType=preempt/partition_prio
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=4000
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=2
"""


class Slurm:
    """The daemons, from the begin of a with block to its end.

    Args:
        folder: for configuration, state and logs.
    """

    def __init__(self, folder: Path) -> None:
        for command in ("slurmctld", "slurmd", "sbatch"):
            if shutil.which(command) is None:
                raise FileNotFoundError(f"There is no {command}. Install Slurm: apt-get install slurm-wlm munge")
        self.folder, self.host = folder, socket.gethostname()
        for name in ("state", "spool", "log"):
            (folder / name).mkdir(parents=True)
        port = 20_000 + os.getpid() % 20_000
        names = {"host": self.host, "folder": folder, "port": port, "next_port": port + 1, "cores": os.cpu_count()}
        (folder / "slurm.conf").write_text(_CONFIGURATION.format(**names))
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Slurm:
        for name in ("slurmctld", "slurmd"):
            log = (self.folder / "log" / f"{name}.out").open("wb")
            command = [name, "-f", str(self.folder / "slurm.conf"), "-D"]
            self._daemons.append(
                subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
            )
            time.sleep(2)
        for _ in range(60):
            if "idle" in self.call("sinfo", "-h", "-o", "%t", check=False):
                return self
            time.sleep(0.5)
        raise RuntimeError(f"Slurm did not start; see {self.folder / 'log'}.")

    def __exit__(self, *error: object) -> None:
        self.call("scancel", "--user=root", check=False)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait(timeout=30)

    def call(self, *command: str, check: bool = True) -> str:
        """Run a command of Slurm and return its output."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=check)
        return done.stdout

    def running(self) -> list[str]:
        """Return the numbers of the jobs that run in the partition main."""
        return self.call("squeue", "-h", "-p", "main", "-t", "RUNNING", "-r", "-o", "%i", check=False).split()
