from __future__ import annotations

import copy
import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from downstream.metrics import confusion_matrix, mean_iou, pixel_accuracy
from downstream.per_class import write_per_class
from downstream.probes.segmentation import HEADS, Segmentation, _per_class
from downstream.sheets import CELL, GAP, HEADING, segmentation_sheet
from pretext.datasets.base import ImageDataset
from pretext.datasets.drawing import class_colour
from pretext.encoders import build_encoder
from pretext.system.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

SIZE = 32


class Halves(ImageDataset):
    """A coloured rectangle on noise; the mask is the rectangle, with an ignored border."""

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


@pytest.fixture
def encoder():
    return build_encoder("alexnet?width=0.125&stem_stride=2", input_size=SIZE, seed=0)


QUICK = Segmentation(train_images=16, test_images=10, steps=3, batch_size=4)


class Sides(Halves):
    """Every pixel of a picture is red or blue; there is no background."""

    has_background = False
    blue = (6, 14)
    """Range of the width of the blue side in pixels."""

    def __getitem__(self, index):
        rng = np.random.default_rng((self.seed, index))
        mask = np.full((SIZE, SIZE), 1, np.uint8)
        mask[:, : int(rng.integers(*self.blue))] = 2
        mask[0] = 255
        image = np.where(mask == 2, 200, 60)[None].repeat(3, axis=0).astype(np.uint8)
        return torch.from_numpy(image), {"masks": tv_tensors.Mask(torch.from_numpy(mask))}


def test_without_a_background_none_is_scored_predicted_or_named(encoder, tmp_path):
    data = halves(Sides(1, 20), Sides(2, 10))
    miou, accuracy = Segmentation(steps=2, learning_rate=1e-6).evaluate(encoder, data, tmp_path / "out")
    with (tmp_path / "out" / "per_class.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["red", "blue", "never"]
    assert sum(int(row["predicted_pixels"]) for row in rows) == 10 * (SIZE - 1) * SIZE
    red = 100 * int(rows[0]["pixels"]) / (10 * (SIZE - 1) * SIZE)
    assert accuracy.chance == pytest.approx(red) and miou.chance == pytest.approx(red / 2)


def test_without_a_background_chance_is_the_class_that_covers_most_of_the_training_masks(encoder, tmp_path):
    class MostlyBlue(Sides):
        blue = (20, 30)

    miou, accuracy = QUICK.evaluate(encoder, halves(MostlyBlue(1, 20), Sides(2, 10)), tmp_path)
    with (tmp_path / "per_class.csv").open(newline="") as file:
        red, blue, _ = (int(row["pixels"]) for row in csv.DictReader(file))
    assert blue < red  # in test, other than in train
    assert accuracy.chance == pytest.approx(100 * blue / (red + blue))
    assert miou.chance == pytest.approx(100 * blue / (red + blue) / 2)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", HEADS)
def test_the_network_learns_to_segment(encoder, tmp_path, decoder):
    data = halves()
    miou, accuracy = Segmentation(steps=60, decoder=decoder).evaluate(encoder, data, tmp_path / "out")
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
    with (tmp_path / "out" / "per_class.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["background", "red", "blue", "never"]
    assert [int(row["pixels"]) for row in rows] == [int((masks == k).sum()) for k in range(4)]
    assert miou.value == pytest.approx(np.mean([float(row["iou"]) for row in rows if row["iou"]]), abs=1e-3)


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


@pytest.mark.slow
def test_nothing_is_learned_from_ignored_pixels(encoder, tmp_path):
    class Outlined(Halves):
        def __getitem__(self, index):
            image, target = super().__getitem__(index)
            mask = target["masks"]
            return image, {"masks": tv_tensors.wrap(torch.where(mask == 0, 255, mask), like=mask)}

    probe = Segmentation(train_images=0, test_images=10, steps=40)
    list(probe.evaluate(encoder, halves(train=Outlined(1, 40)), tmp_path))
    with (tmp_path / "per_class.csv").open() as file:
        background, *_ = csv.DictReader(file)
    assert int(background["pixels"]) > 0.5 * 10 * SIZE**2 and int(background["predicted_pixels"]) < 0.05 * 10 * SIZE**2


def test_pictures_with_nothing_but_ignored_pixels_are_not_counted(encoder):
    scores = QUICK.evaluate(encoder, halves(test=Halves(2, 10, ignored=(0, 3, 9))))
    assert [score.n for score in scores] == [7, 7]


def test_nothing_but_ignored_pixels_is_an_error(encoder):
    with pytest.raises(UserError, match="every pixel of 6 training images"):
        list(QUICK.evaluate(encoder, halves(train=Halves(1, 6, ignored=range(6)))))
    with pytest.raises(UserError, match="every pixel of 6 test images"):
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


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"skips": -1}, {"width": 0}, {"test_images": -1}, {"decoder": "u"}])
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


@pytest.mark.parametrize("decoder", HEADS)
@pytest.mark.parametrize(("skips", "read"), [(0, [5]), (1, [5, 4]), (2, [5, 4, 1]), (9, [5, 4, 1, 0])])
def test_skips_read_the_deepest_map_of_each_finer_stride(encoder, decoder, skips, read):
    head = HEADS[decoder](encoder.stages, skips=skips, width=8, num_classes=3)
    assert head.read == read
    images = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    maps = [found.detach().requires_grad_() for found in encoder(images)]
    scores = head(maps, SIZE)
    assert scores.shape == (2, 3, SIZE, SIZE)
    gradients = torch.autograd.grad(scores.square().sum(), maps, allow_unused=True)
    assert [i for i, gradient in enumerate(gradients) if gradient is not None] == sorted(read)


def test_the_light_head_equals_its_description(encoder):
    """Step by step, by hand: project, upsample, concatenate, convolve, score."""
    torch.manual_seed(0)
    head = HEADS["light"](encoder.stages, skips=1, width=8, num_classes=3).eval()
    maps = [m.detach() for m in encoder.eval()(torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8))]
    scale = 1 / np.sqrt(1 + 1e-5)  # batch normalisation with initial statistics

    def projected(i, which):
        weight = head.projections[which][1].weight[:, :, 0, 0]
        return torch.einsum("oc,bchw->bohw", weight, maps[i] * scale).mul(scale).clamp(min=0)

    deep, fine = projected(5, 0), projected(4, 1)
    up = torch.nn.functional.interpolate(deep, fine.shape[-2:], mode="bilinear", align_corners=False)
    both = torch.cat([up, fine], dim=1)
    joined = torch.nn.functional.conv2d(both, head.joints[0][0].weight, padding=1).mul(scale).clamp(min=0)
    scores = torch.einsum("oc,bchw->bohw", head.score.weight[:, :, 0, 0], joined) + head.score.bias.view(1, -1, 1, 1)
    expected = torch.nn.functional.interpolate(scores, (SIZE, SIZE), mode="bilinear", align_corners=False)
    torch.testing.assert_close(head(maps, SIZE), expected)


@pytest.mark.slow
def test_a_class_missing_in_train_is_evaluated_and_scores_0(encoder, tmp_path):
    class OnlyRed(Halves):
        def __getitem__(self, index):
            image, target = super().__getitem__(index)
            mask = target["masks"].clone()
            mask[mask == 2] = 255
            return image, {"masks": tv_tensors.Mask(mask)}

    list(Segmentation(steps=30).evaluate(encoder, halves(train=OnlyRed(1, 30)), tmp_path))
    with (tmp_path / "per_class.csv").open(newline="") as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert float(rows["red"]["iou"]) > 0 and float(rows["blue"]["iou"]) == 0 and rows["never"]["iou"] == ""
    assert int(rows["blue"]["pixels"]) > 0


def test_one_value_a_channel_cannot_be_normalised_and_is_named():
    encoder = build_encoder("timm:resnet18", input_size=SIZE, seed=0)  # 1×1 at the end
    with pytest.raises(UserError, match="batch_size is 1, and the deepest map of timm:resnet18 has one cell at 32 px"):
        list(Segmentation(steps=1, batch_size=1).evaluate(encoder, halves()))


def test_each_class_has_its_intersection_over_union(tmp_path):
    from torchmetrics.classification import MulticlassJaccardIndex

    generator = torch.Generator().manual_seed(0)
    truth, predicted = (torch.randint(0, 4, (3, 9, 9), generator=generator) for _ in range(2))
    truth[torch.rand(truth.shape, generator=generator) < 0.2] = 255
    confusion = confusion_matrix(truth, predicted, num_classes=5, ignore=255)
    header, rows = _per_class(confusion, ("background", "a, b", "ü", "c", "absent"))
    write_per_class(tmp_path, header, rows)
    assert b"\r" not in (tmp_path / "per_class.csv").read_bytes()
    with (tmp_path / "per_class.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    theirs = MulticlassJaccardIndex(num_classes=5, ignore_index=255, average=None)(predicted, truth)
    assert [float(row["iou"]) for row in rows[:4]] == pytest.approx((100 * theirs[:4]).tolist(), abs=1e-4)
    assert rows[1]["class"] == "a, b" and rows[2]["class"] == "ü"
    assert rows[4] == {"class": "absent", "iou": "", "pixels": "0", "predicted_pixels": "0"}


def test_the_sheet_overlays_classes_on_the_image(tmp_path):
    image = torch.full((3, CELL, CELL), 100, dtype=torch.uint8)
    truth = torch.zeros(CELL, CELL, dtype=torch.uint8)
    truth[:, CELL // 2 :] = 2
    truth[:20] = 255
    segmentation_sheet(tmp_path / "s.png", [(image, truth, truth.long().clamp(max=2))], ("background", "a", "b"))
    with Image.open(tmp_path / "s.png") as sheet:
        pixels = np.asarray(sheet).astype(int)
    top = CELL + GAP + 2 * HEADING  # of the second row's image
    assert pixels[HEADING + 30, GAP + 30].tolist() == [100, 100, 100]
    assert pixels[top + 30, GAP + 30].tolist() == [50, 50, 50]  # background: half as bright
    mixed = [round(0.4 * 100 + 0.6 * value) for value in class_colour(1)]
    assert pixels[top + 30, GAP + CELL - 30].tolist() == mixed
    assert pixels[top + 5, GAP + 5].tolist() == [round(0.4 * 100 + 0.6 * 255)] * 3  # ignored
    assert pixels[2 * top - HEADING + 5, GAP + 5].tolist() == mixed  # predicted where the truth is ignored
