"""`scenes`: reproducible pictures, annotations that fit the pixels, and objects on the right surfaces."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch

from pretext.datasets import open_dataset
from pretext.datasets.scenes import CLASSES
from pretext.system.errors import UserError

STANDS_ON = {
    "bird": {"sky"},
    "boat": {"water"},
    "bus": {"road"},
    "car": {"road"},
    "cow": {"grass"},
    "house": {"grass", "square"},
    "lamp": {"pavement", "square", "grass"},
    "person": {"grass", "sand", "pavement", "square"},
    "sheep": {"grass"},
    "tree": {"grass", "square"},
}


@pytest.fixture(scope="module")
def data():
    return open_dataset("scenes?size=48")


@pytest.fixture(scope="module")
def items(data):
    return [data[index] for index in range(150)]


@pytest.fixture(scope="module")
def compositions(data):
    return [data.scene(index) for index in range(1500)]


DIGEST = """
import hashlib
from pretext.datasets import open_dataset
state = hashlib.sha256()
for part in open_dataset("scenes?size=48").splits.values():
    image, target = part[7]
    state.update(image.numpy().tobytes())
    for name in sorted(target):
        state.update(target[name].numpy().tobytes())
print(state.hexdigest())
"""


@pytest.mark.slow
def test_the_same_pictures_in_any_process(capsys):
    exec(DIGEST, {})
    here = capsys.readouterr().out
    elsewhere = subprocess.run(
        [sys.executable, "-c", DIGEST],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7"},
    )
    assert here == elsewhere.stdout != ""


def test_a_picture_depends_on_seed_split_and_index_alone(data):
    short = open_dataset("scenes?size=48&train=9&val=1&test=1")
    assert torch.equal(short[8][0], data[8][0])
    assert not torch.equal(open_dataset("scenes?size=48&seed=1")[8][0], data[8][0])
    prints = {open_dataset(f"scenes?size=48{more}").fingerprint for more in ("", "&train=9", "&seed=1")}
    assert len(prints) == 3 and open_dataset("scenes?size=32").fingerprint not in prints
    with pytest.raises(IndexError, match="has 9 pictures, no number 9"):
        short[9]


def test_the_composition_is_the_same_at_every_size(items):
    large, tiny = open_dataset("scenes?size=144"), open_dataset("scenes?size=16")
    differences = []
    for index in range(25):
        things, (image, target), (small_image, small) = large.scene(index).things, large[index], items[index]
        assert [(thing.name, thing.box) for thing in things] == [
            (thing.name, thing.box) for thing in tiny.scene(index).things
        ]
        reduced = torch.nn.functional.avg_pool2d(image.float(), 3)
        differences.append((reduced - small_image.float()).abs().mean().item())
        clear = target["boxes"].as_subclass(torch.Tensor)[~target["difficult"]]
        for box in clear:  # every clear object of the large picture is one of the small picture's
            away = (small["boxes"].as_subclass(torch.Tensor) * 3 - box).abs().amax(dim=1)
            assert away.min() <= 6
    assert np.mean(differences) < 12


def test_boxes_enclose_the_mask_tightly(items):
    for _, target in items:
        assert set(target["masks"].unique().tolist()) - {0} == {int(label) + 1 for label in target["labels"]}
        for label in target["labels"].unique():
            rows, columns = (target["masks"] == label + 1).nonzero().T
            boxes = target["boxes"].as_subclass(torch.Tensor)[target["labels"] == label]
            around = [*boxes[:, :2].amin(0).tolist(), *boxes[:, 2:].amax(0).tolist()]
            assert around == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_every_box_holds_pixels_of_its_class(items):
    for _, target in items:
        for label, box in zip(target["labels"], target["boxes"].int().tolist(), strict=True):
            x0, y0, x1, y1 = box
            inside = target["masks"][y0:y1, x0:x1] == label + 1
            assert inside.any(0)[[0, -1]].all() and inside.any(1)[[0, -1]].all() and inside.sum() >= 6


def test_the_label_is_the_class_of_the_largest_box(items):
    for _, target in items:
        boxes = target["boxes"].as_subclass(torch.Tensor)
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        assert target["label"] in target["labels"][areas == areas.max()]


def test_small_pictures_have_an_object_too():
    tiny = open_dataset("scenes?size=16")
    assert all(len(tiny[index][1]["labels"]) >= 1 for index in range(200))


def test_classes_are_balanced(items, compositions):
    subjects = Counter(int(target["label"]) for _, target in items)
    assert set(subjects) == set(range(len(CLASSES))) and max(subjects.values()) < 0.25 * len(items)
    present = Counter(name for scene in compositions for name in {thing.name for thing in scene.things})
    assert set(present) == set(CLASSES)
    assert min(present.values()) > 0.1 * len(compositions)


def test_objects_stand_where_they_belong(compositions):
    for scene in compositions:
        for thing in scene.things:
            if thing.name == "lamp" and any(surface == "road" for surface, _ in scene.bands):
                continue  # on the very edge of a road that crosses the picture
            assert scene.surface(thing.x, thing.y) in STANDS_ON[thing.name], (scene.place, thing.name)


def test_context_predicts_content(compositions):
    def share(name, has):
        some = [any(thing.name == name for thing in scene.things) for scene in compositions if has(scene)]
        return sum(some) / len(some)

    def water(scene):
        return any(surface == "water" for surface, _ in scene.bands)

    def road(scene):
        return any(scene.surface(x, y) == "road" for x in np.linspace(0, 1, 21) for y in np.linspace(0, 0.99, 21))

    assert share("boat", water) > 0.5 and share("boat", lambda scene: not water(scene)) == 0
    assert share("car", road) > 0.3 and share("car", lambda scene: not road(scene)) == 0
    assert share("car", water) == 0


def test_farther_objects_are_smaller(compositions):
    for scene in compositions:
        on_ground = [thing for thing in scene.things if thing.name != "bird"]
        for thing in on_ground:  # one camera: a metre's size follows from the ground line alone
            assert thing.scale == pytest.approx((thing.y - scene.horizon) / scene.camera, rel=1e-6)


def test_the_pixels_of_an_object_are_not_the_pixels_around_it(items):
    contrast = []
    for image, target in items:
        subject = target["masks"] == target["label"] + 1
        colours = image.float()
        contrast.append((colours[:, subject].mean(1) - colours[:, ~subject].mean(1)).abs().max().item())
    assert np.median(contrast) > 20


def test_no_picture_of_one_split_is_in_another(data):
    drawn = {name: {part[index][0].numpy().tobytes() for index in range(60)} for name, part in data.splits.items()}
    assert len(set.union(*drawn.values())) == 180
    seeds = [part.scene(index).seed for part in data.splits.values() for index in range(300)]
    assert len(set(seeds)) == len(seeds)
    assert len({part.fingerprint for part in data.splits.values()}) == 3


def test_scenes_say_that_they_are_drawn(data):
    assert data.synthetic and data.notes == ()
    assert {name: len(part) for name, part in data.splits.items()} == {
        "train": 10_000,
        "val": 1_000,
        "test": 2_000,
    }


@pytest.mark.parametrize("options", ["size=8", "size=2000", "train=0", "seed=-1", "size=large"])
def test_options_out_of_range_are_one_line(options):
    with pytest.raises(UserError, match=options.partition("=")[0]) as excinfo:
        open_dataset(f"scenes?{options}")
    assert "\n" not in str(excinfo.value)
