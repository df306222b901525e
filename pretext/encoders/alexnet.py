"""The paper's encoder: AlexNet's five convolutions, with max-pooling for features or pool-free for inpainting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pretext.encoders.base import Encoder, Stage, deepest_shape
from pretext.encoders.foreign import WeightsConfig, load_weights
from pretext.system.errors import UserError
from pretext.system.ranges import check_range

# Kernel of the first convolution by stride. 227 px give AlexNet's 55×55 map; 64 px give a map that survives the
# three later halvings.
STEM_KERNEL = {4: 11, 2: 7, 1: 5}


@dataclass(frozen=True)
class Config(WeightsConfig):
    """Options of `alexnet?…`."""

    width: float = 1.0
    """Multiplies the channel count of every layer."""
    stem_stride: Literal[4, 2, 1] = 4
    """Stride of the first convolution: 4 (published) for 227 px, 2 for about 64 px, 1 for about 32 px."""
    pooled: bool = True
    """Use max-pooling (feature learning); false uses strided convolutions instead (inpainting)."""
    norm: Literal["batch", "local_response", "none"] = "batch"
    """Normalisation: batch (after every convolution), local_response (after the first two ReLUs; CaffeNet pools before)
    or none."""
    groups: Literal[1, 2] = 1
    """Groups in the second, fourth and fifth convolution; CaffeNet has 2."""
    init: Literal["kaiming", "gaussian"] = "kaiming"
    """Initial weights: kaiming (He et al. 2015, fan-out, ReLU) or gaussian (published, standard deviation 0.01)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "width", above=0, most=8)


class AlexNet(Encoder):
    """AlexNet in its CaffeNet form, up to pool5; at 227×227 and width 1 the last map is 6×6×256.

    Stages: `conv1` … `conv5` are the maps after each ReLU; `pool5` is `conv5` at half the resolution.

    Source: Krizhevsky et al. 2012; Pathak et al. 2016, section 3.1 (pool-free: section 5.1).
    Deviations: batch normalisation by default, because narrow networks hardly train without it on small budgets;
    one group by default; smaller stems for smaller images.
    """

    def __init__(self, spec: str, input_size: int, config: Config) -> None:
        super().__init__(spec, input_size)
        channels = [max(8, round(n * config.width / 8) * 8) for n in (96, 256, 384, 384, 256)]
        kernels = (STEM_KERNEL[config.stem_stride], 5, 3, 3, 3)
        # The published stem has no padding; padding in the small stems keeps every border pixel.
        stem_padding = 0 if config.stem_stride == 4 else kernels[0] // 2
        stride, inputs = int(config.stem_stride), 3
        stages, convs = [], []
        for i, (outputs, kernel) in enumerate(zip(channels, kernels, strict=True)):
            convs.append(
                nn.Sequential(
                    nn.Conv2d(
                        inputs,
                        outputs,
                        kernel,
                        stride=config.stem_stride if i == 0 else 1,
                        padding=stem_padding if i == 0 else kernel // 2,
                        groups=config.groups if i in (1, 3, 4) else 1,
                        bias=config.norm != "batch",
                    ),
                    nn.BatchNorm2d(outputs) if config.norm == "batch" else nn.Identity(),
                    nn.ReLU(inplace=True),
                    nn.LocalResponseNorm(5) if config.norm == "local_response" and i < 2 else nn.Identity(),
                )
            )
            stages.append(Stage(f"conv{i + 1}", outputs, stride))
            stride *= 2 if i in (0, 1) else 1
            inputs = outputs
        self.convs = nn.ModuleList(convs)
        self.downs = nn.ModuleDict({str(i): _halve(channels[i], config) for i in (0, 1, 4)})
        self.stages = (*stages, Stage("pool5", inputs, stride * 2))
        self.apply(kaiming if config.init == "kaiming" else gaussian)

    def maps(self, normalised: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """See `Encoder.maps`."""
        x, maps = normalised, []
        for i, conv in enumerate(self.convs):
            x = conv(x)
            maps.append(x)
            if str(i) in self.downs:
                x = self.downs[str(i)](x)
        return [*maps, x]


def _halve(channels: int, config: Config) -> nn.Module:
    """Return the layer that halves a map: max-pooling, or a strided convolution in the pool-free network."""
    padding = 0 if config.stem_stride == 4 else 1
    if config.pooled:
        return nn.MaxPool2d(3, stride=2, padding=padding)
    norm = nn.BatchNorm2d(channels) if config.norm == "batch" else nn.Identity()
    conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding, bias=config.norm != "batch")
    return nn.Sequential(conv, norm, nn.ReLU(inplace=True))


def kaiming(module: nn.Module) -> None:
    """Initialise one layer by He et al. 2015 (fan-out, ReLU); biases are zero."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def gaussian(module: nn.Module, std: float = 0.01) -> None:
    """Initialise one layer from N(0, std²); biases are zero."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, std=std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build(spec: str, path: str, config: Config, input_size: int) -> AlexNet:
    """Build the encoder; `path` is unused.

    Raises:
        UserError: If the input size is too small for the network, or a weight file does not fit.
    """
    with torch.device("cpu"):
        encoder = AlexNet(spec, input_size, config)
        try:
            deepest_shape(encoder)
        except RuntimeError:
            raise UserError(
                f"{spec}: {input_size} px is too small for its halvings; give a larger image size or a smaller "
                "stem_stride"
            ) from None
        return load_weights(encoder, config)
