"""Lab agrees with scikit-image, round trips are exact, and the gamut has the published number of colours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull, Delaunay
from skimage.color import lab2rgb, rgb2lab

from pretext.transforms.colour import gamut, grey, lab_to_rgb, rgb_to_lab


def colours(count=2, side=40, seed=0):
    """Return noise whose first rows are black, white, near-black and the corners of the RGB cube."""
    images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))
    images[:, :, 0], images[:, :, 1] = 0, 1
    images[:, :, 2] *= 0.05
    images[:, :, 3, :8] = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3).T
    return images


def as_scikit(convert, images):
    last = images.double().movedim(1, -1).numpy()
    return torch.from_numpy(np.moveaxis(convert(last), -1, 1)).float()


def test_lab_is_scikit_images():
    images = colours()
    torch.testing.assert_close(rgb_to_lab(images), as_scikit(rgb2lab, images), atol=1e-3, rtol=0)


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
def test_rgb_is_scikit_images_where_screens_can_show_it_and_where_not():
    lab = torch.rand(2, 3, 50, 50, generator=torch.Generator().manual_seed(1)) * 220 - 110
    lab[:, 0] = (lab[:, 0] + 110) / 2.2
    torch.testing.assert_close(lab_to_rgb(lab), as_scikit(lab2rgb, lab), atol=1e-3, rtol=0)


def test_there_and_back_is_the_same_picture():
    images = colours(seed=3)
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(images)), images, atol=1e-4, rtol=0)


def test_grey_has_the_lightness_and_no_colour():
    lightness = rgb_to_lab(colours(seed=4))[:, :1]
    back = rgb_to_lab(grey(lightness))
    torch.testing.assert_close(back[:, :1], lightness, atol=2e-3, rtol=0)
    assert back[:, 1:].abs().max() < 0.02
    assert (grey(lightness).amax(1) - grey(lightness).amin(1)).max() < 1e-3


def test_mixed_precision_does_not_round_colours():
    images = colours()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = rgb_to_lab(images), lab_to_rgb(rgb_to_lab(images))
    assert torch.equal(mixed[0], rgb_to_lab(images)) and torch.equal(mixed[1], lab_to_rgb(rgb_to_lab(images)))


def test_the_gamut_has_the_published_number_of_bins():
    points = gamut()
    assert points.shape == (313, 2) and len(points.unique(dim=0)) == 313
    assert torch.equal(points % 10, torch.zeros(313, 2))
    # The first and the last b of each a in the published list.
    first = [50, 20, 0, -20, -30, -40, -50, -50, -60, -70, -80, -80, -90, -100, -100, -110, -110, -110, -110, -90]
    last = [*[90] * 4, *[100] * 6, *[90] * 4, *[80] * 3, *[70] * 2, 0]
    for a, lowest, highest in zip(range(-90, 101, 10), first, last, strict=True):
        assert points[points[:, 0] == a, 1].tolist() == list(range(lowest, highest + 1, 10))


def test_the_gamut_is_the_hull_of_all_colours_and_a_rim():
    levels = np.linspace(0, 1, 18)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    shown = rgb2lab(cube)[0, :, 1:]
    hull = Delaunay(shown[ConvexHull(shown).vertices])
    points = {tuple(point) for point in gamut().int().tolist()}
    around = [(i, j) for i in (-10, 0, 10) for j in (-10, 0, 10)]
    for a in range(-150, 151, 10):
        for b in range(-150, 151, 10):
            near = any(hull.find_simplex([a + i, b + j]) >= 0 for i, j in around)
            assert near == ((a, b) in points), (a, b)
