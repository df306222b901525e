"""Sample sheets: one PNG with a row per image and a column per thing to compare, such as inputs and outputs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pretext.datasets.drawing import save_sheet
from pretext.tasks.base import Batch, Task

SAMPLE_IMAGES = 8
"""Rows of the sheets that a training run writes."""
TILE = 112
"""Minimum side of an image on a sheet, in pixels; larger images are not shrunk."""
GAP = 6
"""Pixels between tiles."""
FONT_SIZE = 12


class SampleTimes:
    """When a run writes its sheets: `count` times, evenly spaced, at the last step too.

    Args:
        total_steps: Steps of the run; None if its budget is in seconds, which are spaced instead; 0 for no training.
        count: Number of sheets.
        progress: Share of the budget that an earlier call has spent.
    """

    def __init__(self, total_steps: int | None, count: int, *, progress: float) -> None:
        self._steps = {math.ceil((k + 1) * total_steps / count) for k in range(count)} if total_steps else set()
        self._by_clock, self._count = total_steps is None, count
        self._written = int(progress * count)

    def due(self, step: int, progress: float) -> bool:
        """Return whether a sheet is due after a step, with which the run has spent `progress` of its budget."""
        before, self._written = self._written, int(min(progress, 1.0) * self._count)
        return self._written > before if self._by_clock else step in self._steps


@torch.no_grad()
def write_sample(model: Task, batch: Batch, path: Path) -> Path | None:
    """Write the sheet of `Task.pictures` for the first images of a batch, and return its path.

    If the task offers no pictures, nothing is written, and None is returned.
    """
    first = batch.rows(lambda tensor: tensor[:SAMPLE_IMAGES])
    generator = torch.Generator(batch.device).manual_seed(0)  # the same masks on every sheet of a run
    model.eval()
    columns = model.pictures(replace(first, labels=None, generator=generator))
    model.train()
    if not columns:
        return None
    sample_sheet({name: picture.float().cpu() for name, picture in columns.items()}, path)
    return path


def sample_sheet(columns: Mapping[str, Float[Tensor, "B 3 S S"]], path: str | Path) -> None:
    """Write a PNG with one row per image and one column per heading.

    Args:
        columns: Images in [0, 1] by heading, such as input, a fill per decoder, original; all of one size.
        path: PNG file to write.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(FONT_SIZE)
    images = [column.detach().float().clamp(0, 1).mul(255).round().byte().cpu() for column in columns.values()]
    side = max(TILE, images[0].shape[-1])
    headings = [_wrapped(heading, side, font) for heading in columns]
    top = (FONT_SIZE + 4) * max(heading.count("\n") + 1 for heading in headings) + GAP
    rows, step = len(images[0]), side + GAP
    size = (GAP + len(images) * step, top + GAP + rows * step)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, (heading, tiles) in enumerate(zip(headings, images, strict=True)):
        left = GAP + column * step
        middle = left + side / 2
        draw.multiline_text((middle, top), heading, fill="black", font=font, anchor="md", align="center")
        for row, tile in enumerate(tiles):
            image = Image.fromarray(tile.permute(1, 2, 0).numpy())
            image = image.resize((side, side), Image.Resampling.BICUBIC)
            sheet.paste(image, (left, top + GAP + row * step))
    save_sheet(sheet, path)


def _wrapped(heading: str, width: int, font: Any) -> str:
    """Break a heading into lines of at most `width` pixels: between words, or within a word that is too long."""
    lines = [""]
    for word in re.findall(r"[^ :_&?]*[ :_&?]*", heading):
        if lines[-1] and font.getlength((lines[-1] + word).rstrip()) > width:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength((lines[-1] + letter).rstrip()) > width:
                lines.append("")
            lines[-1] += letter
    return "\n".join(line.strip() for line in lines)
