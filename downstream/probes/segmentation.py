"""Segmentation: a fully convolutional network on the encoder, trained on few pictures; mean IoU."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from downstream.fitting import FittedProbe, batches, draw, fit, flip_some, read, write_curve
from downstream.metrics import confusion_matrix, mean_iou, pixel_accuracy
from downstream.sheets import segmentation_sheet
from pretext.datasets import at_size
from pretext.datasets.base import IGNORE, ImageDataset
from pretext.encoders.base import Encoder, Stage
from pretext.errors import UserError
from pretext.judging import Score

SHOWN = 12
"""Test pictures on the sheet."""


@final
@dataclass(frozen=True)
class Segmentation(FittedProbe):
    """A fully convolutional network on the encoder's maps, fine-tuned; mean IoU is what a table quotes.

    Source: Pathak et al. 2016, section 5.2, after Long et al. 2015; mIoU as in Everingham et al. 2010.
    Deviations: few labels, a narrow head, AdamW with a cosine; see also `SegmentationHead`.
    """

    needs: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"masks"}),)

    train_images: int = 200
    steps: int = 200
    learning_rate: float = 5e-3
    frozen: bool = False
    """Leave the encoder as it is and train the head alone."""
    skips: int = 2
    """Finer maps that are added to the deepest one's scores: 0 is FCN-32s's way, 1 FCN-16s's, 2 FCN-8s's."""
    width: int = 64
    """Channels between a map and its scores."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.skips < 0:
            raise ValueError(f"skips is {self.skips}; allowed is 0 or more")
        if self.width < 1:
            raise ValueError(f"width is {self.width}; allowed is 1 or more")

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Yield mean IoU over the classes and the background (the headline), and pixel accuracy.

        Writes `segmentation.png` and `curve.json`. See `Probe.evaluate`.
        """
        data.require("masks")
        train = at_size(data.split("train"), encoder.input_size, bad_images="skip")
        test = at_size(data.split("test"), encoder.input_size, bad_images="skip")
        indices = np.arange(len(test))[: self.test_images or None]
        encoder = copy.deepcopy(encoder).to(memory_format=torch.channels_last)
        head, curve = self._train(encoder, train)
        num_classes = len(data.classes) + 1
        confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        shown: list[tuple[Tensor, Tensor, Tensor]] = []
        n = 0
        for images, truth, predicted in self._segment(encoder, head, test, indices):
            n += len(images)
            confusion += confusion_matrix(truth, predicted, num_classes=num_classes, ignore=IGNORE)
            shown += list(zip(images, truth, predicted, strict=True))[: SHOWN - len(shown)]
        if not confusion.any():
            raise UserError(f"{data.spec}: every pixel of {n} test pictures is marked to be ignored")
        if out is not None:
            write_curve(out, curve)
            segmentation_sheet(out / "segmentation.png", shown)
        background = torch.zeros_like(confusion)
        background[:, 0] = confusion.sum(dim=1)
        for metric, measure in (("mIoU", mean_iou), ("pixel accuracy", pixel_accuracy)):
            yield Score(
                metric,
                measure(confusion),
                "%",
                higher_is_better=True,
                chance=measure(background),
                n=n,
                headline=metric == "mIoU",
            )

    def _train(self, encoder: Encoder, train: ImageDataset) -> tuple[SegmentationHead, list[float]]:
        """Train a head, and `encoder` in place unless frozen."""
        device = next(encoder.parameters()).device
        indices = draw(train, self.train_images, seed=self.seed)

        def loss_of(batch: NDArray[np.int64]) -> Tensor | None:
            images, targets = read(train, batch)
            images = flip_some(images, targets).to(device)
            truth = torch.stack([target["masks"].as_subclass(Tensor) for target in targets]).long().to(device)
            if (truth == IGNORE).all():
                return None
            return F.cross_entropy(head(encoder(images), images.shape[-1]), truth, ignore_index=IGNORE)

        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            head = SegmentationHead(
                encoder.stages, skips=self.skips, width=self.width, num_classes=len(train.classes) + 1
            ).to(device)
            curve = fit(
                encoder,
                head,
                loss_of,
                batches(indices, self.batch_size, self.steps, seed=self.seed),
                name="segmentation",
                steps=self.steps,
                learning_rate=self.learning_rate,
                encoder_factor=0.0 if self.frozen else self.encoder_learning_rate_factor,
                weight_decay=self.weight_decay,
            )
        if not curve:
            raise UserError(f"{train.spec}: every pixel of {len(indices)} training pictures is marked to be ignored")
        return head, curve

    @torch.no_grad()
    def _segment(
        self, encoder: Encoder, head: SegmentationHead, test: ImageDataset, indices: NDArray[np.int64]
    ) -> Iterator[tuple[UInt8[Tensor, "B 3 S S"], UInt8[Tensor, "B S S"], Int[Tensor, "B S S"]]]:
        """Yield pictures, truth and predicted classes, batch by batch."""
        device = next(encoder.parameters()).device
        for start in range(0, len(indices), 4 * self.batch_size):
            images, targets = read(test, indices[start : start + 4 * self.batch_size])
            truth = torch.stack([target["masks"].as_subclass(Tensor) for target in targets])
            scores = head(encoder(images.to(device)), images.shape[-1])
            yield images, truth, scores.argmax(dim=1).cpu()


class SegmentationHead(nn.Module):
    """Scores of each class from the deepest map, and from finer ones that are added as they are reached.

    Source: Long et al. 2015, section 4.2.
    Deviations: bilinear upsampling is fixed; one 3×3 convolution takes the place of fc6 and fc7; every map is
    batch-normalised first, so that encoders of any scale start alike.
    """

    def __init__(self, stages: tuple[Stage, ...], *, skips: int, width: int, num_classes: int) -> None:
        """Build it with random weights.

        Args:
            stages: The encoder's.
            skips: Finer maps to add, where there are so many: of each stride the deepest.
            width: Channels between a map and its scores.
            num_classes: With the background.
        """
        super().__init__()
        deepest = {stage.stride: i for i, stage in enumerate(stages)}
        self.read = [deepest[stride] for stride in sorted(deepest, reverse=True)][: skips + 1]
        self.scores = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(stages[i].channels),
                nn.Conv2d(stages[i].channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, num_classes, 1),
            )
            for i in self.read
        )

    def forward(self, maps: list[Tensor], side: int) -> Float[Tensor, "B K S S"]:
        """Return the scores of every pixel of pictures of side S."""
        total: Tensor | None = None
        for i, score in zip(self.read, self.scores, strict=True):
            here = score(maps[i])
            total = here if total is None else here + _resized(total, here.shape[-2:])
        assert total is not None
        return _resized(total, (side, side))


def _resized(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
