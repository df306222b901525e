"""Dense features as colours: the components are the principal ones, visible with any colour vision."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from colour_samples import EYES, seen
from sklearn.decomposition import PCA

from benchmarks.report.dense import as_colours, fine_stage, principal_components


def test_the_components_are_the_principal_ones():
    maps = torch.randn(4, 7, 6, 5, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 8).view(1, 7, 1, 1)
    maps += 3
    colours, held = principal_components(maps)
    assert colours.shape == (4, 3, 6, 5)
    assert colours.min() == 0
    assert colours.max() == 1
    pca = PCA(3).fit(maps.permute(0, 2, 3, 1).reshape(-1, 7).double().numpy())
    assert held == pytest.approx(pca.explained_variance_ratio_.sum())
    found = colours.permute(0, 2, 3, 1).reshape(-1, 3).double().numpy()
    wanted = pca.transform(maps.permute(0, 2, 3, 1).reshape(-1, 7).double().numpy())
    for component in range(3):
        inside = (found[:, component] > 0) & (found[:, component] < 1)  # values that are not clipped
        assert inside.sum() > 110
        assert abs(np.corrcoef(found[inside, component], wanted[inside, component])[0, 1]) == pytest.approx(1, abs=1e-5)


def test_components_of_features_that_do_not_vary_are_in_the_middle():
    colours, held = principal_components(torch.full((2, 5, 3, 3), 7.0))
    assert colours.unique().tolist() == [0.5]
    assert held == 1.0
    two = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    assert principal_components(two)[0][:, 2].unique().tolist() == [0.5]


def test_most_eyes_see_the_first_two_components_and_all_see_the_first():
    corners = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
    ends = torch.from_numpy(corners).float().view(1, 2, 4, 3).permute(0, 3, 1, 2)
    colours = 255 * as_colours(ends).permute(0, 2, 3, 1).reshape(8, 3).numpy()
    for eye in EYES:
        for part, least in ((slice(1), 40), (slice(2), 12 if eye == "tritan" else 40)):
            differ = (corners[:, None, part] != corners[None, :, part]).any(axis=-1)
            lab = seen(colours, eye)
            assert np.linalg.norm(lab[:, None] - lab[None], axis=-1)[differ].min() > least, eye
    grey = 255 * as_colours(torch.full((1, 3, 1, 1), 0.5)).flatten().numpy()
    assert np.ptp(grey) < 1
    assert seen([grey], "full")[0, 0] == pytest.approx(55, abs=0.1)  # half way from 20 to 90


@pytest.mark.parametrize(
    ("sides", "stage"), [([55, 27, 13, 13, 13, 6], 4), ([16, 8, 4, 4, 4, 2], 0), ([8, 8, 8], 2), ([4, 2], 0)]
)
def test_the_deepest_stage_that_is_fine_enough_is_coloured(sides, stage):
    assert fine_stage(sides) == stage
