"""Images for the page: holes filled by decoders, and from the nearest training image."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from jaxtyping import Float

from benchmarks.report.content import MOST_SHOWN, Run
from benchmarks.report.images import as_image, image_html
from benchmarks.report.tables import breakable

if TYPE_CHECKING:
    from torch import Tensor

    from pretext.datasets.base import ImageDataset
    from pretext.inpainting.measuring import HoledPictures

FILLED = 8
"""Test images that are shown."""
TAKEN_FROM = 1000
"""Most training images that are searched for a fill."""


def decoder_table(run: Run, data: ImageDataset) -> str:
    """Return test images with a hole, filled by baselines and by each decoder; empty without decoders."""
    from pretext.inpainting.measuring import baseline_fills, filled_by
    from pretext.tasks.base import Inpainter
    from pretext.training.run_folder import load_task

    tasks = {}
    for row, folder in run.first_encoders().items():
        if (folder / "checkpoint.safetensors").exists():
            task = load_task(folder)
            if isinstance(task, Inpainter):
                tasks[row] = task
    if not tasks:
        return ""
    pictures = _holed(run, data, "test", FILLED)
    columns = baseline_fills(pictures)
    columns |= {row: filled_by(task, pictures) for row, task in list(tasks.items())[:MOST_SHOWN]}
    return _table(run, "Inpainting by decoders", pictures, columns)


def nearest_table(run: Run, data: ImageDataset, on: str) -> str:
    """Return the images of `decoder_table`, filled from the nearest training image by HOG and by each encoder.

    `on` is the label of the data. An encoder is read at the stage of its headline in `nearest_fill`, or else in
    `retrieval`. Empty without encoders.
    """
    from pretext.encoders import load_encoder
    from pretext.system.device import device_of
    from retrieval.filling import by_hog, by_stages, fill_from, nearest_rows

    stages = run.stages_read("nearest_fill", "retrieval", on=on)
    encoders = {row: folder for row, folder in run.first_encoders().items() if row in stages}
    if not encoders:
        return ""
    pictures, source = _holed(run, data, "test", FILLED), _holed(run, data, "train", TAKEN_FROM)
    rows = {"HOG": nearest_rows(by_hog(pictures), by_hog(source))}
    for row, folder in encoders.items():
        encoder = load_encoder(folder / "encoder.safetensors").to(device_of("auto"))
        queries, vectors = (by_stages(encoder, each)[stages[row]] for each in (pictures, source))
        rows[row] = nearest_rows(queries, vectors)
    columns = {name: fill_from(pictures, source.images[at]) for name, at in rows.items()}
    return _table(run, "Inpainting from the nearest image", pictures, columns, below=stages)


def _holed(run: Run, data: ImageDataset, split: str, count: int) -> HoledPictures:
    from pretext.inpainting.measuring import drawn_pictures

    size = run.plan["image_size"]
    return drawn_pictures(data, split=split, image_size=size, test_images=count, seed=0, hole="central")


def _table(
    run: Run,
    label: str,
    pictures: HoledPictures,
    fills: Mapping[str, Float[Tensor, "N 3 S S"]],
    *,
    below: Mapping[str, str] | None = None,
) -> str:
    """Return one line per image: with its hole, each fill and its PSNR, the original.

    `below` adds a line under a heading.
    """
    from pretext.inpainting.measuring import hole_errors

    shown, whole = (each.float() / 255 for each in (pictures.shown(), pictures.images))
    columns = {
        "input": (shown, "with a hole"),
        **{name: (column, f"filled by {run.title(name)}") for name, column in fills.items()},
        "original": (whole, "original"),
    }
    small = {name: f"<small>{escape(text)}</small>" for name, text in (below or {}).items()}
    head = "".join(f'<th scope="col">{breakable(run.title(name))}{small.get(name, "")}</th>' for name in columns)
    psnr = {name: hole_errors(column, pictures)["PSNR"] for name, column in fills.items()}

    def cell(name: str, at: int) -> str:
        column, words = columns[name]
        image = image_html(as_image(column[at]), f"{label}: test image {at + 1} {words}")
        return f"<td>{image}<small>{psnr[name][at]:.1f} dB</small></td>" if name in psnr else f"<td>{image}</td>"

    lines = ["".join(cell(name, at) for name in columns) for at in range(len(pictures.images))]
    return (
        f'<div class="scroll fills" tabindex="0" role="region" aria-label="{escape(label)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"
        "</div>"
    )
