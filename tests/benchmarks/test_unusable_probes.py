"""Probes that can learn or score nothing on a data set, though it is annotated: known before any training."""

from __future__ import annotations

import re

import pytest
import torch
from dataset_samples import make, save
from probe_samples import small_encoder

import downstream.__main__ as judge
from benchmarks.planning.probes import default_probe, judging_probes
from downstream.classification import ClassProbe
from downstream.probes.linear import Linear
from pretext.datasets import open_dataset
from pretext.datasets.objects import Objects
from pretext.system.errors import UserError
from retrieval.probes.retrieval import Retrieval

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


def judging(data, *names):
    return judging_probes({name: default_probe(name) for name in names}, data, 32)


def test_classifying_is_left_out_where_all_test_pictures_show_the_same_classes(everywhere):
    kept, left_out = judging(open_dataset(everywhere), *CLASSIFY, "segmentation", "inpainting")
    assert [*kept] == ["segmentation", "inpainting"]
    assert left_out == [
        "probes linear, knn, svm, fine_tune, low_shot and robustness left out: "
        f"{everywhere}: no class has both positive and negative test images; give more data"
    ]


def test_it_is_kept_where_they_differ(tmp_path):
    kept, left_out = judging(open_dataset(make("masks", tmp_path)), *CLASSIFY)
    assert [*kept] == [*CLASSIFY]
    assert not left_out


def test_the_command_says_so_before_it_reads_features(everywhere, monkeypatch):
    monkeypatch.setattr(Linear, "evaluate", lambda *_: pytest.fail("it was judged"))
    words = f"linear --encoder random:alexnet?width=0.1&stem_stride=2 --image-size 32 --data {everywhere}"
    with pytest.raises(UserError, match="no class has both positive and negative test images"):
        judge.main(words.split())


@pytest.mark.parametrize(
    ("split", "wanted"), [("test", "to find in {} test"), ("train", "to learn from in {} training")]
)
def test_detection_is_left_out_where_no_picture_of_a_split_has_an_object(tmp_path, split, wanted):
    data = open_dataset(make("coco", tmp_path))
    assert judging(data, "detection")[1] == []
    part = data.split(split)
    part.objects = Objects.gather([([0], [(0, 0, 9, 9)], [True]) for _ in range(len(part))])  # all are difficult
    reason = f"no object {wanted.format(len(part))} images; give other data"
    assert judging(data, "detection") == ({}, [f"probe detection left out: {data.spec}: {reason}"])


def test_classifying_is_left_out_where_training_pictures_show_one_class(tmp_path):
    data = open_dataset(make("folder", tmp_path))
    assert judging(data, *CLASSIFY)[1] == []
    train = data.split("train")
    train.label = torch.zeros_like(train.label)
    kept, (sentence,) = judging(data, *CLASSIFY, "inpainting")
    assert [*kept] == ["inpainting"]
    assert sentence.endswith(f"{data.spec}: {len(train)} training images show fewer than two classes; give more data")


@pytest.mark.parametrize(
    ("kind", "split", "reason"),
    [
        ("folder", "train", "retrieval needs 5 labelled images in train, which has 0; give more data or a smaller k"),
        ("folder", "test", "retrieval needs 1 labelled images in test, which has 0; give more data"),
        ("coco", "train", "retrieval needs 5 labelled objects in train, which has 3; give more data or a smaller k"),
    ],
)
def test_retrieval_is_left_out_where_too_few_regions_have_a_class(tmp_path, kind, split, reason):
    data = open_dataset(make(kind, tmp_path))
    part = data.split(split)
    if part.objects is None:
        part.label = torch.full_like(part.label, -1)
    else:
        few = [([0], [(0, 0, 9, 9)], [at >= 3]) for at in range(len(part))]
        part.objects = Objects.gather(few)
    probe = Retrieval(k=5)
    assert judging_probes({"retrieval": probe}, data, 32) == ({}, [f"probe retrieval left out: {data.spec}: {reason}"])
    with pytest.raises(UserError, match=re.escape(reason)):
        list(probe.evaluate(small_encoder(), data))


def test_every_probe_of_classes_is_checked():
    assert all(isinstance(default_probe(name), ClassProbe) for name in CLASSIFY)
