"""Any timm model as an encoder, by its name: `timm:resnet18` or `timm:vit_tiny_patch16_224` for two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from pretext.encoders.base import Encoder, Stage
from pretext.encoders.weights import check_keys, read_weights
from pretext.errors import UserError, did_you_mean
from pretext.specs import without_options


@dataclass(frozen=True)
class Config:
    """Options of `timm:NAME?…`."""

    pretrained: bool = False
    """Start from timm's published weights, fetched from its hub or found in its cache."""
    weights: str | None = None
    """Start from the weights in a file, .safetensors or .pth, named as timm names them; no network is needed."""
    patch_size: int | None = None
    """Side in pixels of a transformer's patches, where it is not the one in its name: small pictures want 8 or 4."""

    def __post_init__(self) -> None:
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
            if the file of weights cannot be read, or holds more or less than the model.
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
    if config.weights is not None:
        tensors = read_weights(Path(config.weights))
        whole: Any = timm.create_model(path)
        head = tuple(f"{name}." for name in _as_tuple(whole.pretrained_cfg.get("classifier")))
        mismatch = f"{config.weights} does not fit timm:{path}"
        check_keys(tensors, whole.state_dict(), mismatch, optional=head, resampled="pos")
        # timm itself loads them: it knows how position embeddings of another size are resampled
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": tensors, "source": ""}}
    try:
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
    normalisation: Any = model.pretrained_cfg
    architecture = without_options(spec, "weights")
    return TimmEncoder(architecture, input_size, model, normalisation["mean"], normalisation["std"])


def _as_tuple(names: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


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
