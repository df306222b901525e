from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from probe_samples import colours, small_encoder, small_scenes

import downstream.features
from downstream.probes.label_free import LabelFree, averaged, effective_dimension, squared_distances, uniformity
from downstream.probes.linear import Linear
from pretext.datasets import open_dataset
from pretext.system.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_uniformity_is_the_formula():
    vectors = normal(0, 12, 5)
    rows = unit(vectors.double().numpy())
    potentials = [math.exp(-2 * ((rows[i] - rows[j]) ** 2).sum()) for i in range(12) for j in range(i)]
    assert uniformity(vectors) == pytest.approx(math.log(np.mean(potentials)))


def test_uniformity_of_many_is_that_of_all_pairs_and_never_holds_them(monkeypatch):
    vectors = normal(1, 300, 7)
    vectors[:3] = 0  # dead images are identical
    monkeypatch.setattr("downstream.probes.label_free.BLOCK", 64)
    rows = torch.nn.functional.normalize(vectors.double(), dim=1)
    assert uniformity(vectors) == pytest.approx(float((-2 * torch.pdist(rows).square()).exp().mean().log()), rel=1e-9)
    largest = []
    exp = torch.Tensor.exp
    monkeypatch.setattr(torch.Tensor, "exp", lambda self: largest.append(self.numel()) or exp(self))
    uniformity(vectors)
    assert max(largest) == 64 * 300


def test_alignment_is_the_formula():
    first, second = normal(1, 9, 4), normal(2, 9, 4)
    expected = [
        sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
        for x, y in zip(unit(first.double().numpy()), unit(second.double().numpy()), strict=True)
    ]
    np.testing.assert_allclose(squared_distances(first, second).numpy(), expected, rtol=1e-9)


def test_effective_dimension_is_the_formula():
    vectors = normal(3, 40, 6) * torch.tensor([5.0, 3, 2, 1, 1, 0.1]) + 7
    values = np.linalg.eigvalsh(np.cov(vectors.double().numpy(), rowvar=False))
    assert effective_dimension(vectors) == pytest.approx(values.sum() ** 2 / (values**2).sum())


def test_an_isotropic_gaussian_fills_its_space():
    vectors = normal(4, 4000, 16)
    assert effective_dimension(vectors) == pytest.approx(16, rel=0.02)
    # uniform on the sphere: E exp(-4 + 4 u·v), by the density of a coordinate of a random unit vector
    at = np.linspace(-1, 1, 200_001)
    density = (1 - at**2) ** ((16 - 3) / 2)
    assert uniformity(vectors) == pytest.approx(
        math.log((np.exp(-4 + 4 * at) * density).sum() / density.sum()), abs=0.01
    )


def test_one_direction_is_one_dimension_and_a_collapse_none():
    line = normal(5, 50, 1) * normal(6, 1, 8)
    assert effective_dimension(line + 3) == pytest.approx(1, abs=1e-6)
    same = normal(7, 1, 8).expand(50, 8)
    assert effective_dimension(same) == 0
    assert uniformity(same) == pytest.approx(0, abs=1e-9)
    assert squared_distances(same, same).abs().max() == 0


def test_opposite_views_are_farthest_apart():
    vectors = normal(8, 5, 3)
    np.testing.assert_allclose(squared_distances(vectors, -2 * vectors).numpy(), 4.0)


def test_cells_are_averaged_channel_by_channel():
    maps = normal(9, 2, 3, 2, 2)
    torch.testing.assert_close(averaged(maps.flatten(1), 3), maps.mean(dim=(2, 3)))


def test_every_stage_has_all_four_and_the_deepest_is_the_headline():
    encoder = small_encoder()
    scores = list(LabelFree(images=30, features=64).evaluate(encoder, colours()))
    assert {(s.metric, s.stage) for s in scores} == {
        (metric, stage.name)
        for metric in ("RankMe", "effective dimension", "alignment", "uniformity")
        for stage in encoder.stages
    }
    (headline,) = [score for score in scores if score.headline]
    assert (headline.metric, headline.stage, headline.n) == ("RankMe", encoder.stages[-1].name, 30)
    for score in scores:
        low, high = {"alignment": (0, 4), "uniformity": (-8, 0)}.get(score.metric, (1, 30))
        assert low < score.value < high


def test_views_with_equal_features_are_aligned(monkeypatch):
    encoder, probe = small_encoder(), LabelFree(images=8, features=64)
    seeing = probe._view_distances(encoder, colours())
    maps = encoder.maps
    monkeypatch.setattr(encoder, "maps", lambda normalised: [torch.ones_like(each) for each in maps(normalised)])
    for stage, values in probe._view_distances(encoder, colours()).items():
        assert values.abs().max() == 0 < seeing[stage].min()


def test_a_folder_without_labels_is_judged(tmp_path):
    from PIL import Image

    for number in range(12):
        picture = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    data = open_dataset(f"folder:{tmp_path}")
    assert not data.annotations and LabelFree().can_judge(data)
    assert all(np.isfinite(s.value) for s in LabelFree(features=64).evaluate(small_encoder(), data))


def test_features_are_those_of_the_linear_probe(monkeypatch):
    data, encoder, computed = colours(), small_encoder(), []
    compute = downstream.features._computed
    monkeypatch.setattr(downstream.features, "_computed", lambda *args: computed.append(args) or compute(*args))
    list(Linear(penalties=(1.0,), iterations=1).evaluate(encoder, data))
    before = len(computed)
    list(LabelFree().evaluate(encoder, data))
    assert before == 3 and len(computed) == before


def test_one_picture_is_too_few():
    with pytest.raises(UserError, match="1 test image"):
        list(LabelFree(images=1, features=64).evaluate(small_encoder(), small_scenes()))
