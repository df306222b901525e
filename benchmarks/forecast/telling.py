"""The table and the sentences of `run_all.py --dry-run`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.forecast.costing import PROBE_BYTES, REPORT_BYTES, Forecast, forecast
from benchmarks.forecast.measuring import LEAST_S, SECONDS, measured
from benchmarks.planning.cells import Cell
from benchmarks.planning.plan import Plan
from benchmarks.report.terminal import Column, broken, table
from benchmarks.words.naming import row_title
from benchmarks.words.wording import and_list, wrapped

START_S, COMMAND_S = 5.0, 35.0
"""Assumed seconds of a process until it has imported everything, and of the command itself: plan, tables, figures."""
UNITS = ((1.0, "s", 600.0), (60.0, "min", 7200.0), (3600.0, "h", float("inf")))
"""Units of time: seconds in one, its name, and the total up to which it is taken."""


def foretold(plan: Plan, missing: Sequence[Cell], out: Path) -> Forecast:
    """Measure every row that has training to do, and return the cost of the missing cells; see `forecast`."""
    import torch

    rows = {cell.pretext: cell for cell in reversed(missing) if cell.trains}  # the first seed of each
    if rows:
        seconds = max(SECONDS, LEAST_S * len(rows))
        print(f"measuring {seconds:.0f} s of the training steps of {len(rows)} rows", file=sys.stderr, flush=True)
    found = {cell.pretext: answer for cell, answer in measured([*rows.values()])}
    return forecast(plan, missing, found, out, gpu=torch.cuda.is_available())


def forecast_text(cost: Forecast, *, workers: int, executor: str, width: int, processes: int = 1) -> str:
    """Return the cost by row as a table, the total, and what of it was measured and what assumed.

    Args:
        cost: The forecast.
        workers: Cells at the same time.
        executor: Where cells will be computed, as `--executor` names it.
        width: Width of the terminal in characters.
        processes: Processes that train each encoder.
    """
    total_s = sum(row.train_s + row.probe_s for row in cost.rows)
    device = "GPU" if cost.gpu else "CPU"
    each, unit = next((each, f"{device} {name}") for each, name, up_to in UNITS if total_s <= up_to)

    def time_text(seconds: float, mark: str = "") -> str:
        digits = 0 if seconds >= 1000 * each else 1
        return f"{seconds / each:,.{digits}f}{mark}" if seconds else "–"

    def size_text(value: float | None, scale: float) -> str:
        return "–" if not value else f"{value / scale:,.0f}" if value >= 10 * scale else f"{value / scale:,.1f}"

    columns = [
        Column(("training", unit), [time_text(row.train_s, "?" * bool(row.problem)) for row in cost.rows]),
        Column(("work", "TFLOP"), [size_text(row.flops, 1e12) for row in cost.rows]),
        Column(("memory", "MB"), [size_text(row.peak_bytes, 1e6) for row in cost.rows]),
        Column(("probes", unit), [time_text(row.probe_s) for row in cost.rows]),
        Column(("disk", "MB"), [size_text(row.disk_bytes, 1e6) for row in cost.rows]),
    ]
    peak = max((row.peak_bytes or 0 for row in cost.rows), default=0)
    totals = [
        time_text(sum(row.train_s for row in cost.rows)),
        size_text(sum(row.flops or 0.0 for row in cost.rows), 1e12),
        size_text(peak, 1e6),
        time_text(sum(row.probe_s for row in cost.rows)),
        size_text(sum(row.disk_bytes for row in cost.rows) + REPORT_BYTES, 1e6),
    ]
    columns = [Column(column.head, [*column.texts, text]) for column, text in zip(columns, totals, strict=True)]
    names = [broken(row_title(row.row)) for row in cost.rows] + ["all (memory: largest)"]
    remarks = wrapped("\n".join(_remarks(cost, workers, executor, processes)), width)
    return f"{table(names, columns, {len(names) - 1})}\n{remarks}"


def _remarks(cost: Forecast, workers: int, executor: str, processes: int) -> list[str]:
    """Return what was measured, and what is assumed."""
    problems = [f"? {row_title(row.row)}: {row.problem}; its time is assumed" for row in cost.rows if row.problem]
    here = "" if executor == "local" else "; the nodes of the cluster may be faster or slower"
    lines = problems
    if any(row.peak_bytes for row in cost.rows):
        lines.append(f"Measured on this machine{here}: a few steps of each row's training, its memory and its files.")
    if processes > 1:
        lines.append(
            f"Time and memory of training are those of one process; {processes} share the work of each encoder."
        )
    others = "the profile's times" + (f" × {cost.pace:.2f}, as for training" if cost.pace is not None else "")
    if cost.seen:
        others = f"the mean of finished cells for {and_list([*cost.seen])}; else {others}"
    lines.append(
        f"Assumed: for probes {others}, and {PROBE_BYTES / 1e6:.1f} MB a cell and more for many test pictures; "
        f"{REPORT_BYTES / 1e6:.0f} MB for the report. The cache of pictures and features is not counted."
    )
    if cost.probe_bytes:
        each = "each worker" if workers > 1 else "the worker"
        lines.append(
            f"Memory of probes: up to {cost.probe_bytes / 1e9:.1f} GB in {each}, as in the profile's last run."
        )
    else:
        lines.append("Memory of probes: not known.")
    starts = "each job" if executor == "slurm" else f"each of {workers} workers" if workers > 1 else "the worker"
    lines.append(
        f"On top come about {START_S:.0f} s for the start of {starts}, and {COMMAND_S:.0f} s for the command with its "
        "report."
    )
    return lines
