"""Segmentation: a fully convolutional network on the encoder, trained on few images; mean IoU."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from downstream.fitting import FittedProbe, write_curve
from downstream.metrics import class_iou, confusion_matrix, mean_iou, pixel_accuracy
from downstream.per_class import write_per_class
from downstream.reading import draw, flip_some, read, tested
from downstream.sheets import segmentation_sheet, shown_of
from pretext.datasets import at_size
from pretext.datasets.base import IGNORE, BadImage, ImageDataset, Target
from pretext.encoders.base import Encoder, Stage, deepest_shape
from pretext.judging import Score
from pretext.system.errors import UserError
from pretext.system.progress import counted
from pretext.system.ranges import check_range

SHOWN = 12
"""Number of test images on the sheet."""
COUNTED = 1000
"""Most training masks whose pixels are counted for chance, the same for every seed."""


@final
@dataclass(frozen=True)
class Segmentation(FittedProbe):
    """A fully convolutional network, fine-tuned on the encoder; headline mean IoU.

    Source: Pathak et al. 2016, section 5.2, after Long et al. 2015; mIoU as in Everingham et al. 2010.
    Deviations: few labels; a narrow head; AdamW with a cosine schedule; masks are scored at
    the encoder's input size; see also `FCNHead` and `LightHead`.
    """

    needs: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"masks"}),)
    revision: ClassVar[int] = 1

    train_images: int = 200
    steps: int = 200
    learning_rate: float = 5e-3
    frozen: bool = False
    """Freeze the encoder and train only the head."""
    decoder: Literal["fcn", "light"] = "fcn"
    """`fcn` sums the class scores of several maps, as in the paper; `light` fuses the maps and scores them once."""
    skips: int = 2
    """Number of finer maps used besides the deepest; with `fcn`, 0 is FCN-32s, 1 is FCN-16s, 2 is FCN-8s."""
    width: int = 64
    """Number of channels between a map and its class scores."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoder not in HEADS:
            raise ValueError(f"decoder is {self.decoder!r}; allowed is {' or '.join(HEADS)}")
        check_range(self, "skips", least=0)
        check_range(self, "width", least=1)

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Yield mean IoU (the headline) and pixel accuracy, over the classes and the background if there is one.

        Chance is the background everywhere or, if there is no background, the class that covers most of the training
        masks. Writes `segmentation.png`, `per_class.csv` and `curve.json`. See `Probe.evaluate`.
        """
        data.require("masks")
        self.check_encoder(encoder)
        train = at_size(data.split("train"), encoder.input_size, bad_images="skip", fit="pad")
        test = at_size(data.split("test"), encoder.input_size, bad_images="skip", fit="pad")
        indices = tested(test, self.test_images)
        encoder = copy.deepcopy(encoder).to(memory_format=torch.channels_last)
        head, curve = self._train(encoder, train, out)
        names = ("background", *data.classes)
        first = 0 if data.has_background else 1
        num_classes = len(names)
        confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        shown: list[tuple[Tensor, Tensor, Tensor]] = []
        wanted, tested_so_far = {*shown_of(len(indices), SHOWN).tolist()}, 0
        n = 0
        for images, truth, predicted in self._segment(encoder, head, test, indices):
            n += int((truth != IGNORE).flatten(1).any(dim=1).sum())
            confusion += confusion_matrix(truth, predicted, num_classes=num_classes, ignore=IGNORE)
            each = zip(images, truth, predicted, strict=True)
            shown += [triple for at, triple in enumerate(each, tested_so_far) if at in wanted]
            tested_so_far += len(images)
        if not confusion.any():
            raise UserError(
                f"{data.spec}: every pixel of {len(indices)} test images is marked as ignored; give other data"
            )
        if out is not None:
            write_curve(out, curve)
            write_per_class(out, *_per_class(confusion[first:, first:], names[first:]))
            segmentation_sheet(out / "segmentation.png", shown, names)
        pixels = confusion.sum(dim=1)
        constant = torch.zeros_like(confusion)
        constant[:, 0 if data.has_background else _most_frequent(train, num_classes)] = pixels
        for metric, measure in (("mIoU", mean_iou), ("pixel accuracy", pixel_accuracy)):
            yield Score(
                metric,
                measure(confusion),
                "%",
                higher_is_better=True,
                chance=measure(constant),
                n=n,
                headline=metric == "mIoU",
            )

    def _train(
        self, encoder: Encoder, train: ImageDataset, out: Path | None = None
    ) -> tuple[SegmentationHead, list[float]]:
        """Train a head, and `encoder` in place unless it is frozen."""
        device = next(encoder.parameters()).device
        indices = draw(train, self.train_images, seed=self.seed)
        one_cell = deepest_shape(encoder)[1:] == (1, 1)

        targets_read: dict[int, Target] = {}

        def make_head() -> SegmentationHead:
            kind = HEADS[self.decoder]
            return kind(encoder.stages, skips=self.skips, width=self.width, num_classes=len(train.classes) + 1)

        def loss_of(head: SegmentationHead, batch: NDArray[np.int64]) -> Tensor | None:
            images, targets = read(train, batch, targets_read)
            images = flip_some(images, targets).to(device)
            truth = torch.stack([target["masks"].as_subclass(Tensor) for target in targets]).long().to(device)
            if (truth == IGNORE).all() or (len(images) == 1 and one_cell):  # one value cannot be batch-normalised
                return None
            return F.cross_entropy(head(self._maps(encoder, images), images.shape[-1]), truth, ignore_index=IGNORE)

        factor = 0.0 if self.frozen else self.encoder_learning_rate_factor
        head, curve = self._fit(
            encoder, make_head, loss_of, train, indices, name="segmentation", encoder_factor=factor, out=out
        )
        if not curve:
            raise UserError(
                f"{train.spec}: every pixel of {len(indices)} training images is marked as ignored; give other data"
            )
        return head, curve

    @torch.no_grad()
    def _segment(
        self, encoder: Encoder, head: SegmentationHead, test: ImageDataset, indices: NDArray[np.int64]
    ) -> Iterator[tuple[UInt8[Tensor, "B 3 S S"], UInt8[Tensor, "B S S"], Int[Tensor, "B S S"]]]:
        """Yield images, true masks and predicted classes, batch by batch."""
        device = next(encoder.parameters()).device
        starts = range(0, len(indices), 4 * self.batch_size)
        for start in counted(starts, "segmentation: test", len(starts), unit="batch"):
            images, targets = read(test, indices[start : start + 4 * self.batch_size])
            truth = torch.stack([target["masks"].as_subclass(Tensor) for target in targets])
            scores = head(encoder(images.to(device)), images.shape[-1])
            first = 0 if test.has_background else 1
            yield images, truth, scores[:, first:].argmax(dim=1).cpu() + first


class SegmentationHead(nn.Module):
    """Classifies pixels from an encoder's deepest map and finer ones, each batch-normalised first.

    The normalisation makes training comparable across encoders whose features differ in scale.
    """

    def __init__(self, stages: tuple[Stage, ...], *, skips: int, width: int, num_classes: int) -> None:
        """Choose the maps to read.

        Args:
            stages: The encoder's stages.
            skips: Maximum number of finer maps to read: the deepest of each stride.
            width: Number of channels between a map and its class scores.
            num_classes: Number of classes, including the background.
        """
        super().__init__()
        deepest = {stage.stride: i for i, stage in enumerate(stages)}
        self.read = [deepest[stride] for stride in sorted(deepest, reverse=True)][: skips + 1]


class FCNHead(SegmentationHead):
    """Class scores of the deepest map, upsampled and added to those of each finer map.

    Source: Long et al. 2015, section 4.2.
    Deviations: bilinear upsampling is fixed; one 3×3 convolution replaces fc6 and fc7; every map is batch-normalised
    first.
    """

    def __init__(self, stages: tuple[Stage, ...], *, skips: int, width: int, num_classes: int) -> None:
        """Build it with random weights. See `SegmentationHead`."""
        super().__init__(stages, skips=skips, width=width, num_classes=num_classes)
        self.scores = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(stages[i].channels),
                *_conv_block(stages[i].channels, width, 3),
                nn.Conv2d(width, num_classes, 1),
            )
            for i in self.read
        )

    def forward(self, maps: list[Tensor], side: int) -> Float[Tensor, "B K S S"]:
        """Return class scores of every pixel, for images of side S."""
        total: Tensor | None = None
        for i, score in zip(self.read, self.scores, strict=True):
            scores = score(maps[i])
            total = scores if total is None else scores + _resize(total, scores.shape[-2:])
        assert total is not None
        return _resize(total, (side, side))


class LightHead(SegmentationHead):
    """Projects maps to equal widths, fuses them from coarse to fine, and scores the finest.

    Source: the decoder of Chen et al. 2018 (DeepLabv3+): upsample, concatenate a narrow finer map, 3×3 convolution.
    Deviations: no atrous pooling before it; one plain 3×3 convolution per step; one step per finer map.
    """

    def __init__(self, stages: tuple[Stage, ...], *, skips: int, width: int, num_classes: int) -> None:
        """Build it with random weights. See `SegmentationHead`."""
        super().__init__(stages, skips=skips, width=width, num_classes=num_classes)
        self.projections = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(stages[i].channels), *_conv_block(stages[i].channels, width, 1))
            for i in self.read
        )
        self.joints = nn.ModuleList(nn.Sequential(*_conv_block(2 * width, width, 3)) for _ in self.read[1:])
        self.score = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: list[Tensor], side: int) -> Float[Tensor, "B K S S"]:
        """Return class scores of every pixel, for images of side S."""
        deepest, *finer = (project(maps[i]) for i, project in zip(self.read, self.projections, strict=True))
        for skip, join in zip(finer, self.joints, strict=True):
            deepest = join(torch.cat([_resize(deepest, skip.shape[-2:]), skip], dim=1))
        return _resize(self.score(deepest), (side, side))


HEADS: dict[str, type[SegmentationHead]] = {"fcn": FCNHead, "light": LightHead}


def _most_frequent(train: ImageDataset, num_classes: int) -> int:
    """Return the class, not the background, that covers most pixels of the training masks, or of a sample of them."""
    pixels = torch.zeros(IGNORE + 1, dtype=torch.int64)
    for index in tested(train, COUNTED).tolist():
        try:
            pixels += train[index][1]["masks"].flatten().bincount(minlength=len(pixels))
        except BadImage:  # training has reported it
            continue
    return int(pixels[1:num_classes].argmax()) + 1


def _per_class(confusion: Int[Tensor, "K K"], names: tuple[str, ...]) -> tuple[list[str], list[list[object]]]:
    """Return the header and the rows of `per_class.csv`; IoU is in percent, and empty if undefined."""
    columns = (class_iou(confusion).tolist(), confusion.sum(1).tolist(), confusion.sum(0).tolist())
    rows: list[list[object]] = [
        [name, "" if math.isnan(iou) else round(iou, 4), pixels, predicted]
        for name, iou, pixels, predicted in zip(names, *columns, strict=True)
    ]
    return ["class", "iou", "pixels", "predicted_pixels"], rows


def _conv_block(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU()


def _resize(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
