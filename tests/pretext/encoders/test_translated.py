"""torchvision's networks under timm's names: the same maps, or one line."""

from __future__ import annotations

import pytest
import torch
from weight_file_samples import MEAN, STD, alive, linear, models, saved, under

from pretext.encoders import load_encoder
from pretext.system.errors import UserError


def features(*indices):
    return lambda model: [model.features[i] for i in indices]


def regnet_parts(model):
    return [model.stem, *model.trunk_output.children()]


SAME = {
    "convnext_tiny": ("convnext_tiny", features(1, 3, 5, 7)),
    "swin_t": ("swin_tiny_patch4_window7_224", features(1, 3, 5, 7)),
    "regnet_y_400mf": ("regnety_004", regnet_parts),
    "regnet_x_400mf": ("regnetx_004_tv", regnet_parts),
    "efficientnet_b0": ("efficientnet_b0", features(1, 2, 3, 5, 7)),
    "mobilenet_v2": ("mobilenetv2_100", features(1, 3, 6, 13, 17)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME)
@torch.no_grad()
def test_the_maps_are_torchvisions(tmp_path, name):
    ours, parts = SAME[name]
    model = alive(getattr(models, name), 1)
    side = 224 if name == "swin_t" else 64
    encoder = load_encoder(f"timm:{ours}?weights={saved(model.state_dict(), tmp_path)}", input_size=side)
    maps = []
    for part in parts(model):
        part.register_forward_hook(lambda module, given, out: maps.append(out))
    images = torch.rand(1, 3, side, side)
    model((images - MEAN) / STD)
    for found, expected in zip(encoder(images), maps, strict=True):
        ordered = found.permute(0, 2, 3, 1) if name == "swin_t" else found
        torch.testing.assert_close(ordered, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    about = encoder.record["weights"]
    assert about["layout"].startswith("torchvision's ") and about["left_random"] == []
    assert encoder.mean == pytest.approx((0.485, 0.456, 0.406))


def zeros(name):
    return {key: torch.zeros(()).expand(value.shape) for key, value in getattr(models, name)().state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ours", "said"),
    [
        (
            "mobilenet_v3_small",
            "mobilenetv3_small_100",
            "holds torchvision's MobileNetV3, which timm:mobilenetv3_small",
        ),
        ("swin_v2_t", "swinv2_tiny_window8_256", "holds torchvision's Swin V2, which timm:swinv2_tiny_window8_256 is"),
        ("efficientnet_v2_s", "efficientnetv2_s", "only B0 to B4 are the same networks in timm"),
        ("efficientnet_b0", "tf_efficientnet_b0", "as timm:efficientnet_b0 to b4"),
        ("efficientnet_b1", "efficientnet_b0", "expected"),
        ("regnet_x_400mf", "regnetx_004", "expected"),
        ("convnext_tiny", "resnet18", "holds torchvision's ConvNeXt, which timm:resnet18 is not"),
    ],
)
def test_another_network_is_refused_in_one_line(tmp_path, name, ours, said):
    path = saved(zeros(name), tmp_path)
    with pytest.raises(UserError) as caught:
        load_encoder(f"timm:{ours}?weights={path}", input_size=64)
    assert said in str(caught.value) and str(caught.value).isprintable() and path.name in str(caught.value)


def test_a_prefix_and_heads_do_no_harm(tmp_path):
    model = alive(models.regnet_y_400mf, 2)
    both = under("module.encoder_q.", model.state_dict()) | under("module.encoder_k.", zeros("regnet_y_400mf"))
    path = saved({"state_dict": both | linear("module.encoder_q.fc.0")}, tmp_path)
    encoder = load_encoder(f"timm:regnety_004?weights={path}", input_size=32)
    assert encoder.record["weights"]["prefix"] == "state_dict.module.encoder_q."
    assert torch.equal(encoder.model.state_dict()["stem.conv.weight"], model.stem[0].weight)
