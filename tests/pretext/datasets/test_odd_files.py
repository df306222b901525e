"""Unusual and broken image files: all that can be decoded load, and the others are named."""

from __future__ import annotations

import os
from pathlib import Path

import dataset_samples
import numpy as np
import pytest
import torch
from dataset_samples import one_line
from PIL import Image

from pretext.datasets import BadImage, at_size, open_dataset
from pretext.datasets.decoding import decode, decode_mask, uses_few_bits
from pretext.datasets.files import FileDataset, images_below
from pretext.system.errors import UserError


def odd_pictures(root):
    rgb = Image.fromarray(dataset_samples.pixels(1, 0, 30, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = {
        "grey.jpg": (rgb.convert("L"), {}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "alpha.png": (rgb.convert("RGBA"), {}),
        "palette.png": (rgb.convert("P"), {}),
        "one-bit.png": (rgb.convert("1"), {}),
        "sixteen.png": (Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50), {}),
        "web.webp": (rgb, {}),
        "UPPER.JPG": (rgb, {}),
        "turned.jpg": (rgb, {"exif": exif}),
        "tall.png": (rgb.resize((3, 200)), {}),
        "name with spaces äöü 한글.jpg": (rgb, {}),
    }
    root.mkdir(parents=True)
    for name, (picture, options) in pictures.items():
        picture.save(root / name, **options)
    return len(pictures)


def broken_pictures(root):
    root.mkdir(parents=True, exist_ok=True)
    whole = root / "whole.jpg"
    Image.fromarray(dataset_samples.pixels(1, 0, 64, 64)).save(whole)
    content = whole.read_bytes()
    whole.unlink()
    broken = {
        "cut.jpg": content[: len(content) // 2],
        "empty.jpg": b"",
        "text.jpg": b"this is no picture",
        "header.png": b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR",
    }
    for name, data in broken.items():
        (root / name).write_bytes(data)
    return sorted(broken)


def check_good(folder, count):
    data = open_dataset(f"folder:{folder}")
    parts = list(data.splits.values())
    assert sum(map(len, parts)) == count
    for part in parts:
        for image, _ in part:
            assert image.dtype == torch.uint8 and image.shape[0] == 3
        assert len(at_size(part, 8, bad_images="stop")) == len(part)


def check_bad(good, bad, names, tmp_path, capsys):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for file in (*good.iterdir(), *bad.iterdir()):
        (mixed / file.name).write_bytes(file.read_bytes())
    sound = len(list(good.iterdir()))
    whole = FileDataset(root=tmp_path, images=list(images_below(mixed)))
    whole.spec, whole.splits = f"folder:{mixed}", {"train": whole}
    packed = at_size(whole, 8, bad_images="skip")
    assert len(packed) == sound and len(packed.skipped) == len(names)
    for name in names:
        assert sum(name in reason for reason in packed.skipped) == 1
    assert packed.fingerprint != whole.fingerprint
    assert f"left out {len(names)} of {len(whole)} pictures" in capsys.readouterr().err
    assert any(f"{len(names)} of {len(whole)} pictures could not be decoded" in note for note in packed.notes)
    with pytest.raises(UserError, match=f"{len(names)} of {len(whole)} pictures cannot be decoded") as excinfo:
        at_size(whole, 8, bad_images="stop")
    assert "--bad-images skip" in one_line(excinfo)


def test_odd_pictures_load_and_broken_ones_are_named(tmp_path, capsys):
    count = odd_pictures(tmp_path / "good")
    names = broken_pictures(tmp_path / "bad")
    check_good(tmp_path / "good", count)
    turned = FileDataset(root=tmp_path, images=[str(tmp_path / "good" / "turned.jpg")])
    assert turned[0][0].shape == (3, 40, 30)
    check_bad(tmp_path / "good", tmp_path / "bad", names, tmp_path, capsys)


def test_odd_files_of_the_wild(tmp_path, capsys):
    if not (root := os.environ.get("PRETEXT_TEST_DATA")):
        pytest.skip("PRETEXT_TEST_DATA names no folder of real photographs")
    good, bad = Path(root) / "odd-files" / "good", Path(root) / "odd-files" / "bad"
    check_good(good, len(list(good.iterdir())))
    check_bad(good, bad, [file.name for file in bad.iterdir()], tmp_path, capsys)


def test_nothing_but_broken_pictures_is_an_error_either_way(tmp_path):
    broken_pictures(tmp_path)
    whole = FileDataset(root=tmp_path, images=sorted(map(str, tmp_path.iterdir())))
    whole.spec = "folder:x"
    for bad_images in ("skip", "stop"):
        with pytest.raises(UserError, match="all 4 pictures cannot be decoded"):
            at_size(whole, 8, bad_images=bad_images)


def test_the_reasons_of_broken_pictures_keep_their_words(tmp_path):
    """A pack's fingerprint hashes them: with other words stored results would seem to be of other data."""
    with pytest.raises(BadImage) as empty:
        (tmp_path / "empty.png").write_bytes(b"")
        decode(tmp_path / "empty.png")
    with pytest.raises(BadImage) as text:
        (tmp_path / "text.png").write_text("no picture at all")
        decode(tmp_path / "text.png")
    with pytest.raises(BadImage) as coloured:
        Image.new("RGB", (4, 3)).save(tmp_path / "colours.png")
        decode_mask(tmp_path / "colours.png")
    with pytest.raises(BadImage) as deep:
        Image.fromarray(np.full((3, 4), 300, np.uint16)).save(tmp_path / "deep.png")
        decode_mask(tmp_path / "deep.png")
    assert [str(error.value).removeprefix(f"{tmp_path}/") for error in (empty, text, coloured, deep)] == [
        "empty.png: empty file",
        "text.png: not a picture that Pillow can read",
        "colours.png: a mask is a palette or greyscale picture of class indices, not RGB",
        "deep.png: a mask's indices run from 0 to 255; this one reaches 300",
    ]


def test_what_is_no_regular_file_is_a_bad_picture_or_mask(tmp_path):
    folder = tmp_path / "masks"
    spec = dataset_samples.make("masks", folder)
    sound = open_dataset(spec).fingerprint
    images, masks = folder / "images" / "train", folder / "masks" / "train"
    for file in (images / "0.jpg", masks / "1.png", images / "2.jpg", masks / "3.png"):
        file.unlink()
    os.mkfifo(images / "0.jpg")
    os.mkfifo(masks / "1.png")
    (images / "2.jpg").symlink_to(tmp_path / "gone.jpg")
    (masks / "3.png").symlink_to(masks / "3.png")
    data = open_dataset(spec)
    packed = at_size(data, 8, bad_images="skip")
    assert len(packed) == 2 and [reason.removeprefix(f"{folder}/") for reason in packed.skipped] == [
        "images/train/0.jpg: not a regular file",
        "masks/train/1.png: not a regular file",
        "images/train/2.jpg: No such file or directory",
        "masks/train/3.png: Too many levels of symbolic links",
    ]
    before = data.fingerprint
    dataset_samples.save(tmp_path / "gone.jpg", dataset_samples.pixels(1, 2))
    assert len({sound, before, open_dataset(spec).fingerprint}) == 3
    with pytest.raises(UserError, match=r"0\.jpg: not a regular file"):
        at_size(open_dataset(spec), 8, bad_images="stop")


@pytest.mark.parametrize(("highest", "white"), [(255, 255), (1023, 1023), (3000, 4095), (4095, 4095), (4096, 65535)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_few_bits_in_sixteen_are_not_black(tmp_path, highest, white, suffix):
    values = np.linspace(0, highest, 400).astype(np.uint16).reshape(20, 20)
    for number in range(6):
        Image.fromarray(np.roll(values, number, axis=0)).save(tmp_path / f"{number}.{suffix}")
    data = open_dataset(f"folder:{tmp_path}")
    expected = np.rint(values * (255 / white)).astype(int)
    assert np.abs(data[0][0].numpy() - expected).max() <= 1
    assert any("use 12 bits or fewer" in note for note in data.notes) == (highest < 4096)
    assert sum("use 12 bits or fewer" in note for note in data.notes) <= 1


def test_a_fingerprint_changes_only_where_few_bits_are_scaled(tmp_path, monkeypatch):
    fingerprints = []
    for highest in (4095, 65535):
        values = np.full((20, 20), highest, np.uint16)
        Image.fromarray(values).save(tmp_path / f"{highest}.png")
        for known in (uses_few_bits, lambda path: False):
            monkeypatch.setattr("pretext.datasets.files.uses_few_bits", known)
            whole = FileDataset(root=tmp_path, images=[str(tmp_path / f"{highest}.png")])
            fingerprints.append(whole.fingerprint)
    assert fingerprints[0] != fingerprints[1] and fingerprints[2] == fingerprints[3]


def test_a_large_mask_is_read_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    Image.new("L", (20, 20), 3).save(tmp_path / "mask.png")
    assert decode_mask(tmp_path / "mask.png").max() == 3
    assert not uses_few_bits(tmp_path / "mask.png")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["voc", "coco", "masks"])
def test_a_named_pipe_among_the_annotations_does_not_hang(kind, tmp_path):
    spec = dataset_samples.make(kind, tmp_path / kind)
    for file in [path for path in sorted((tmp_path / kind).rglob("*")) if path.suffix in (".xml", ".txt", ".json")]:
        content = file.read_bytes()
        file.unlink()
        os.mkfifo(file)
        try:
            open_dataset(spec)
        except UserError as error:
            assert file.stem in str(error)
        with pytest.raises(UserError, match=f"write {kind}:|write folder:"):
            open_dataset(str(tmp_path / kind))
        file.unlink()
        file.write_bytes(content)
    open_dataset(spec)


@pytest.mark.timeout(60)
def test_a_named_pipe_among_pictures_that_exif_may_turn_does_not_hang(tmp_path):
    spec = dataset_samples.make("coco", tmp_path)
    (tmp_path / "train2017" / "0000.png").unlink()
    os.mkfifo(tmp_path / "train2017" / "0000.png")
    assert len(at_size(open_dataset(spec), 8, bad_images="skip")) == dataset_samples.PER_SPLIT - 1


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_a_pixel_without_a_value_takes_no_contrast(tmp_path, hole):
    values = np.linspace(500, 510, 256, dtype=np.float32).reshape(16, 16)
    values[3, 4] = hole
    Image.fromarray(values).save(tmp_path / "heights.tif")
    seen = FileDataset(root=tmp_path, images=[str(tmp_path / "heights.tif")])[0][0][0].numpy()
    expected = np.round((values - 500) * 25.5)
    known = np.isfinite(values)
    assert np.abs(seen[known] - expected[known]).max() <= 1
    assert seen[3, 4] == (255 if hole == np.inf else 0)
