"""Tiles lie in their cells, and resizing leaks nothing about their position."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from task_samples import SMALL, VIT, batch, built, generator, noise

from pretext.encoders import build_encoder
from pretext.system.errors import UserError
from pretext.tasks import build_task, task_config
from pretext.transforms.grids import Grid, Layout, cut_tiles, draw_places, layout, sheet, tile_layer, tile_size

CPU = torch.device("cpu")


def test_the_published_grids_in_pixels():
    assert layout(540, task_config("relative_location:paper")) == Layout(144, 96, 24 - 7, 24 + 7)
    jigsaw = task_config("jigsaw:paper")
    assert layout(256, jigsaw) == Layout(75, 64, 0, 11)
    assert layout(256, jigsaw, margin=2) == Layout(75, 64, 2, 9)


@pytest.mark.parametrize("size", [32, 33, 64, 100])
@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_every_tile_stays_in_its_cell_and_the_grid_in_the_picture(size, jitter):
    where = layout(size, Grid(span=0.9, gap=0.3, jitter=jitter))
    places = draw_places(500, size, where, generator(), CPU)
    assert places.min() >= 0 and places.max() + where.side <= size
    cells = torch.tensor([(row, column) for row in range(3) for column in range(3)])
    inside = places - where.cell * cells
    # Every tile's offset in its cell, less the grid's own place, which all nine share.
    for axis in range(2):
        reach = inside[..., axis].amax(1) - inside[..., axis].amin(1)
        assert reach.max() == where.last - where.first
    corners = size - 3 * where.cell + 1
    assert set(inside.unique().tolist()) == set(range(where.first, where.last + corners))
    assert 0 <= where.first <= where.last and where.last + where.side <= where.cell
    apart = (places[:, 1, 1] - places[:, 0, 1] - where.side).float()
    assert apart.min() >= 2 * where.first
    assert apart.mean().item() == pytest.approx(where.cell - where.side, abs=0.3)


def test_tiles_are_the_pictures_own_pixels():
    images = noise(2, size=32)
    places = draw_places(2, 32, Layout(9, 6, 0, 3), generator(), CPU)
    tiles = cut_tiles(images, places[:, :, None], side=6, size=6)
    for b in range(2):
        for t, (top, left) in enumerate(places[b].tolist()):
            expected = images[b, :, top : top + 6, left : left + 6].numpy() / np.float32(255)
            np.testing.assert_array_equal(tiles[b, t].numpy(), expected)
    torch.testing.assert_close(cut_tiles(images.float() / 255, places[:, :, None], side=6, size=6), tiles)


def bilinear(tile, size):
    """Enlarge one channel, one value at a time: pixel centres at halves, the border's own value beyond it."""
    side = len(tile)
    at = (np.arange(size) + 0.5) * side / size - 0.5
    low = np.floor(at).astype(int)
    share = at - low
    first, second = np.clip(low, 0, side - 1), np.clip(low + 1, 0, side - 1)
    result = np.zeros((size, size))
    for y in range(size):
        for x in range(size):
            upper = (1 - share[x]) * tile[first[y], first[x]] + share[x] * tile[first[y], second[x]]
            lower = (1 - share[x]) * tile[second[y], first[x]] + share[x] * tile[second[y], second[x]]
            result[y, x] = (1 - share[y]) * upper + share[y] * lower
    return result


def test_enlarging_is_bilinear():
    images = noise(1, size=24)
    places = draw_places(1, 24, Layout(8, 5, 0, 3), generator(), CPU)
    small = cut_tiles(images, places[:, :, None], side=5, size=5).double().numpy()
    large = cut_tiles(images, places[:, :, None], side=5, size=8).numpy()
    for t in range(9):
        for c in range(3):
            np.testing.assert_allclose(large[0, t, c], bilinear(small[0, t, c], 8), atol=1e-6)


def test_shrinking_averages():
    images = noise(1, size=24)
    places = draw_places(1, 24, Layout(8, 8, 0, 0), generator(), CPU)[:, :, None]
    large, small = cut_tiles(images, places, side=8, size=8), cut_tiles(images, places, side=8, size=2)
    assert small.std() < 0.6 * large.std()  # every second or fourth pixel alone would have the same deviation
    torch.testing.assert_close(small.mean(dim=(3, 4)), large.mean(dim=(3, 4)), atol=0.05, rtol=0)


@pytest.mark.parametrize("size", [5, 7, 16])
def test_interpolation_does_not_tell_the_place(size):
    """The same pixels give the same tile, bit for bit, wherever they lay."""
    where = layout(37, Grid(span=1.0, gap=0.4))
    places = draw_places(3, 37, where, generator(), CPU)
    patch = noise(1, size=where.side)[0]
    images = noise(3, size=37, seed=9)
    for b in range(3):
        for top, left in places[b].tolist():
            images[b, :, top : top + where.side, left : left + where.side] = patch
    tiles = cut_tiles(images, places[:, :, None], side=where.side, size=size)
    assert torch.equal(tiles, tiles[:1, :1].expand_as(tiles))


def test_channels_can_lie_apart():
    images = noise(1, size=20)
    places = torch.tensor([[4, 5], [6, 5], [4, 2]]).expand(1, 9, 3, 2)
    tile = cut_tiles(images, places, side=6, size=6)[0, 4] * 255
    for channel, (top, left) in enumerate(((4, 5), (6, 5), (4, 2))):
        expected = images[0, channel, top : top + 6, left : left + 6].float()
        torch.testing.assert_close(tile[channel], expected)


def test_places_are_the_generators():
    where = Layout(9, 6, 0, 3)
    first, again, other = (draw_places(8, 32, where, generator(seed), CPU) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_sheet_shows_the_tiles_in_reading_order():
    values = torch.arange(9.0).view(1, 9, 1, 1, 1).expand(1, 9, 3, 10, 10) / 10
    shown = sheet(values, 36)
    assert shown.shape == (1, 3, 36, 36)
    centres = shown[0, 0, 6::12, 6::12]
    torch.testing.assert_close(centres, torch.arange(9.0).view(3, 3) / 10)
    assert shown[0, :, 0].min() == 1  # the frame


@pytest.mark.parametrize(
    ("spec", "size", "length"),
    [
        ("alexnet?width=0.125&stem_stride=1", 32, 32 * 2 * 2),
        ("alexnet?width=0.125&stem_stride=2", 64, 32 * 2 * 2),
        ("alexnet?width=0.125", 227, 32 * 2 * 2),
        ("timm:resnet18", 32, 512),
        ("timm:resnet18", 64, 512),
    ],
)
def test_half_the_input_leaves_a_map_to_read(spec, size, length):
    encoder = build_encoder(spec, input_size=size, seed=0)
    side = tile_size(encoder, Grid())
    assert side == size // 2
    assert tile_layer(encoder, side, 24)[1].weight.shape == (24, length)
    assert encoder.training


@pytest.mark.parametrize("task", ["relative_location", "jigsaw"])
def test_an_encoder_that_cannot_read_half_its_input_says_so_and_reads_all_of_it(task):
    encoder = build_encoder("alexnet?width=0.125", input_size=128, seed=0)
    with pytest.raises(UserError, match="tile of 64 px; give tile=128"):
        build_task(task, encoder, seed=0)
    build_task(f"{task}?tile=128", encoder, seed=0)


@pytest.mark.parametrize("task", ["relative_location", "jigsaw"])
def test_a_vision_transformer_reads_tiles(task):
    ((_, loss),) = built(task, VIT).losses(batch(noise(2)))
    assert torch.isfinite(loss)


def test_tiles_of_nothing_are_refused():
    encoder = build_encoder(SMALL, input_size=32, seed=0)
    with pytest.raises(ValueError, match="only 2 of 32 px"):
        tile_size(encoder, Grid(gap=0.8))
