"""Any timm model as an encoder, by name: for example `timm:resnet18` or `timm:vit_tiny_patch16_224`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pretext.encoders.base import IMAGENET, NORMALISATIONS, Encoder, Stage
from pretext.encoders.foreign import FILE_OPTIONS, Match, WeightsConfig, match_weights
from pretext.encoders.translated import translated
from pretext.encoders.trials import first_line
from pretext.encoders.weights import read_weights
from pretext.system.errors import UserError, did_you_mean
from pretext.system.ranges import check_range
from pretext.system.specs import without_options


@dataclass(frozen=True)
class Config(WeightsConfig):
    """Options of `timm:NAME?…`."""

    pretrained: bool = False
    """Start from timm's published weights, from its cache or downloaded from its hub."""
    patch_size: int | None = None
    """Patch side of a transformer in pixels; None is the one in the model's name. Use 8 or 4 for small images."""
    normalise: Literal["imagenet", "half"] | None = None
    """Input mean and deviation: imagenet, or half (0.5). None is timm's setting, which is 0.5 for most transformers;
    most self-supervised transformers were trained with ImageNet's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "patch_size", least=1, most=1024)
        if self.pretrained and self.weights is not None:
            raise ValueError(f"pretrained=true and weights={self.weights} are both given; give one")


class TimmEncoder(Encoder):
    """The feature maps of a timm model, `model`; the patch tokens of a vision transformer form maps too."""

    library = "timm"

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
        if getattr(self.model, "output_fmt", "NCHW") == "NHWC":  # such as Swin; EfficientNets do not say
            return [x.permute(0, 3, 1, 2) for x in maps]
        return list(maps)


def build(spec: str, path: str, config: Config, input_size: int) -> TimmEncoder:
    """Build the timm model named `path`.

    Raises:
        UserError: If timm is missing or has no such model; if the model has no maps at this input size; if weights
            cannot be downloaded, read or matched (see `match_weights`).
    """
    try:
        import timm
    except ImportError:
        raise UserError("timm is not installed; run pip install 'pretext-bench[models]'") from None
    if path not in timm.list_models():
        raise UserError(f"timm has no model {path!r}; {_suggestion(path, timm.list_models())}")
    options: dict[str, Any] = {"features_only": True, "pretrained": config.pretrained}
    if config.patch_size is not None:
        options["patch_size"] = config.patch_size
    match = None
    try:
        if config.weights is not None:
            match, state = _match_file(timm.create_model, path, config)
            # timm loads the state itself, because it resamples position embeddings of another size
            overlay = {"state_dict": state, "source": "", "label_offset": 0}
            options |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
        model = _create(timm.create_model, path, input_size, options)
    except TypeError as error:
        if config.patch_size is None:
            raise
        raise UserError(f"timm:{path} has no patches; remove patch_size={config.patch_size}") from error
    except (RuntimeError, AttributeError, NotImplementedError, AssertionError) as error:
        if "size mismatch" in str(error):
            wrong = next(line.strip() for line in str(error).splitlines() if "size mismatch" in line)
            raise UserError(f"{config.weights} does not fit timm:{path}: {wrong.rstrip('.')}") from error
        raise UserError(
            f"timm:{path} has no feature maps at {input_size} px ({first_line(error)}); give another image size"
        ) from error
    except OSError as error:
        raise UserError(
            f"timm:{path}: the weights could not be downloaded ({first_line(error)}); "
            "download them on a machine with network access, or give pretrained=false"
        ) from error
    for module in model.modules():  # timm keeps a second copy of all weights there
        settings: Any = getattr(module, "pretrained_cfg", {})
        settings.pop("state_dict", None)
    mean, std = NORMALISATIONS.get(config.normalise or "") or (
        tuple(model.pretrained_cfg["mean"]),
        tuple(model.pretrained_cfg["std"]),
    )
    if match is not None and match.layout.imagenet and config.normalise is None and mean != IMAGENET[0]:
        raise UserError(
            f"{config.weights}: {match.layout.name} was trained with ImageNet's mean, but timm:{path} uses the mean "
            f"{mean}; add &normalise=imagenet, or &normalise=half if these weights were trained with 0.5"
        )
    encoder = TimmEncoder(without_options(spec, *FILE_OPTIONS), input_size, model, mean, std)
    if match is not None:
        encoder.record = {"weights": match.record()}
    return encoder


def _match_file(create: Any, path: str, config: Config) -> tuple[Match, dict[str, Tensor]]:
    """Return the match of the weight file, and a state dict of the whole model that contains its tensors."""
    whole, encoder = _without_values(create, path), _without_values(create, path, features_only=True)
    kept = {flat_name(name) for name in encoder.state_dict()}
    model = whole.state_dict()
    needed = [name for name in model if flat_name(name) in kept]
    tensors, layout = translated(read_weights(Path(str(config.weights))), path, config.weights)
    tensors = _dinov2(tensors, whole)
    match = match_weights(tensors, model, needed, config, f"timm:{path}", resampled="pos")
    if layout is not None:
        match = replace(match, layout=layout)
    if match.random:
        return match, create(path).state_dict() | match.tensors
    # the other tensors are not part of the encoder, but timm requires them
    return match, {name: torch.zeros_like(value, device="cpu") for name, value in model.items()} | match.tensors


def _without_values(create: Any, path: str, **options: Any) -> Any:
    """Return a model of which only names and shapes count."""
    try:
        with torch.device("meta"):
            return create(path, **options)
    except (RuntimeError, NotImplementedError):  # some models of some versions of timm compute with values meanwhile
        return create(path, **options)


def _dinov2(tensors: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Return a file's tensors with those of DINOv2's own networks (registers, gated MLPs) converted by timm."""
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    if not isinstance(model, VisionTransformer):
        return tensors
    marks = re.compile(r"(.*\.)?(register_tokens|blocks\.0\.mlp\.w12\.weight)")
    starts = {found[1] or "" for name in tensors if (found := marks.fullmatch(name))}
    for start in sorted(starts):
        part = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
        if not {"cls_token", "pos_embed"} <= set(part):
            continue  # an incomplete network: `match_weights` says what is missing
        beside = {name: value for name, value in tensors.items() if not name.startswith(start)}
        part.setdefault("mask_token", torch.zeros(()))  # by this one timm recognises DINOv2
        tensors = beside | {start + name: value for name, value in checkpoint_filter_fn(part, model).items()}
    return tensors


def flat_name(name: str) -> str:
    """Return a tensor's name in a form that a timm model and its feature extractor share."""
    return name.removeprefix("model.").replace(".", "_")


def _create(create: Any, path: str, input_size: int, options: dict[str, Any]) -> Any:
    """Return the model. Transformers need the input size; most accept other sizes with `dynamic_img_size`."""
    for sizes in ({"img_size": input_size, "dynamic_img_size": True}, {"img_size": input_size}):
        try:
            return create(path, **sizes, **options)
        except TypeError:
            continue
    return create(path, **options)


def _suggestion(name: str, known: list[str]) -> str:
    return did_you_mean(name, known).split("known:", maxsplit=1)[0] + "see timm.list_models()"
