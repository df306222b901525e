"""Pictures of noise, and measurements of few labels made by hand."""

from __future__ import annotations

import numpy as np
from comparison_samples import row
from PIL import Image

from benchmarks.planning.cells import slug
from benchmarks.records.results import write_cell

METRICS = ("top1@1%", "top1@10%", "top1@100%", "tuned top1@100%")
COUNTS = {1.0: 10, 10.0: 100, 100.0: 1000}
"""Number of labels by share in percent."""


def photographs(folder, classes, *, each=12):
    """Write pictures of noise, `each` for a class, or a flat folder of as many for no class."""
    rng = np.random.default_rng(0)
    for number in range(each * max(1, len(classes))):
        place = folder / classes[number % len(classes)] if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(place / f"{number:03}.png")
    return f"folder:{folder}"


def cells(out, pretext, gains, *, metrics=METRICS, seeds=3, items=60):
    """Write a row's cells, each metric by its gain over 40 with a little noise; one item is a number without items."""
    rng = np.random.default_rng(sum(map(ord, pretext)))
    for seed in range(seeds):
        scores = [40 + gain + rng.normal(0, 1, items) for gain in gains]
        rows = [
            row(
                pretext,
                of_metric if items > 1 else None,
                value=float(np.mean(of_metric)),
                cell=f"{slug(pretext)}.low_shot.s{seed}.00000000",
                probe="low_shot",
                seed=seed,
                metric=metric,
                headline=metric == metrics[0],
            )
            for metric, of_metric in zip(metrics, scores, strict=True)
        ]
        write_cell(out, rows[0].cell, rows)
