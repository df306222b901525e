"""Peak memory of training, probes and the index as the number of pictures grows.

    python benchmarks/timing/growing.py --pictures 2000 6000 20000

Each line is one command in a process of its own, on drawn scenes of 64 px that are packed; the peak is the largest
resident memory of that process and of those that it started.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ENCODER = "alexnet?width=0.25&stem_stride=2"
COMMANDS = {
    "train": "pretext train context_encoder --data DATA --encoder ENCODER --steps 20 --batch-size 64 --samples 0 "
    "--workers 0 --out OUT/run",
    "linear": "downstream linear --data DATA --encoder OUT/run/encoder.safetensors",
    "knn": "downstream knn --data DATA --encoder OUT/run/encoder.safetensors",
    "fine_tune": "downstream fine_tune --data DATA --encoder OUT/run/encoder.safetensors --steps 20",
    "detection": "downstream detection --data DATA --encoder OUT/run/encoder.safetensors --steps 20",
    "segmentation": "downstream segmentation --data DATA --encoder OUT/run/encoder.safetensors --steps 20",
    "index": "retrieval index --data DATA --encoder OUT/run/encoder.safetensors --out OUT/index",
}


def peak(words: list[str], cache: Path) -> float:
    """Run a command of the suite and return its peak memory in MB; its errors are shown."""
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
        raise SystemExit(f"{' '.join(words)}: {errors.decode(errors='replace')}")
    return usage.ru_maxrss / (1e3 if sys.platform != "darwin" else 1e6)


def main() -> None:
    """Measure every command for every number of pictures, smallest first, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, nargs="+", default=[2000, 6000, 20_000], help="training pictures")
    counts = parser.parse_args().pictures
    print(f"{'pictures':>10}" + "".join(f"{name:>14}" for name in COMMANDS) + "   (MB at the peak)", flush=True)
    for count in counts:
        print(f"{count:>10,}", end="", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            places = {"DATA": f"scenes?size=64&train={count}&val=500&test=1000", "OUT": folder, "ENCODER": ENCODER}
            for command in COMMANDS.values():
                words = command.split()
                for place, text in places.items():
                    words = [word.replace(place, text) for word in words]
                print(f"{peak(words, Path(folder, 'cache')):>14,.0f}", end="", flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
