"""Views agree with torchvision and scikit-image where the definitions agree; properties of views otherwise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from skimage.color import rgb2yiq, yiq2rgb
from torchvision.transforms.v2 import functional as V

from pretext.transforms.augmentation import Augmentation, augment, crop_boxes, recolour
from pretext.transforms.crops import blur_matrix, crop_matrix, resample

STILL = Augmentation(crop_min=1.0, flip=0.0, jitter=0.0, greyscale=0.0, blur=0.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count=4, size=32, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(count, 3, size, size, generator=seeded(99))


def as_bytes(images):
    return (images * 255).round().to(torch.uint8)


@pytest.mark.parametrize("size", [7, 32, 96])
def test_a_setting_that_changes_nothing_gives_the_picture_itself(size):
    images = pictures(size=size)
    assert torch.equal(augment(images, STILL, seeded()), images)


def test_bytes_become_the_same_view_in_zero_to_one():
    images = as_bytes(pictures(size=64))
    before = images.clone()
    views = augment(images, Augmentation(), seeded(3))
    assert torch.equal(images, before)
    assert views.dtype == torch.float32 and views.min() >= 0 and views.max() <= 1
    torch.testing.assert_close(views, augment(images.float() / 255, Augmentation(), seeded(3)), atol=1e-5, rtol=0)


def test_a_flip_is_exact():
    images = pictures(size=24)
    assert torch.equal(augment(images, dataclasses.replace(STILL, flip=1.0), seeded()), images.flip(3))


def test_half_of_the_pictures_are_flipped():
    images = pictures(1, 8).expand(2000, -1, -1, -1)
    views = augment(images, dataclasses.replace(STILL, flip=0.5), seeded())
    flipped = (views == images.flip(3)).flatten(1).all(dim=1)
    assert (flipped | (views == images).flatten(1).all(dim=1)).all()
    assert 900 < flipped.sum() < 1100


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("top", "left", "height", "width"), [(0, 0, 40, 40), (3, 5, 9, 30), (19, 0, 21, 11)])
def test_crops_are_torchvisions(antialias, top, left, height, width):
    images = pictures(2, 40)
    both = torch.ones(2)
    rows = crop_matrix(top * both, height * both, 40, 24, antialias=antialias)
    columns = crop_matrix(left * both, width * both, 40, 24, antialias=antialias)
    expected = V.resized_crop(images, top, left, height, width, [24, 24], antialias=antialias)
    torch.testing.assert_close(resample(images, rows, columns), expected, atol=2e-5, rtol=0)


def test_each_picture_is_cropped_by_its_own_box():
    images, start, length = pictures(3, 40), torch.tensor([0.0, 8.0, 20.0]), torch.tensor([40.0, 16.0, 20.0])
    flipped = torch.tensor([False, True, False])
    got = resample(images, crop_matrix(start, length, 40, 16), crop_matrix(start, length, 40, 16, flipped))
    for i in range(3):
        at, side = int(start[i]), int(length[i])
        one = V.resized_crop(images[i], at, at, side, side, [16, 16], antialias=True)
        torch.testing.assert_close(got[i], one.flip(2) if flipped[i] else one, atol=2e-5, rtol=0)


def test_a_crop_sees_nothing_outside_of_its_box():
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, 8:20, 10:26] = 1
    rows = crop_matrix(torch.tensor([8.0]), torch.tensor([12.0]), 32, 32)
    columns = crop_matrix(torch.tensor([10.0]), torch.tensor([16.0]), 32, 32)
    torch.testing.assert_close(resample(images, rows, columns), torch.ones(1, 3, 32, 32))


def test_crops_lie_inside_with_the_area_and_aspect_that_were_asked_for():
    settings = Augmentation(crop_min=0.1, crop_max=0.9, aspect=2.0)
    draws = torch.rand(4, 5000, generator=seeded(), dtype=torch.float64)
    left, top, width, height = crop_boxes(draws, settings)
    assert min(left.min(), top.min()) >= 0 and max((left + width).max(), (top + height).max()) <= 1 + 1e-9
    torch.testing.assert_close(width * height, 0.1 + 0.8 * draws[0])
    aspect = width / height
    assert 0.5 - 1e-9 <= aspect.min() < 0.55 and 1.8 < aspect.max() <= 2 + 1e-9


def colours(count, **changed):
    still = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}
    values = {name: torch.full((count,), changed.get(name, value)) for name, value in still.items()}
    return values | {"grey": torch.full((count,), changed.get("grey", False))}


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.4])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colour_changes_are_torchvisions_where_nothing_is_clipped(name, factor):
    images = pictures(4, 16, 0.35, 0.6)
    expected = getattr(V, f"adjust_{name}")(images, factor)
    assert expected.min() > 0 and expected.max() < 1
    got = recolour(images, **colours(4, **{name: factor}))
    torch.testing.assert_close(got, expected, atol=2e-4, rtol=0)  # torchvision's grey has 0.2989 for 0.299


def test_greyscale_is_torchvisions():
    images = pictures()
    expected = V.rgb_to_grayscale(images, num_output_channels=3)
    torch.testing.assert_close(recolour(images, **colours(4, grey=True)), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("turns", [-0.2, 0.1, 0.5])
def test_hue_turns_the_chroma_of_yiq(turns):
    images = pictures(2, 8)
    yiq = rgb2yiq(images.double().numpy(), channel_axis=1)
    y, chroma = yiq[:, 0], (yiq[:, 1] + 1j * yiq[:, 2]) * np.exp(2j * np.pi * turns)
    expected = yiq2rgb(np.stack([y, chroma.real, chroma.imag], axis=1), channel_axis=1)
    got = recolour(images, **colours(2, hue=turns))
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-3)  # four digits of the matrix


def test_the_order_of_colour_changes_makes_no_difference():
    images = pictures()
    together = recolour(images, **colours(4, brightness=1.2, contrast=0.7, saturation=1.5, hue=0.1))
    backwards = images
    for name, value in (("hue", 0.1), ("saturation", 1.5), ("contrast", 0.7), ("brightness", 1.2)):
        backwards = recolour(backwards, **colours(4, **{name: value}))
    torch.testing.assert_close(together, backwards, atol=1e-5, rtol=0)


def test_blur_is_torchvisions_away_from_the_border_and_keeps_a_plain_picture_plain():
    images, sigma = pictures(3, 64), torch.tensor([0.0, 0.7, 2.0])
    matrices = blur_matrix(sigma, 64, radius=3)
    blurred = resample(images, matrices, matrices)
    assert torch.equal(blurred[0], images[0])
    for i in (1, 2):
        expected = V.gaussian_blur(images[i], [7, 7], [float(sigma[i])] * 2)
        torch.testing.assert_close(blurred[i, :, 3:-3, 3:-3], expected[:, 3:-3, 3:-3], atol=1e-5, rtol=0)
    plain = torch.full((3, 3, 64, 64), 0.4)
    torch.testing.assert_close(resample(plain, matrices, matrices), plain)


def test_the_smallest_blurred_picture_is_blurred():
    spot = torch.tensor([0.0, 1.0])
    got = blur_matrix(torch.tensor([1.0]), 2, radius=1)[0] @ spot
    near = np.exp(-0.5)
    np.testing.assert_allclose(got.numpy(), [near / (1 + near), 1 / (1 + near)], rtol=1e-6)


def test_small_views_are_not_blurred():
    blurred = dataclasses.replace(STILL, blur=1.0)
    assert torch.equal(augment(pictures(size=63), blurred, seeded()), pictures(size=63))
    assert not torch.allclose(augment(pictures(size=64), blurred, seeded()), pictures(size=64), atol=1e-2)


def test_solarizing_inverts_what_is_bright():
    images = pictures()
    views = augment(images, dataclasses.replace(STILL, solarize=1.0), seeded())
    assert torch.equal(views, torch.where(images >= 0.5, 1 - images, images))


@pytest.mark.parametrize(
    "changed", [{}, {"flip": 0.0, "jitter": 0.0, "greyscale": 0.0}, {"crop_min": 1.0, "flip": 0.0}]
)
def test_equal_pictures_get_different_views(changed):
    images = pictures(1).expand(8, -1, -1, -1)
    views = augment(images, Augmentation(**({"jitter": 1.0} | changed)), seeded())
    assert all(not torch.allclose(views[i], views[j], atol=1e-3) for i in range(8) for j in range(i))


def test_the_generator_alone_decides():
    images, settings = pictures(size=64), Augmentation(solarize=0.2)
    torch.manual_seed(1)
    first = augment(images, settings, seeded(5))
    torch.manual_seed(2)
    assert torch.equal(first, augment(images, settings, seeded(5)))
    generator = seeded(5)
    assert torch.equal(first, augment(images, settings, generator))
    assert not torch.equal(first, augment(images, settings, generator))


def test_a_setting_does_not_shift_what_the_others_draw():
    images = pictures(size=64)
    crops = Augmentation(jitter=0.0, greyscale=0.0, blur=0.0)
    grey = augment(images, dataclasses.replace(crops, greyscale=1.0), seeded())
    expected = V.rgb_to_grayscale(augment(images, crops, seeded()), num_output_channels=3)
    torch.testing.assert_close(grey, expected, atol=2e-4, rtol=0)


def test_pictures_do_not_mix():
    images = pictures(6, 64)
    other = images.clone()
    other[3] = 0.5
    same = (augment(images, Augmentation(), seeded()) == augment(other, Augmentation(), seeded())).flatten(1)
    assert same.all(dim=1).tolist() == [True, True, True, False, True, True]


def test_many_pictures_give_what_few_give(monkeypatch):
    images = pictures(9, 48)
    whole = augment(images, Augmentation(), seeded())
    monkeypatch.setattr("pretext.transforms.crops.CHUNK_VALUES", 2 * 3 * 48 * 48)
    torch.testing.assert_close(augment(images, Augmentation(), seeded()), whole)


def test_mixed_precision_does_not_touch_pixels():
    images = pictures(size=64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augment(images, STILL, seeded()), images)
        mixed = augment(images, Augmentation(), seeded())
    assert torch.equal(mixed, augment(images, Augmentation(), seeded()))


def test_views_have_the_side_that_was_asked_for():
    images = pictures(2, 40)[:, :, :30]
    assert augment(images, Augmentation(), seeded(), size=16).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("value", [-1.0, 11.0, float("nan")])
@pytest.mark.parametrize("name", sorted({f.name for f in dataclasses.fields(Augmentation)} - {"blur_from"}))
def test_values_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} is {value}; "):
        Augmentation(**{name: value})


def test_a_side_out_of_range_is_named():
    with pytest.raises(ValueError, match=r"^blur_from is 0; "):
        Augmentation(blur_from=0)
