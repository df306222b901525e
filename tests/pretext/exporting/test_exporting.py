"""Exported encoders: the other library alone gives the same vectors and maps, or one line says why not."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from exporting_samples import alive, block, run_cards, share
from torch import nn

from pretext.encoders import Encoder, Stage, build_encoder
from pretext.encoders.translated import timm_names
from pretext.exporting import writing
from pretext.exporting.differences import Difference
from pretext.exporting.torchvision_format import torchvision_name
from pretext.exporting.writing import FORMATS, export_encoder
from pretext.system.errors import UserError

timm = pytest.importorskip("timm", reason="timm is not installed")
ALEXNET = "alexnet?width=0.125&stem_stride=2"


# Loaded by the other library alone


@pytest.mark.slow
def test_small_networks_load_without_this_project(tmp_path):
    wanted = [
        (ALEXNET, 32, "safetensors", ".safetensors"),
        (ALEXNET, 32, "torchscript", ".pt"),
        ("timm:test_resnet", 32, "timm", ".pth"),
        ("timm:test_vit?patch_size=8", 32, "timm", ".safetensors"),
        ("timm:test_vit?patch_size=8", 32, "torchvision", ".pth"),
        ("timm:test_vit?patch_size=8", 32, "safetensors", ".safetensors"),
        ("timm:test_convnext", 32, "timm", ".safetensors"),
    ]
    encoders = [alive(spec, side) for spec, side, *_ in wanted]
    made = [
        export_encoder(encoder, to, tmp_path / f"{i}{suffix}")
        for i, (encoder, (_, _, to, suffix)) in enumerate(zip(encoders, wanted, strict=True))
    ]
    for case, found in zip(wanted, run_cards(made, encoders), strict=True):
        assert max(found) <= 1e-5, (case, found)


FIVE = {
    "alexnet?width=0.25&stem_stride=2&norm=local_response&groups=2": 64,
    "timm:resnet18": 64,
    "timm:vit_tiny_patch16_224": 64,
    "timm:swin_tiny_patch4_window7_224": 224,
    "timm:convnext_tiny": 64,
}
SMALL_FIVE = {
    "alexnet?width=0.25&stem_stride=2&norm=local_response&groups=2": 64,
    "timm:test_resnet": 64,
    "timm:test_vit?patch_size=8": 64,
    "timm:swin_tiny_patch4_window7_224": 64,
    "timm:test_convnext": 64,
}
"""The same families by fewer layers: an ONNX graph is traced layer by layer."""


@pytest.mark.slow
@pytest.mark.parametrize("spec", FIVE)
def test_five_families_load_without_this_project_in_every_format(tmp_path, spec):
    formats = [to for to in FORMATS if spec.startswith("timm:") or to not in ("timm", "torchvision")]
    assert_cards_give_the_same(alive(spec, FIVE[spec]), [to for to in formats if to != "onnx"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("spec", SMALL_FIVE)
def test_five_families_load_without_this_project_from_onnx(tmp_path, spec):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    assert_cards_give_the_same(alive(spec, SMALL_FIVE[spec]), ["onnx"], tmp_path)


def assert_cards_give_the_same(encoder, formats, folder):
    made = [export_encoder(encoder, to, folder / f"{to}{FORMATS[to][1][0]}") for to in formats]
    for to, found in zip(formats, run_cards(made, [encoder] * len(made)), strict=True):
        assert max(found) <= 1e-5, (to, found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "theirs"),
    [
        ("timm:regnetx_004_tv", "regnet_x_400mf"),
        ("timm:efficientnet_b0", "efficientnet_b0"),
        ("timm:mobilenetv2_100", "mobilenet_v2"),
        ("timm:densenet121", "densenet121"),
        ("timm:vgg11_bn", "vgg11_bn"),
        ("timm:resnet50", "resnet50"),
    ],
)
def test_further_families_are_torchvisions(tmp_path, spec, theirs):
    made = export_encoder(alive(spec, 64), "torchvision", tmp_path / "weights.safetensors")
    assert made.prepared.title == f"torchvision's {theirs}" and made.difference.share < 1e-5


@pytest.mark.slow
def test_every_name_of_torchvisions_is_a_network_with_the_same_tensors():
    from torchvision import models

    twins = {name: twin for name in timm.list_models() if (twin := torchvision_name(name))}
    assert {"resnet50", "swin_tiny_patch4_window7_224", "convnext_base", "vgg16"} <= set(twins)
    large = {name for name, twin in twins.items() if re.fullmatch(r"regnet_._\d+(_\d)?gf", twin)}
    for name in set(twins) - large:  # a RegNet cannot be built without its weights, and large ones take long
        with torch.device("cpu" if name.startswith("regnet") else "meta"):
            ours, theirs = timm.create_model(name).state_dict(), models.get_model(twins[name]).state_dict()
        names = timm_names(theirs)
        kept = [key for key in theirs if not key.endswith("relative_position_index") and "classifier" not in key]
        assert {names[key] for key in kept} <= set(ours), name
        assert all(theirs[key].numel() == ours[names[key]].numel() for key in kept), name


@pytest.mark.parametrize(
    ("name", "channels"), [("squeezenet1_1", 512), pytest.param("alexnet", 256, marks=pytest.mark.slow)]
)
def test_a_wrapped_network_of_torchvisions_keeps_its_own_names(tmp_path, name, channels):
    from torchvision import models
    from torchvision.models.feature_extraction import create_feature_extractor

    class Wrapping(Encoder):
        def __init__(self):
            super().__init__(f"torchvision:{name}", 64)
            self.model = create_feature_extractor(models.get_model(name), ["features"])
            self.nodes = [SimpleNamespace(node="features", form="NCHW", prefix=0, stride=16)]
            self.stages = (Stage("features", channels, 16),)

        def maps(self, normalised):
            return [self.model(normalised)["features"]]

    encoder = Wrapping().eval()
    export_encoder(encoder, "torchvision", tmp_path / "weights.pth")
    theirs = models.get_model(name)
    theirs.classifier = nn.Identity()
    theirs.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert share(theirs.features(encoder.normalised(images)).numpy(), encoder(images)[0]) == 0


class Branching(Encoder):
    """A network that is no chain: a layer's output is added to its input."""

    def __init__(self, bad=False):
        super().__init__("branching", 16)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.stages = (Stage("sum", 3, 1),)
        if bad:
            nn.init.constant_(self.conv.weight, float("nan"))

    def maps(self, normalised):
        return [normalised + self.conv(normalised)]


def test_a_network_of_ones_own_that_is_no_chain_keeps_its_names(tmp_path):
    encoder = Branching().eval()
    made = export_encoder(encoder, "safetensors", tmp_path / "own.safetensors")
    names: dict = {}
    exec(block(made.card).replace("own.safetensors", str(made.file)), names)
    assert torch.equal(names["tensors"]["conv.weight"], encoder.conv.weight)
    assert set(names["tensors"]) == {"conv.weight", "conv.bias"}


# Checked before it gets its name


def test_a_file_that_gives_other_outputs_is_not_written(tmp_path, monkeypatch):
    prepare, suffixes = FORMATS["safetensors"]

    def spoilt(encoder):
        prepared = prepare(encoder)
        return replace(prepared, use=(*prepared.use, "maps = [maps[0] * (1 + 1e-4)]"))

    monkeypatch.setattr(writing, "FORMATS", {"safetensors": (spoilt, suffixes)})
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"before")
    with pytest.raises(UserError, match=r"largest difference .* of the largest value"):
        export_encoder(alive(ALEXNET, 32), "safetensors", out)
    assert out.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [out]


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    with pytest.raises(UserError, match="nan"):
        export_encoder(Branching(bad=True).eval(), "torchscript", tmp_path / "out.pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("found", "expected", "accepted"),
    [
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.00001], [1.0, 2.0], True),
        ([1.0, 2.0001], [1.0, 2.0], False),
        ([1e-6, 2e-6], [1e-6, 2.1e-6], False),  # small values are compared by their own size
        ([0.0], [0.0], True),
        ([1e-9], [0.0], False),
        ([float("nan"), 1.0], [1.0, 1.0], False),
        ([1.0], [float("inf")], False),
    ],
)
def test_what_counts_as_equal(found, expected, accepted):
    difference = Difference.between(torch.tensor(found), torch.tensor(expected))
    assert difference.accepted is accepted
    equal = Difference(0.0, 0.0)
    assert difference.or_larger(equal).accepted is equal.or_larger(difference).accepted is accepted


def test_the_encoder_and_the_random_state_stay_as_they_are(tmp_path):
    encoder = alive("timm:test_resnet", 32).train()
    before, weights = torch.get_rng_state(), {k: v.clone() for k, v in encoder.state_dict().items()}
    export_encoder(encoder, "timm", tmp_path / "out.pth")
    assert torch.equal(torch.get_rng_state(), before) and encoder.training
    assert all(torch.equal(value, weights[name]) for name, value in encoder.state_dict().items())


# The formats


def test_torchscript_takes_bytes_and_floats(tmp_path):
    encoder = alive(ALEXNET, 32)
    export_encoder(encoder, "torchscript", tmp_path / "out.pt")
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer versions of PyTorch say that TorchScript is old
        model = torch.jit.load(tmp_path / "out.pt")
    with torch.no_grad():
        for given in (images, images.float() / 255):
            assert share(model(given)[0].numpy(), encoder.embed(images)) < 1e-6


def test_an_encoder_without_weights_is_written_as_torchscript(tmp_path):
    encoder = build_encoder("hog", input_size=32, seed=0)
    export_encoder(encoder, "torchscript", tmp_path / "out.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = torch.jit.load(tmp_path / "out.pt")
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert share(model(images)[0].numpy(), encoder.embed(images)) < 1e-5
