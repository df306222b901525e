"""The encoder of the released inpainting network: 128×128 in, 4000-dimensional bottleneck out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from pretext.encoders.alexnet import gaussian
from pretext.encoders.base import Encoder, Stage
from pretext.encoders.foreign import WeightsConfig, load_weights
from pretext.encoders.whole_map import WholeMapConv2d
from pretext.system.ranges import check_range


@dataclass(frozen=True)
class Config(WeightsConfig):
    """Options of `released?…`."""

    width: float = 1.0
    """Multiplies the channel count of every layer, including the bottleneck."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "width", above=0, most=8)


class Released(Encoder):
    """Five 4×4 convolutions of stride 2 (64-64-128-256-512), then a 4×4 valid convolution to the bottleneck.

    Stages: `conv1` … `conv5`, `bottleneck`. Initial weights have standard deviation 0.02.

    Source: the network that Pathak et al. 2016 released for inpainting (128 px images, 64 px centre).
    """

    def __init__(self, spec: str, input_size: int, config: Config) -> None:
        super().__init__(spec, input_size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        channels = [max(8, round(n * config.width)) for n in (64, 64, 128, 256, 512)]
        bottleneck = max(8, round(4000 * config.width))
        layers, inputs = [], 3
        for i, outputs in enumerate(channels):
            conv = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
            norm = nn.Identity() if i == 0 else nn.BatchNorm2d(outputs)
            layers.append(nn.Sequential(conv, norm, nn.LeakyReLU(0.2, inplace=True)))
            inputs = outputs
        layers.append(
            nn.Sequential(
                WholeMapConv2d(inputs, bottleneck, 4), nn.BatchNorm2d(bottleneck), nn.LeakyReLU(0.2, inplace=True)
            )
        )
        self.layers = nn.ModuleList(layers)
        names = [f"conv{i + 1}" for i in range(5)]
        stages = [Stage(name, n, 2 ** (i + 1)) for i, (name, n) in enumerate(zip(names, channels, strict=True))]
        self.stages = (*stages, Stage("bottleneck", bottleneck, 128))
        self.apply(partial(gaussian, std=0.02))

    def maps(self, normalised: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """See `Encoder.maps`."""
        x, maps = normalised, []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps


def build(spec: str, path: str, config: Config, input_size: int) -> Released:
    """Build the encoder; `path` is unused.

    Raises:
        ValueError: If `input_size` is below 128.
        UserError: If a weight file does not fit.
    """
    if input_size < 128:
        raise ValueError(f"input_size is {input_size}; released needs 128 px or more")
    return load_weights(Released(spec, input_size, config), config)
