"""RotNet: predict the rotation in quarter turns (Gidaris et al. 2018).

Gidaris, Singh and Komodakis, Unsupervised Representation Learning by Predicting Image Rotations, ICLR 2018,
arXiv 1803.07728. Published, AlexNet: ImageNet linear conv1…conv5 18.8 31.7 38.7 38.2 36.5 % top-1; fine-tuned
on VOC 72.97 mAP classification, 54.4 mAP detection (2007), 39.1 mIoU segmentation (2012). CIFAR-10, a
classifier on the second block's map: 91.16 %, with labels 92.80 %.

Shortcuts: quarter turns by indexing leave no trace of interpolation, and a square crop hides the shape of the image.
Traces of the camera remain: vignettes, chromatic aberration, subtitles and logos in a fixed corner. If the sky is
always above (street scenes, synthetic ones most of all), colour alone gives the answer, and an accuracy near 100 %
says little about features. Images taken from above and images of round objects have no answer.

Deviations: one linear layer on the averaged deepest map by default; the paper's AlexNet keeps fc6–fc8 (`head=mlp` is
close to it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pretext.encoders.base import Encoder
from pretext.system.ranges import MOST, check_range
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import augment, cropping


@final
class Rotation(Task):
    """Encoder, and a head that classifies the four rotations."""

    @dataclass(frozen=True)
    class Config:
        """The rotations, the head and the crops."""

        rotations: Literal["all", "one"] = "all"
        """`all` four of each image, which the paper found best, or `one` at random, at a quarter of the cost."""
        head: Literal["linear", "mlp", "conv"] = "linear"
        """`linear` on the averaged map, `mlp` with a hidden layer, `conv` with a 3×3 convolution before averaging."""
        hidden: int = 256
        """Width of the hidden layer of the heads `mlp` and `conv`."""
        crop: float = 0.766
        """Share of the image area that the random square crop covers; published 224² of 256²."""
        flip: float = 0.5
        """Probability of a horizontal flip before the rotation."""

        def __post_init__(self) -> None:
            check_range(self, "hidden", least=1, most=MOST["hidden"])
            check_range(self, "crop", least=0.01, most=1)
            check_range(self, "flip", least=0, most=1)

    titles: ClassVar[Mapping[str, str]] = {"": "Rotation"}

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config = config
        self.crops = cropping(config.crop, config.crop, aspect=1.0, flip=config.flip)
        self.head = _head(encoder.stages[-1].channels, config)
        self._accuracy = torch.zeros(())

    def rotated(self, batch: Batch) -> tuple[Float[Tensor, "N 3 S S"], Int[Tensor, "N"]]:
        """Return cropped and rotated images, and the number of quarter turns of each."""
        crops = augment(batch.pictures, self.crops, batch.generator)
        count, device = len(crops), crops.device
        if self.config.rotations == "all":
            return quarter_turns(crops).flatten(0, 1), torch.arange(4, device=device).repeat_interleave(count)
        turns = torch.randint(4, (count,), generator=batch.generator, device=device)
        return quarter_turns(crops)[turns, torch.arange(count, device=device)], turns

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the cross-entropy over the four rotations (equations 2 and 3)."""
        images, turns = self.rotated(batch)
        logits = self.head(self.encoder(images)[-1])
        self._accuracy = (logits.detach().argmax(dim=1) == turns).float().mean()
        yield "task", F.cross_entropy(logits, turns)

    def metrics(self) -> Mapping[str, float]:
        """Return the accuracy of the last step; chance is 0.25."""
        return {"accuracy": float(self._accuracy)}

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return a crop of each image in the four rotations."""
        turned = quarter_turns(augment(batch.pictures, self.crops, batch.generator))
        return {f"{90 * turns}°": images for turns, images in enumerate(turned)}


def quarter_turns(images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "4 B 3 S S"]:
    """Return the images rotated counter-clockwise by 0, 90, 180 and 270°, without interpolation."""
    return torch.stack([torch.rot90(images, turns, dims=(2, 3)) for turns in range(4)])


def _head(channels: int, config: Rotation.Config) -> nn.Sequential:
    """Return a head from the deepest map to four logits."""
    average = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if config.head == "linear":
        return nn.Sequential(*average, nn.Linear(channels, 4))
    hidden: nn.Module = nn.Linear(channels, config.hidden)
    if config.head == "mlp":
        return nn.Sequential(*average, hidden, nn.ReLU(inplace=True), nn.Linear(config.hidden, 4))
    hidden = nn.Conv2d(channels, config.hidden, 3, padding=1)
    return nn.Sequential(hidden, nn.ReLU(inplace=True), *average, nn.Linear(config.hidden, 4))
