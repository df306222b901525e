"""The map: which pictures are on it, where, and what the page holds."""

from __future__ import annotations

import base64
import html
import importlib.util
import io
import json
import re

import numpy as np
import pytest
from embedding_samples import embed, stored, write_encoder, write_pictures
from PIL import Image
from sklearn.decomposition import PCA

from pretext.embedding import map_page
from pretext.embedding.map_page import MANY, MOST_GROUPS, NONE, OTHERS, THUMBNAIL
from pretext.embedding.projection import draw_pictures, principal_components, project
from pretext.system.errors import UserError

ODD = "<!--<script>&%%STYLE%%"
"""A class whose name could end the script, or be taken for a place in the page."""


class Columns:
    """Parts in memory: the same columns in pieces."""

    def __init__(self, vectors, pieces):
        numbers = np.arange(len(vectors)) * 2
        texts = np.array([f"p{k}" for k in numbers])
        self.columns = {"numbers": numbers, "vectors": vectors, **dict.fromkeys(("paths", "splits", "labels"), texts)}
        self.pieces = pieces

    def column(self, name):
        yield from np.array_split(self.columns[name], self.pieces)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A map of 12 of 28 pictures, its page and its content."""
    folder = tmp_path_factory.mktemp("map")
    encoder = write_encoder(folder / "encoder.safetensors")
    data = write_pictures(folder / "data", classes=("a", ODD))
    out, page = folder / "out.npz", folder / "map.html"
    flags = ["--map", page, "--map-pictures", 12, "--seed", 3]
    embed("--encoder", encoder, "--data", f"folder:{data}", "--out", out, *flags)
    return stored(out), page.read_text()


def content(page):
    return json.loads(re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.DOTALL)[1])


@pytest.mark.parametrize(("count", "width"), [(30, 8), (12, 200), (3, 5), (2, 4)])
def test_components_are_those_of_scikit_learn(count, width):
    vectors = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32) * np.arange(1, width + 1) + 100
    points, shares = principal_components(vectors)
    oracle = PCA(min(2, count - 1), svd_solver="full").fit(vectors.astype(np.float64))
    expected = oracle.transform(vectors.astype(np.float64))
    found = points[:, : expected.shape[1]]
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-5 * np.abs(expected).max())
    signs = np.sign(found) * np.sign(expected)
    assert all(abs(signs[np.abs(expected[:, k]) > 1e-3, k].sum()) > 0 for k in range(expected.shape[1]))
    np.testing.assert_allclose(shares[: expected.shape[1]], oracle.explained_variance_ratio_, rtol=1e-6)
    assert (points[np.abs(points).argmax(axis=0), [0, 1]] >= 0).all()


@pytest.mark.parametrize("vectors", [np.ones((1, 4)), np.full((5, 3), 7.0)])
def test_vectors_without_variance_lie_on_one_point(vectors):
    points, shares = principal_components(vectors.astype(np.float32))
    assert not points.any() and not shares.any()
    assert "0 % and 0 %" in project(vectors.astype(np.float32), "pca", seed=0)[1]


def test_pictures_are_drawn_with_a_seed_and_keep_their_rows():
    vectors = np.arange(100, dtype=np.float32)[:, None]
    drawn = draw_pictures(Columns(vectors, 7), 100, 20, seed=5)
    assert len(drawn.numbers) == 20 and (np.diff(drawn.numbers) > 0).all()
    assert np.array_equal(drawn.numbers, 2 * drawn.vectors[:, 0])
    assert drawn.paths.tolist() == [f"p{number}" for number in drawn.numbers]
    assert np.array_equal(draw_pictures(Columns(vectors, 3), 100, 20, seed=5).numbers, drawn.numbers)
    assert not np.array_equal(draw_pictures(Columns(vectors, 3), 100, 20, seed=6).numbers, drawn.numbers)
    assert len(draw_pictures(Columns(vectors, 3), 100, 100, seed=5).numbers) == 100
    counts = sum(
        np.bincount(draw_pictures(Columns(vectors, 3), 100, 50, seed=s).numbers // 2, minlength=100) for s in range(40)
    )
    assert counts.min() > 5 and counts.max() < 35  # 20 expected


def test_the_page_loads_nothing_and_says_what_it_shows(made):
    _, page = made
    assert not re.search(r"(https?:)?//[a-z]+\.|<link[^>]+href=\"(?!data:)|src=\"(?!data:)", page.replace("www.w3", ""))
    assert "default-src 'none'; img-src data:;" in page
    about = html.unescape(page)
    assert re.search(r"12 of 28 pictures of folder:\S+, all splits, drawn with seed 3\.", about)
    assert re.search(r"stage pool5, pooled by mean: 32 dimensions\. PCA: the two components hold \d+ % and", about)
    assert page.count("<script") == page.count("</script>") == 2 and "<!--" not in page
    assert ODD in content(page)["groups"]["class"]["names"]


def test_each_point_has_its_own_picture_class_and_place(made):
    rows, page = made
    found = content(page)
    row_of = {path.rsplit("/", 1)[-1]: k for k, path in enumerate(rows["path"])}
    chosen = [row_of[name] for name in found["names"]]
    assert len(set(chosen)) == 12 and chosen == sorted(chosen)
    assert found["labels"] == rows["label"][chosen].tolist() and found["splits"] == rows["split"][chosen].tolist()
    places = np.stack([found["x"], 1 - np.array(found["y"])], axis=1)
    expected = PCA(2, svd_solver="full").fit_transform(rows["vector"][chosen].astype(np.float64))
    expected /= (expected.max(axis=0) - expected.min(axis=0)).max()
    centred = places - places.mean(axis=0)
    np.testing.assert_allclose(np.abs(centred), np.abs(expected), atol=1e-4)
    assert places.min() >= 0 and places.max() <= 1
    for path, encoded in zip(rows["path"][chosen], found["pictures"], strict=True):
        shown = Image.open(io.BytesIO(base64.b64decode(encoded)))
        original = Image.open(path)
        assert shown.format == "JPEG" and shown.size == original.size  # smaller than the bound: not enlarged
        difference = np.asarray(shown.convert("RGB"), float).mean(axis=(0, 1)) - np.asarray(original, float).mean(
            axis=(0, 1)
        )
        assert np.abs(difference).max() < 6
    for name in ("class", "split"):
        group = found["groups"][name]
        values = found["labels" if name == "class" else "splits"]
        assert [group["names"][k] for k in group["of"]] == values
        assert group["counts"] == [values.count(each) for each in group["names"]]


def test_large_pictures_become_small_ones_with_their_own_proportions(tmp_path):
    from pretext.datasets import open_dataset

    for number in range(10):
        noise = np.random.default_rng(number).integers(0, 256, (30, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((600, 300)).save(tmp_path / f"{number}.jpg")
    data = open_dataset(f"folder:{tmp_path}")
    for encoded in map_page._thumbnails(data, range(len(data))):
        assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (THUMBNAIL, THUMBNAIL // 2)


def test_groups_are_counted_and_the_smallest_of_many_become_one():
    values = [f"class{k:02}" for k in range(40) for _ in range(50 - k)] + [MANY] * 60 + [NONE]
    group = map_page._grouped(values)
    assert len(group["names"]) == MOST_GROUPS and sum(group["counts"]) == len(values)
    assert group["names"][:2] == ["class00", "class01"] and group["names"][-2:] == [MANY, OTHERS]
    assert [name for name, grey in zip(group["names"], group["grey"], strict=True) if grey] == [MANY, OTHERS]
    assert group["counts"][-1] == sum(50 - k for k in range(30, 40)) + 1
    assert map_page._class_group("a, b", ("a", "b")) == MANY and map_page._class_group("", ()) == NONE
    assert map_page._class_group("tench, Tinca tinca", ("tench, Tinca tinca",)) == "tench, Tinca tinca"


def test_too_few_pictures_for_umap_are_one_line():
    with pytest.raises(UserError, match="needs at least 4 pictures; there are 3, take pca"):
        project(np.eye(3, dtype=np.float32), "umap", seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 12, 60])
def test_umap_keeps_groups_together_and_follows_its_seed(count):
    if importlib.util.find_spec("umap") is None:
        pytest.skip("umap-learn is not installed")
    rng = np.random.default_rng(0)
    group = np.arange(count) % 2
    vectors = (rng.normal(size=(count, 16)) * 0.1 + np.eye(2).repeat(8, axis=1)[group]).astype(np.float32)
    points, about = project(vectors, "umap", seed=1)
    assert points.shape == (count, 2) and np.isfinite(points).all() and "UMAP of cosine distances" in about
    assert np.array_equal(project(vectors, "umap", seed=1)[0], points)
    if count == 60:
        distances = np.linalg.norm(points[:, None] - points[None], axis=2) + np.eye(count) * 1e9
        assert (group[distances.argmin(axis=1)] == group).mean() > 0.9
