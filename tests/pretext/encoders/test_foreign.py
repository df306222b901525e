"""External checkpoints that match in part, twice or not at all: an error of one line, or a partial load."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from weight_file_samples import LAST, moco_v2, models, saved, under

from pretext.encoders import build_encoder, load_encoder
from pretext.encoders.foreign import loaded_line
from pretext.system.errors import UserError


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (models.resnet34, "unexpected state_dict.backbone.layer1.2.conv1.weight"),  # has all that ResNet-18 has
        (models.resnet50, "layer1.0.conv1.weight has shape (64, 64, 1, 1), expected (64, 64, 3, 3)"),
        (lambda: nn.Conv2d(3, 64, 7), "no tensor matches; the file contains state_dict.backbone.weight"),
    ],
)
def test_another_architecture_is_refused_by_name(tmp_path, make, said):
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in make().state_dict().items()}
    tensors = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    path = saved({"state_dict": under("backbone.", tensors)}, tmp_path)
    with pytest.raises(UserError) as caught:
        load_encoder(f"timm:resnet18?weights={path}", input_size=32)
    assert str(caught.value).startswith(f"{path} does not fit timm:resnet18: ") and said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_two_equally_good_ones_the_user_says_which(resnet, other, tmp_path):
    path = saved({"first": resnet.state_dict(), "second": other.state_dict()}, tmp_path)
    with pytest.raises(
        UserError,
        match=r"contains one encoder under first\. and another under second\.; choose one, for example &prefix=second",
    ):
        load_encoder(f"timm:resnet10_of_test?weights={path}", input_size=32)
    path = saved(moco_v2(resnet, other), tmp_path)
    for prefix in ("encoder_k", "encoder_k.", "state_dict.module.encoder_k"):
        encoder = load_encoder(f"timm:resnet10_of_test?weights={path}&prefix={prefix}", input_size=32)
        assert torch.equal(encoder.model.state_dict()["conv1.weight"], other.conv1.weight)
    assert encoder.spec == "timm:resnet10_of_test"
    with pytest.raises(UserError, match="no tensor matches under prefix=coder_k"):
        load_encoder(f"timm:resnet10_of_test?weights={path}&prefix=coder_k", input_size=32)


def msn(ours, other):
    encoders = {"encoder": under("module.", ours.state_dict()), "target_encoder": under("module.", other.state_dict())}
    return encoders | {"prototypes": torch.zeros(8, 8), "epoch": 1}


PAIRS = {
    "msn": (msn, "encoder", "target_encoder"),
    "timm": (
        lambda a, b: {"state_dict": a.state_dict(), "state_dict_ema": b.state_dict()},
        "state_dict",
        "state_dict_ema",
    ),
    "mmselfsup": (
        lambda a, b: under("online_net.0.", a.state_dict()) | under("target_net.0.", b.state_dict()),
        "online_net",
        "target_net",
    ),
    "a student alone": (
        lambda a, b: {"model": a.state_dict(), "student": b.state_dict()},
        "model",
        "student",
    ),
    "a part apart": (
        lambda a, b: {"a": under("target_encoder.", a.state_dict()), "b": under("online_encoder.", b.state_dict())},
        "a",
        "b.online_encoder",
    ),
    "no prefix": (lambda a, b: under("", a.state_dict()) | under("ema.", b.state_dict()), "", "ema"),
}


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
def test_no_encoder_is_taken_because_of_its_name_alone(resnet, other, tmp_path, pair):
    make, first, second = PAIRS[pair]
    spec = f"timm:resnet10_of_test?weights={saved(make(resnet, other), tmp_path)}"
    with pytest.raises(UserError) as caught:
        load_encoder(spec, input_size=32)
    assert f"under {first or 'no prefix'}" in str(caught.value) and f"under {second}" in str(caught.value)
    for part in str(caught.value).split("for example ")[1].split(" or "):  # both proposals are valid
        load_encoder(spec + part, input_size=32)
    for prefix, model in ((first, resnet), (second, other)):
        found = load_encoder(f"{spec}&prefix={prefix}", input_size=32).model.state_dict()
        assert torch.equal(found["conv1.weight"], model.conv1.weight)


def test_options_of_a_file_need_one():
    for spec in ("timm:resnet10_of_test?prefix=a", "alexnet?allow_partial=true"):
        with pytest.raises(UserError, match="give weights=FILE too"):
            build_encoder(spec, input_size=32, seed=0)


def test_a_part_is_refused_unless_allowed(resnet, partial):
    spec = f"timm:resnet10_of_test?weights={partial}"
    with pytest.raises(UserError) as caught:
        load_encoder(spec, input_size=32)
    assert "missing layer4.0.conv2.weight; missing layer4.0.bn2.weight" in str(caught.value)
    assert "and 2 more; nothing was loaded; --allow-partial" in str(caught.value)
    encoders = [load_encoder(f"{spec}&allow_partial=true", input_size=32) for _ in range(2)]
    given = resnet.state_dict()
    for name, value in encoders[0].model.state_dict().items():
        assert torch.equal(value, encoders[1].model.state_dict()[name])  # drawn by the seed
        if value.is_floating_point():
            assert torch.equal(value, given[name]) != name.startswith(LAST), name
    about = encoders[0].record["weights"]
    assert len(about["left_random"]) == 5 and about["loaded"] == 55
    assert encoders[0].spec == "timm:resnet10_of_test"
    line = loaded_line(encoders[0], spec)
    assert "55 of 60 tensors loaded" in line and "skipped: fc (2); left random: layer4.0.conv2.weight" in line
    assert "\n" not in line


def test_a_misshapen_stem_and_unknown_parts_are_allowed_as_parts(resnet, tmp_path):
    tensors = resnet.state_dict() | {"conv1.weight": torch.rand(64, 3, 3, 3), "neck.weight": torch.rand(3)}
    spec = f"timm:resnet10_of_test?weights={saved(tensors, tmp_path)}"
    with pytest.raises(
        UserError, match=r"conv1.weight has shape \(64, 3, 3, 3\), expected \(64, 3, 7, 7\); unexpected neck.weight"
    ):
        load_encoder(spec, input_size=32)
    about = load_encoder(f"{spec}&allow_partial=true", input_size=32).record["weights"]
    assert about["left_random"] == ["conv1.weight"] and about["skipped"] == {"conv1": 1, "fc": 2, "neck": 1}
