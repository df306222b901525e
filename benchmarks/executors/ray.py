"""Tasks of a Ray cluster, one per cell. The nodes must see the data, and OUT unless files travel with the cells."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from benchmarks.executors.apart import needed_files, run_apart, take_back
from benchmarks.executors.base import GRACE_S, RETRIES, Executor, Outcome, failed, node_variables, run_on_node
from benchmarks.planning.cells import Cell
from pretext.system.errors import UserError
from pretext.system.ranges import check_range

CONNECT_S = 10.0
"""Seconds that the head of a cluster may take to answer."""


@final
class RayTasks(Executor):
    """Sends cells to a Ray cluster. A cell whose node or worker is lost starts again on another, `RETRIES` times."""

    package = "ray"

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Options of the cluster and of a task."""

        address: str = ""
        """Address of a cluster, as in 10.0.0.1:6379, or auto; if omitted, a cluster is started on this machine."""
        gpus: float | None = None
        """GPUs of a cell: 0, 1, or a share of one, as in 0.5; if omitted, 1 if the cluster has a GPU."""
        cpus: float = 1.0
        """Processor cores of a cell."""
        shared: bool = True
        """Whether all nodes see --out. If not, files travel with the cells, and a lost cell starts anew."""

        def __post_init__(self) -> None:
            check_range(self, "gpus", least=0, most=1)
            check_range(self, "cpus", above=0)

    def __init__(self, out: Path, workers: int | None, config: Config) -> None:
        """See `Executor`; connects to the cluster.

        Raises:
            UserError: If the cluster does not answer, or none of its nodes has room for a cell.
        """
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        ray: Any = importlib.import_module("ray")
        self._ray, self.out = ray, out.resolve()
        self._running: dict[Any, tuple[Cell, float]] = {}
        try:
            if host := re.fullmatch(r"([^/]+):(\d+)", config.address):  # Ray itself waits for minutes
                socket.create_connection((host[1], int(host[2])), timeout=CONNECT_S).close()
            own = None if config.address else False  # an existing cluster decides about its dashboard itself
            ray.init(config.address or "local", include_dashboard=own, log_to_driver=False, logging_level="error")
        except (OSError, ValueError, RuntimeError, OverflowError) as error:
            where, reason = config.address or "this machine", (str(error).splitlines() or [""])[0]
            raise UserError(f"--executor ray: no cluster at {where}: {reason}") from None
        gpus = config.gpus if config.gpus is not None else float("GPU" in ray.cluster_resources())
        self._needs = needs = {"CPU": config.cpus, "GPU": gpus}
        room = sum(self._rooms(needs))
        if not room:
            self.stop()
            raise UserError(f"--executor ray: no node has {config.cpus:g} cores and {gpus:g} GPUs for a cell")
        self.workers, self.threads = workers or room, max(1, int(config.cpus)) if gpus else 1
        self.counts_processes = workers is None  # the room is counted in cells of one process
        self._shared = config.shared
        self._task = ray.remote(
            max_retries=RETRIES,
            runtime_env={"env_vars": node_variables(gpu=gpus > 0)},
        )(run_on_node if config.shared else run_apart)

    def fits(self, cell: Cell) -> bool:
        """See `Executor`.

        Raises:
            UserError: If no node has room for the processes that train the cell.
        """
        needs = self._of(cell)
        if cell.processes > 1 and not self._running and not any(self._rooms(needs)):
            kinds = f"{needs['CPU']:g} cores and {needs['GPU']:g} GPUs"
            raise UserError(f"--gpus-per-cell {cell.processes}: no node of the Ray cluster has {kinds}")
        return len(self._running) < self.workers

    def start(self, cell: Cell) -> None:
        """See `Executor`."""
        given = self.out if self._shared else needed_files(cell, self.out)
        needs = self._of(cell)
        task = self._task.options(num_cpus=needs["CPU"], num_gpus=needs["GPU"])
        self._running[task.remote(cell, given, Path.cwd())] = cell, time.monotonic()

    def _rooms(self, needs: Mapping[str, float]) -> list[int]:
        """Return how many cells of these needs each node has room for."""
        return [_room(node["Resources"], needs) for node in self._ray.nodes() if node["Alive"]]

    def _of(self, cell: Cell) -> dict[str, float]:
        """Return the resources of a cell; processes that train together do not share a GPU."""
        if cell.processes == 1:
            return self._needs
        return {"CPU": self._needs["CPU"] * cell.processes, "GPU": float(cell.processes * bool(self._needs["GPU"]))}

    def outcomes(self, timeout: float) -> list[Outcome]:
        """See `Executor`."""
        if not self._running:
            time.sleep(timeout)
            return []
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout)
        return [self._outcome(each) for each in ended]

    def stop(self) -> None:
        """See `Executor`. A cluster that was started here ends."""
        for each in self._running:
            self._ray.cancel(each)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=GRACE_S)
        self._running.clear()
        self._ray.shutdown()

    def _outcome(self, task: Any) -> Outcome:
        """Return the outcome of a task that has ended; Ray has retried what was lost."""
        cell, since = self._running.pop(task)
        try:
            outcome: Outcome
            if self._shared:
                outcome = self._ray.get(task)
                return outcome
            outcome, made = self._ray.get(task)
            return take_back(cell, outcome, made, self.out)
        except self._ray.exceptions.RayError as error:
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}; see logs/{cell.name}.log"
        return failed(cell, self.out, reason, time.monotonic() - since)


def _room(node: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """Return the number of cells that a node can compute at the same time."""
    return min(int(node.get(kind, 0.0) / need + 1e-9) for kind, need in needs.items() if need)
