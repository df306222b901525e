"""Images for the page: detections and segmentations of the same test images, the truth once, a line per encoder."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from benchmarks.report.content import Run
from benchmarks.report.images import image_html
from benchmarks.words.columns import probe_of
from benchmarks.words.naming import probe_title

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGES = 6
"""Test images that are shown."""
SIDE = 144
"""Side in pixels of an image."""
SHEETS = {"detection": ("detections.png", ("truth",)), "segmentation": ("segmentation.png", ("image", "truth"))}
"""The sheet that a probe writes, and the lines of it that are the same for all encoders."""


def sheet_grid(run: Run, column: str) -> str:
    """Return the first seed's answers of all shown rows on the same test images; empty without sheets.

    `column` is that of a probe in `SHEETS`, on one of the data sets.
    """
    from PIL import Image

    from downstream.sheets import lines_of

    probe = probe_of(column)
    file, shared = SHEETS[probe]
    lines: list[str] = []
    for row in run.shown:
        cells = {m.seed: m.cell for m in run.measurements if (m.pretext, m.probe) == (row, column)}
        path = run.out / "artifacts" / cells[min(cells)] / file if cells else None
        if path is None or not path.exists():
            continue
        with Image.open(path) as opened:
            *same, own = lines_of(opened.convert("RGB"), kinds=len(shared) + 1)
        if not lines:
            lines += [
                _line(name, f"{probe} of test images: {name}", images)
                for name, images in zip(shared, same, strict=True)
            ]
        lines.append(_line(run.title(row), f"{probe} of test images with the encoder of {run.title(row)}", own))
    if not lines:
        return ""
    return (
        f'<h3>{escape(probe_title(column))}</h3><div class="scroll fills grid" tabindex="0" role="region" '
        f'aria-label="{escape(probe_title(column))}"><table><tbody>{"".join(lines)}</tbody></table></div>'
    )


def _line(name: str, alt: str, images: Sequence[Image]) -> str:
    cells = "".join(
        f"<td>{image_html(image.resize((SIDE, SIDE)), f'{alt}, image {at}', quality=75)}</td>"
        for at, image in enumerate(images[:IMAGES], start=1)
    )
    return f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
