"""The encoder's tensors alone, under its network's own keys: plain PyTorch where the network is a chain of layers."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from pretext.encoders.base import Encoder, evaluating
from pretext.exporting.prepared import Prepared, literal, normalising, of_tensors
from pretext.exporting.timm_format import for_timm_features, is_timm
from pretext.exporting.torchvision_format import for_torchvision, is_torchvision

WRAPPED = "model."
"""Prefix of the tensors of an encoder that wraps another module."""
USUAL = (", affine=True", ", bias=True", ", ceil_mode=False", ", dilation=1", ", track_running_stats=True")
"""Arguments that layers print although they are PyTorch's defaults; some versions do not know all of them."""


def for_safetensors(encoder: Encoder) -> Prepared:
    """Prepare a safetensors file of the encoder's own tensors.

    A network of timm's or torchvision's keeps its keys. A chain of PyTorch's own layers, such as AlexNet, becomes an
    `nn.Sequential` that the lines define. An encoder that wraps another module keeps that module's keys.
    """
    if is_timm(encoder):
        return for_timm_features(encoder)
    if is_torchvision(encoder):
        return for_torchvision(encoder)  # its parts that the encoder lacks have no tensors
    chain = _chain(encoder)
    if chain is not None:
        return _sequential(encoder, chain)
    tensors = encoder.state_dict()
    if all(name.startswith(WRAPPED) for name in tensors):
        tensors = {name.removeprefix(WRAPPED): value for name, value in tensors.items()}

    def load(file: str) -> list[str]:
        return ["from safetensors.torch import load_file", f"tensors = load_file({literal(file)})"]

    notes = ["The keys are those of the encoder's own network: load them into it by load_state_dict(tensors)."]
    return of_tensors(f"the tensors of {encoder.spec}", tensors, load, (), notes)


def _sequential(encoder: Encoder, chain: list[nn.Module]) -> Prepared:
    model = nn.Sequential(*chain)

    def load(file: str) -> list[str]:
        return [
            "import torch",
            "from safetensors.torch import load_file",
            "from torch import nn",
            "model = nn.Sequential(",
            *(f"    nn.{_source(layer)}," for layer in chain),
            ")",
            f"model.load_state_dict(load_file({literal(file)}))",
            "model.eval()",
        ]

    use = [*normalising(encoder), "maps = [model(normalised)]", "vectors = maps[-1].mean(dim=(2, 3))"]
    kind = type(encoder).__name__
    return of_tensors(f"{kind} as a torch.nn.Sequential of {len(chain)} layers", model.state_dict(), load, use)


def _source(layer: nn.Module) -> str:
    """Return the call that makes a layer: what it prints, without the usual values."""
    text = repr(layer)
    for value in USUAL:
        text = re.sub(rf"{value}(?=[,)])", "", text)
    return text


def _chain(encoder: Encoder) -> list[nn.Module] | None:
    """Return the layers in the order in which the encoder calls them; None if it is no chain of PyTorch's own layers.

    The layers are seen at work on a random image. They are a chain if, one after another, they give the deepest map.
    """
    called: list[nn.Module] = []
    leaves = [part for part in encoder.modules() if not list(part.children()) and not isinstance(part, nn.Identity)]
    hooks = [part.register_forward_hook(lambda layer, given, out: called.append(layer)) for part in leaves]
    side = encoder.input_size
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad(), evaluating(encoder):
            deepest = encoder(image)[-1]
    finally:
        for hook in hooks:
            hook.remove()
    if len(set(called)) < len(called) or not all(type(layer).__module__.startswith("torch.nn.") for layer in called):
        return None
    if len(nn.Sequential(*called).state_dict()) < len(encoder.state_dict()):
        return None
    with torch.no_grad(), evaluating(encoder):
        given: Any = encoder.normalised(image)
        for layer in called:
            try:
                given = layer(given)
            except (RuntimeError, TypeError):  # not one after another
                return None
    return called if torch.equal(given, deepest) else None
