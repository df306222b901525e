"""The encoder interface: `Encoder`, its stages, and two functions on any encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from pretext.system.errors import UserError

if TYPE_CHECKING:
    from pretext.encoders.pictures import AnyPictures
    from pretext.encoders.torchvision_parts import TorchvisionBackbone

Triple = tuple[float, float, float]
"""One number for each colour channel."""
IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's images in [0, 1]."""
NORMALISATIONS = {"imagenet": IMAGENET, "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}
"""Values of the option `normalise`: per-channel means and standard deviations."""
ROUNDING = 1e-3
"""How far floats may lie outside 0 to 1, as they do after conversion from half precision."""


@dataclass(frozen=True)
class Stage:
    """One of the feature maps that an encoder returns."""

    name: str
    """Name in specs and results, for example `conv3`."""
    channels: int
    """Number of channels of the map."""
    stride: int
    """Input pixels per map cell, along each side."""


class Encoder(nn.Module, ABC):
    """A network that maps a batch of images to one feature map per stage.

    Attributes:
        spec: The architecture, in the form that `build_encoder` takes.
        input_size: Side in pixels of the images it was built for.
        mean, std: Per-channel normalisation of images in [0, 1]; applied inside `forward`.
        stages: All stages, from the first to the deepest.
        record: Origin of the weights (pretext configuration, data fingerprint, images seen, …); empty for random
            weights.
        library: Library whose network is inside, as the attribute `model`: timm or torchvision; else empty.
        code_sha256: Hash of the user's own file that builds it; else empty.
    """

    _mean: Tensor
    _std: Tensor
    spec: str
    input_size: int
    mean: Triple
    std: Triple
    stages: tuple[Stage, ...]
    library: str = ""
    code_sha256: str = ""

    def __init__(
        self,
        spec: str,
        input_size: int,
        mean: Triple = IMAGENET[0],
        std: Triple = IMAGENET[1],
    ) -> None:
        super().__init__()
        self.spec, self.input_size, self.mean, self.std = spec, input_size, mean, std
        self.record: dict[str, object] = {}
        self.register_buffer("_mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @staticmethod
    def wrap(
        module: nn.Module,
        stages: Sequence[str] | None = None,
        *,
        input_size: int = 224,
        mean: Sequence[float] = IMAGENET[0],
        std: Sequence[float] = IMAGENET[1],
    ) -> Encoder:
        """Return any module that reads images as an encoder. It shares the module's tensors: to train it trains both.

        Only the part of the module that the stages need is kept. Channels and strides are found by a trial. Patch
        tokens B×N×C form maps too; class and register tokens before them are left out.

        Args:
            module: Reads normalised images B×3×H×W. `torch.fx` must be able to trace it.
            stages: Names of submodules, or of nodes as in torchvision's `get_graph_node_names`; a submodule stands for
                its last operation. None takes the last map of each resolution, or the last three blocks of a network
                with a single resolution.
            input_size: Side of the input images in pixels.
            mean: Per-channel mean of images in [0, 1], subtracted first.
            std: Per-channel standard deviation, divided by.

        Raises:
            UserError: If the module cannot be traced or cannot read such images; if a stage is unknown or no map.

        Source: `create_feature_extractor` of torchvision.
        """
        from pretext.encoders.wrapped import wrap

        return wrap(module, stages, input_size=input_size, mean=mean, std=std)

    @abstractmethod
    def maps(self, normalised: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Return one map B×C_i×H_i×W_i per stage.

        Args:
            normalised: Images from `normalised`.
        """

    def forward(self, images: Shaped[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Return one map per stage.

        Args:
            images: uint8 in [0, 255] or float in [0, 1]. Any side works that is not much smaller than `input_size`.
        """
        return self.maps(self.normalised(images))

    def normalised(self, images: Shaped[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Scale images to [0, 1] and normalise them by `mean` and `std`."""
        if images.dtype == torch.uint8:
            images = images.float() / 255
        return (images - self._mean) / self._std

    def denormalised(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Undo `normalised`; return images in [0, 1]."""
        return images * self._std + self._mean

    def embed(
        self, images: Shaped[Tensor, "B 3 H W"] | AnyPictures, *, batch_size: int | None = None
    ) -> Float[Tensor, "B D"]:
        """Return one vector per image: the spatial mean of the deepest map.

        A tensor B×3×H×W without `batch_size` is encoded at once, in the encoder's present mode and with gradients.
        Everything else is encoded in batches, in evaluation mode and without gradients, and the vectors are on the CPU.

        Args:
            images: A tensor B×3×H×W, as in `forward`; in evaluation mode the range of floats is checked. Or a tensor
                3×H×W, an array H×W×3 or N×H×W×3 of uint8, a PIL picture, a path, or a list of these, mixed in type
                and size; they are resized to `input_size` as evaluation resizes them.
            batch_size: Images per batch; 64 if omitted.

        Raises:
            UserError: If floats lie outside 0 to 1 (by more than rounding), the images are other whole numbers,
                something is no picture or cannot be read, or a list is empty.
        """
        if isinstance(images, Tensor) and images.ndim == 4:
            if images.shape[1] != 3:
                raise UserError(f"images have shape {'×'.join(map(str, images.shape))}; give B×3×H×W")
            if not self.training:
                check_range(images)
            if batch_size is None:
                return self(images)[-1].mean(dim=(2, 3))

        from pretext.encoders.pictures import in_batches

        device = self._mean.device
        with evaluating(self), torch.no_grad():
            return in_batches(
                images,
                lambda batch: self(batch.to(device))[-1].mean(dim=(2, 3)),
                size=self.input_size,
                batch_size=batch_size,
                check=check_range,
            )

    def as_torchvision_backbone(
        self, *, fpn: int | None = None, stages: Sequence[str] | None = None
    ) -> TorchvisionBackbone:
        """Return this encoder as the backbone of torchvision's detectors and segmentation networks.

        The backbone reads images in [0, 1] and normalises them itself, so `FasterRCNN` needs
        `image_mean=(0, 0, 0), image_std=(1, 1, 1)`; `docs/backbones.md` has complete examples.

        Args:
            fpn: Channels of a feature pyramid over the stages, with one coarser level by pooling; the maps are called
                `0`, `1`, …, `pool`. None returns the maps of the stages alone.
            stages: Names of the stages to read. None reads the deepest one, called `out`; with `fpn` the deepest stage
                of each of the last four strides. Without `fpn`, the last of several is `out`, and one before is `aux`.

        Raises:
            UserError: If there is no such stage, or the encoder reads only images of its input size.
        """
        from pretext.encoders.torchvision_parts import TorchvisionBackbone

        return TorchvisionBackbone(self, fpn=fpn, stages=stages)


def check_range(images: Tensor) -> None:
    """Refuse images that are neither uint8 nor floats in [0, 1]; uint8 costs nothing."""
    if images.dtype == torch.uint8 or images.numel() == 0:
        return
    if not images.is_floating_point():
        raise UserError(f"images have type {images.dtype}; give uint8 from 0 to 255 or floats from 0 to 1")
    low, high = (float(value) for value in torch.aminmax(images.detach()))
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # also if they are not numbers
        raise UserError(
            f"images have values from {low:.3g} to {high:.3g}; give uint8 from 0 to 255 or floats from 0 to 1, "
            "not normalised by mean and deviation"
        )


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode; restore the mode of every submodule on exit."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@torch.no_grad()
def deepest_shape(encoder: Encoder, size: int | None = None) -> tuple[int, int, int]:
    """Return channels, height and width of the deepest map.

    Args:
        encoder: Runs once, on a blank image.
        size: Side of the image in pixels; None is the encoder's input size.
    """
    side = size or encoder.input_size
    blank = torch.zeros(1, 3, side, side, device=next(encoder.parameters()).device)
    with evaluating(encoder):
        _, channels, height, width = encoder(blank)[-1].shape
    return channels, height, width
