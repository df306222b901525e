"""torchvision's networks as encoders: their maps beside the networks' own, weight files, and what cannot be built."""

from __future__ import annotations

import re

import pytest
import torch
from module_samples import hooked
from torchvision import models

from pretext.encoders import Encoder, build_encoder, load_encoder, save_encoder
from pretext.encoders.files import encoder_digest
from pretext.encoders.foreign import WeightsConfig, loaded_line, match_weights
from pretext.system.errors import UserError

IMAGENET = tuple(torch.tensor(x).view(1, 3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
STAGES = {  # submodules whose outputs the maps are, and their strides; "!" marks channels last, "@" patch tokens
    "resnet18": ("relu layer1 layer2 layer3 layer4", "2 4 8 16 32"),
    "squeezenet1_1": ("features.1 features.4 features.7 features.12", "2 4 8 16"),
    "alexnet": ("features.1 features.4 features.11 features.12", "4 8 16 32"),
    "vgg11": ("features.1 features.4 features.9 features.14 features.19 features.20", "1 2 4 8 16 32"),
    "mobilenet_v2": ("features.1 features.3 features.6 features.13 features.18", "2 4 8 16 32"),
    "mobilenet_v3_small": ("features.0 features.1 features.3 features.8 features.12", "2 4 8 16 32"),
    "efficientnet_b0": ("features.1 features.2 features.3 features.5 features.8", "2 4 8 16 32"),
    "regnet_x_400mf": ("stem trunk_output.block1 trunk_output.block2 trunk_output.block3 trunk_output", "2 4 8 16 32"),
    "shufflenet_v2_x0_5": ("conv1 maxpool stage2 stage3 conv5", "2 4 8 16 32"),
    "mnasnet0_5": ("layers.7 layers.8 layers.9 layers.11 layers.16", "2 4 8 16 32"),
    "convnext_tiny": ("features.1 features.3 features.5 features.7", "4 8 16 32"),
    "swin_t": ("!features.1 !features.3 !features.5 permute", "4 8 16 32"),
    "densenet121": ("features.relu0 features.denseblock1 features.denseblock2 features.denseblock3", "2 4 8 16 32"),
    "googlenet": ("conv1 conv3 inception3b inception4e inception5b", "2 4 8 16 32"),
    "vit_b_32": (" ".join(f"@encoder.layers.encoder_layer_{i}" for i in (9, 10, 11)), "32 32 32"),
}
FAST = ("squeezenet1_1",)


def published(name, side=64, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = {"image_size": side} if name.startswith("vit") else {}
        sizes |= {"init_weights": True} if name == "googlenet" else {}
        return models.get_model(name, weights=None, **sizes).eval()


def same(encoder, network):
    """Whether every tensor of the encoder is the network's tensor of that name."""
    tensors = network.state_dict()
    return all(torch.equal(value, tensors[name.removeprefix("model.")]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in STAGES if name not in FAST)]
)
def test_maps_are_the_networks_own(name):
    """The oracle is the library's forward pass, with hooks on its submodules."""
    encoder = build_encoder(f"torchvision:{name}", input_size=64, seed=3).eval()
    network = published(name, seed=3)
    modules, strides = STAGES[name][0].split(), [int(stride) for stride in STAGES[name][1].split()]
    assert [stage.stride for stage in encoder.stages] == strides
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mean, std = (0.5, 0.5) if name == "googlenet" else IMAGENET
    wanted = hooked(network, [module.strip("!@") for module in modules], (images - mean) / std)
    with torch.no_grad():
        maps = encoder(images)
    assert encoder.library == "torchvision" and len(maps) == len(strides)
    for module, found, its in zip(modules, maps, wanted, strict=False):
        expected = its.permute(0, 3, 1, 2) if module[0] == "!" else its
        if module[0] == "@":
            expected = its[:, 1:].transpose(1, 2).unflatten(2, (2, 2))
        assert torch.allclose(found, expected, atol=1e-5), module
    wanted_names = [module.strip("!@").replace(".", "_") for module in modules]
    assert [stage.name for stage in encoder.stages][: len(modules) - 1] == wanted_names[: len(modules) - 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("maxvit_t", {"input_size": (224, 224)}),
        ("inception_v3", {"init_weights": False}),
        ("swin_v2_t", {}),
        ("vit_h_14", {"image_size": 224}),
        ("efficientnet_v2_s", {}),
        ("resnext101_64x4d", {}),
        ("vgg19_bn", {}),
    ],
)
def test_networks_of_other_designs_and_large_ones_have_maps(name, sizes):
    """Built without values, so that the largest take no memory."""
    with torch.device("meta"):
        network = models.get_model(name, weights=None, **sizes)
    strides = [stage.stride for stage in Encoder.wrap(network, input_size=224).stages]
    assert strides == ([14] * 3 if name == "vit_h_14" else [1, 2, 4, 8, 16, 32][-len(strides) :]) and len(strides) > 2


def test_a_weight_file_of_torchvision_is_loaded_and_said(tmp_path):
    network = published("squeezenet1_1", seed=5)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    source = f"torchvision:squeezenet1_1?weights={tmp_path}/weights.pth"
    encoder = load_encoder(source, input_size=64)
    assert same(encoder, network)
    assert encoder.spec == "torchvision:squeezenet1_1" and len(encoder.record["weights_sha256"]) == 64
    assert "left random: none" in loaded_line(encoder, source)
    save_encoder(encoder, tmp_path / "encoder.safetensors", encoder.record)
    assert encoder_digest(load_encoder(tmp_path / "encoder.safetensors")) == encoder_digest(encoder)
    lacking = {name: value for name, value in network.state_dict().items() if not name.startswith("features.3.")}
    torch.save(lacking, tmp_path / "lacking.pth")
    with pytest.raises(UserError, match="does not fit torchvision:squeezenet1_1: missing features"):
        load_encoder(f"torchvision:squeezenet1_1?weights={tmp_path}/lacking.pth", input_size=64)


class Published:
    """Stands for the class of torchvision's published weights."""

    def __init__(self, network):
        self.network, self.DEFAULT = network, self

    def get_state_dict(self, progress, check_hash):
        if self.network is None:
            raise OSError("no route to host")
        return self.network.state_dict()


def test_published_weights_are_the_default_where_a_trained_encoder_is_expected(monkeypatch):
    network = published("squeezenet1_1", seed=9)
    monkeypatch.setattr(models, "get_model_weights", lambda name: Published(network))
    for source in ("torchvision:squeezenet1_1", "torchvision:squeezenet1_1?pretrained=true"):
        encoder = load_encoder(source, input_size=64)
        assert same(encoder, network)
    assert same(build_encoder("torchvision:squeezenet1_1?pretrained=true", input_size=64, seed=0), network)
    assert not same(build_encoder("torchvision:squeezenet1_1", input_size=64, seed=0), network)
    monkeypatch.setattr(models, "get_model_weights", lambda name: Published(None))
    with pytest.raises(UserError, match=r"could not be downloaded \(no route to host\).*pretrained=false"):
        load_encoder("torchvision:squeezenet1_1", input_size=64)


def test_older_names_of_published_files_are_known(tmp_path):
    """torchvision renames them by itself when it loads them; this loader does not run that code."""
    config = WeightsConfig(weights="file")
    dense = models.DenseNet(4, (1, 1), 8).state_dict()
    older = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): value for name, value in dense.items()}
    assert older.keys() != dense.keys()
    match = match_weights(older, dense, list(dense), config, "x")
    assert match.layout.name == "torchvision's DenseNet" and not match.random
    vit = models.VisionTransformer(32, 8, 2, 2, 16, 32).state_dict()
    numbers = {"mlp.0": "mlp.linear_1", "mlp.3": "mlp.linear_2"}
    older = {re.sub(r"mlp\.[03]", lambda found: numbers[found[0]], name): value for name, value in vit.items()}
    match = match_weights(older, vit, list(vit), config, "x")
    assert match.layout.name == "torchvision's ViT before 0.13" and not match.random
    assert all(torch.equal(match.tensors[name], value) for name, value in vit.items())


def test_position_embeddings_are_resampled():
    from pretext.encoders.torchvision import POSITIONS, _resampled

    module = models.VisionTransformer(32, 8, 1, 2, 16, 32)
    given = {POSITIONS: torch.ones(1, 1 + 8 * 8, 16)}
    found = _resampled(given, module.state_dict(), 32, module)[POSITIONS]
    assert found.shape == (1, 17, 16) and torch.allclose(found, torch.ones(()), atol=1e-5)
    with pytest.raises(UserError, match="cannot be resampled to 32 px"):
        _resampled({POSITIONS: torch.ones(1, 8, 16)}, module.state_dict(), 32, module)


@pytest.mark.parametrize(
    ("spec", "side", "said"),
    [
        ("resnet5", 64, "torchvision has no classification network 'resnet5'; did you mean 'resnet50'"),
        ("fasterrcnn_resnet50_fpn", 64, "no classification network"),
        ("squeezenet1_1", 8, "torchvision:squeezenet1_1 cannot read images of 8 px .*give another input size"),
        ("vit_b_32", 50, "cannot be built for 50 px .*give another image size"),
        ("squeezenet1_1?pretrained=true&weights=x", 64, "are both given; give one"),
        ("squeezenet1_1?weights=nowhere", 64, "there is no such file"),
        ("squeezenet1_1?patch_size=4", 64, "unknown option 'patch_size'"),
    ],
)
def test_what_cannot_be_built_is_one_line(spec, side, said):
    with pytest.raises(UserError, match=said) as caught:
        build_encoder(f"torchvision:{spec}", input_size=side, seed=0)
    assert "\n" not in str(caught.value)
