"""Multi-crop: the area of each crop is measured on colour ramps, and encoders accept both sizes."""

from __future__ import annotations

import pytest
import torch
from task_samples import SMALL, generator

from pretext.encoders import build_encoder
from pretext.transforms.augmentation import Augmentation
from pretext.transforms.views import MultiCrop, base_settings, embed_crops, local_side, multi_crop, show_crops

CROP_ALONE = Augmentation(flip=0, jitter=0, greyscale=0, blur=0)
SIDE = 64


def ramps(count=40):
    """Return images whose red rises to the right and green downwards, by 1/SIDE per pixel."""
    rise = (torch.arange(SIDE) + 0.5) / SIDE
    picture = torch.stack([rise.expand(SIDE, SIDE), rise[:, None].expand(SIDE, SIDE), torch.zeros(SIDE, SIDE)])
    return picture.expand(count, 3, SIDE, SIDE).clone()


def shown(views):
    """Return the fraction of the image area that each view of ramps shows, from the slopes in its middle."""
    side = views.shape[-1]
    quarter, middle = side // 4, side // 2
    across = (views[..., 0, middle, side - quarter] - views[..., 0, middle, quarter]) / (side - 2 * quarter) * side
    down = (views[..., 1, side - quarter, middle] - views[..., 1, quarter, middle]) / (side - 2 * quarter) * side
    return across * down


def test_large_crops_show_much_and_small_ones_little():
    settings = MultiCrop(crop_min=0.4, local_min=0.05, flip=0, jitter=0, greyscale=0, blur=0)
    local = base_settings(settings, crop_min=settings.local_min, crop_max=settings.crop_min)
    large, small = multi_crop(
        ramps(), (base_settings(settings), base_settings(settings)), local, generator(), count=3, side=28
    )
    assert large.shape == (2, 40, 3, SIDE, SIDE) and small.shape == (3, 40, 3, 28, 28)
    slack = 0.02
    assert shown(large).min() > 0.4 - slack and shown(large).max() < 1 + slack
    assert shown(small).min() > 0.05 - slack and shown(small).max() < 0.4 + slack
    assert shown(large).max() > 0.8 and shown(small).min() < 0.12  # the ranges are used


def test_every_crop_is_drawn_by_itself():
    large, small = multi_crop(ramps(6), (CROP_ALONE, CROP_ALONE), CROP_ALONE, generator(), count=2, side=16)
    assert not torch.equal(large[0], large[1]) and not torch.equal(small[0], small[1])
    assert not torch.equal(large[0, 0], large[0, 1])


def test_each_large_crop_has_its_own_settings():
    whole = Augmentation(crop_min=1, aspect=1, flip=0, jitter=0, greyscale=0, blur=0)
    pictures = ramps(3)
    (large,) = multi_crop(pictures, (whole, base_settings(whole, solarize=1.0)), whole, generator(), count=0, side=16)
    torch.testing.assert_close(large[0], pictures)
    torch.testing.assert_close(large[1], torch.where(pictures >= 0.5, 1 - pictures, pictures))


def test_the_generator_alone_decides_and_pictures_are_left_alone():
    images = (ramps(4) * 255).to(torch.uint8)
    before, settings = images.clone(), Augmentation()
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(runs))
        runs.append(multi_crop(images, (settings, settings), settings, generator(seed), count=1, side=32))
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not torch.equal(runs[0][1], runs[2][1])
    assert torch.equal(images, before)
    assert all(views.min() >= 0 and views.max() <= 1 for views in runs[0])


def test_base_settings_are_those_of_the_augmentation():
    settings = MultiCrop(blur=0.3, local_crops=7)
    assert type(base_settings(settings)) is Augmentation and base_settings(settings).blur == 0.3
    assert base_settings(settings, blur=1.0) == base_settings(MultiCrop(blur=1.0))


@pytest.mark.parametrize(
    ("spec", "size", "share", "side"),
    [
        (SMALL, 32, 0.5, 16),
        (SMALL, 32, 96 / 224, 14),
        ("alexnet?width=0.125", 227, 96 / 224, 97),
        ("timm:resnet18", 32, 96 / 224, 14),
        ("timm:vit_tiny_patch16_224", 64, 0.5, 32),
        ("timm:vit_tiny_patch16_224", 64, 96 / 224, 32),  # 27.4 px are nearer to two patches than to one
        ("timm:vit_tiny_patch16_224", 32, 0.1, 16),  # one patch at least
    ],
)
def test_small_crops_are_of_a_size_that_the_encoder_reads(spec, size, share, side):
    if spec.startswith("timm"):
        pytest.importorskip("timm", reason="timm is not installed")
    encoder = build_encoder(spec, input_size=size, seed=0)
    assert local_side(encoder, share) == side and encoder.training
    crops = multi_crop(torch.rand(3, 3, size, size), (CROP_ALONE,) * 2, CROP_ALONE, generator(), count=1, side=side)
    assert embed_crops(encoder, crops).shape == (9, encoder.stages[-1].channels)


def test_a_size_that_the_encoder_cannot_read_is_refused():
    encoder = build_encoder("alexnet?width=0.125", input_size=227, seed=0)
    with pytest.raises(ValueError, match=r"small crops of 23 px.*local_size.*local_crops=0"):
        local_side(encoder, 0.1)


def test_vectors_come_crop_by_crop():
    encoder = build_encoder(SMALL, input_size=32, seed=0).eval()
    crops = [torch.rand(2, 3, 3, 32, 32), torch.rand(2, 3, 3, 16, 16)]
    with torch.no_grad():
        found = embed_crops(encoder, crops)
        torch.testing.assert_close(found[3:6], encoder.embed(crops[0][1]))
        torch.testing.assert_close(found[9:], encoder.embed(crops[1][1]))


def test_columns_have_the_pictures_size():
    images = (ramps(4) * 255).to(torch.uint8)
    crops = multi_crop(images, (CROP_ALONE, CROP_ALONE), CROP_ALONE, generator(), count=2, side=16)
    columns = show_crops(images, crops)
    assert len(columns) == 4 and all(column.shape == images.shape for column in columns.values())
    assert len(show_crops(images, crops[:1])) == 3
