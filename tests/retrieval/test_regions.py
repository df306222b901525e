"""Regions of a picture, the windows that are cut from it, and their vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from index_samples import SIZE, SPEC, make_encoder
from torchvision import tv_tensors

from pretext.datasets import ImageDataset, at_size, open_dataset
from pretext.encoders import Encoder
from pretext.transforms.masks import MEAN_COLOUR
from retrieval.patches import cut, describe, describe_regions, windows
from retrieval.regions import PATCH, WHOLE, Regions, expand, patch_rows


def target(with_masks: bool) -> dict[str, object]:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 2.0, 8.0, 8.0], [7.0, 7.0, 8.0, 8.0]])
    masks = torch.zeros(8, 8, dtype=torch.uint8)
    masks[:4, :4] = 1
    masks[4:, 4:] = 255
    masks[3:5, 3:6] = 3
    found: dict[str, object] = {
        "label": torch.tensor(4),
        "labels": torch.tensor([0, 2, 1]),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(8, 8)),
        "difficult": torch.tensor([False, False, True]),
    }
    return found | ({"masks": tv_tensors.Mask(masks)} if with_masks else {})


def test_a_window_is_cut_at_its_own_pixels() -> None:
    pictures = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    windows = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.5, 0.5]])
    whole, _ = cut(pictures, torch.tensor([1, 0]), windows, None, side=16)
    torch.testing.assert_close(whole, pictures[1].float() / 255)
    part = cut(pictures, torch.tensor([0]), windows[1:], None, side=8)[0]
    torch.testing.assert_close(part, pictures[0, :, 8:16, 4:12].float() / 255)
    halved = cut(pictures, torch.tensor([0]), windows[:1], None, side=8)[0]
    blocks = pictures[0].double().reshape(3, 8, 2, 8, 2).mean(dim=(2, 4)) / 255
    torch.testing.assert_close(halved.double(), blocks, atol=1e-6, rtol=0)


def test_nothing_of_what_is_hidden_is_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8, generator=generator)
    box = torch.tensor([[0.27, 0.3, 0.33, 0.41]])  # pixels 4 to 9 across, 4 to 11 down
    which = torch.tensor([0])
    window = expand(box, 2.0)
    seen = cut(picture, which, window, box, side=24)
    inside, outside = picture.clone(), picture.clone()
    inside[..., 4:12, 4:10] = 255 - inside[..., 4:12, 4:10]
    outside[..., 3, 4:10] = 255 - outside[..., 3, 4:10]
    assert torch.equal(cut(inside, which, window, box, side=24), seen)
    assert not torch.equal(cut(outside, which, window, box, side=24), seen)
    middle = seen[0, :, 8:16, 8:16].mean(dim=(1, 2))
    torch.testing.assert_close(middle, torch.tensor(MEAN_COLOUR))


def test_beyond_the_picture_lies_the_mean_colour() -> None:
    white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    seen = cut(white, torch.tensor([0]), torch.tensor([[-1.0, 0.0, 2.0, 1.0]]), None, side=16)[0]
    torch.testing.assert_close(seen[:, :, :7], torch.tensor(MEAN_COLOUR).view(3, 1, 1).expand(3, 16, 7))
    torch.testing.assert_close(seen[:, :, 9:], torch.ones(3, 16, 7))


@pytest.mark.parametrize("regions", [Regions(mode="objects", margin=0.5), Regions(mode="contexts", hole=0.5)])
def test_a_box_is_seen_with_its_surroundings(regions: Regions) -> None:
    picture = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows = patch_rows(0, [(0.25, 0.25, 0.5, 0.5)], [0])  # the window is the whole picture
    ((crops, _),) = windows(iter([(picture, rows)]), regions, side=8)
    expected = picture.float() / 255
    if regions.mode == "contexts":
        expected[:, 2:6, 2:6] = torch.tensor(MEAN_COLOUR)[:, None, None]
    torch.testing.assert_close(crops[0], expected, atol=1e-5, rtol=0)


def test_an_expanded_box_keeps_its_centre() -> None:
    expanded = expand(torch.tensor([[0.2, 0.4, 0.2, 0.1]]), 3.0)
    torch.testing.assert_close(expanded, torch.tensor([[0.0, 0.3, 0.6, 0.3]]))


@pytest.mark.parametrize(
    ("regions", "with_masks", "count", "labels"),
    [
        (Regions(mode="images"), False, 1, [4]),
        (Regions(mode="objects"), True, 2, [0, 2]),  # the third is difficult
        (Regions(mode="contexts"), True, 1, [2]),  # 6 pixels of class 2, 3 of class 0 in the middle 4×4
        (Regions(mode="contexts"), False, 1, [2]),  # the centres of both easy boxes; the second is larger
        (Regions(grid=2), True, 4, [0, 2, -1, 2]),  # one pixel of class 2 does not label the third patch
        (Regions(grid=2), False, 4, [0, -1, -1, 2]),
    ],
)
def test_regions_have_the_class_that_is_in_them(
    regions: Regions, with_masks: bool, count: int, labels: list[int]
) -> None:
    boxes, found = regions.boxes(target(with_masks), 8)
    assert len(boxes) == count
    assert found == labels


def test_a_grid_covers_the_picture_at_every_scale() -> None:
    boxes, labels = Regions(grid=3, scales=(0.5, 1 / 3)).boxes({}, 8)
    assert len(boxes) == 18
    assert labels == [-1] * 18
    for scale in (boxes[:9], boxes[9:]):
        assert min(x for x, _, _, _ in scale) == 0
        assert max(y + h for _, y, _, h in scale) == pytest.approx(1)


@pytest.mark.parametrize("wrong", [{"grid": 0}, {"scales": ()}, {"scales": (1.5,)}, {"hole": 1.0}, {"margin": -1.0}])
def test_regions_refuse_what_cannot_be_cut(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Regions(**wrong)  # type: ignore[arg-type]


def test_a_vector_is_the_pooled_map_of_its_crop(encoder: Encoder, data: ImageDataset) -> None:
    table = np.array([(3, *WHOLE, -1)], dtype=PATCH)
    found = describe(encoder, data, table, Regions(mode="images"), stages=["conv2", "pool5"])
    with torch.inference_mode():
        maps = encoder.eval()(data[3][0][None])
    for name, values in (("conv2", maps[1]), ("pool5", maps[-1])):
        pooled = values[0].double().mean(dim=(1, 2)).numpy()
        np.testing.assert_allclose(found[name][0], pooled / np.linalg.norm(pooled), atol=1e-5)


def test_the_encoder_is_left_as_it_was(data: ImageDataset) -> None:
    encoder = make_encoder()
    encoder.train()
    encoder.get_submodule("convs.0").eval()  # a frozen part
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    describe_regions(encoder, data, Regions(mode="images"), stage="pool5", bad_images="stop")
    assert encoder.training
    assert not encoder.get_submodule("convs.0").training
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])


def test_pictures_that_stream_give_the_vectors_of_a_pack(
    encoder: Encoder, features: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRETEXT_PACK_GB", "0")
    streamed = at_size(open_dataset(SPEC), SIZE, bad_images="stop")
    found, _ = describe_regions(encoder, streamed, Regions(), stage="pool5", bad_images="stop")
    np.testing.assert_allclose(found, features, atol=1e-6)
