"""What an encoder is, to everyone who uses one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn


@dataclass(frozen=True)
class Stage:
    """A depth at which an encoder can be read: its name, its channels, and input pixels per map cell."""

    name: str
    channels: int
    stride: int


class Encoder(nn.Module, ABC):
    """Pictures in, one map per stage out.

    Attributes:
        spec: The architecture as `build_encoder` takes it.
        input_size: Side in pixels of the pictures it was made for.
        mean, std: Normalisation, per channel, of pictures in [0, 1]; applied inside `forward`.
        stages: From the first to the deepest.
        record: Where its weights come from (pretext configuration, data fingerprint, images seen, …);
            empty for random weights.
    """

    _mean: Tensor
    _std: Tensor
    spec: str
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    stages: tuple[Stage, ...]

    def __init__(
        self,
        spec: str,
        input_size: int,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__()
        self.spec, self.input_size, self.mean, self.std = spec, input_size, mean, std
        self.record: dict[str, object] = {}
        self.register_buffer("_mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @abstractmethod
    def maps(self, normalised: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Return one map B×C_i×H_i×W_i per stage, of pictures that are already normalised."""

    def forward(self, images: Shaped[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Return one map per stage.

        Args:
            images: uint8 in [0, 255], or float in [0, 1]; any size not much smaller than `input_size`.
        """
        return self.maps(self.normalised(images))

    def normalised(self, images: Shaped[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Return pictures, given as to `forward`, as `maps` takes them."""
        if images.dtype == torch.uint8:
            images = images.float() / 255
        return (images - self._mean) / self._std

    def denormalised(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Return pictures from `normalised` in [0, 1] again."""
        return images * self._std + self._mean

    def embed(self, images: Shaped[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Return one vector a picture: the deepest map, averaged over space."""
        return self(images)[-1].mean(dim=(2, 3))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode, and every part of it back into its own afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@torch.no_grad()
def deepest_shape(encoder: Encoder, size: int | None = None) -> tuple[int, int, int]:
    """Return channels, height and width of the deepest map of pictures of side `size`; of the input size where None."""
    side = size or encoder.input_size
    blank = torch.zeros(1, 3, side, side, device=next(encoder.parameters()).device)
    with evaluating(encoder):
        _, channels, height, width = encoder(blank)[-1].shape
    return channels, height, width
