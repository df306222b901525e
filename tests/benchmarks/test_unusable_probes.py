"""Probes that can score nothing on a test split, though it is annotated: known before any training."""

from __future__ import annotations

import pytest
from dataset_samples import make, save

import downstream.__main__ as judge
from benchmarks.planning.probes import default_probe, scorable_probes
from downstream.classification import ClassProbe
from downstream.probes.linear import Linear
from pretext.datasets import open_dataset
from pretext.datasets.objects import Objects
from pretext.system.errors import UserError

CLASSIFY = ("linear", "knn", "svm", "fine_tune", "low_shot", "robustness")


@pytest.fixture
def everywhere(tmp_path):
    """Masks whose test pictures all show both classes; those of train do not."""
    spec = make("masks", tmp_path)
    opened = open_dataset(spec)
    for number, (_, target) in enumerate(opened.split("test")):
        mask = target["masks"].numpy().copy()
        mask[1, :2] = [1, 2]
        save(tmp_path / "masks" / "test" / f"{number}.png", mask)
    return spec


def scorable(spec, *names):
    return scorable_probes({name: default_probe(name) for name in names}, open_dataset(spec).split("test"), 32)


def test_classifying_is_left_out_where_all_test_pictures_show_the_same_classes(everywhere):
    kept, left_out = scorable(everywhere, *CLASSIFY, "segmentation", "inpainting")
    assert [*kept] == ["segmentation", "inpainting"]
    assert left_out == [
        "probes linear, knn, svm, fine_tune, low_shot and robustness left out: "
        f"{everywhere}: no class has both positive and negative test images; give more data"
    ]


def test_it_is_kept_where_they_differ(tmp_path):
    kept, left_out = scorable(make("masks", tmp_path), *CLASSIFY)
    assert [*kept] == [*CLASSIFY]
    assert not left_out


def test_the_command_says_so_before_it_reads_features(everywhere, monkeypatch):
    monkeypatch.setattr(Linear, "evaluate", lambda *_: pytest.fail("it was judged"))
    words = f"linear --encoder random:alexnet?width=0.1&stem_stride=2 --image-size 32 --data {everywhere}"
    with pytest.raises(UserError, match="no class has both positive and negative test images"):
        judge.main(words.split())


def test_detection_is_left_out_where_no_test_picture_has_an_object(tmp_path):
    test = open_dataset(make("coco", tmp_path)).split("test")
    probes = {"detection": default_probe("detection")}
    assert scorable_probes(probes, test, 32) == (probes, [])
    test.objects = Objects.gather([([], [], []) for _ in range(len(test))])
    reason = f"no object to find in {len(test)} test images; give other data"
    assert scorable_probes(probes, test, 32) == ({}, [f"probe detection left out: {test.spec}: {reason}"])


def test_every_probe_of_classes_is_checked():
    assert all(isinstance(default_probe(name), ClassProbe) for name in CLASSIFY)
