"""Sheets of nearest neighbours: outlines and proportions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.regions import WHOLE
from retrieval.sheets import Tile, neighbour_sheet


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
