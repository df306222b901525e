"""Real processes of every command, killed at random moments."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from starting_samples import Starter

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
SCENES = "scenes?train=96&val=16&test=24&size=32"
ENCODER = "alexnet?width=0.1&stem_stride=2"
SUITE = "--profile smoke --tasks random rotation --probes knn segmentation retrieval --budget images=256 --workers 2"
COMMANDS = {
    "train": f"pretext train context_encoder --data folder:PICTURES --encoder {ENCODER} --image-size 32 --steps 40 "
    "--batch-size 8 --workers 0 --device cpu --checkpoint-seconds 0.05 --samples 3 --keep 20% --out OUT",
    "inpaint": f"pretext inpaint --checkpoint MADE/run --data {SCENES} --out OUT",
    "fine_tune": f"downstream fine_tune --encoder MADE/run/encoder.safetensors --data {SCENES} --steps 25 --out OUT",
    "linear": f"downstream linear --encoder MADE/run/encoder.safetensors --data {SCENES} --iterations 20 --out OUT",
    "embed": "pretext embed --encoder MADE/run/encoder.safetensors --data folder:PICTURES --out OUT/vectors.npz "
    "--map OUT/map.html --map-pictures 20",
    "index": "retrieval index --encoder MADE/run/encoder.safetensors --data folder:PICTURES --grid 4 --out OUT",
    "add": "retrieval index --encoder MADE/run/encoder.safetensors --data folder:PICTURES --grid 4 --add --out OUT",
    "suite": f"benchmarks.run_all {SUITE} --out OUT",
    "report": f"benchmarks.run_all {SUITE} --out OUT",
}
WEIGHTS = {
    "train": 4,
    "inpaint": 2,
    "fine_tune": 3,
    "linear": 2,
    "embed": 2,
    "index": 3,
    "add": 3,
    "suite": 2,
    "report": 2,
}
MODULES = (
    "pretext.training.loop",
    "pretext.inpainting.command",
    "pretext.embedding.command",
    "downstream.features",
    "downstream.probes",
    "retrieval.indexing.building",
    "retrieval.index_command",
    "retrieval.probes",
    "benchmarks.run_all",
)
"""What the commands import."""
ALTERS = ("log.jsonl", "run.json", "environment.json", "plan.json", ".report-inputs", ".lock")
"""Files that hold times or the command line, or nothing."""
SHOW_TIMES = (".csv", ".html", ".parquet", ".md", ".tex")
DROPPED = re.compile(r"Exception ignored in: .*\nTraceback .*\n(?:  .*\n)*KeyboardInterrupt: *\n")
"""CPython reports and drops a Ctrl-C that arrives while it runs a callback of its own; the command goes on."""
TEMPORARY = re.compile(r"\.tmp|^\.[0-9a-f]{32}\.|\.(blocks|parts)(/|$)|fitting\.safetensors|(^|/)(old|finished)(/|$)")


@dataclass
class Kills:
    """Trials of killed commands in a folder."""

    folder: Path
    seed: int
    killed: Counter[str] = field(default_factory=Counter)
    """Kills by command and signal that met a running process."""
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.starter = Starter(self.folder, MODULES)
        self.undisturbed: dict[str, tuple[dict[str, bytes], float]] = {}
        self.trials = 0
        self._make()

    def _make(self) -> None:
        """Make what the commands read: pictures, a training run, an index of half of them."""
        from PIL import Image

        for number in range(48):
            file = self.folder / "pictures" / f"{number:02}.png"
            file.parent.mkdir(exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file)
        shutil.copytree(self.folder / "pictures", self.folder / "half")
        for number in range(24, 48):
            (self.folder / "half" / f"{number:02}.png").unlink()
        made = self.folder / "made"
        made.mkdir()
        self._run("train", made / "run", made / "cache")
        # the index names the same folder of pictures: it grows while the index exists
        (self.folder / "pictures").rename(self.folder / "all")
        (self.folder / "half").rename(self.folder / "pictures")
        self._run("index", made / "index", made / "cache")
        (self.folder / "pictures").rename(self.folder / "half")
        (self.folder / "all").rename(self.folder / "pictures")

    def _make_comparison(self) -> None:
        made = self.folder / "made"
        self._run("suite", made / "comparison", made / "cache")
        for name in ("results.csv", "results.parquet", "summary.csv", "report.html", ".report-inputs"):
            (made / "comparison" / name).unlink(missing_ok=True)

    def words(self, name: str, out: Path) -> list[str]:
        places = {"PICTURES": self.folder / "pictures", "MADE": self.folder / "made", "OUT": out}
        return [re.sub("PICTURES|MADE|OUT", lambda m: str(places[m[0]]), word) for word in COMMANDS[name].split()]

    def _prepared(self, name: str) -> tuple[Path, Path]:
        """Return the output folder and the cache of a new trial."""
        self.trials += 1
        trial = self.folder / f"trial{self.trials}"
        trial.mkdir()
        start = {"add": "index", "report": "comparison"}.get(name)
        if start == "comparison" and not (self.folder / "made" / start).exists():
            self._make_comparison()
        if start:
            shutil.copytree(self.folder / "made" / start, trial / "out")
        return trial / "out", trial / "cache"

    def _run(self, name: str, out: Path, cache: Path) -> int:
        log = out.with_name(f"{out.name}.log")
        code = self.starter.end(self.starter.start(self.words(name, out), log, {"PRETEXT_CACHE": str(cache)}))
        assert code in (0, 2), (name, code, log.read_text()[-2000:])
        return code

    def reference(self, name: str) -> tuple[dict[str, bytes], float]:
        """Return the files that an undisturbed run writes, and its seconds."""
        if name not in self.undisturbed:
            out, cache = self._prepared(name)
            began = time.monotonic()
            assert self._run(name, out, cache) == 0
            self.undisturbed[name] = content(out, timed=name != "report"), time.monotonic() - began
        return self.undisturbed[name]

    def trial(self, drawn: random.Random, left: int, name: str = "") -> int:
        """Kill a command up to three times, alone or beside others; finish it; return the number of kills.

        Args:
            drawn: Draws how many processes run, when they are killed, and by which signal.
            left: Maximum number of kills.
            name: The command; drawn by `WEIGHTS` if empty.
        """
        name = name or drawn.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        expected, seconds = self.reference(name)
        out, cache = self._prepared(name)
        together = drawn.choice([1, 1, 2, 3])
        kills = 0
        for round_ in range(drawn.choice([1, 2, 3])):
            logs = [out.parent / f"{round_}-{number}.log" for number in range(together)]
            running = []
            for log in logs:
                running.append(self.starter.start(self.words(name, out), log, {"PRETEXT_CACHE": str(cache)}))
                time.sleep(drawn.choice([0, 0, 0.1, 0.3]) if together > 1 else 0)
            doomed = running if drawn.random() < 0.5 else running[:1]
            time.sleep(drawn.uniform(0, 1.1) * seconds)
            for process in doomed:
                number = drawn.choice(SIGNALS)
                if kills < left and self.starter.code(process) is None:
                    os.kill(process, number)
                    self.killed[f"{name} {number.name}"] += 1
                    kills += 1
            codes = [self.starter.end(process) for process in running]
            for log in logs:
                said = DROPPED.sub("", log.read_text(errors="replace"))
                if "Traceback" in said:
                    self.faults.append(f"{name}, {together} at once, {codes}: {said[-1500:]}")
            if 0 in codes:
                break
        time.sleep(0.3 if name in ("suite", "report") else 0)  # workers see that their parent is gone
        code = self._run(name, out, cache)
        finished = code == 2 and name in ("index", "embed")  # the last kill came after the last step
        if code and not finished:
            self.faults.append(f"{name}: ends with {code}: {out.with_name('out.log').read_text()[-500:]}")
        self._compare(name, content(out, timed=name != "report"), expected)
        left_over = [str(file.relative_to(out.parent)) for file in out.parent.rglob("*")]
        left_over = [file for file in left_over if TEMPORARY.search(file) or TEMPORARY.search(Path(file).name)]
        if left_over:
            self.faults.append(f"{name}: left {left_over}")
        shutil.rmtree(out.parent)
        return kills

    def _compare(self, name: str, found: dict[str, bytes], expected: dict[str, bytes]) -> None:
        if set(found) != set(expected):
            self.faults.append(f"{name}: other files: {sorted(set(found) ^ set(expected))}")
        differing = [file for file in expected if file in found and found[file] != expected[file]]
        if differing:
            self.faults.append(f"{name}: other bytes in {differing}")


def content(out: Path, *, timed: bool) -> dict[str, bytes]:
    """Return what must be equal in every run: bytes, without the times that a run has measured.

    Args:
        out: The folder.
        timed: Whether the run measured times that its tables, figures and report show.
    """
    found = {}
    for file in sorted(path for path in out.rglob("*") if path.is_file()):
        name = str(file.relative_to(out))
        if name.startswith(("logs/", ".locks/", "superseded/")):
            continue
        stored = file.read_bytes().replace(str(out).encode(), b"OUT")
        if file.name == "checkpoint.safetensors":
            stored = tensors(file)
        elif file.parent.name == "results" and file.suffix == ".json":
            stored = scores(file)
        elif file.name in ALTERS or (timed and (file.suffix in SHOW_TIMES or file.stem == "cost")):
            stored = b""
        found[name] = stored
    return found


def tensors(file: Path) -> bytes:
    from safetensors.numpy import load_file

    return b"".join(key.encode() + value.tobytes() for key, value in sorted(load_file(file).items()))


def scores(file: Path) -> bytes:
    dropped = ("wall_s", "started_at", "peak_mem_bytes")
    stored = json.loads(file.read_text())

    def kept(value: object) -> object:
        if isinstance(value, dict):
            return {key: kept(inner) for key, inner in value.items() if key not in dropped}
        return [kept(inner) for inner in value] if isinstance(value, list) else value

    return json.dumps(kept(stored), sort_keys=True).encode()
