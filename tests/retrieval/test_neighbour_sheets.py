"""Sheets of nearest neighbours: outlines and proportions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pretext.datasets.files import FileDataset
from pretext.datasets.objects import Objects
from pretext.datasets.packed import ResizedDataset
from retrieval.regions import WHOLE, Regions, patch_rows
from retrieval.sheets import Tile, neighbour_sheet, tile_of


def test_a_box_is_outlined_where_it_is() -> None:
    black = torch.zeros(3, 8, 8, dtype=torch.uint8)
    plain = neighbour_sheet([Tile(black, WHOLE, "")], {"a": [[Tile(black, WHOLE, "")]]})
    boxed = neighbour_sheet([Tile(black, (0.5, 0.5, 0.5, 0.5), "")], {"a": [[Tile(black, WHOLE, "")]]})
    red = (np.asarray(boxed) == [255, 45, 85]).all(axis=-1)
    rows, columns = red.nonzero()
    assert not (np.asarray(plain) == [255, 45, 85]).all(axis=-1).any()
    assert (rows.min(), columns.min()) == (6 + 56, 6 + 56)
    assert (rows.max(), columns.max()) == (6 + 111, 6 + 111)


@pytest.mark.parametrize("box", [(0.5, 0.25, 0.004, 0.004), (0.0, 0.99, 0.01, 0.01), (0.2, 0.2, 0.01, 0.6)])
def test_a_tiny_box_is_seen_on_a_sheet(box: tuple[float, float, float, float]) -> None:
    black = torch.zeros(3, 224, 224, dtype=torch.uint8)
    plain = Tile(black, WHOLE, "")
    sheet = np.asarray(neighbour_sheet([Tile(black, box, "")], {"a": [[plain]]}))[6:118, 6:118]
    marked = (sheet == (255, 45, 85)).all(axis=-1)
    assert marked.sum() >= 12
    rows, columns = (each.mean() / 112 for each in marked.nonzero())
    assert (columns, rows) == pytest.approx((box[0] + box[2] / 2, box[1] + box[3] / 2), abs=0.06)


def test_a_photograph_is_not_squashed_on_a_sheet() -> None:
    wide = torch.zeros(3, 10, 40, dtype=torch.uint8)
    sheet = np.asarray(neighbour_sheet([Tile(wide, WHOLE, "")], {"a": [[Tile(wide, WHOLE, "")]]}))
    rows, columns = (sheet[:, :118] == 0).all(axis=-1).nonzero()
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == (112, 28)


@pytest.mark.parametrize("shape", [(40, 80), (80, 40), (50, 50)])
def test_a_region_of_a_padded_picture_is_outlined_where_it_is(tmp_path: Path, shape: tuple[int, int]) -> None:
    pixels = np.full((*shape, 3), 90, np.uint8)
    pixels[0:10, 20:34] = (250, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    objects = Objects.gather([([0], [(20.0, 0.0, 34.0, 10.0)], [False])])
    picture = FileDataset(root=tmp_path, images=[str(tmp_path / "0.png")], classes=("red",), objects=objects)
    sized = ResizedDataset(picture, 64, "pad")
    boxes, labels = Regions(mode="objects").boxes(sized[0][1], 64)
    tile = tile_of(sized, patch_rows(0, boxes, labels)[0], "")
    x, y, w, h = tile.box
    height, width = shape
    np.testing.assert_allclose((x * width, y * height, w * width, h * height), (20, 0, 14, 10), atol=0.7)
