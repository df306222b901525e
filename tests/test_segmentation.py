from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from downstream.metrics import confusion_matrix, mean_iou, pixel_accuracy
from downstream.probes.segmentation import Segmentation, SegmentationHead
from pretext.datasets.base import ImageDataset
from pretext.encoders import build_encoder
from pretext.errors import UserError

SIZE = 32


class Halves(ImageDataset):
    """A coloured rectangle on noise; the mask is the rectangle, with a rim to be ignored."""

    classes = ("red", "blue", "never")
    annotations = frozenset({"masks"})

    def __init__(self, seed, count, *, ignored=()):
        self.spec, self.seed, self.count, self.ignored = "halves", seed, count, tuple(ignored)

    def __len__(self):
        return self.count

    @property
    def fingerprint(self):
        return f"{self.seed:02d}{self.count:04d}{len(self.ignored):04d}" * 8

    def __getitem__(self, index):
        rng = np.random.default_rng((self.seed, index))
        image = rng.integers(90, 160, (3, SIZE, SIZE), dtype=np.uint8)
        mask = np.zeros((SIZE, SIZE), np.uint8)
        x, y = rng.integers(1, 10, 2)
        width, height = rng.integers(12, 20, 2)
        label = int(rng.integers(2))
        mask[y - 1 : y + height + 1, x - 1 : x + width + 1] = 255
        mask[y : y + height, x : x + width] = label + 1
        image[:, y : y + height, x : x + width] = np.array([[230, 20, 20], [20, 20, 230]][label])[:, None, None]
        if index in self.ignored:
            mask[:] = 255
        return torch.from_numpy(image), {"masks": tv_tensors.Mask(torch.from_numpy(mask))}


def halves(train=None, test=None):
    train, test = train or Halves(1, 40), test or Halves(2, 20)
    train.splits = test.splits = {"train": train, "val": test, "test": test}
    return train


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRETEXT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def encoder():
    return build_encoder("alexnet?width=0.125&stem_stride=2", input_size=SIZE, seed=0)


QUICK = Segmentation(train_images=16, test_images=10, steps=3, batch_size=4)


def test_the_network_names_the_pixels_it_was_taught(encoder, tmp_path):
    data = halves()
    miou, accuracy = Segmentation(steps=60).evaluate(encoder, data, tmp_path / "out")
    assert (miou.metric, miou.headline, accuracy.metric) == ("mIoU", True, "pixel accuracy")
    assert miou.items is None and miou.n == 20
    assert miou.value > 65 and accuracy.value > 85
    masks = np.stack([data.split("test")[i][1]["masks"].numpy() for i in range(20)])
    background = 100 * (masks == 0).sum() / (masks != 255).sum()
    assert accuracy.chance == pytest.approx(background)
    assert miou.chance == pytest.approx(background / 3)  # background, red and blue; "never" is absent
    assert len(json.loads((tmp_path / "out" / "curve.json").read_text())["loss"]) == 60
    with Image.open(tmp_path / "out" / "segmentation.png") as sheet:
        assert sheet.width > 1000


def test_same_seed_same_numbers_whatever_was_drawn_before(encoder):
    first = list(QUICK.evaluate(encoder, halves()))
    torch.rand(7)
    assert list(QUICK.evaluate(encoder, halves())) == first


def test_the_encoder_is_left_as_it_was(encoder):
    before = copy.deepcopy(encoder.state_dict())
    list(QUICK.evaluate(encoder, halves()))
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(p.requires_grad for p in encoder.parameters())


def test_batches_with_nothing_but_ignored_pixels_are_passed_over(encoder, tmp_path):
    train = Halves(1, 8, ignored=range(4))
    probe = Segmentation(steps=16, batch_size=1, test_images=4)
    scores = list(probe.evaluate(encoder, halves(train), tmp_path))
    assert all(np.isfinite(score.value) for score in scores)
    assert len(json.loads((tmp_path / "curve.json").read_text())["loss"]) == 8


def test_nothing_but_ignored_pixels_is_an_error(encoder):
    with pytest.raises(UserError, match="every pixel of 6 training pictures"):
        list(QUICK.evaluate(encoder, halves(train=Halves(1, 6, ignored=range(6)))))
    with pytest.raises(UserError, match="every pixel of 6 test pictures"):
        list(QUICK.evaluate(encoder, halves(test=Halves(2, 6, ignored=range(6)))))


def test_data_without_masks_is_an_error(encoder):
    data = halves()
    data.annotations = frozenset({"label"})
    assert not QUICK.can_judge(data)
    with pytest.raises(UserError, match="needs masks"):
        list(QUICK.evaluate(encoder, data))


def test_a_loss_that_is_not_finite_is_an_error(encoder):
    with torch.no_grad():
        next(encoder.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="segmentation: the loss is nan at step 1 of 3"):
        list(QUICK.evaluate(encoder, halves()))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"skips": -1}, {"width": 0}, {"test_images": -1}])
def test_fields_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)) + " is .*; allowed is"):
        Segmentation(**wrong)


def test_the_true_mask_scores_100(encoder):
    data = halves()

    class Oracle(torch.nn.Module):
        start = 0

        def forward(self, maps, side):
            masks = [data.split("test")[self.start + i][1]["masks"] for i in range(len(maps[0]))]
            self.start += len(masks)
            truth = torch.stack(masks).long()
            return torch.nn.functional.one_hot(truth.masked_fill(truth == 255, 0), 4).permute(0, 3, 1, 2)

    confusion = torch.zeros(4, 4, dtype=torch.int64)
    for _, truth, predicted in QUICK._segment(encoder.eval(), Oracle(), data.split("test"), np.arange(20)):
        confusion += confusion_matrix(truth, predicted, num_classes=4, ignore=255)
    assert mean_iou(confusion) == 100 and pixel_accuracy(confusion) == 100


@pytest.mark.parametrize(("skips", "read"), [(0, [5]), (1, [5, 4]), (2, [5, 4, 1]), (9, [5, 4, 1, 0])])
def test_skips_read_the_deepest_map_of_each_finer_stride(encoder, skips, read):
    head = SegmentationHead(encoder.stages, skips=skips, width=8, num_classes=3).eval()
    assert head.read == read
    images = torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)
    assert head(encoder.eval()(images), SIZE).shape == (2, 3, SIZE, SIZE)
