"""Any timm model as an encoder, by its name: `timm:resnet18` or `timm:vit_tiny_patch16_224` for two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pretext.encoders.base import Encoder, Stage
from pretext.encoders.foreign import FILE_OPTIONS, Fit, FromFile, fit
from pretext.encoders.weights import read_weights
from pretext.system.errors import UserError, did_you_mean
from pretext.system.specs import without_options

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NORMALISATIONS = {"imagenet": IMAGENET, "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}
"""Means and deviations by the names that `normalise` goes by."""


@dataclass(frozen=True)
class Config(FromFile):
    """Options of `timm:NAME?…`."""

    pretrained: bool = False
    """Start from timm's published weights, fetched from its hub or found in its cache."""
    patch_size: int | None = None
    """Side in pixels of a transformer's patches, where it is not the one in its name: small pictures want 8 or 4."""
    normalise: Literal["imagenet", "half"] | None = None
    """Mean and deviation of the pictures that the weights were trained on: ImageNet's, or 0.5; as timm says where None.
    timm says 0.5 of most transformers, and most self-supervised ones were trained on ImageNet's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch_size is not None and not 1 <= self.patch_size <= 1024:
            raise ValueError(f"patch_size is {self.patch_size}; allowed is from 1 to 1024")
        if self.pretrained and self.weights is not None:
            raise ValueError("pretrained=true and weights are both given; give one")


class TimmEncoder(Encoder):
    """A timm model's feature maps; a vision transformer's tokens answer as maps too."""

    def __init__(self, spec: str, input_size: int, model: Any, mean: Any, std: Any) -> None:
        super().__init__(spec, input_size, mean=tuple(mean), std=tuple(std))
        self.model = model
        info = model.feature_info
        self.stages = tuple(
            Stage(name.replace(".", "_"), channels, stride)
            for name, channels, stride in zip(info.module_name(), info.channels(), info.reduction(), strict=True)
        )

    def maps(self, normalised: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """See `Encoder.maps`."""
        maps = self.model(normalised)
        if self.model.output_fmt == "NHWC":  # Swin's kind
            return [x.permute(0, 3, 1, 2) for x in maps]
        return list(maps)


def build(spec: str, path: str, config: Config, input_size: int) -> TimmEncoder:
    """Build the timm model named `path`.

    Raises:
        UserError: If timm is missing, knows no such model, cannot give its maps at this size, or cannot fetch weights;
            if the file of weights cannot be read or does not fit, see `fit`.
    """
    try:
        import timm
    except ImportError:
        raise UserError("timm is not installed; run pip install 'pretext-bench[models]'") from None
    if path not in timm.list_models():
        raise UserError(f"timm has no model {path!r}; {_near(path, timm.list_models())}")
    options: dict[str, Any] = {"features_only": True, "pretrained": config.pretrained}
    if config.patch_size is not None:
        options["patch_size"] = config.patch_size
    found = None
    try:
        if config.weights is not None:
            found, state = _found(timm.create_model, path, config)
            # timm itself loads them: it knows how position embeddings of another size are resampled
            overlay = {"state_dict": state, "source": "", "label_offset": 0}
            options |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
        model = _model(timm.create_model, path, input_size, options)
    except TypeError as error:
        if config.patch_size is None:
            raise
        raise UserError(f"timm:{path} has no patches; leave patch_size out") from error
    except (RuntimeError, AttributeError, NotImplementedError, AssertionError) as error:
        if "size mismatch" in str(error):
            wrong = next(line.strip() for line in str(error).splitlines() if "size mismatch" in line)
            raise UserError(f"{config.weights} does not fit timm:{path}: {wrong.rstrip('.')}") from error
        raise UserError(f"timm:{path} gives no feature maps at {input_size} px: {_first_line(error)}") from error
    except OSError as error:
        raise UserError(
            f"timm:{path}: its weights could not be fetched ({_first_line(error)}); "
            "fetch them on a machine with a network, or say ?pretrained=false"
        ) from error
    for part in model.modules():  # timm would keep a second copy of all weights there
        settings: Any = getattr(part, "pretrained_cfg", {})
        settings.pop("state_dict", None)
    mean, std = NORMALISATIONS.get(config.normalise or "") or (
        tuple(model.pretrained_cfg["mean"]),
        tuple(model.pretrained_cfg["std"]),
    )
    if found is not None and found.layout.imagenet and config.normalise is None and mean != IMAGENET[0]:
        raise UserError(
            f"{config.weights}: {found.layout.name} was trained on pictures of ImageNet's mean, and timm:{path} takes "
            f"{mean}; add &normalise=imagenet, or &normalise=half where these weights differ"
        )
    encoder = TimmEncoder(without_options(spec, *FILE_OPTIONS), input_size, model, mean, std)
    if found is not None:
        encoder.record = {"weights": found.record()}
    return encoder


def _found(create: Any, path: str, config: Config) -> tuple[Fit, dict[str, Tensor]]:
    """Return what a file holds of the encoder, and a whole model's state with that in it."""
    with torch.device("meta"):  # names and shapes alone
        model = create(path).state_dict()
        kept = {_flat(name) for name in create(path, features_only=True).state_dict()}
    needed = [name for name in model if _flat(name) in kept]
    found = fit(read_weights(Path(str(config.weights))), model, needed, config, f"timm:{path}", resampled="pos")
    if found.random:
        return found, create(path).state_dict() | found.tensors
    # the rest is no part of the encoder, but timm would miss it
    return found, {name: torch.zeros_like(value, device="cpu") for name, value in model.items()} | found.tensors


def _flat(name: str) -> str:
    """Return a tensor's name as it is both in a timm model and in the feature extractor made of it."""
    return name.removeprefix("model.").replace(".", "_")


def _model(create: Any, path: str, input_size: int, options: dict[str, Any]) -> Any:
    """Return the model; transformers fix their size, and most read other ones too where they are told to."""
    for sizes in ({"img_size": input_size, "dynamic_img_size": True}, {"img_size": input_size}):
        try:
            return create(path, **sizes, **options)
        except TypeError:
            continue
    return create(path, **options)


def _near(name: str, known: list[str]) -> str:
    return did_you_mean(name, known).split("known:", maxsplit=1)[0] + "see timm.list_models()"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
