"""Tests the images on the page: fills, neighbours, sheets, and the size limit."""

from __future__ import annotations

import re

import numpy as np
import pytest
from report_samples import SPEC, Page, trained_folder

from benchmarks.report.content import read_run
from benchmarks.report.page import page
from pretext.datasets import open_dataset


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return trained_folder(tmp_path_factory.mktemp("trained"))


@pytest.mark.slow
def test_every_kind_of_image_is_on_the_page(trained):
    text = (trained / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.wrong
    assert " left out:" not in text
    alts = [image.get("alt") or image["aria-label"] for image in page.images]
    assert all(alts)
    for wanted in (
        "Inpainting by decoders: test image 1 filled by Context encoder",
        "Inpainting by decoders: test image 8 original",
        "Inpainting from the nearest image: test image 1 filled by HOG",
        "Inpainting from the nearest image: test image 8 filled by Random weights",
        "Nearest neighbours (objects), query: ",
        "Nearest neighbours (contexts), query: ",
        "segmentation of test images with the encoder of Random weights",
        "Test image 6: features of Context encoder at conv2 as colours",
        "filters of the first layer of Context encoder",
        "Training loss over images seen, one panel per row: Context encoder from",
        "headline number against pretraining cost in processor seconds: Context encoder",
    ):
        assert any(wanted in alt for alt in alts), wanted
    assert len(text.encode()) < 10e6
    train = len(open_dataset(SPEC).split("train"))
    assert f"All {train} training images are searched." in text and "At most 1,000 regions are searched." in text


def test_holes_are_filled_from_the_image_with_the_most_similar_surroundings(trained):
    import base64
    import io

    from PIL import Image

    from pretext.encoders import load_encoder
    from pretext.inpainting.measuring import drawn_pictures

    text = (trained / "report.html").read_text(encoding="utf-8")
    found = re.findall(r'base64,([^"]*)" alt="[^"]*nearest image: test image \d filled by Random weights', text)
    fills = np.stack([np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]).astype(int)
    data = open_dataset(SPEC)
    encoder = load_encoder(trained / "pretrain" / "random.s0.0" / "encoder.safetensors").eval()

    def drawn(split, count):
        return drawn_pictures(data, split=split, image_size=32, test_images=count, seed=0, hole="central")

    def described(pictures):
        maps = encoder(pictures.shown())[1].detach().double().numpy()  # conv2
        count, channels, side, _ = maps.shape
        cells = maps.reshape(count, channels, 4, side // 4, 4, side // 4).mean(axis=(3, 5)).reshape(count, -1)
        return cells / np.linalg.norm(cells, axis=1, keepdims=True)

    def laplacian(pixels):
        return (4 * pixels - sum(np.roll(pixels, step, axis) for axis in (1, 2) for step in (1, -1)))[:, 8:24, 8:24]

    pictures, train = drawn("test", 8), drawn("train", 40)
    originals, sources = (part.images.permute(0, 2, 3, 1).numpy().astype(int) for part in (pictures, train))
    hole = pictures.holes[:, 0].numpy()
    assert fills.shape == (8, 32, 32, 3)
    assert (fills == originals)[~hole].all()
    nearest = sources[(described(pictures) @ described(train).T).argmax(axis=1)]
    cut = ((fills == 0) | (fills == 255)).any(axis=-1)
    beside = [np.roll(cut, step, axis) for axis in (1, 2) for step in (1, -1)]
    kept = ~np.any([cut, *beside], axis=0)[:, 8:24, 8:24]
    assert kept.sum() > 1500
    assert np.abs(laplacian(fills) - laplacian(nearest))[kept].max() <= 4  # blended: gradients of the source


def test_sections_beyond_the_size_limit_are_left_out(trained, monkeypatch):
    text = (trained / "report.html").read_text(encoding="utf-8")
    monkeypatch.setattr("benchmarks.report.page.MOST_BYTES", 300_000)
    plain = page(read_run(trained), list)
    gaps = re.findall(r"<li>([^<]*) left out: ([\d.]+) MB more would make the page exceed 10 MB</li>", plain)
    assert gaps
    assert len(plain) < 320_000 < len(text)
    assert "Run details" in plain
    for title, _ in gaps:
        assert f"<h2>{title}</h2>" in text
        assert f"<h2>{title}</h2>" not in plain


def test_the_truth_of_a_sheet_is_shown_once(trained):
    text = (trained / "report.html").read_text(encoding="utf-8")
    for name, times in (("segmentation of test images: image", 6), ("segmentation of test images: truth", 6)):
        assert text.count(f'alt="{name}, image ') == times
    for row in ("Random weights", "Context encoder"):
        assert text.count(f'alt="segmentation of test images with the encoder of {row}, image ') == 6
