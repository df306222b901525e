"""DINOv2's own checkpoints: registers and the class token's position are converted as timm does it."""

from __future__ import annotations

import pytest
import torch
from weight_file_samples import alive, saved, timm, under

from pretext.encoders import load_encoder
from pretext.system.errors import UserError


@timm.models.register_model
def tiny_dinov2_of_test(pretrained=False, **options):
    """A small network built as `vit_small_patch14_reg4_dinov2`."""
    shape = {"patch_size": 14, "embed_dim": 64, "depth": 4, "num_heads": 2, "init_values": 1e-5, "img_size": 56}
    registers = {"reg_tokens": 4, "no_embed_class": True}
    create = timm.models.vision_transformer._create_vision_transformer
    return create("vit_small_patch14_reg4_dinov2", pretrained, **(shape | registers | options))


def published(model):
    """Return the tensors under DINOv2's names, with a position for the class token, which timm adds to it."""
    tensors = {name.replace("reg_token", "register_tokens"): value for name, value in model.state_dict().items()}
    first = torch.full_like(tensors["cls_token"], 0.3)
    tensors["cls_token"] = tensors["cls_token"] - first
    tensors["pos_embed"] = torch.cat([first, tensors["pos_embed"]], dim=1)
    return tensors | {"mask_token": torch.zeros(1, 64)}


@pytest.fixture(scope="module")
def model():
    return alive(lambda: timm.create_model("tiny_dinov2_of_test", num_classes=0), 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda tensors: tensors,
        lambda tensors: {"teacher": under("backbone.", tensors)},
        lambda tensors: {name: value for name, value in tensors.items() if name != "mask_token"},
    ],
    ids=["published", "teacher", "without mask token"],
)
@torch.no_grad()
def test_a_network_with_registers_is_the_one_that_was_trained(model, tmp_path, make):
    path = saved(make(published(model)), tmp_path)
    encoder = load_encoder(f"timm:tiny_dinov2_of_test?weights={path}&normalise=half", input_size=56)
    images = torch.rand(1, 3, 56, 56)
    expected = model.forward_intermediates((images - 0.5) / 0.5, intermediates_only=True)
    for stage, found in zip(encoder.stages, encoder(images), strict=True):
        index = int(stage.name.rsplit("_", 1)[1])
        torch.testing.assert_close(found, expected[index], rtol=1e-4, atol=1e-4)
    assert encoder.record["weights"]["left_random"] == []


def test_a_part_of_it_is_one_line(model, tmp_path):
    tensors = {name: value for name, value in published(model).items() if name != "cls_token"}
    with pytest.raises(UserError, match="missing cls_token"):
        load_encoder(f"timm:tiny_dinov2_of_test?weights={saved(tensors, tmp_path)}", input_size=56)
