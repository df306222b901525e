"""Any classification network of torchvision as an encoder, by name: for example `torchvision:resnet50`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from pretext.encoders.base import NORMALISATIONS
from pretext.encoders.foreign import FILE_OPTIONS, WeightsConfig, match_weights
from pretext.encoders.trials import first_line
from pretext.encoders.weights import read_weights
from pretext.encoders.wrapped import WrappedEncoder, wrap
from pretext.system.errors import UserError, did_you_mean
from pretext.system.specs import without_options

PORTED = ("googlenet", "inception_v3")
"""Networks whose published weights expect images normalised by 0.5, as in the framework that they come from."""
POSITIONS = "encoder.pos_embedding"


@dataclass(frozen=True)
class Config(WeightsConfig):
    """Options of `torchvision:NAME?…`."""

    pretrained: bool = False
    """Start from torchvision's published weights, from its cache or downloaded."""
    normalise: Literal["imagenet", "half"] | None = None
    """Input mean and deviation: imagenet, or half (0.5). None is what the published weights expect: half for GoogLeNet
    and Inception, imagenet for all others."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained and self.weights is not None:
            raise ValueError(f"pretrained=true and weights={self.weights} are both given; give one")


def build(spec: str, path: str, config: Config, input_size: int) -> WrappedEncoder:
    """Build the network named `path`.

    Raises:
        UserError: If torchvision has no such network; if it has no maps at this input size; if weights cannot be
            downloaded, read or matched (see `match_weights`).
    """
    from torchvision import models

    known = models.list_models(module=models)
    if path not in known:
        near = did_you_mean(path, known).partition("known:")[0]
        raise UserError(f"torchvision has no classification network {path!r}; {near}see torchvision.models")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of networks whose initial weights will change
            module = models.get_model(path, weights=None, **_sizes(path, input_size))
    except Exception as error:  # of every kind: the networks check sizes by assertions
        raise UserError(
            f"torchvision:{path} cannot be built for {input_size} px ({first_line(error)}); give another image size"
        ) from error
    mean, std = NORMALISATIONS[config.normalise or ("half" if path in PORTED else "imagenet")]
    encoder = wrap(
        module,
        input_size=input_size,
        mean=mean,
        std=std,
        spec=without_options(spec, *FILE_OPTIONS),
        library="torchvision",
    )
    if config.weights is not None or config.pretrained:
        _load(encoder, module, path, config)
    return encoder


def _sizes(path: str, input_size: int) -> dict[str, Any]:
    """Return the arguments by which a network of one image size gets it."""
    if path.startswith("vit_"):
        return {"image_size": input_size}
    return {"input_size": (input_size, input_size)} if path.startswith("maxvit") else {}


def _load(encoder: WrappedEncoder, module: nn.Module, path: str, config: Config) -> None:
    """Load published weights or a weight file into the encoder, in place."""
    if config.weights is None:
        tensors, source = _published(path), "torchvision's published weights"
    else:
        tensors, source = read_weights(Path(config.weights)), config.weights
    needed = [name.removeprefix("model.") for name in encoder.state_dict()]
    whole = module.state_dict()
    match = match_weights(tensors, whole, needed, config, f"torchvision:{path}", source=source, resampled=POSITIONS)
    found = _resampled(match.tensors, whole, encoder.input_size, module)
    encoder.model.load_state_dict({name: found.get(name, whole[name]) for name in needed})
    if config.weights is not None:
        encoder.record = {"weights": match.record()}


def _published(path: str) -> Mapping[str, Tensor]:
    from torchvision.models import get_model_weights

    weights: Any = get_model_weights(path)
    try:
        return weights.DEFAULT.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; a file of another hash
        raise UserError(
            f"torchvision:{path}: the weights could not be downloaded ({first_line(error)}); "
            "download them on a machine with network access, or give pretrained=false"
        ) from error


def _resampled(
    tensors: dict[str, Tensor], whole: Mapping[str, Tensor], input_size: int, module: Any
) -> dict[str, Tensor]:
    """Return the tensors with a vision transformer's position embeddings resampled to its number of patches."""
    given = tensors.get(POSITIONS)
    if given is None or given.shape == whole[POSITIONS].shape:
        return tensors
    from torchvision.models.vision_transformer import interpolate_embeddings

    try:
        return dict(interpolate_embeddings(input_size, module.patch_size, dict(tensors)))
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{POSITIONS} cannot be resampled to {input_size} px: {first_line(error)}") from error
