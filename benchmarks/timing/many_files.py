"""Time to open many small pictures and to train a first step: python benchmarks/timing/many_files.py."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

if not __package__:  # run as a file: put the repository root on the import path instead of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from pretext.system.command_line import parse
from pretext.system.errors import run_command

PROG = "python benchmarks/timing/many_files.py"
CLASSES, PER_SHARD = 100, 10_000


def write(root: Path, count: int) -> dict[str, str]:
    """Write pictures of 32×32 as files in class folders and as tar shards; return the spec of each store."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0)
    shards = root / "shards"
    shards.mkdir(parents=True)
    for start in range(0, count, PER_SHARD):
        with tarfile.open(shards / f"{start // PER_SHARD:03}.tar", "w") as archive:
            for number in range(start, min(start + PER_SHARD, count)):
                stream = io.BytesIO()
                Image.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((32, 32)).save(stream, "JPEG")
                name = f"{number * CLASSES // count:03}/{number:07}.jpg"
                file = root / "folder" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(stream.getvalue())
                member = tarfile.TarInfo(name)
                member.size = len(stream.getvalue())
                archive.addfile(member, io.BytesIO(stream.getvalue()))
    return {"folder": f"folder:{root / 'folder'}", "wds": f"wds:{shards}"}


def measure(spec: str, out: Path) -> None:
    """Open a data set, train one step, and print the seconds of both and the peak memory as JSON."""
    from pretext import TrainConfig, open_dataset, train
    from pretext.system.memory import peak_memory

    started = time.monotonic()
    data = open_dataset(spec)
    opened = time.monotonic()
    at_open = peak_memory()
    config = TrainConfig(steps=1, batch_size=32, samples=0, workers=0, device="cpu")
    train("rotation", "alexnet?width=0.1&stem_stride=2", data, config, out, image_size=32)
    figures = {"open_s": opened - started, "first_step_s": time.monotonic() - opened}
    print(json.dumps(figures | {"opened_MB": at_open / 1e6, "peak_MB": peak_memory() / 1e6}))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ManyFiles:
    """Time opening many small pictures and training a first step, and the memory that it takes, by kind of store.

    Each line is one process with an empty cache (`cold`), then with what that one left (`warm`). Pictures are decoded
    while training, as a set is that is too large to be packed.

    Examples:
        python benchmarks/timing/many_files.py --files 20000 200000
    """

    files: tuple[int, ...] = (20_000, 200_000)
    """Numbers of pictures, each 100 or more."""

    def __post_init__(self) -> None:
        if not self.files or min(self.files) < CLASSES:
            raise ValueError(f"files is {self.files}; give one or more numbers, each {CLASSES} or more")


def main(argv: list[str]) -> int:
    """Write each number of pictures, and measure each store cold and warm; return the exit code."""
    if argv[:1] == ["measure"]:  # a process of its own for each line
        measure(argv[1], Path(argv[2]))
        return 0
    options = parse(ManyFiles, argv, prog=PROG)
    for count in options.files:
        with tempfile.TemporaryDirectory() as folder:
            for kind, spec in write(Path(folder) / "data", count).items():
                time.sleep(2.1)  # what is younger is not remembered
                for state in ("cold", "warm"):
                    environment = os.environ | {"PRETEXT_CACHE": f"{folder}/cache", "PRETEXT_PACK_GB": "0"}
                    command = [sys.executable, __file__, "measure", spec, f"{folder}/{kind}-{state}"]
                    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                    figures = ", ".join(f"{name} {value:.1f}" for name, value in json.loads(done.stdout).items())
                    print(f"{count:>9,} {kind:7} {state}: {figures}", flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
