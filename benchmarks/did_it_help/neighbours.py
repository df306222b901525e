"""A sheet of nearest neighbours for pictures without labels: the reader judges them by eye."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F

from benchmarks.report.content import read_run
from downstream.reading import draw, read
from pretext.datasets import at_size, open_dataset
from pretext.encoders import load_encoder
from pretext.system.device import device_of
from retrieval.regions import WHOLE
from retrieval.sheets import Tile, neighbour_sheet, save_sheet

QUERIES, SHOWN = 4, 6
"""Number of test pictures on the sheet, and of neighbours of each."""
SEARCHED = 2000
"""Most training pictures that are searched."""


def write_neighbours(out: Path) -> Path:
    """Write OUT/neighbours.png: test pictures with the nearest training pictures of each row; return its path.

    A picture's vector is the mean of its deepest map, as of `Encoder.embed`; encoders are those of the first seed.
    """
    run = read_run(out)
    data = open_dataset(run.plan["data"])
    shown: list[Tile] = []
    found: dict[str, list[list[Tile]]] = {}
    for row, folder in run.first_encoders().items():
        encoder = load_encoder(folder / "encoder.safetensors").to(device_of("auto"))
        test, train = (
            at_size(data.split(name), encoder.input_size, bad_images="skip", fit="crop") for name in ("test", "train")
        )
        queries, _ = read(test, draw(test, QUERIES, seed=0))
        searched, _ = read(train, draw(train, SEARCHED, seed=0))
        of_queries, of_searched = (
            F.normalize(encoder.embed(each, batch_size=64), dim=1) for each in (queries, searched)
        )
        near = (of_queries @ of_searched.T).topk(min(SHOWN, len(searched)))
        shown = [Tile(picture, WHOLE, "") for picture in queries]
        found[row] = [
            [Tile(searched[place], WHOLE, f"{cosine:.3f}") for cosine, place in zip(*pair, strict=True)]
            for pair in zip(near.values.tolist(), near.indices.tolist(), strict=True)
        ]
    path = out / "neighbours.png"
    save_sheet(neighbour_sheet(shown, found), path)
    return path
