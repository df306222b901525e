"""Sample sheets: what a task makes of a few pictures, in columns, as one PNG."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from pretext.system.checkpoint import atomic_write

SHEET_TILE = 112
"""Pixels of the side of a picture on a sheet; larger pictures are not shrunk."""
SHEET_GAP = 6
SHEET_FONT = 12


def sample_sheet(columns: Mapping[str, Float[Tensor, "B 3 S S"]], path: str | Path) -> None:
    """Write a PNG with a picture a row and, under its heading, a column for each thing to compare.

    Args:
        columns: Pictures in [0, 1] by heading, such as input, one fill a decoder, original; all of one size.
        path: Of the file.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(SHEET_FONT)
    pictures = [each.detach().float().clamp(0, 1).mul(255).round().byte().cpu() for each in columns.values()]
    side = max(SHEET_TILE, pictures[0].shape[-1])
    headings = [_wrapped(heading, side, font) for heading in columns]
    top = (SHEET_FONT + 4) * max(heading.count("\n") + 1 for heading in headings) + SHEET_GAP
    rows, step = len(pictures[0]), side + SHEET_GAP
    size = (SHEET_GAP + len(pictures) * step, top + SHEET_GAP + rows * step)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, (heading, tiles) in enumerate(zip(headings, pictures, strict=True)):
        left = SHEET_GAP + column * step
        middle = left + side / 2
        draw.multiline_text((middle, top), heading, fill="black", font=font, anchor="md", align="center")
        for row, tile in enumerate(tiles):
            picture = Image.fromarray(tile.permute(1, 2, 0).numpy())
            picture = picture.resize((side, side), Image.Resampling.BICUBIC)
            sheet.paste(picture, (left, top + SHEET_GAP + row * step))
    with atomic_write(path) as beside:
        sheet.save(beside, format="PNG")


def _wrapped(heading: str, width: int, font: Any) -> str:
    """Break a heading into lines of at most `width` pixels, between words or within one that is longer."""
    lines = [""]
    for word in re.findall(r"[^ :_&?]*[ :_&?]*", heading):
        if lines[-1] and font.getlength((lines[-1] + word).rstrip()) > width:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength((lines[-1] + letter).rstrip()) > width:
                lines.append("")
            lines[-1] += letter
    return "\n".join(line.strip() for line in lines)
