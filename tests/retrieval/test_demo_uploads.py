"""Uploads of the search page: formats, forged headers, and decoding beside the event loop."""

from __future__ import annotations

import asyncio
import io
import struct
import threading
import zlib

import pytest
import torch
from PIL import Image

from pretext.datasets import BadImage
from pretext.datasets.decoding import decode

uploads = pytest.importorskip("retrieval.demo.uploads", reason="fastapi is not installed")
RequestError = pytest.importorskip("retrieval.demo.guard", reason="fastapi is not installed").RequestError


def written(file_format, size=(40, 30), **options):
    content = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(content, file_format, **options)
    return content.getvalue()


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of(width, height, *chunks):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def forged_gif(width, height, frame_width, frame_height):
    screen = struct.pack("<6sHHBBB", b"GIF89a", width, height, 0x80, 0, 0) + bytes(6)
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, frame_width, frame_height, 0)
    return screen + frame + b"\x02\x02\x4c\x01\x00;"


def forged_bmp(width, height):
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 1, 1, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def forged_jpeg(width, height):
    content = written("JPEG")
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


def forged_webp(width, height):
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    frames = b"VP8X" + struct.pack("<II", 10, 2) + canvas
    frames += b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    picture = written("WEBP")[12:]
    about = bytes(6) + (39).to_bytes(3, "little") + (29).to_bytes(3, "little") + bytes(4)
    frames += b"ANMF" + struct.pack("<I", len(about) + len(picture)) + about + picture
    return b"RIFF" + struct.pack("<I", len(frames) + 4) + b"WEBP" + frames


@pytest.fixture
def no_decoding(monkeypatch):
    monkeypatch.setattr(uploads, "decode", lambda *given, **options: pytest.fail("the picture was decoded"))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "MPO"])
def test_pictures_of_the_web_and_of_phones_are_accepted(file_format):
    options = {"save_all": True, "append_images": [Image.new("RGB", (40, 30))]} if file_format == "MPO" else {}
    content = written(file_format, **options)
    with Image.open(io.BytesIO(content)) as opened:
        assert opened.format == file_format
    assert torch.equal(uploads.decode_upload(content), decode(io.BytesIO(content)))


@pytest.mark.parametrize("file_format", ["ICO", "ICNS", "TIFF", "TGA", "PPM", "EPS", "PDF", "PCX", "SGI", "DDS"])
def test_other_formats_are_refused_undecoded(no_decoding, file_format):
    with pytest.raises(RequestError, match="choose a JPEG, PNG, WebP, GIF or BMP file"):
        uploads.decode_upload(written(file_format))


def test_an_icon_that_states_a_smaller_size_than_its_picture_is_refused(no_decoding):
    picture = png_of(30_000, 30_000, chunk(b"IDAT", zlib.compress(bytes(1000))))
    forged = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(picture), 22) + picture
    with pytest.raises(RequestError, match="not a readable picture"):
        uploads.decode_upload(forged)


@pytest.mark.parametrize("size", [(8000, 5001), (10_000, 9000), (16_000, 16_000)])  # Pillow warns, Pillow refuses
@pytest.mark.parametrize(
    "forged",
    [
        lambda w, h: png_of(w, h, chunk(b"IDAT", zlib.compress(bytes(1000)))),
        lambda w, h: forged_gif(w, h, 1, 1),
        lambda w, h: forged_gif(1, 1, w, h),
        forged_bmp,
        forged_jpeg,
        forged_webp,
    ],
)
def test_a_declared_size_is_refused_undecoded(no_decoding, forged, size):
    with pytest.raises(RequestError, match="more than 40 million pixels"):
        uploads.decode_upload(forged(*size))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        png_of(0, 0),
        png_of(0, 30),
        png_of(30, 30),
        png_of(30, 30, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))),
        png_of(30, 30, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**8)))),
        forged_gif(0, 0, 0, 0),
        forged_bmp(0, 0),
        forged_bmp(30, -(2**31)),
        forged_bmp(-30, 30),
        forged_jpeg(0, 0),
        *(written(name)[:kept] for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP") for kept in (12, 30, 60)),
    ],
)
def test_a_broken_file_gets_a_sentence(content):
    with pytest.raises(RequestError, match=r"not a readable picture|more than 40 million pixels"):
        uploads.decode_upload(content)


def test_decoding_tries_the_given_formats_only():
    with pytest.raises(BadImage):
        decode(io.BytesIO(written("TIFF")), formats=uploads.FORMATS)
    assert decode(io.BytesIO(written("TIFF"))).shape == (3, 30, 40)


def test_any_error_of_a_plug_in_gets_a_sentence(monkeypatch):
    for error in (OverflowError, MemoryError, RuntimeError, zlib.error, KeyError, AssertionError):

        def fail(*given, error=error, **options):
            raise error("broken")

        monkeypatch.setattr(Image, "open", fail)
        with pytest.raises(RequestError, match="not a readable picture"):
            uploads.decode_upload(b"x")


def test_pictures_are_decoded_one_at_a_time_beside_the_event_loop(monkeypatch):
    """The event loop lets the decoding go on; if decoding blocked the loop, this would never end."""
    go_on, running, most = threading.Event(), [], []

    def slow(content):
        running.append(content)
        most.append(len(running))
        assert go_on.wait(60)
        running.remove(content)
        return torch.zeros(3, 1, 1, dtype=torch.uint8)

    async def upload_three():
        kept = uploads.Uploads()
        tasks = [asyncio.create_task(kept.add(bytes([number]))) for number in range(3)]
        while not running:
            await asyncio.sleep(0)
        go_on.set()
        return kept, await asyncio.gather(*tasks)

    monkeypatch.setattr(uploads, "decode_upload", slow)
    kept, names = asyncio.run(upload_three())
    assert most == [1, 1, 1]
    assert len({*names}) == 3 and all(kept.get(name).shape == (3, 1, 1) for name in names)
    with pytest.raises(RequestError, match="has expired"):
        kept.get("another")


def test_a_refused_upload_does_not_keep_others_waiting():
    async def upload_two():
        kept = uploads.Uploads()
        with pytest.raises(RequestError):
            await kept.add(b"text")
        return kept.get(await kept.add(written("PNG")))

    assert asyncio.run(upload_two()).shape == (3, 30, 40)


def test_uploads_are_kept_within_a_bound_of_memory(monkeypatch):
    monkeypatch.setattr(uploads, "MAX_KEPT_BYTES", 2 * 3 * 20 * 20)
    kept, names = uploads.Uploads(), []
    for _ in range(3):
        names.append(asyncio.run(kept.add(written("PNG", (20, 20)))))
    assert [kept.get(name).shape for name in names[1:]] == [(3, 20, 20)] * 2
    with pytest.raises(RequestError, match="has expired"):
        kept.get(names[0])
