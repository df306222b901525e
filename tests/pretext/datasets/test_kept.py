"""Pictures that keep their shape: their sizes, their targets, what squashes them, and batches of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as V

from pretext.datasets import IGNORE, at_size, for_views, open_dataset
from pretext.datasets.fitting import GREY, fitted, padded_place
from pretext.datasets.given import as_dataset
from pretext.datasets.kept import VIEW_DETAIL, KeptDataset, packed_pictures
from pretext.datasets.packed import PackedDataset
from pretext.system.errors import UserError

SHAPES = [(40, 60), (60, 40), (12, 90), (9, 7), (30, 30)]


@pytest.fixture
def folder(tmp_path):
    """A folder of pictures of several shapes; a file's name gives its height and width."""
    (tmp_path / "photos").mkdir()
    for number, (height, width) in enumerate(SHAPES * 4):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number:02}.png")
    return f"folder:{tmp_path / 'photos'}"


def test_small_squares_are_packed_however_large_the_views(monkeypatch, own_cache):
    data = as_dataset(np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8))
    monkeypatch.setenv("PRETEXT_PACK_GB", str(50 * 3 * 8 * 8 / 1e9))
    kept = for_views(data, 64, bad_images="stop")
    assert kept.packed and kept[3][0].shape == (3, 8, 8)
    monkeypatch.setenv("PRETEXT_PACK_GB", str(20 * 3 * 8 * 8 / 1e9))
    assert not for_views(data, 64, bad_images="stop").packed


def test_pictures_keep_their_shape_and_are_never_enlarged(folder):
    data = open_dataset(folder)
    kept = for_views(data, 8, bad_images="stop")
    assert isinstance(kept, KeptDataset) and kept.packed and kept.shorter == VIEW_DETAIL * 8
    for index in range(len(data)):
        height, width = data[index][0].shape[1:]
        share = min(1, 24 / min(height, width))
        assert kept[index][0].shape[1:] == (round(height * share), round(width * share))
        if share == 1:
            assert torch.equal(kept[index][0], data[index][0])


def test_load_size_and_squash_are_keys_of_every_kind(folder):
    assert for_views(open_dataset(f"{folder}?load_size=10"), 8, bad_images="stop").shorter == 10
    squashed = open_dataset(f"{folder}?resize=squash")
    assert isinstance(for_views(squashed, 8, bad_images="stop"), PackedDataset)
    plain = at_size(open_dataset(folder), 8, bad_images="stop")
    for fit in ("crop", "pad"):
        sized = at_size(squashed, 8, bad_images="stop", fit=fit)
        assert torch.equal(sized.images, plain.images)
        assert torch.equal(sized.split("test").images, plain.split("test").images)
        assert not torch.equal(at_size(open_dataset(folder), 8, bad_images="stop", fit=fit).images, plain.images)


@pytest.mark.parametrize("keys", ["resize=stretch", "load_size=0", "load_size=9999"])
def test_other_values_are_refused(folder, keys):
    with pytest.raises(UserError, match=r"keep .* or squash|1 to 8192"):
        open_dataset(f"{folder}?{keys}")


def test_squares_of_the_views_side_are_packed_once():
    data = open_dataset("scenes?size=16&train=4&val=2&test=2")
    first, second = for_views(data, 16, bad_images="stop"), at_size(data, 16, bad_images="stop", fit="crop")
    assert isinstance(first, PackedDataset) and first.fit == second.fit == "squash"
    assert isinstance(for_views(data, 8, bad_images="stop"), KeptDataset)


def test_a_batch_holds_each_picture_with_its_own_size(folder):
    kept = for_views(open_dataset(folder), 8, bad_images="stop")
    indices = np.array([3, 0, 2])
    batch = packed_pictures(kept, indices, 8)
    pictures = [kept[int(index)][0] for index in indices]
    assert [*zip(batch.height, batch.width, strict=True)] == [picture.shape[1:] for picture in pictures]
    assert all(torch.equal(held, picture) for held, picture in zip(batch, pictures, strict=True))


@pytest.mark.parametrize(("height", "width"), [(30, 50), (50, 30), (7, 90), (20, 20)])
def test_a_padded_picture_lies_in_the_middle_with_its_boxes_and_its_mask(height, width):
    picture = torch.full((3, height, width), 255, dtype=torch.uint8)
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[: height // 2] = 3
    box = torch.tensor([[width / 4, 0.0, width / 2, height / 2]])
    target = {
        "boxes": tv_tensors.BoundingBoxes(box, format="XYXY", canvas_size=(height, width)),
        "masks": tv_tensors.Mask(mask),
        "label": torch.tensor(1),
    }
    image, moved = fitted(picture, target, 40, "pad")
    top, left, inner_height, inner_width = padded_place(height, width, 40)
    inside = torch.zeros(40, 40, dtype=torch.bool)
    inside[top : top + inner_height, left : left + inner_width] = True
    assert max(inner_height, inner_width) == 40 and abs((40 - inner_height) // 2 - top) == 0
    assert (image[:, inside] == 255).all()
    assert torch.equal(
        image[:, ~inside], torch.tensor(GREY, dtype=torch.uint8)[:, None].expand(3, int((~inside).sum()))
    )
    assert (moved["masks"][~inside] == IGNORE).all() and set(moved["masks"][inside].tolist()) == {0, 3}
    share = 40 / max(height, width)
    expected = box * share + torch.tensor([left, top, left, top])
    torch.testing.assert_close(torch.as_tensor(moved["boxes"]), expected, atol=0.6, rtol=0)
    assert moved["boxes"].canvas_size == (40, 40) and moved["label"] == 1


def test_a_cut_picture_is_the_resized_square_in_its_centre():
    picture = torch.randint(0, 256, (3, 30, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image, target = fitted(picture, {"label": torch.tensor(2), "boxes": None}, 12, "crop")
    assert torch.equal(image, V.resize(V.center_crop(picture, [30, 30]), [12, 12], antialias=True))
    assert target == {"label": torch.tensor(2)}
