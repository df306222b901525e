"""A SLURM cluster of one node on this machine, and a probe that waits, for tests of the engines themselves."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import resource_tracker
from pathlib import Path
from typing import ClassVar

import numpy as np

from pretext.judging import Probe, Score

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel")
CONF = """
ClusterName=test
SlurmctldHost=localhost
SlurmctldPort={control}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=10
NodeName=localhost CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Waits(Probe):
    """Writes its process to the file `begun` of the folder in `WAITS`, and waits for the file `go`."""

    needs: ClassVar = (frozenset({"label"}),)

    def evaluate(self, encoder, data, out=None):
        folder = Path(os.environ["WAITS"])
        with (folder / "begun").open("a") as file:
            file.write(f"{os.getpid()}\n")
        while not (folder / "go").exists():
            time.sleep(0.05)
        items = np.arange(len(data.split("test")), dtype=float)
        yield Score("top1", float(items.mean()), "%", True, 10.0, len(items), headline=True, items=items)


def why_no_slurm() -> str:
    """Return why SLURM cannot be started here; empty if it can."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"no {missing[0]} on this machine; Debian has it in slurm-wlm and munge"
    return "" if os.geteuid() == 0 else "slurmd needs root"


@dataclass(frozen=True)
class OneNode:
    """The daemons of a SLURM cluster."""

    folder: Path
    daemons: dict[str, subprocess.Popen]
    """By name: slurmctld, slurmd."""

    @property
    def conf(self) -> Path:
        """The configuration file."""
        return self.folder / "slurm.conf"

    def start(self, name: str) -> None:
        """Start a daemon, anew if it was killed."""
        node = ["-N", "localhost"] if name == "slurmd" else []
        with (self.folder / f"{name}.out").open("ab") as log:
            self.daemons[name] = subprocess.Popen([name, "-D", "-f", str(self.conf), *node], stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        """Kill a daemon by SIGKILL."""
        self.daemons[name].kill()
        self.daemons[name].wait(timeout=60)

    @contextmanager
    def jobs_held(self) -> Iterator[None]:
        """Hold the running jobs, of which slurmctld knows on disk that they run.

        It saves its state five seconds after a change. Killed before that, it would start them a second time, and
        take the node out of service.
        """
        self._signal(signal.SIGSTOP, of=b"SLURM_JOB_ID=")
        asked = ["squeue", "--noheader", "--states=running", "--format=%S"]
        started = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
        latest = max(datetime.fromisoformat(time).timestamp() for time in started)
        state = self.folder / "state" / "job_state"
        _until(lambda: state.exists() and state.stat().st_mtime > latest + 1, self.folder)
        yield
        self._signal(signal.SIGCONT, of=b"SLURM_JOB_ID=")

    def end(self) -> None:
        """End all daemons, and the processes of jobs that have lost theirs."""
        for process in reversed(self.daemons.values()):
            process.terminate()
            process.wait(timeout=60)
        self._signal(signal.SIGKILL)

    def _signal(self, number: int, *, of: bytes = b"") -> None:
        """Send a signal to the processes of this cluster whose environment has a variable that begins as `of`."""
        for place in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # it has ended
                variables = place.read_bytes().split(b"\0")
                if f"SLURM_CONF={self.conf}".encode() in variables and any(each.startswith(of) for each in variables):
                    os.kill(int(place.parent.name), number)


@contextmanager
def slurm_of_one_node(folder: Path) -> Iterator[OneNode]:
    """Run munged, slurmctld and slurmd with all their files in a folder."""
    # it serves later tests too: started by one of these, it would count as a process of a job
    resource_tracker.ensure_running()
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o600)
    cluster = OneNode(folder, {})
    cluster.conf.write_text(CONF.format(folder=folder, user="root", control=_free_port(), daemon=_free_port()))
    places = {"key-file": "key", "socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log"}
    places |= {"seed-file": "munge.seed"}
    munged = ["munged", "--foreground", "--force", *(f"--{flag}={folder / name}" for flag, name in places.items())]
    with ExitStack() as stack:
        stack.enter_context(_running(munged, folder))
        _until((folder / "munge.socket").exists, folder)
        stack.callback(cluster.end)
        cluster.start("slurmctld")
        cluster.start("slurmd")
        environment = {**os.environ, "SLURM_CONF": str(cluster.conf)}
        asked = ["sinfo", "--noheader", "--format=%T"]

        def idle() -> bool:
            answer = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
            return answer.stdout.strip() == "idle"

        _until(idle, folder)
        yield cluster


@contextmanager
def _running(command: list[str], folder: Path) -> Iterator[None]:
    with (folder / f"{command[0]}.out").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)


def _until(ready, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        said = "".join(file.read_text(errors="replace")[-500:] for file in folder.glob("*.out"))
        assert time.monotonic() < deadline, said
        time.sleep(0.1)


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
