"""Data at one size: resized pictures, boxes and masks, and the packs in the cache."""

from __future__ import annotations

import dataset_samples
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from pretext.datasets import IGNORE, PackedDataset, at_size, open_dataset
from pretext.datasets.base import BadImage
from pretext.datasets.classification import class_targets
from pretext.datasets.fitting import fitted
from pretext.datasets.packed import ResizedDataset
from pretext.system.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def voc(tmp_path):
    return open_dataset(dataset_samples.make("voc", tmp_path))


def packs(own_cache):
    return sorted(entry.name for entry in (own_cache / "packs").iterdir())


@pytest.mark.parametrize("size", [12, 48, 96])
def test_box_mask_and_picture_stay_together(voc, size):
    image, target = at_size(voc, size, bad_images="stop")[1]
    expected = torch.tensor([5 / 24, 6 / 20, 15 / 24, 14 / 20]) * size
    assert torch.allclose(target["boxes"].as_subclass(torch.Tensor), expected[None])
    assert target["boxes"].canvas_size == (size, size)
    rows, columns = (target["masks"] == 7).nonzero().T
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert all(abs(int(edge) - float(truth)) <= 1 for edge, truth in zip(found, expected, strict=True))
    inside = (target["masks"] == 7).numpy()
    assert image[0].numpy()[inside].mean() > 200 > 140 > image[0].numpy()[~inside].mean()
    assert set(target["masks"].unique().tolist()) <= {0, 7, IGNORE}  # no number is made up between two


def test_pixels_are_averaged_not_picked(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    for number in range(3):
        stripes[number, 1] = 1  # three different pictures
        dataset_samples.save(tmp_path / f"{number}.png", stripes)
    image = at_size(open_dataset(f"folder:{tmp_path}"), 8, bad_images="stop")[0][0]
    assert (image.float() - 127.5).abs().max() < 25


def test_a_large_jpeg_decoded_coarsely_is_the_picture_decoded_whole(tmp_path):
    y, x = np.mgrid[:400, :600]
    smooth = np.stack([x / 600, y / 400, np.sin(x / 60) / 2 + 0.5], axis=-1)
    dataset_samples.save(tmp_path / "0.jpg", (smooth * 255).astype(np.uint8))
    for suffix in ("png", "bmp"):
        dataset_samples.save(tmp_path / f"0.{suffix}", (smooth * 255).astype(np.uint8))
    data = open_dataset(f"folder:{tmp_path}")
    images = [at_size(part, 32, bad_images="stop")[0][0].float() for part in data.splits.values()]
    assert all((image - images[0]).abs().max() < 6 for image in images)


def test_a_pack_holds_what_is_decoded_on_the_fly(voc, monkeypatch):
    packed = at_size(voc, 16, bad_images="stop")
    assert isinstance(packed, PackedDataset) and packed.images.shape == (6, 3, 16, 16)
    monkeypatch.setenv("PRETEXT_PACK_GB", "0")
    flying = at_size(voc, 16, bad_images="stop")
    assert isinstance(flying, ResizedDataset) and flying.fingerprint == packed.fingerprint
    for (image, target), (other, other_target) in zip(packed, flying, strict=True):
        assert torch.equal(image, other) and target.keys() == other_target.keys()
        assert all(torch.equal(target[name], other_target[name]) for name in target)
    assert torch.equal(class_targets(packed), class_targets(flying))
    monkeypatch.setenv("PRETEXT_PACK_GB", "much")
    with pytest.raises(UserError, match="PRETEXT_PACK_GB=much: expected a number"):
        at_size(voc, 16, bad_images="stop")


def test_a_pack_is_built_once_and_for_its_content_alone(tmp_path, own_cache):
    spec = dataset_samples.make("folder", tmp_path)
    before = at_size(open_dataset(spec), 16, bad_images="stop")[0][0].clone()
    first = packs(own_cache)
    written = (own_cache / "packs" / first[0] / "images.bin").stat().st_mtime_ns
    at_size(open_dataset(spec), 16, bad_images="stop")
    assert packs(own_cache) == first and len(first) == 1
    assert (own_cache / "packs" / first[0] / "images.bin").stat().st_mtime_ns == written
    at_size(open_dataset(spec), 8, bad_images="stop")
    dataset_samples.save(tmp_path / "train" / "a" / "train0.png", dataset_samples.pixels(5, 5))
    changed = at_size(open_dataset(spec), 16, bad_images="stop")
    assert len(packs(own_cache)) == 3
    assert not torch.equal(changed[0][0], before)


@pytest.mark.parametrize("name", ["images.bin", "boxes.bin", "manifest.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_pack_is_built_again(voc, own_cache, name, harm):
    sound = [image.clone() for image, _ in at_size(voc, 16, bad_images="stop")]
    file = own_cache / "packs" / packs(own_cache)[0] / name
    content = file.read_bytes()
    if harm == "remove":
        file.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 0x81]) + content[middle + 1 :]
        file.write_bytes(flipped if harm == "flip" else content[:-3])
    again = at_size(voc, 16, bad_images="stop")
    assert all(torch.equal(image, kept) for (image, _), kept in zip(again, sound, strict=True))
    assert file.read_bytes() == content and len(packs(own_cache)) == 1


def test_writing_to_the_pictures_does_not_reach_the_disk(voc):
    packed = at_size(voc, 16, bad_images="stop")
    before = packed.images.clone()
    packed.images.zero_()
    assert torch.equal(at_size(voc, 16, bad_images="stop").images, before)


def test_splits_are_brought_to_size_when_they_are_asked_for(voc, own_cache):
    packed = at_size(voc, 16, bad_images="stop")
    assert set(packed.splits) == {"train", "val", "test"} and len(packs(own_cache)) == 1
    assert packed.split("train") is packed
    test = packed.split("test")
    assert len(packs(own_cache)) == 2 and test.split("train") is packed and packed.split("test") is test
    assert at_size(packed, 16, bad_images="stop") is packed
    assert at_size(packed, 8, bad_images="stop")[0][0].shape == (3, 8, 8)
    with pytest.raises(UserError, match="no split 'tset'; did you mean 'test'"):
        packed.split("tset")


def test_many_pictures_are_packed_by_workers_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr("pretext.datasets.packing.IN_PROCESS", 10)
    for number in range(150):
        colour = np.full((4, 4, 3), number, np.uint8)
        dataset_samples.save(tmp_path / "train" / f"{number:03}.png", colour)
    dataset_samples.save(tmp_path / "test" / "0.png", colour)
    (tmp_path / "train" / "070.png").write_bytes(b"nothing")
    (tmp_path / "val").mkdir()
    dataset_samples.save(tmp_path / "val" / "0.png", colour)
    packed = at_size(open_dataset(f"folder:{tmp_path}"), 2, bad_images="skip")
    assert packed.images[:, 0, 0, 0].tolist() == [number for number in range(150) if number != 70]
    assert len(packed.skipped) == 1 and "070.png" in packed.skipped[0]


def test_a_set_too_large_to_pack_names_a_broken_picture_when_it_is_reached(tmp_path, monkeypatch):
    spec = dataset_samples.make("folder", tmp_path)
    (tmp_path / "train" / "a" / "train0.png").write_bytes(b"")
    monkeypatch.setenv("PRETEXT_PACK_GB", "0")
    flying = at_size(open_dataset(spec), 16, bad_images="skip")
    assert len(flying) == 6
    with pytest.raises(BadImage, match=r"train0\.png: empty file"):
        flying[0]


def test_sizes_and_cache_folders_that_cannot_be_used_are_one_line(voc, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="size=0; pictures must be at least 1 pixel wide"):
        at_size(voc, 0, bad_images="stop")
    blocked = tmp_path / "file"
    Image.new("L", (1, 1)).save(blocked, "PNG")
    monkeypatch.setenv("PRETEXT_CACHE", str(blocked))
    with pytest.raises(UserError, match=r"cache folder .*file: .*set PRETEXT_CACHE"):
        at_size(voc, 16, bad_images="stop")


@pytest.mark.parametrize("fit", ["squash", "pad"])
@pytest.mark.parametrize("side", [64, 60, 100])
def test_a_mask_gets_the_values_at_the_centres_of_the_new_pixels(fit, side):
    mask = torch.randint(0, 200, (side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(side))
    target = {"masks": tv_tensors.Mask(mask)}
    _, moved = fitted(torch.zeros(3, side, side, dtype=torch.uint8), target, 8, fit)
    nearest = ((np.arange(8) + 0.5) * side / 8).astype(int)
    assert np.array_equal(moved["masks"].numpy(), mask.numpy()[np.ix_(nearest, nearest)])
