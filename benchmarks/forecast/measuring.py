"""Measure a few steps of each row's own training, in a process like that of a worker of `--executor local`."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.executors.base import print_to
from benchmarks.executors.local import worker_variables
from benchmarks.planning.cells import Cell
from pretext.datasets.base import ImageDataset
from pretext.system.launching import variables_set
from pretext.system.memory import peak_memory, reset_peak_memory
from pretext.training.config import TrainConfig

SECONDS = 5.0
"""Seconds of training steps that are measured, over all rows; each row gets an equal share, but `LEAST_S`."""
LEAST_S = 1.0
"""Least seconds of measured steps per row."""
WARM_UP = 2
"""Steps before the measured ones: the first are slower."""
PATIENCE_S = 60.0
"""Seconds after which the measurement of a row is given up."""
END_S = 5.0
"""Seconds that the process gets to end by itself: one that is killed leaves its semaphores behind."""
FIRST = 8
"""Pictures whose size stands for that of all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What a few training steps of a row took, and wrote."""

    images: int
    """Pictures of the measured steps; 0 for a task without steps, which was fitted to its end."""
    cpu_s: float
    """Processor time of these steps."""
    wall_s: float
    """Time of these steps on the clock."""
    fixed_cpu_s: float
    """Processor time of the rest of the cell, whatever its budget: building, counting, slow first steps, writing; all
    of a fit."""
    fixed_wall_s: float
    """The same on the clock."""
    flops_per_image: float
    """Counted operations of a step, forward and backward, per picture."""
    peak_bytes: int
    """Peak memory of the process."""
    pack_bytes: int
    """Bytes of the training pictures that these steps have not read, and a whole run will: they are mapped."""
    split: int
    """Pictures in the training split."""
    encoder_bytes: int
    """Size of the encoder file."""
    other_bytes: int
    """Size of the checkpoint and the record beside it."""
    sheet_bytes: int
    """Size of a sample sheet; 0 if the task writes none."""
    line_bytes: int
    """Size of a line of the log."""


def measured(cells: Sequence[Cell]) -> Iterator[tuple[Cell, Measured | str]]:
    """Yield what each cell's training takes, or in one line why it could not be measured.

    A process computes them in turn, as a worker would: one thread without a GPU, one GPU otherwise. A row that takes
    longer than `PATIENCE_S`, or ends the process, is given up, and a new process goes on with the next.

    Args:
        cells: Encoder cells that train.
    """
    left = list(cells)
    while left:
        process, connection = _started(left, max(LEAST_S, SECONDS / len(cells)))
        try:
            while left:
                answer = _answer(connection)
                yield left.pop(0), answer or "its process ended; memory may be too small"
                if not isinstance(answer, Measured):
                    break
        finally:
            connection.close()
            if not left:  # it ends by itself
                process.join(END_S)
            process.kill()
            process.join()


def _started(cells: list[Cell], seconds: float) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, cells, seconds), daemon=False)
    with variables_set(worker_variables()):
        process.start()
    theirs.close()
    return process, ours


def _answer(connection: Connection) -> Measured | str | None:
    """Return what the process says of its next cell; None if it has died."""
    try:
        if not connection.poll(PATIENCE_S):
            return f"a step takes too long: not measured after {PATIENCE_S:.0f} s"
        answer: Measured | str = connection.recv()
    except (EOFError, OSError):
        return None
    return answer


def _work(connection: Connection, cells: list[Cell], seconds: float) -> None:
    """Measure cells until one cannot be; the process that started this one kills it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides
    print_to(Path(os.devnull))
    for cell in cells:
        try:
            answer: Measured | str = measure(cell, seconds)
        except Exception as error:  # the run itself would write it down and go on
            answer = (str(error).splitlines() or [type(error).__name__])[0]
        try:
            connection.send(answer)
        except OSError:  # nobody listens any more
            return


def measure(cell: Cell, seconds: float) -> Measured:
    """Train a cell's encoder for a few steps in a temporary folder; a task without steps is fitted to its end.

    Args:
        cell: An encoder cell that trains.
        seconds: Processor time of the measured steps.
    """
    from pretext.datasets.kept import for_views, is_packed
    from pretext.tasks import task_class
    from pretext.tasks.base import Fitted

    assert cell.task is not None and cell.train is not None
    data = cell.data.open()
    pictures = for_views(data.split("train"), cell.data.size, bad_images=cell.data.bad_images)
    fitted = issubclass(task_class(cell.task), Fitted)
    reset_peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        clock, processor = time.monotonic(), time.process_time()
        first = _trained(cell, data, Path(folder) / "first", steps=WARM_UP)
        if fitted:
            spent = time.process_time() - processor, time.monotonic() - clock
            run, steps = first, 0
        else:
            step_s = max(first["cpu_s"], first["wall_s"]) / WARM_UP
            steps = max(WARM_UP, round(seconds / step_s))
            clock, processor = time.monotonic(), time.process_time()
            run = _trained(cell, data, Path(folder) / "second", steps=steps)
            slower = tuple(max(0.0, first[key] - WARM_UP * run[key] / steps) for key in ("cpu_s", "wall_s"))
            spent = (
                time.process_time() - processor - run["cpu_s"] + slower[0],
                time.monotonic() - clock - run["wall_s"] + slower[1],
            )
        images = steps * cell.train.batch_size
        last = Path(folder) / ("first" if fitted else "second")
        sheet = next(iter((Path(folder) / "first" / "samples").glob("*.png")), None)
        log = last / "log.jsonl"
        unread = max(0, len(pictures) - images) if is_packed(pictures) and not fitted else 0
        return Measured(
            images=images,
            cpu_s=run["cpu_s"],
            wall_s=run["wall_s"],
            fixed_cpu_s=max(0.0, spent[0]),
            fixed_wall_s=max(0.0, spent[1]),
            flops_per_image=run["flops_per_image"],
            peak_bytes=peak_memory(),
            pack_bytes=unread * _picture_bytes(pictures),
            split=len(pictures),
            encoder_bytes=(last / "encoder.safetensors").stat().st_size,
            other_bytes=sum((last / name).stat().st_size for name in ("checkpoint.safetensors", "run.json")),
            sheet_bytes=0 if sheet is None else sheet.stat().st_size,
            line_bytes=max((len(line) + 1 for line in log.read_bytes().splitlines()), default=0)
            if log.is_file()
            else 0,
        )


def _trained(cell: Cell, data: ImageDataset, out: Path, *, steps: int) -> dict[str, float]:
    """Train for a number of steps; return what `run.json` says. The first folder gets a sample sheet."""
    from pretext.training.loop import train

    assert cell.task is not None and cell.train is not None
    config = brief(cell.train, steps=steps, samples=int(out.name == "first"))
    train(cell.task, cell.encoder, data, config, out, image_size=cell.data.size)
    run: dict[str, float] = json.loads((out / "run.json").read_text())
    return run


def brief(config: TrainConfig, *, steps: int, samples: int) -> TrainConfig:
    """Return training settings for a few steps, without anything that a run does only now and then."""
    from pretext.training.config import BUDGETS

    budget: dict[str, Any] = dict.fromkeys(BUDGETS) | {"steps": steps}
    return dataclasses.replace(
        config,
        **budget,
        samples=samples,
        checkpoint_seconds=1e9,
        watch=None,
        track=(),
        keep=None,
    )


def _picture_bytes(pictures: ImageDataset) -> int:
    count = min(FIRST, len(pictures))
    return sum(pictures[index][0].numel() for index in range(count)) // count
