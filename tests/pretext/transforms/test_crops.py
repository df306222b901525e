"""Views of pictures of any shape: against torchvision, one by one and as a batch; shares, places and detail."""

from __future__ import annotations

import dataclasses
import os
from operator import itemgetter
from pathlib import Path

import pytest
import torch
from torchvision.transforms.v2 import functional as V

from pretext.datasets.decoding import decode
from pretext.datasets.kept import VIEW_DETAIL
from pretext.datasets.pictures import Pictures, equally_large, of_any_sizes
from pretext.transforms import crops
from pretext.transforms.augmentation import Augmentation, augment, crop_boxes, cropping
from pretext.transforms.crops import blur_matrix, cut, squares

SHAPES = ((40, 60), (75, 50), (33, 33), (20, 90))
STILL = Augmentation(crop_min=1.0, flip=0.0, jitter=0.0, greyscale=0.0, blur=0.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures():
    return [torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=seeded(shape[0])) for shape in SHAPES]


BOXES = torch.tensor([[5, 20, 10, 33], [0, 75, 7, 40], [3, 16, 4, 16], [2, 18, 60, 30]])
"""Top, height, left and width in each of the pictures."""
SIGMA = torch.tensor([0.0, 0.3, 1.9, 1.0])
"""Blur of the view of each picture in pixels."""


def test_a_view_of_a_larger_picture_is_the_one_that_torchvision_cuts():
    flipped = torch.tensor([True, False, False, True])
    views = cut(of_any_sizes(pictures(), 16), tuple(BOXES.T.float()), 16, flipped)
    for view, picture, (top, tall, left, wide), mirror in zip(views, pictures(), BOXES.tolist(), flipped, strict=True):
        expected = V.resized_crop(picture, top, left, tall, wide, [16, 16], antialias=True).float() / 255
        expected = expected.flip(2) if mirror else expected
        torch.testing.assert_close(view, expected, atol=1.01 / 255, rtol=0)


@pytest.mark.parametrize(("values", "parts"), [(1, 4), (3 * 75 * 60 * 2, 2), (2**28, 1)])
def test_a_gpu_cuts_the_same_views_by_matrices_as_a_cpu_one_after_the_other(monkeypatch, values, parts):
    batch, boxes, flipped = of_any_sizes(pictures(), 16), BOXES.T.float(), torch.tensor([True, False, True, False])
    blurring = blur_matrix(SIGMA, 16, radius=5)
    one_by_one = cut(batch, tuple(boxes), 16, flipped, blurring)
    monkeypatch.setattr(crops, "CANVAS_VALUES", values)
    monkeypatch.setattr(Pictures, "device", torch.device("cuda"))
    assert len(list(crops.parts_of(batch))) == parts
    torch.testing.assert_close(cut(batch, tuple(boxes), 16, flipped, blurring), one_by_one, atol=1.01 / 255, rtol=0)


@pytest.mark.parametrize("side", [16, 70, 96])
def test_a_blurred_view_of_a_larger_picture_is_the_view_blurred_along_both_axes(side):
    blurring = blur_matrix(SIGMA, side, radius=5)
    batch, boxes = of_any_sizes(pictures(), side), tuple(BOXES.T.float())
    plain = cut(batch, boxes, side)
    blurred = cut(batch, boxes, side, None, blurring)
    assert torch.equal(blurred[0], plain[0])
    for each, view, width in zip(blurred[1:], plain[1:], SIGMA[1:].tolist(), strict=True):
        inside = slice(5, -5)  # at the border torchvision reflects the picture
        expected = V.gaussian_blur(view, 11, width)
        torch.testing.assert_close(each[:, inside, inside], expected[:, inside, inside], atol=1e-5, rtol=0)


def test_how_pictures_lie_in_memory_makes_no_difference():
    by_pixels = [picture.permute(1, 2, 0).contiguous().permute(2, 0, 1) for picture in pictures()]
    ones, others = (
        augment(of_any_sizes(some, 16), Augmentation(blur_from=1), seeded()) for some in (pictures(), by_pixels)
    )
    assert torch.equal(ones, others)


def test_a_view_never_shows_what_lies_beside_its_picture():
    white = [torch.full((3, *shape), 255, dtype=torch.uint8) for shape in SHAPES]
    views = augment(of_any_sizes(white * 50, 12), dataclasses.replace(STILL, crop_min=0.05, flip=0.5), seeded())
    assert (views == 1).all()


def test_squares_are_the_shorter_side_resized_and_the_longer_side_cut():
    for square, picture in zip(squares(of_any_sizes(pictures(), 20)), pictures(), strict=True):
        side = min(picture.shape[1:])
        expected = V.resize(V.center_crop(picture, [side, side]), [20, 20], antialias=True)
        assert (square.int() - expected.int()).abs().max() <= 1


def test_squares_of_the_views_side_stay_as_they_are():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=seeded())
    assert squares(equally_large(images)) is images
    assert torch.equal(augment(equally_large(images), STILL, seeded()), augment(images, STILL, seeded()))


@pytest.mark.parametrize("elongation", [0.2, 0.7, 1.0, 1.5, 6.0])
def test_crops_keep_to_the_shapes_and_shares_that_are_allowed(elongation):
    settings = cropping(0.2, 0.6, aspect=2)
    draws = torch.rand(4, 20_000, generator=seeded())
    left, top, width, height = crop_boxes(draws, settings, torch.full((20_000,), elongation))
    assert (
        (left >= 0).all() and (top >= 0).all() and (left + width < 1 + 1e-5).all() and (top + height < 1 + 1e-5).all()
    )
    shape = width / height * elongation
    assert shape.min() > 1 / 2 - 1e-4 and shape.max() < 2 + 1e-4
    most = min(1.0, 2 / max(elongation, 1 / elongation))  # the largest part of a narrow picture with an allowed shape
    expected = (0.2 + 0.4 * draws[0]).clamp(max=most)
    torch.testing.assert_close(width * height, expected, atol=1e-4, rtol=0)
    assert (left / (1 - width).clamp(min=1e-6)).std() > 0.2 or (1 - width).max() < 1e-3


def test_crops_of_squares_are_those_of_images_without_a_shape():
    draws = torch.rand(4, 1000, generator=seeded())
    for plain, shaped in zip(
        crop_boxes(draws, Augmentation()), crop_boxes(draws, Augmentation(), torch.ones(1000)), strict=True
    ):
        assert torch.equal(plain, shaped)


def laplacian(view):
    grey = view.mean(dim=1)
    middle = grey[:, 1:-1, 1:-1]
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return (around - 4 * middle).abs().mean().item()


def detail(shorter, photographs, side):
    """Return the detail of views of photographs of that shorter side, relative to those of the full photographs."""
    small = []
    for photograph in photographs:
        share = min(1.0, shorter / min(photograph.shape[1:]))
        small.append(V.resize(photograph, [round(n * share) for n in photograph.shape[1:]], antialias=True))
    each = [
        laplacian(augment(of_any_sizes(some, side), cropping(0.08, flip=0.0), seeded(k)))
        for k in range(8)
        for some in (small, photographs)
    ]
    return sum(each[0::2]) / sum(each[1::2])


@pytest.fixture(scope="module")
def photographs():
    if not (root := os.environ.get("PRETEXT_TEST_DATA")):
        pytest.skip("PRETEXT_TEST_DATA names no folder of real photographs")
    files = sorted(Path(root, "voc-mini/VOCdevkit/VOC2007/JPEGImages").glob("*.jpg"))[:12]
    return [decode(file) for file in files]


@pytest.mark.parametrize("side", [64, 128, 224])
def test_views_have_the_detail_of_the_photographs(photographs, side):
    assert detail(VIEW_DETAIL * side, photographs, side) > 0.9
    squashed = [V.resize(photograph, [side, side], antialias=True) for photograph in photographs]
    views = [
        laplacian(augment(of_any_sizes(some, side), cropping(0.08, flip=0.0), seeded()))
        for some in (squashed, photographs)
    ]
    assert views[0] / views[1] < 0.65  # what the test would say of pictures that were squashed first


def test_a_batch_is_moved_and_sliced_with_its_shapes():
    batch = of_any_sizes(pictures(), 16).rows(itemgetter(slice(1, 3))).to(torch.device("cpu"))
    assert isinstance(batch, Pictures) and len(batch) == 2
    assert batch.height.tolist() == [75, 33] and batch.width.tolist() == [50, 33]
    assert all(torch.equal(one, other) for one, other in zip(batch, pictures()[1:3], strict=True))
    whole = batch.side_by_side()
    assert torch.equal(whole[0, :, :75, :50], pictures()[1]) and not whole[1, :, 33:].any()


def test_a_panorama_costs_its_own_pixels_and_no_other_picture_of_its_batch():
    images = [*pictures(), torch.zeros(3, 50, 4000, dtype=torch.uint8)]
    assert of_any_sizes(images, 16).pixels.numel() == sum(image.numel() for image in images)
    boxes = torch.cat([BOXES, torch.tensor([[0, 50, 3900, 50]])]).float()
    views, alone = (
        cut(of_any_sizes(images, 16), boxes.unbind(1), 16),
        cut(equally_large(images[-1][None]), boxes[4:].T, 16),
    )
    assert torch.equal(views[4:], alone)


def test_pictures_keep_their_places_among_the_frames_of_clips():
    images = [*pictures(), *pictures()[::-1]]
    frames = of_any_sizes(images, 16).rows(lambda tensor: tensor.view(4, 2, *tensor.shape[1:]))
    assert frames.height.shape == (4, 2) and len(frames) == 4
    first = frames.rows(lambda tensor: tensor[:, 0])
    assert all(torch.equal(one, other) for one, other in zip(first, images[::2], strict=True))
    again = frames.rows(lambda tensor: tensor.flatten(0, 1))
    assert all(torch.equal(one, other) for one, other in zip(again, images, strict=True))
