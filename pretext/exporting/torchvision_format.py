"""torchvision's networks: which one an encoder is, and its tensors under torchvision's names.

The names that come in are those of `pretext.encoders.translated` and `pretext.encoders.layouts`; they serve going out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pretext.datasets.files import some
from pretext.encoders.base import Encoder
from pretext.encoders.layouts import LAYOUTS, NO_WEIGHTS
from pretext.encoders.translated import timm_names
from pretext.exporting.prepared import Prepared, call, normalising, of_tensors, read_line, run
from pretext.exporting.timm_format import is_timm, named_as, network_of, pooling
from pretext.system.errors import UserError
from pretext.system.specs import parse_spec

_VIT = next(layout for layout in LAYOUTS if layout.name == "torchvision's ViT")
_SAME = "resnet|resnext|wide_resnet|vgg|densenet|convnext_(tiny|small|base|large)$|efficientnet_b[0-4]$"
"""Beginnings of names that timm and torchvision share, of networks that are the same in both."""

_OTHER_NAMES = {
    "swin_tiny_patch4_window7_224": "swin_t",
    "swin_small_patch4_window7_224": "swin_s",
    "swin_base_patch4_window7_224": "swin_b",
    "mobilenetv2_100": "mobilenet_v2",
    "regnetx_004_tv": "regnet_x_400mf",
    "regnetx_008": "regnet_x_800mf",
    "regnetx_016": "regnet_x_1_6gf",
    "regnetx_032": "regnet_x_3_2gf",
    "regnetx_080": "regnet_x_8gf",
    "regnetx_160": "regnet_x_16gf",
    "regnetx_320": "regnet_x_32gf",
    "regnety_004": "regnet_y_400mf",
    "regnety_008_tv": "regnet_y_800mf",
    "regnety_016": "regnet_y_1_6gf",
    "regnety_032": "regnet_y_3_2gf",
    "regnety_080_tv": "regnet_y_8gf",
    "regnety_160": "regnet_y_16gf",
    "regnety_320": "regnet_y_32gf",
}
"""torchvision's names of timm's networks that have another one there."""

_NODES = {
    "resnet|resnext|wide_resnet": "layer4",
    "regnet": "trunk_output",
    "swin|convnext|efficientnet|mobilenet|vgg|alexnet": "features",
    "densenet": "relu",
}
"""Where the deepest map of a network is, for `create_feature_extractor`, by the beginning of its name."""


@dataclass(frozen=True)
class Counterpart:
    """The network of torchvision's that an encoder is."""

    title: str
    constructor: str
    """The call that makes it, as Python source."""
    node: str
    """Where the deepest map is, for `create_feature_extractor`."""
    form: str = "features"
    """The deepest map B×C×H×W, as Python source, where `features` is what the node gives."""


def for_torchvision(encoder: Encoder) -> Prepared:
    """Prepare the keys of one of torchvision's constructors, without a classifier.

    Parts that the encoder lacks become `torch.nn.Identity()`, so that the file loads strictly.

    Raises:
        UserError: If torchvision has no such network.
    """
    counterpart = _counterpart(encoder)
    network = run(["import torchvision", f"model = {counterpart.constructor}"])["model"]
    ours = _tensors(encoder, network.state_dict())
    misfits = [
        f"{name} has shape {tuple(ours[name].shape)}, not {tuple(value.shape)}"
        for name, value in network.state_dict().items()
        if name in ours and ours[name].shape != value.shape
    ]
    unknown = [name for name in ours if name not in network.state_dict()]
    if misfits or unknown:
        problem = misfits[0] if misfits else f"it has no {unknown[0]}"
        raise UserError(
            f"{encoder.spec} at {encoder.input_size} px is not torchvision's {counterpart.title}: {problem}; "
            f"{_others(encoder)}"
        )
    removed = list(_lacking(network, ours))
    identities = [f"{_path(part)} = torch.nn.Identity()" for part in removed]
    run(["import torch", *identities], {"model": network})
    state = {name: ours.get(name, value) for name, value in network.eval().state_dict().items()}

    def load(file: str) -> list[str]:
        importing, read = read_line(file)
        return [
            *dict.fromkeys(["import torch", "import torchvision", importing]),
            f"model = {counterpart.constructor}",
            *identities,
            f"model.load_state_dict({read})",
            "model.eval()",
        ]

    node = counterpart.node
    use = [
        "from torchvision.models.feature_extraction import create_feature_extractor",
        *normalising(encoder),
        f'features = create_feature_extractor(model, ["{node}"])(normalised)["{node}"]',
        f"maps = [{counterpart.form}]",
        pooling(network, encoder, state),
    ]
    notes = [
        f"Of torchvision's network the encoder lacks {some(removed)}. torch.nn.Identity() stands there; a classifier "
        "of your own can take its place."
    ]
    return of_tensors(f"torchvision's {counterpart.title}", state, load, use, notes)


def _counterpart(encoder: Encoder) -> Counterpart:
    """Return the network of torchvision's that has the encoder's name or, of transformers, its sizes."""
    parsed, side = parse_spec(encoder.spec), encoder.input_size
    model: Any = getattr(encoder, "model", None)
    if is_torchvision(encoder):
        wrapped: Any = encoder
        last = wrapped.nodes[-1]
        forms = {"NCHW": "features", "NHWC": "features.permute(0, 3, 1, 2)"}
        form = forms.get(last.form) or _of_tokens(last.prefix, side // last.stride)
        sized: dict[str, dict[str, Any]] = {"vit_": {"image_size": side}, "maxvit": {"input_size": (side, side)}}
        options = next((options for start, options in sized.items() if parsed.path.startswith(start)), {})
        return Counterpart(parsed.path, call(f"torchvision.models.{parsed.path}", **options), last.node, form)
    if is_timm(encoder) and (name := torchvision_name(parsed.path)):
        node = next(node for start, node in _NODES.items() if re.match(start, name))
        form = "features.permute(0, 3, 1, 2)" if name.startswith("swin") else "features"
        return Counterpart(name, f"torchvision.models.{name}()", node, form)
    transformer: Any = getattr(model, "model", None)
    if is_timm(encoder) and type(transformer).__name__ == "VisionTransformer":
        patch = int(transformer.patch_embed.patch_size[0])
        constructor = call(
            "torchvision.models.VisionTransformer",
            image_size=side,
            patch_size=patch,
            num_layers=len(transformer.blocks),
            num_heads=transformer.blocks[0].attn.num_heads,
            hidden_dim=transformer.embed_dim,
            mlp_dim=transformer.blocks[0].mlp.fc1.out_features,
        )
        if side % patch == 0:
            return Counterpart("VisionTransformer", constructor, "encoder", _of_tokens(1, side // patch))
    raise UserError(f"torchvision has no network like {encoder.spec}; {_others(encoder)}")


def _of_tokens(prefix: int, cells: int) -> str:
    """Return the source of a map of patch tokens B×N×C, after `prefix` tokens of other kinds."""
    return f"features[:, {prefix}:].transpose(1, 2).unflatten(2, ({cells}, {cells}))"


def torchvision_name(timm_name: str) -> str | None:
    """Return torchvision's name of one of timm's networks; None if it has no such network, or has it by its sizes."""
    from torchvision import models

    name = _OTHER_NAMES.get(timm_name, timm_name if re.match(_SAME, timm_name) else None)
    return name if name in models.list_models() else None


def is_torchvision(encoder: Encoder) -> bool:
    """Return whether the encoder wraps a network of torchvision's, under torchvision's names."""
    return parse_spec(encoder.spec).kind == "torchvision"


def _tensors(encoder: Encoder, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's tensors under torchvision's names.

    Args:
        encoder: The encoder.
        theirs: State dict of torchvision's network.
    """
    model: Any = encoder.model
    if is_torchvision(encoder):
        return dict(model.state_dict())
    own = named_as(encoder, network_of(encoder)[0].state_dict())
    if "class_token" in theirs:
        return {_VIT.theirs(name): value for name, value in own.items()}
    names = {ours: name for name, ours in timm_names(theirs).items()}
    shapes = {name: value.shape for name, value in theirs.items()}
    renamed = {names.get(name, name): value for name, value in own.items()}
    return {
        name: value.view(shapes[name]) if name.endswith(".layer_scale") else value for name, value in renamed.items()
    }


def _lacking(network: nn.Module, ours: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield the outermost parts of a network of whose weights the encoder has none."""
    found: list[str] = []
    for part, module in network.named_modules():
        names = [f"{part}.{name}" for name in module.state_dict() if not name.endswith(NO_WEIGHTS)]
        within = any(part.startswith(f"{outer}.") for outer in found)
        if part and names and not within and not any(name in ours for name in names):
            found.append(part)
            yield part


def _path(part: str) -> str:
    """Return a part of `model` as Python source; numbers are places in a sequence."""
    return "model" + "".join(f"[{word}]" if word.isdecimal() else f".{word}" for word in part.split("."))


def _others(encoder: Encoder) -> str:
    """Return which other formats such an encoder can be written in."""
    return f"--to {'timm, ' if is_timm(encoder) else ''}safetensors, torchscript or onnx works"
