"""K-means: clustering against sklearn and a random dictionary, whitening against numpy, patches against unfold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from task_samples import SMALL, batch, generator, noise
from torch import nn

from pretext.datasets import at_size, open_dataset
from pretext.encoders import build_encoder
from pretext.tasks import build_task
from pretext.tasks.kmeans import normalise_contrast, sample_patches, spherical_kmeans, whitening


def directions(count, length, seed=0):
    return F.normalize(torch.randn(count, length, generator=generator(seed)), dim=1)


def test_centroids_equal_sklearns_for_separate_clusters():
    from sklearn.cluster import KMeans

    truth = torch.linalg.qr(torch.randn(20, 4, generator=generator())).Q.T
    member = torch.arange(600) % 4
    points = F.normalize(truth[member] + 0.05 * torch.randn(600, 20, generator=generator(1)), dim=1)
    theirs = KMeans(4, n_init=3, random_state=0).fit(points.numpy()).cluster_centers_
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)

    def clusters(seed, rounds):
        found = spherical_kmeans(points, 4, iterations=rounds, generator=generator(seed)).numpy()
        return np.abs(found @ theirs.T)

    # k-means depends on its start: take the first start with a point of every cluster
    seed = next(k for k in range(200) if len(set(clusters(k, 0).argmax(1))) == 4)
    assert clusters(seed, 0).max(1).min() < 0.99
    assert clusters(seed, 20).max(1).min() > 0.9999


def test_a_random_dictionary_is_recovered_for_any_sign_and_length():
    atoms = directions(16, 30)
    code = torch.randn(6000, generator=generator(1))  # both signs, any length
    points = code[:, None] * atoms[torch.arange(6000) % 16] + 0.02 * torch.randn(6000, 30, generator=generator(2))
    found = spherical_kmeans(points, 32, iterations=20, generator=generator(3))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(32))
    assert (found @ atoms.T).abs().amax(dim=0).min() > 0.99
    assert (directions(32, 30, seed=9) @ atoms.T).abs().amax(dim=0).min() < 0.8  # random directions are not close


def test_an_iteration_is_the_chapters():
    points = torch.randn(50, 4, generator=generator())
    start = spherical_kmeans(points, 3, iterations=0, generator=generator(1))
    after = spherical_kmeans(points, 3, iterations=1, generator=generator(1))
    sums = start.double().numpy().copy()  # damped: the old centroid counts as one point
    for x in points.double().numpy():
        products = start.double().numpy() @ x
        best = int(np.argmax(np.abs(products)))
        sums[best] += products[best] * x
    np.testing.assert_allclose(after, sums / np.linalg.norm(sums, axis=1, keepdims=True), atol=1e-5)


def test_similarity_never_falls_between_iterations():
    points = torch.randn(800, 12, generator=generator()) * torch.linspace(0.2, 2, 12)

    def served(rounds):
        found = spherical_kmeans(points, 10, iterations=rounds, generator=generator(5))
        return (points @ found.T).abs().amax(dim=1).square().sum().item()

    values = [served(rounds) for rounds in (0, 1, 3, 10)]
    assert values == sorted(values) and values[-1] > 1.1 * values[0]


def test_more_centroids_than_points_and_zero_points_work():
    found = spherical_kmeans(torch.randn(3, 5, generator=generator()), 8, iterations=3, generator=generator())
    torch.testing.assert_close(found.norm(dim=1), torch.ones(8))
    assert not spherical_kmeans(torch.zeros(4, 5), 8, iterations=3, generator=generator()).any()


def test_whitened_patches_are_uncorrelated_and_of_one_variance():
    mix = torch.randn(9, 9, generator=generator())
    rows = torch.randn(5000, 9, generator=generator(1)) @ mix
    rows = rows - rows.mean(dim=0)
    white = rows.double() @ whitening(rows, components=9, floor=1e-6, generator=generator(2)).double()
    np.testing.assert_allclose(np.cov(white.numpy().T), np.eye(9), atol=5e-3)


def test_whitening_is_numpys_eigendecomposition_and_damps_small_components():
    rows = torch.randn(2000, 12, generator=generator()) * torch.logspace(1, -4, 12)
    rows = rows - rows.mean(dim=0)
    mine = whitening(rows, components=5, floor=0.1, generator=generator(1)).double().numpy()
    covariance = rows.double().numpy().T @ rows.double().numpy() / len(rows)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1][:5], vectors[:, ::-1][:, :5]
    expected = vectors / np.sqrt(values + 0.1 * np.trace(covariance) / 12)
    np.testing.assert_allclose(mine @ mine.T, expected @ expected.T, atol=1e-3)  # up to rotations among equal variances


def test_contrast_is_normalised_and_flat_patches_stay_flat():
    patches = torch.stack([torch.arange(27.0), torch.full((27,), 4.0)])
    normal = normalise_contrast(patches)
    assert normal[0].mean().item() == pytest.approx(0, abs=1e-6)
    assert normal[0].var(correction=0).item() == pytest.approx(1, abs=1e-3)
    assert not normal[1].any()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 8, 3, padding=1),
        nn.Conv2d(4, 8, (3, 2), stride=2),
        nn.Conv2d(4, 8, 3, dilation=2),
        nn.Conv2d(4, 8, 3, groups=2),
        nn.Conv2d(4, 8, 1),
    ],
)
def test_a_layers_product_with_a_patch_is_one_of_its_outputs(layer):
    maps = torch.randn(3, 4, 7, 9, generator=generator())
    patches = sample_patches(layer, maps, 20, generator(1))
    assert patches.shape == (layer.groups, 20, layer.weight[0].numel())
    dense = F.conv2d(maps, layer.weight, layer.bias, dilation=layer.dilation, groups=layer.groups)
    answers = dense.detach().permute(0, 2, 3, 1).flatten(0, 2)
    kernels = layer.weight.detach().flatten(1).chunk(layer.groups)
    mine = torch.cat([p @ k.T for p, k in zip(patches, kernels, strict=True)], dim=1) + layer.bias.detach()
    distance, place = (mine[:, None] - answers).abs().amax(dim=2).min(dim=1)
    assert distance.max() < 1e-4
    assert len(torch.unique(place)) > 10  # from many positions


def test_a_map_smaller_than_the_kernel_is_padded_and_a_linear_layer_sees_rows():
    patches = sample_patches(nn.Conv2d(2, 8, 3, padding=1), torch.ones(3, 2, 1, 1), 5, generator())
    assert patches.shape == (1, 5, 18) and patches.sum(dim=2).eq(2).all()
    rows = torch.arange(24.0).view(2, 3, 4)
    drawn = sample_patches(nn.Linear(4, 8), rows, 50, generator())[0]
    assert {tuple(row) for row in drawn.tolist()} == {tuple(row) for row in rows.flatten(0, 1).tolist()}


@pytest.mark.parametrize("spec", [SMALL, f"{SMALL}&groups=2&norm=none", "timm:resnet18"])
def test_every_filter_is_learned_and_every_channel_of_one_scale(spec):
    images = noise(16)
    encoder = build_encoder(spec, input_size=32, seed=0)
    old = {name: value.clone() for name, value in encoder.named_parameters() if value.ndim > 1}
    build_task("kmeans?patches=300&iterations=1&components=32", encoder, seed=0).prepare(batch(images))
    for name, value in encoder.named_parameters():
        if value.ndim > 1:
            likeness = F.cosine_similarity(value.flatten(1), old[name].flatten(1)).abs()
            assert likeness.mean() < 0.5, name
    maps = encoder.eval()(images)
    assert all(0.05 < each.std() < 20 for each in maps)


def test_first_filters_ignore_brightness_and_find_the_stripes_of_striped_pictures():
    angles = torch.tensor([0.0, 45.0, 90.0, 135.0]).deg2rad()
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    phases = torch.linspace(0, 6, 16)
    waves = [torch.sin(1.2 * (x * torch.cos(a) + y * torch.sin(a)) + p) for a in angles for p in phases]
    images = (127 + 100 * torch.stack(waves)[:, None].expand(-1, 3, -1, -1)).to(torch.uint8)
    encoder = build_encoder(SMALL, input_size=32, seed=0)
    build_task("kmeans?patches=4000&components=20&images=64", encoder, seed=0).prepare(batch(images))
    filters = encoder.convs[0][0].weight.detach().mean(dim=1)
    filters = filters / filters.flatten(1).norm(dim=1)[:, None, None]
    assert filters.mean(dim=(1, 2)).abs().max() < 0.05
    spectra = torch.fft.fft2(filters, s=(32, 32)).abs()
    peaks = [divmod(int(each.flatten().argmax()), 32) for each in spectra]
    turned = {round(float(np.degrees(np.arctan2((v + 16) % 32 - 16, (u + 16) % 32 - 16))) / 45) % 4 for v, u in peaks}
    assert turned == {0, 1, 2, 3}


@pytest.mark.slow
def test_filters_classify_scenes_better_than_random_ones():
    from sklearn.neighbors import KNeighborsClassifier

    data = at_size(open_dataset("scenes?size=32&train=1000&val=64&test=500"), 32, bad_images="stop")
    train, test = data.split("train"), data.split("test")

    def accuracy(encoder):
        with torch.no_grad():
            fitted, scored = (encoder.eval()(part.images)[0].mean(dim=(2, 3)).numpy() for part in (train, test))
        return KNeighborsClassifier(10).fit(fitted, train.label).score(scored, test.label)

    random, learned = (build_encoder("alexnet?width=0.25&stem_stride=2", input_size=32, seed=0) for _ in range(2))
    build_task("kmeans", learned, seed=0).prepare(batch(train.images[:256]))
    assert accuracy(learned) > accuracy(random)
