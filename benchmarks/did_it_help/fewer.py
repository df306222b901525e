"""A row that learns from a quarter of the pictures, for the question what more pictures would bring.

It differs from another row in its training data only, by the data set's option `limit`, drawn by a fixed seed. It sees
as many pictures as the other rows, each more often, so it costs the same.
"""

from __future__ import annotations

import dataclasses

from benchmarks.planning.cells import Cell, encoder_cell, probe_cell
from benchmarks.planning.making import open_data
from benchmarks.planning.plan import Plan
from benchmarks.planning.rows import by_name
from benchmarks.words.naming import row_title
from pretext.system.specs import with_option

TIMES = 4
"""How many times the pictures of this row the other rows have."""


def fewer_name(row: str) -> str:
    """Return the name of the row that learns from fewer pictures than `row`."""
    return f"{row_title(row)}, 1/{TIMES} of pictures"


def with_fewer_pictures(plan: Plan, row: str) -> Plan:
    """Return the plan with a further row: `row`, learning from a quarter of the pictures.

    It is left out, with a sentence, where it would answer nothing: a quarter is less than a batch, or the budget shows
    no picture of the quarter twice.
    """
    name, total = fewer_name(row), len(plan.pretrain_data.open().split("train"))
    count = total // TIMES
    train = by_name(plan.recipe.rows)[row].train_config(plan.recipe.train, seed=0)
    steps = None if train.flops is not None else train.total_steps(image_count=total, flops_per_image=1.0)
    why = ""
    if count < train.batch_size:
        why = f"a quarter of {total:,} pictures is less than a batch of {train.batch_size}"
    elif steps is not None and (seen := steps * train.batch_size) <= count:
        why = f"a budget of {seen:,} pictures shows none of a quarter of {total:,} twice; raise --budget"
    if why:
        return dataclasses.replace(plan, left_out=(*plan.left_out, f"row {name} left out: {why}"))
    source, _ = open_data(
        with_option(plan.pretrain_data.spec, "limit", str(count)),
        plan.pretrain_data.size,
        bad_images=plan.pretrain_data.bad_images,
        download=False,
    )
    encoders: dict[str, Cell] = {}
    for cell in plan.cells:
        if cell.pretext == row and cell.train is not None and cell.protocol is None:
            of_all = cell.train.epochs is not None  # a pass over fewer pictures would be a smaller budget
            encoders[cell.name] = encoder_cell(
                name,
                seed=cell.seed,
                data=source,
                encoder=cell.encoder,
                task=cell.task,
                train=dataclasses.replace(cell.train, epochs=None, steps=steps) if of_all else cell.train,
                processes=cell.processes,
            )
    probes = [
        probe_cell(encoders[cell.made_by], cell.probe, cell.protocol, seed=cell.seed, data=cell.data, label=cell.label)
        for cell in plan.cells
        if cell.protocol is not None and cell.made_by in encoders
    ]
    note = (
        f"{name}: learns from {count:,} of {total:,} pictures, drawn by a fixed seed, and sees as many as other rows."
    )
    cells = sorted((*plan.cells, *encoders.values(), *probes), key=lambda cell: cell.protocol is not None)
    return dataclasses.replace(plan, cells=tuple(cells), notes=(*plan.notes, note))
