from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.segmentation import felzenszwalb

from downstream.metrics import box_iou
from downstream.probes.detection import Detection
from downstream.proposals import (
    SELECTIVE_SEARCH,
    _derivatives,
    _histograms,
    _Regions,
    proposals_for,
    read_proposals,
    selective_search,
)
from pretext.datasets import at_size, open_dataset
from pretext.encoders import build_encoder
from pretext.system.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

WIDTH, HEIGHT, SIZE = 80, 40, 32


@pytest.fixture
def folder(tmp_path):
    """Twelve images of 80×40 with one box each; the last has another class of object."""
    root = tmp_path / "data"
    (root / "annotations").mkdir(parents=True)
    (root / "images").mkdir()
    for split, count in (("train", 8), ("val", 2), ("test", 2)):
        images, annotations = [], []
        for i in range(count):
            name = f"images/{split}{i}.png"
            pixels = np.random.default_rng(i).integers(90, 160, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            pixels[10:30, 20:60] = (230, 20, 20)
            Image.fromarray(pixels).save(root / name)
            images.append({"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT})
            annotations.append({"id": i + 1, "image_id": i, "category_id": 1, "bbox": [20, 10, 40, 20]})
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "red"}]}
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return root


def boxes_file(folder, **changed):
    """A file with the true box and a corner box for every image; `changed` replaces some by file stem."""
    names = [f"images/{path.name}" for path in sorted((folder / "images").iterdir())]
    arrays = {name: np.array([[20.0, 10, 60, 30], [0, 0, 40, 40]]) for name in names}
    for stem, boxes in changed.items():
        arrays[f"images/{stem}.png"] = boxes
    file = folder / "boxes.npz"
    np.savez(file, **{name: boxes for name, boxes in arrays.items() if boxes is not None})
    return file


def opened(folder):
    return at_size(open_dataset(f"coco:{folder}"), SIZE, bad_images="skip")


def test_a_files_boxes_are_scaled_with_the_pictures(folder):
    one = np.array([[0, 20, 80, 40]], np.int32)
    boxes = read_proposals(boxes_file(folder, train3=one), opened(folder), np.array([1, 3]))
    np.testing.assert_allclose(boxes[1], [[8, 8, 24, 24], [0, 0, 16, 32]])
    np.testing.assert_allclose(boxes[3], [[0, 16, 32, 32]])
    assert boxes[1].dtype == np.float32 and set(boxes) == {1, 3}


def test_of_a_files_boxes_the_first_count(folder):
    boxes = proposals_for(str(boxes_file(folder)), opened(folder), np.array([0]), most=1, seed=0)
    assert boxes[0].tolist() == [[8, 8, 24, 24]]


def test_pictures_are_named_through_drawn_splits(folder):
    for other in ("val", "test"):
        (folder / "annotations" / f"{other}.json").unlink()
    data = opened(folder)
    test = data.split("test")
    stems = [Path(test.base.base.images[row]).stem for row in test.base.indices]
    marked = {stem: np.array([[0, 0, 10 * (i + 1), 40]]) for i, stem in enumerate(stems)}
    boxes = read_proposals(boxes_file(folder, **marked), test, np.arange(len(test)))
    assert [boxes[i][0, 2] for i in range(len(test))] == [4.0 * (i + 1) for i in range(len(test))]


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        (None, "no boxes for images/train0.png"),
        (np.zeros((3, 5)), "3×5 of float64; expected M×4 numbers"),
        (np.array([["a", "b", "c", "d"]]), "1×4 of <U1; expected M×4 numbers"),
        (np.array([[0, 0, 10, 10], [5, 5, np.nan, 9]]), "box 1 is .*nan.* in an image of 80×40"),
        (np.array([[20, 10, 20, 30]]), "box 0 is .*; expected left < right and top < bottom"),
        (np.array([[50, 10, 90, 30]]), "box 0 is .* in an image of 80×40; .*within the image"),
    ],
)
def test_an_invalid_box_is_named(folder, boxes, said):
    with pytest.raises(UserError, match=said) as caught:
        read_proposals(boxes_file(folder, train0=boxes), opened(folder), np.arange(8))
    assert "\n" not in str(caught.value) and "boxes.npz" in str(caught.value)


def test_an_invalid_file_of_proposals_is_named(folder):
    data, indices = opened(folder), np.arange(8)
    with pytest.raises(UserError, match=r"nowhere\.npz: No such file"):
        read_proposals(folder / "nowhere.npz", data, indices)
    file = folder / "boxes.npz"
    file.write_text("boxes")
    with pytest.raises(UserError, match=r"not an \.npz file of plain arrays"):
        read_proposals(file, data, indices)
    file.write_bytes(b"")
    with pytest.raises(UserError, match=r"not an \.npz file of plain arrays"):
        read_proposals(file, data, indices)
    np.savez(file, **{"images/train0.png": np.array([None])}, allow_pickle=True)
    with pytest.raises(UserError, match=r"not an \.npz file of plain arrays"):
        read_proposals(file, data, indices)
    whole = boxes_file(folder).read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"not an \.npz file of plain arrays"):
        read_proposals(file, data, indices)
    with file.open("wb") as stream:
        np.save(stream, np.zeros((3, 4)))
    with pytest.raises(UserError, match=r"one array; expected an \.npz file"):
        read_proposals(file, data, indices)


def test_a_file_cannot_name_pictures_that_are_not_files_or_not_whole(folder):
    scenes = at_size(open_dataset("scenes?size=32&train=2&val=1&test=1"), SIZE, bad_images="skip")
    with pytest.raises(UserError, match=r"has no image files .* use proposals=selective_search"):
        read_proposals(boxes_file(folder), scenes, np.arange(2))
    (folder / "images" / "train2.png").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"1 of 8 images cannot be decoded, the first of them .*train2.png"):
        read_proposals(boxes_file(folder), opened(folder), np.arange(7))


def test_a_detector_that_is_given_the_true_boxes_names_them(folder):
    encoder = build_encoder("alexnet?width=0.125&stem_stride=2", input_size=SIZE, seed=0)
    nothing = np.zeros((0, 4), np.float32)
    probe = Detection(train_images=0, steps=40, batch_size=4, proposals=str(boxes_file(folder, train1=nothing)))
    ap50 = next(score.value for score in probe.evaluate(encoder, open_dataset(f"coco:{folder}")))
    assert ap50 > 90
    missed = Detection(train_images=0, steps=40, batch_size=4, proposals=str(boxes_file(folder, test0=nothing)))
    assert next(score.value for score in missed.evaluate(encoder, open_dataset(f"coco:{folder}"))) < 60


def test_a_fault_in_a_files_test_pictures_is_found_before_the_training(folder, monkeypatch):
    encoder = build_encoder("alexnet?width=0.125&stem_stride=2", input_size=SIZE, seed=0)
    monkeypatch.setattr("downstream.fitting.fit", None)
    with pytest.raises(UserError, match=r"no boxes for images/test1\.png"):
        list(Detection(proposals=str(boxes_file(folder, test1=None))).evaluate(encoder, open_dataset(f"coco:{folder}")))


def test_selective_search_repeats_itself_and_stays_within_the_picture():
    image = open_dataset("scenes?size=32&train=2&val=1&test=1")[0][0].permute(1, 2, 0).numpy()[:, :24]
    boxes = selective_search(image, np.random.default_rng(0))
    assert np.array_equal(boxes, selective_search(image, np.random.default_rng(0)))
    assert len(np.unique(boxes, axis=0)) == len(boxes) > 20
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [24, 32]).all() and (boxes[:, 2:] > boxes[:, :2]).all()
    assert [0, 0, 24, 32] in boxes.tolist()
    other = selective_search(image, np.random.default_rng(1))
    assert not np.array_equal(other, boxes) and set(map(tuple, other)) == set(map(tuple, boxes))


def test_a_plain_picture_is_one_box():
    boxes = selective_search(np.full((20, 30, 3), 77, np.uint8), np.random.default_rng(0))
    assert boxes.tolist() == [[0, 0, 30, 20]]


def test_selective_search_finds_more_objects_than_as_many_random_boxes():
    data = at_size(open_dataset("scenes?size=32&seed=3&train=30&val=1&test=1"), SIZE, bad_images="skip")
    found = proposals_for(SELECTIVE_SEARCH, data, np.arange(30), most=64, seed=0)
    hits, by_chance, total = 0, 0, 0
    for index, boxes in found.items():
        target = data[index][1]
        objects = target["boxes"][~target["difficult"]].numpy()
        corners = np.sort(np.random.default_rng(index).uniform(0, SIZE, (len(boxes), 2, 2)), axis=1)
        chance = corners.reshape(-1, 4).astype(np.float32)
        hits += (box_iou(objects, boxes.numpy()).max(axis=1, initial=0) >= 0.5).sum()
        by_chance += (box_iou(objects, chance).max(axis=1, initial=0) >= 0.5).sum()
        total += len(objects)
    assert hits / total > 0.5 > by_chance / total + 0.1


def by_hand(colours, segments, with_colour):
    """The paper's merging, with every region measured again from its pixels."""
    height, width = segments.shape
    slopes = _derivatives(colours).reshape(height * width, -1)
    low, high = slopes.min(), slopes.max()
    regions = [segments.ravel() == k for k in range(segments.max() + 1)]

    def measured(region):
        where = np.zeros(height * width, np.int64)
        colour = _histograms(colours.reshape(-1, 3)[region], where[region], 25, 0, 1)[0]
        texture = _histograms(slopes[region], where[region], 10, low, high)[0]
        y, x = np.divmod(np.flatnonzero(region), width)
        return colour, texture, (x.min(), y.min(), x.max() + 1, y.max() + 1)

    def touch(a, b):
        a, b = a.reshape(height, width), b.reshape(height, width)
        sides = [a[:, 1:] & b[:, :-1], a[:, :-1] & b[:, 1:], a[1:] & b[:-1], a[:-1] & b[1:]]
        return any(side.any() for side in sides)

    def likeness(a, b):
        (colour_a, texture_a, _), (colour_b, texture_b, _) = measured(a), measured(b)
        _, _, (x1, y1, x2, y2) = measured(a | b)
        share = (a.sum() + b.sum()) / a.size
        total = sum(min(p, q) for p, q in zip(texture_a, texture_b, strict=True)) + (1 - share)
        total += 1 - ((x2 - x1) * (y2 - y1) / a.size - share)
        return total + (sum(min(p, q) for p, q in zip(colour_a, colour_b, strict=True)) if with_colour else 0)

    boxes = [measured(region)[2] for region in regions]
    while len(regions) > 1:
        pairs = [(a, b) for i, a in enumerate(regions) for b in regions[:i] if touch(a, b)]
        a, b = max(pairs, key=lambda pair: likeness(*pair))
        regions = [r for r in regions if r is not a and r is not b] + [a | b]
        boxes.append(measured(a | b)[2])
    return boxes


@pytest.mark.parametrize("with_colour", [True, False])
def test_merging_equals_measuring_all_regions_again(with_colour):
    image = open_dataset("scenes?size=24&train=2&val=1&test=1")[1][0].permute(1, 2, 0).numpy() / 255
    segments = felzenszwalb(image, scale=50, sigma=0.8, min_size=12, channel_axis=-1)
    assert 6 < segments.max() < 40
    boxes = _Regions.of(image, segments).merge(with_colour=with_colour)
    np.testing.assert_array_equal(boxes, by_hand(image, segments, with_colour))


def test_a_slope_is_the_gaussian_derivative_along_its_direction():
    y, x = np.mgrid[:21, :21] / 1.0
    ramp = np.repeat((0.03 * x - 0.01 * y)[:, :, None], 3, axis=2)
    slopes = _derivatives(ramp)[10, 10].reshape(8, 3)
    expected = [max(0, 0.03 * np.cos(k * np.pi / 4) - 0.01 * np.sin(k * np.pi / 4)) for k in range(8)]
    np.testing.assert_allclose(
        slopes, np.repeat(expected, 3).reshape(8, 3), atol=1e-5
    )  # the kernel is truncated at 4 σ


def test_histograms_sum_to_1_a_region():
    values = np.array([[0.0, 0.99], [0.5, 1.0], [0.1, 0.2]])
    counts = _histograms(values, np.array([0, 0, 1]), 2, 0.0, 1.0)
    np.testing.assert_allclose(counts, [[0.25, 0.25, 0, 0.5], [0.5, 0, 0.5, 0]])
