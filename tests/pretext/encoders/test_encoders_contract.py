"""What every family of encoders keeps: stages, vectors, seeds and files."""

from __future__ import annotations

import importlib.util
import re

import pytest
import torch
from module_samples import Residual, Tokens, example

from pretext.encoders import Encoder, build_encoder, encoder_names, load_encoder, save_encoder
from pretext.encoders.base import evaluating
from pretext.encoders.weights import WITHOUT_LEARNING

timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
MODULES = {"module:Residual": Residual, "module:Tokens": Tokens}
SPECS = [
    ("alexnet?width=0.125&stem_stride=2", 64),
    ("alexnet?width=0.125&stem_stride=2&pooled=false&norm=local_response&groups=2", 64),
    ("released?width=0.03", 128),
    ("torchvision:squeezenet1_1", 64),
    pytest.param("timm:test_convnext", 64, marks=timm),
    pytest.param("timm:test_vit?patch_size=8", 64, marks=timm),
    ("hog", 64),
    ("pixels", 64),
    ("own", 64),
    *((name, 32) for name in MODULES),
    *(
        pytest.param(f"torchvision:{name}", 64, marks=pytest.mark.slow)
        for name in ("resnet50", "swin_t", "convnext_tiny", "efficientnet_b0", "mobilenet_v3_small", "vit_b_16")
    ),
]


@pytest.fixture
def build(tmp_path):
    (file := tmp_path / "own.py").write_text(example("encoder"))

    def made(spec, size, seed=0):
        if spec in MODULES:
            torch.manual_seed(seed)
            return Encoder.wrap(MODULES[spec](), input_size=size)
        return build_encoder(str(file) if spec == "own" else spec, input_size=size, seed=seed)

    return made


def test_every_family_is_among_the_samples():
    named = [getattr(sample, "values", sample)[0] for sample in SPECS]
    assert set(encoder_names()) <= {re.split("[:?]", name)[0] for name in named}


@pytest.mark.parametrize(("spec", "size"), SPECS)
def test_an_encoder_keeps_the_contract(spec, size, build, tmp_path):
    state = torch.get_rng_state()
    encoder = build(spec, size, seed=1)
    assert spec in MODULES or torch.equal(torch.get_rng_state(), state)
    images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for mode in (True, False):
        encoder.train(mode)
        maps = encoder(images)
        assert len(maps) == len(encoder.stages) == len({stage.name for stage in encoder.stages})
        for stage, found in zip(encoder.stages, maps, strict=True):
            assert found.shape[:2] == (3, stage.channels) and found.dtype == torch.float32
            assert found.shape[2] == found.shape[3] and abs(found.shape[2] - size / stage.stride) <= 2
    strides = [stage.stride for stage in encoder.stages]
    assert strides == sorted(strides)
    with torch.no_grad():
        vectors = encoder.embed(images)
        assert torch.allclose(vectors, maps[-1].flatten(2).mean(2), atol=1e-5)
    if spec not in WITHOUT_LEARNING:
        sum(each.sum() for each in maps).backward()  # every tensor is of use
        assert all(parameter.grad is not None for parameter in encoder.parameters())

    save_encoder(encoder, tmp_path / "one", {"images_seen": 5})
    loaded = load_encoder(tmp_path / "one", module=MODULES[spec]() if spec in MODULES else None)
    save_encoder(loaded, tmp_path / "two", {"images_seen": 5})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with torch.no_grad(), evaluating(encoder):
        assert torch.equal(loaded.embed(images), encoder.embed(images)) and not loaded.training


@pytest.mark.parametrize(("spec", "size"), SPECS)
def test_a_seed_decides_the_weights(spec, size, build):
    one, same, other = (build(spec, size, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert all(torch.equal(value, other[name]) for name, value in one.items()) == (spec in WITHOUT_LEARNING)
