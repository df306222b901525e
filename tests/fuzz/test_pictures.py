"""Pictures and masks of every format that Pillow writes and reads, cut, changed and spliced."""

from __future__ import annotations

import functools
import io
import random

import numpy as np
import pytest
from fuzz_samples import check, share
from PIL import Image

from pretext.datasets import BadImage, at_size, open_dataset
from pretext.datasets.decoding import decode_draft, decode_mask, image_suffixes, uses_few_bits
from pretext.system.errors import UserError

MODES = ("RGB", "L", "P", "RGBA", "1", "LA", "CMYK", "I;16", "I", "F", "YCbCr")
OPTIONS = ({}, {"compression": "tiff_lzw"}, {"progressive": True}, {"lossless": True}, {"optimize": True})


def formats() -> list[str]:
    """Return the names of the formats that can be both written here and read as pictures."""
    found = {}
    for suffix in sorted(image_suffixes()):
        name = Image.registered_extensions()[suffix]
        if name in Image.SAVE and name not in found and any(_written(name, mode, {}) for mode in MODES):
            found[name] = suffix
    return sorted(found)


def _written(name: str, mode: str, options: dict[str, object], seed: int = 0) -> bytes | None:
    """Return a small picture in a format; None if the format or its encoder does not take the mode."""
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    try:
        image = Image.fromarray(pixels)
        image = image.convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
        image.save(content, name, **options)
    except (OSError, ValueError, KeyError, SystemError, TypeError):
        return None
    return content.getvalue()


FORMATS = formats()


@functools.cache
def sources(name: str) -> list[bytes]:
    made = [_written(name, mode, options, seed) for seed, mode in enumerate(MODES) for options in OPTIONS]
    return [content for content in dict.fromkeys(made) if content]


def broken(some: list[bytes], others: list[bytes], drawn: random.Random) -> bytes:
    """Return a picture's bytes with up to three faults."""
    data = bytearray(drawn.choice(some))
    for _ in range(drawn.choice([1, 1, 2, 3])):
        if not data:
            break
        at = drawn.randrange(len(data)) if drawn.random() < 0.4 else drawn.randrange(min(len(data), 120))
        way = drawn.randrange(8)
        if way == 0:
            del data[at:]
        elif way in (1, 2):
            data[at] ^= 1 << drawn.randrange(8)
        elif way == 3:
            data[at : at + 4] = drawn.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\x00\x00\xff\xff"])
        elif way == 4:
            data[at : at + drawn.randint(1, 40)] = drawn.randbytes(drawn.randint(0, 40))
        elif way == 5:  # the rest is another picture's, perhaps of another format
            other = drawn.choice(others)
            data[at:] = other[min(at, len(other)) :]
        elif way == 6:
            data[at:at] = drawn.choice(others)[:200]
        else:
            data[at:] = data[at:] + data[: drawn.randint(1, 200)]
    return bytes(data)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FORMATS)
def test_a_broken_picture_is_read_or_bad(name, tmp_path):
    some, others = sources(name), [source for other in FORMATS for source in sources(other)[:1]]
    suffix = next(end for end in sorted(image_suffixes()) if Image.registered_extensions()[end] == name)
    file = tmp_path / f"picture{suffix}"

    def read(drawn):
        file.write_bytes(broken(some, others, drawn))
        try:
            image, (height, width) = decode_draft(file, drawn.choice([None, 8]))
        except BadImage as error:
            raise UserError(str(error)) from None
        finally:
            uses_few_bits(file)
        assert image.shape[0] == 3 and image.dtype.itemsize == 1 and height > 0 and width > 0

    check(f"{name} picture", share("pictures", name, FORMATS), read)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_broken_mask_is_read_or_bad(tmp_path):
    made = {name: sources(name) for name in FORMATS if name in ("PNG", "TIFF", "BMP", "GIF", "PPM", "TGA")}

    def read(drawn):
        name = drawn.choice(sorted(made))
        file = tmp_path / f"mask.{name.lower()}"
        file.write_bytes(broken(made[name], [some[0] for some in made.values()], drawn))
        try:
            assert decode_mask(file).dtype == np.uint8
        except BadImage as error:
            raise UserError(str(error)) from None

    check("mask", share("masks", "mask", ["mask"]), read)


def test_every_format_of_an_upload_is_tried():
    assert {"JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"} <= set(FORMATS)


@pytest.mark.parametrize("bad_images", ["stop", "skip"])
def test_a_set_of_broken_pictures_stops_or_skips(bad_images, tmp_path):
    made = {name: sources(name) for name in ("PNG", "JPEG", "GIF", "BMP")}

    def opened(drawn):
        for number in range(4):
            name = drawn.choice(sorted(made))
            content = broken(made[name], made["PNG"][:1], drawn) if number else made[name][0]
            (tmp_path / f"{number}.{name.lower()}").write_bytes(content)
        data = at_size(open_dataset(f"folder:{tmp_path}").split("train"), 8, bad_images=bad_images)
        for index in range(len(data)):
            data[index]

    check(f"folder, {bad_images}", 3, opened)
