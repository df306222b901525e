"""Peak memory as the number of pictures grows: python benchmarks/timing/growing.py."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

if not __package__:  # run as a file: put the repository root on the import path instead of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from pretext.system.command_line import parse
from pretext.system.errors import UserError, run_command

PROG = "python benchmarks/timing/growing.py"
ENCODER = "alexnet?width=0.25&stem_stride=2"
COMPARISON = (
    "benchmarks.run_all --profile smoke --data DATA --image-size 64 --tasks context_encoder --seeds 1 "
    "--probes knn detection segmentation inpainting retrieval --workers 1 --out OUT/comparison"
)
COMMANDS = {
    "train": "pretext train context_encoder --data DATA --encoder ENCODER --steps 20 --batch-size 64 --samples 0 "
    "--workers 0 --out OUT/run",
    "linear": "downstream linear --data DATA --encoder OUT/run/encoder.safetensors",
    "knn": "downstream knn --data DATA --encoder OUT/run/encoder.safetensors",
    "fine_tune": "downstream fine_tune --data DATA --encoder OUT/run/encoder.safetensors --steps 20",
    "detection": "downstream detection --data DATA --encoder OUT/run/encoder.safetensors --steps 20",
    "segmentation": "downstream segmentation --data DATA --encoder OUT/run/encoder.safetensors --steps 20",
    "index": "retrieval index --data DATA --encoder OUT/run/encoder.safetensors --out OUT/index",
    "comparison": COMPARISON,
    "report": COMPARISON,
}
"""By column. `report` is the comparison once more, which writes nothing but the report that was removed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Growing:
    """Measure the peak memory of training, probes, index, comparison and report as the number of pictures grows.

    Each number is of one command in a process of its own, on drawn scenes of 64 px that are packed: the largest
    resident memory of that process and of those that it started.

    Examples:
        python benchmarks/timing/growing.py --pictures 2000 6000 20000
    """

    pictures: tuple[int, ...] = (2000, 6000, 20_000)
    """Numbers of training pictures, each 1 or more and a line of the table."""

    def __post_init__(self) -> None:
        if not self.pictures or min(self.pictures) < 1:
            raise ValueError(f"pictures is {self.pictures}; give one or more numbers, each 1 or more")


def words_of(command: str, places: Mapping[str, str]) -> list[str]:
    """Return the words of a command line, with what stands for its places."""
    return [re.sub("|".join(places), lambda found: places[found[0]], word) for word in command.split()]


def peak(words: list[str], cache: Path) -> float:
    """Run a command of the suite and return its peak memory in MB.

    Raises:
        UserError: If the command fails, with what it has said.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        env=os.environ | {"PRETEXT_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    with process.stderr:
        errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"{' '.join(words)}: {errors.decode(errors='replace').strip()}")
    return usage.ru_maxrss / (1e3 if sys.platform != "darwin" else 1e6)


def main(argv: list[str]) -> int:
    """Measure every command for every number of pictures, and print the table; return the exit code."""
    counts = parse(Growing, argv, prog=PROG).pictures
    print(f"{'pictures':>10}" + "".join(f"{name:>14}" for name in COMMANDS) + "   (MB at the peak)", flush=True)
    for count in counts:
        print(f"{count:>10,}", end="", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            places = {"DATA": f"scenes?size=64&train={count}&val=500&test=1000", "OUT": folder, "ENCODER": ENCODER}
            for name, command in COMMANDS.items():
                if name == "report":
                    Path(folder, "comparison", "report.html").unlink()
                words = words_of(command, places)
                print(f"{peak(words, Path(folder, 'cache')):>14,.0f}", end="", flush=True)
        print(flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
