"""Hardware and package versions of a comparison, to rebuild its environment: OUT/environment.json."""

from __future__ import annotations

import functools
import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from types import NoneType
from typing import Any

from benchmarks.records.results import write_json
from pretext.system.stored_json import Shape, read_json

FILE = "environment.json"
"""Name of the file in OUT."""
ENTRIES: Shape = [
    dict.fromkeys(("python", "system", "processor", "device", "driver", "cuda", "instructions?"), str)
    | dict.fromkeys(("workers", "threads"), int)
    | {"cores": (NoneType, int), "packages": {"*": str}, "counts_processes?": bool}
]


def write_environment(out: Path, *, workers: int, threads: int, counts_processes: bool = False) -> None:
    """Append the current environment to OUT/environment.json, unless the last entry is the same.

    Args:
        out: The results folder. The start time of a cell says which entry applies to it.
        workers: Number of processes that compute cells.
        threads: Threads per process.
        counts_processes: As for `Executor`.
    """
    entries = read_environments(out)
    now = environment(workers=workers, threads=threads) | {"counts_processes": counts_processes}
    if entries and {key: value for key, value in entries[-1].items() if key != "since"} == now:
        return
    since = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(out / FILE, [*entries, {"since": since, **now}])


def read_environments(out: Path) -> list[dict[str, Any]]:
    """Return the entries of OUT/environment.json, oldest first; none if the file does not exist.

    Raises:
        UserError: If the file is not valid JSON.
    """
    if not (out / FILE).exists():
        return []
    entries: list[dict[str, Any]] = read_json(out / FILE, ENTRIES, remedy="move it away; a new one is written")
    return entries


def environment(*, workers: int, threads: int) -> dict[str, Any]:
    """Return interpreter, system, processor, device, driver, and the version of every installed package."""
    import torch
    from torch.backends import cudnn

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.platform(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # selects the kernels
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "workers": workers,
        "threads": threads,
        "device": ", ".join(gpus) or "cpu",
        "driver": _driver() if gpus else "",
        "cuda": f"{torch.version.cuda}, cuDNN {cudnn.version()}" if gpus else "",  # type: ignore[no-untyped-call]
        "packages": _packages(),
    }


@functools.cache
def _packages() -> dict[str, str]:
    """Return the version of each installed package by name. Reading them takes a sixth of a second, once a process.

    What a broken installation leaves behind has neither name nor version, and is left out.
    """
    named = [(each.metadata["Name"], each.version) for each in distributions()]
    return dict(sorted((name.lower().replace("_", "-"), version) for name, version in named if name and version))


def _processor() -> str:
    """Return the model name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _driver() -> str:
    """Return the version of the NVIDIA driver; empty if the system does not report it."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return ""
    version = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return version[0] if version else ""
