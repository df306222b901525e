"""External checkpoints: for each project's layout, the loaded encoder computes what the trained network computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from weight_file_samples import MEAN, STD, alive, linear, moco_v2, models, saved, timm, under

from pretext.encoders import build_encoder, load_encoder, save_encoder
from pretext.system.errors import UserError

pytestmark = pytest.mark.slow

VIT = "timm:vit_tiny_patch16_224"


def tiny_vit():
    return models.VisionTransformer(32, 16, 12, 3, 192, 768)


@pytest.fixture(scope="module")
def vit():
    return alive(tiny_vit, 3)


@pytest.fixture(scope="module")
def timm_vit():
    return alive(lambda: timm.create_model("vit_tiny_patch16_224", img_size=32), 4)


def numbered(model):
    """Return the state dict of `nn.Sequential(*list(model.children())[:-1])`."""
    return nn.Sequential(*list(model.children())[:-1]).state_dict()


def moco_v3(ours, other):
    tensors = under("module.base_encoder.", ours.state_dict()) | under("module.momentum_encoder.", other.state_dict())
    return {"state_dict": tensors | linear("module.base_encoder.fc.0") | linear("module.predictor.0")}


def solo_learn(ours, other):
    tensors = under("backbone.", ours.state_dict()) | under("momentum_backbone.", other.state_dict())
    heads = linear("projector.0") | linear("momentum_projector.0") | linear("classifier") | linear("predictor.0")
    return {"state_dict": tensors | heads, "epoch": 1, "global_step": 10}


def older_solo_learn(ours, other):
    tensors = under("encoder.", ours.state_dict()) | under("momentum_encoder.", other.state_dict())
    return {"state_dict": tensors | linear("projector.0") | linear("classifier")}


def vissl(ours, other):
    trunk = under("_feature_blocks.", ours.state_dict())
    momentum = under("momentum_teacher.trunk._feature_blocks.", other.state_dict())
    return {
        "classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": linear("0.clf.0")}}, "loss": momentum}
    }


def lightly(ours, other):
    tensors = under("backbone.", numbered(ours)) | under("backbone_momentum.", numbered(other))
    heads = linear("projection_head.layers.0") | linear("projection_head_momentum.layers.0") | linear("fc")
    return {"state_dict": tensors | heads}


LAYOUTS = {
    "torchvision": (lambda a, b: a.state_dict(), ""),
    "torchvision, without counters": (
        lambda a, b: {name: value for name, value in a.state_dict().items() if not name.endswith("tracked")},
        "",
    ),
    "parallel": (lambda a, b: under("module.", a.state_dict()), "module."),
    "moco v2": (moco_v2, "state_dict.module.encoder_q."),
    "moco v3": (moco_v3, "state_dict.module.base_encoder."),
    "simsiam": (
        lambda a, b: {"state_dict": under("module.encoder.", a.state_dict()) | linear("module.encoder.fc.6")},
        "state_dict.module.encoder.",
    ),
    "swav": (
        lambda a, b: (
            under("module.", a.state_dict())
            | linear("module.projection_head.0")
            | {"module.prototypes.weight": torch.rand(3, 4)}
        ),
        "module.",
    ),
    "barlow twins": (
        lambda a, b: {"model": under("module.backbone.", a.state_dict()) | linear("module.projector.0")},
        "model.module.backbone.",
    ),
    "dino": (
        lambda a, b: {
            "student": under("module.backbone.", b.state_dict()) | linear("module.head.mlp.0"),
            "teacher": under("backbone.", a.state_dict()) | linear("head.mlp.0"),
        },
        "teacher.backbone.",
    ),
    "solo-learn": (solo_learn, "state_dict.backbone."),
    "older solo-learn": (older_solo_learn, "state_dict.encoder."),
    "vissl": (vissl, "classy_state_dict.base_model.model.trunk._feature_blocks."),
    "vissl, to evaluate": (
        lambda a, b: {"model": under("trunk.base_model._feature_blocks.", a.state_dict()) | linear("heads.0.clf")},
        "model.trunk.base_model._feature_blocks.",
    ),
    "lightly": (lightly, "state_dict.backbone."),
    "lightly's DINO": (
        lambda a, b: under("student_backbone.", numbered(b)) | under("teacher_backbone.", numbered(a)),
        "teacher_backbone.",
    ),
    "children by number": (lambda a, b: numbered(a), ""),
}


def resnet_maps(model, images):
    x = model.relu(model.bn1(model.conv1((images - MEAN) / STD)))
    maps = [x]
    x = model.maxpool(x)
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        maps.append(x := layer(x))
    return maps


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_a_resnet_is_the_one_that_was_trained(resnet, other, tmp_path, layout):
    make, prefix = LAYOUTS[layout]
    encoder = load_encoder(f"timm:resnet10_of_test?weights={saved(make(resnet, other), tmp_path)}", input_size=64)
    images = torch.rand(2, 3, 64, 64)
    for found, expected in zip(encoder(images), resnet_maps(resnet, images), strict=True):
        torch.testing.assert_close(found, expected)
    about = encoder.record["weights"]
    assert about["prefix"] == prefix and about["left_random"] == []
    assert about["loaded"] == about["needed"] == 60  # 12 convolutions, and 12 normalisations of 4 tensors
    beside = {"moco v2": 4, "dino": 2, "lightly": 4, "vissl": 2}
    if layout in beside:
        assert len(about["skipped"]) == beside[layout], about["skipped"]


def vit_tokens(model, images):
    x = model._process_input((images - MEAN) / STD)
    x = torch.cat([model.class_token.expand(len(x), -1, -1), x], dim=1) + model.encoder.pos_embedding
    tokens = []
    for block in model.encoder.layers:
        tokens.append(x := block(x))
    return tokens


def same_maps(encoder, tokens, side=2):
    indices = [int(stage.name.rsplit("_", 1)[1]) for stage in encoder.stages]
    assert len(set(indices)) == len(indices) > 1

    def check(images):
        with torch.no_grad():
            for found, expected in zip(encoder(images), [tokens(images)[i] for i in indices], strict=True):
                torch.testing.assert_close(found.flatten(2).mT, expected[:, -side * side :], rtol=1e-4, atol=1e-4)

    return check


def older(tensors):
    """Return the names that torchvision used before version 0.13."""
    return {
        name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): value
        for name, value in tensors.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "make"),
    [
        ("torchvision's ViT", lambda tensors: tensors),
        ("torchvision's older ViT", older),
        (
            "torchvision's ViT",
            lambda tensors: {"state_dict": under("backbone.vit.", tensors) | linear("projection_head.0")},
        ),
    ],
)
def test_torchvisions_transformer_is_the_one_that_was_trained(vit, tmp_path, layout, make):
    path = saved(make(vit.state_dict()), tmp_path)
    encoder = load_encoder(f"{VIT}?weights={path}&normalise=imagenet", input_size=32)
    assert encoder.record["weights"]["layout"] == layout and not encoder.record["weights"]["left_random"]
    same_maps(encoder, lambda images: vit_tokens(vit, images))(torch.rand(2, 3, 32, 32))
    assert encoder.spec == f"{VIT}?normalise=imagenet"
    save_encoder(encoder, tmp_path / "encoder.safetensors", encoder.record)
    again = load_encoder(tmp_path / "encoder.safetensors")
    assert again.mean == pytest.approx((0.485, 0.456, 0.406)) and again.record == encoder.record


def test_weights_that_want_other_pictures_say_so(vit, tmp_path):
    with pytest.raises(UserError, match="normalise=imagenet"):
        load_encoder(f"{VIT}?weights={saved(vit.state_dict(), tmp_path)}", input_size=32)
    assert build_encoder(f"{VIT}?normalise=half", input_size=32, seed=0).mean == (0.5, 0.5, 0.5)


def vissl_vit(tensors):
    names = {"cls_token": "class_token", "pos_embed": "pos_embedding"}
    trunk = {names.get(name, name): value for name, value in under("", tensors, "head.").items()}
    return {"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": linear("0.clf")}}}}


@pytest.mark.parametrize(
    "make",
    [
        lambda tensors: tensors,
        lambda tensors: {"model": tensors | linear("decoder_blocks.0.mlp.fc1") | {"mask_token": torch.rand(1, 1, 192)}},
        lambda tensors: {
            "state_dict": under("module.base_encoder.", tensors, "head.") | linear("module.base_encoder.head.0")
        },
        lambda tensors: {"state_dict": under("backbone.", tensors, ("head.", "norm."))},  # no map needs the last norm
        vissl_vit,
    ],
    ids=["timm", "mae", "moco v3", "solo-learn", "vissl"],
)
def test_timms_transformer_is_the_one_that_was_trained(timm_vit, tmp_path, make):
    path = saved(make(timm_vit.state_dict()), tmp_path)
    encoder = load_encoder(f"{VIT}?weights={path}&normalise=imagenet", input_size=32)

    def tokens(images):
        return timm_vit.forward_intermediates((images - MEAN) / STD, output_fmt="NLC")[1]

    same_maps(encoder, tokens)(torch.rand(2, 3, 32, 32))


def alexnet_bvlc():
    """Return VISSL's trunk of that name: Krizhevsky's, in two groups, normalised before pooling."""

    def conv(*args, **options):
        return nn.Sequential(nn.Conv2d(*args, **options), nn.ReLU())

    def pool():
        return nn.Sequential(nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75), nn.MaxPool2d(3, 2))

    blocks = [
        conv(3, 96, 11, stride=4), pool(),
        conv(96, 256, 5, padding=2, groups=2), pool(),
        conv(256, 384, 3, padding=1),
        conv(384, 384, 3, padding=1, groups=2),
        conv(384, 256, 3, padding=1, groups=2),
        nn.MaxPool2d(3, 2),
    ]  # fmt: skip
    return nn.Sequential(*blocks)


@torch.no_grad()
def test_the_one_foreign_alexnet_that_is_this_suites(tmp_path):
    model = alive(alexnet_bvlc, 5)
    trunk = under("_feature_blocks.", model.state_dict())
    path = saved({"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": {}}}}}, tmp_path)
    encoder = load_encoder(f"alexnet?norm=local_response&groups=2&weights={path}", input_size=227)
    images = torch.rand(1, 3, 227, 227)
    maps = [images := (images - MEAN) / STD]
    for block in model:
        maps.append(block(maps[-1]))
    *_, conv3, conv4, conv5, pool5 = encoder(images * STD + MEAN)
    for found, expected in zip((conv3, conv4, conv5, pool5), maps[5:], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert encoder.spec == "alexnet?norm=local_response&groups=2" and len(encoder.record["weights_sha256"]) == 64
    with torch.device("meta"):
        names = under("", models.alexnet().state_dict(), "classifier.")
    theirs = saved({key: torch.zeros(value.shape) for key, value in names.items()}, tmp_path, "torchvision.pth")
    with pytest.raises(UserError, match=r"torchvision.pth does not fit alexnet: no tensor matches.*features.0"):
        load_encoder(f"alexnet?weights={theirs}")


@pytest.mark.parametrize("spec", ["alexnet?width=0.25&stem_stride=2", "released?width=0.1"])
def test_this_suites_own_encoders_start_from_files_too(tmp_path, spec):
    given = build_encoder(spec, input_size=128, seed=3)
    save_encoder(given, tmp_path / "encoder.safetensors", {})
    encoder = load_encoder(f"{spec}&weights={tmp_path / 'encoder.safetensors'}", input_size=128)
    assert encoder.spec == spec
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in given.state_dict().items())
    with pytest.raises(UserError, match="expected"):
        load_encoder(f"{spec.replace('width=0', 'width=1')}&weights={tmp_path / 'encoder.safetensors'}")
