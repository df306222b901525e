"""Detection: Faster or Fast R-CNN on the encoder, trained on few images; average precision on the test split."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final, get_args

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors

from downstream.detector import DetectionHead, Neck, sizes_for, stages_for
from downstream.fitting import FittedProbe, write_curve
from downstream.metrics import Detections, Truth, coco_by_class, object_counts, voc07_by_class
from downstream.per_class import write_per_class
from downstream.proposals import SELECTIVE_SEARCH, proposals_for
from downstream.reading import draw, flip_some, read, tested
from downstream.sheets import Found, detection_sheet, shown_of
from pretext.datasets import at_size
from pretext.datasets.base import BadImage, ImageDataset, Target
from pretext.datasets.fingerprints import digest
from pretext.datasets.view import View
from pretext.encoders.base import Encoder
from pretext.judging import Score
from pretext.system.errors import UserError
from pretext.system.progress import counted
from pretext.system.ranges import check_range

SHOWN = 12
"""Number of test images on the sheet."""


@final
@dataclass(frozen=True)
class Detection(FittedProbe):
    """Faster R-CNN, or Fast R-CNN with given proposals, fine-tuned on the encoder; headline AP50.

    Difficult objects are not used in training and are ignored in the evaluation.

    Source: Pathak et al. 2016, section 5.2 (Fast R-CNN on VOC 2007, with selective search: `proposals`); Ren et al.
    2015; Lin et al. 2017 for the neck `fpn`.
    Deviations: Faster R-CNN by default; AdamW with a cosine schedule; one scale, with the images resized to the
    encoder's square input. Numbers of regions and proposals follow the size of the input (`detector.sizes_for`).
    """

    needs: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"labels", "boxes"}),)

    train_images: int = 500
    steps: int = 300
    frozen: bool = False
    """Freeze the encoder and train only the head."""
    cells: int = 8
    """Minimum side, in cells, of the map that detects objects: the deepest such map is used, coarser ones are added."""
    width: int = 64
    """Number of channels of the neck's output maps."""
    hidden: int = 256
    """Number of units in each of the box head's two layers."""
    neck: Neck = "single"
    """`single` detects on one map; `fpn` on every level of a feature pyramid, large objects on coarse levels."""
    proposals: str | None = None
    """Proposals for Fast R-CNN: `selective_search`, or an .npz file with one M×4 array per image (XYXY in pixels of
    the image file), keyed by the image's path below the data set's folder. Faster R-CNN if omitted."""
    most_proposals: int = 300
    """Maximum number of given proposals per image; the paper uses about 2,000."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "cells", "width", "hidden", "most_proposals", least=1)
        if self.neck not in get_args(Neck):
            raise ValueError(f"neck is {self.neck}; allowed is {' or '.join(get_args(Neck))}")
        if self.proposals not in (None, SELECTIVE_SEARCH) and not self.proposals.endswith(".npz"):
            raise ValueError(f"proposals is {self.proposals}; allowed is {SELECTIVE_SEARCH} or an .npz file")

    def check_splits(self, train: ImageDataset, test: ImageDataset, size: int) -> None:
        """See `Probe.check_splits`."""
        for split, wanted in ((test, "to find in {} test"), (train, "to learn from in {} training")):
            if split.objects is not None and not split.objects.easy:  # None: known only after decoding
                raise UserError(f"{split.spec}: no object {wanted.format(len(split))} images; give other data")

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Yield COCO's AP50 (the headline), AP and AP75, and VOC 2007's mAP.

        Chance is the score of the same boxes in every image: one for each class, at the median of the training boxes.
        Writes `detections.png`, `per_class.csv` and `curve.json`. See `Probe.evaluate`.
        """
        data.require("labels", "boxes")
        self.check_encoder(encoder)
        train = at_size(data.split("train"), encoder.input_size, bad_images="skip", fit="pad")
        test: ImageDataset = at_size(data.split("test"), encoder.input_size, bad_images="skip", fit="pad")
        chosen = tested(test, self.test_images)
        test = self._with_proposals(test, chosen)  # before training: an error in the file must not waste it
        encoder = copy.deepcopy(encoder).to(memory_format=torch.channels_last)
        stages = stages_for(encoder, cells=self.cells)
        head, curve = self._train(encoder, train, stages, out)
        found = list(self._detect(encoder, head, test, chosen, stages))
        truths, detections = [each.truth for each in found], [each.detections for each in found]
        counts = object_counts(truths, num_classes=len(data.classes))
        if not counts.any():
            raise UserError(
                f"{data.spec}: no object to find in {len(truths)} test images; raise test_images or give other data"
            )
        coco = coco_by_class(truths, detections, num_classes=len(data.classes))
        voc = voc07_by_class(truths, detections, num_classes=len(data.classes))
        by_class = _columns(coco, voc)
        same = [_same_boxes(train, draw(train, self.train_images, seed=self.seed), encoder.input_size)] * len(truths)
        chance = _columns(
            *(each(truths, same, num_classes=len(data.classes)) for each in (coco_by_class, voc07_by_class))
        )
        if out is not None:
            write_curve(out, curve)
            write_per_class(out, *_per_class(data.classes, counts, by_class))
            shown = [found[at] for at in shown_of(len(found), SHOWN)]
            detection_sheet(out / "detections.png", shown, data.classes)
        for metric, values in by_class.items():
            yield Score(
                metric,
                float(np.nanmean(values)),
                "%",
                higher_is_better=True,
                chance=float(np.nanmean(chance[metric])),
                n=len(truths),
                headline=metric == "AP50",
            )

    def _train(
        self, encoder: Encoder, train: ImageDataset, stages: list[int], out: Path | None = None
    ) -> tuple[DetectionHead, list[float]]:
        """Train a head, and `encoder` in place unless it is frozen."""
        device = next(encoder.parameters()).device
        indices = draw(train, self.train_images, seed=self.seed)
        if not any(_shows_objects(train, int(index)) for index in indices):
            raise UserError(
                f"{train.spec}: none of {len(indices)} training images has an object that is not "
                "difficult; raise train_images or give other data"
            )
        train = self._with_proposals(train, indices)

        targets_read: dict[int, Target] = {}

        def make_head() -> DetectionHead:
            return DetectionHead(
                [encoder.stages[i].channels for i in stages],
                width=self.width,
                hidden=self.hidden,
                num_classes=len(train.classes),
                neck=self.neck,
                proposals_given=self.proposals is not None,
                sizes=sizes_for(encoder.input_size),
            )

        def loss_of(head: DetectionHead, batch: NDArray[np.int64]) -> Tensor:
            images, targets = read(train, batch, targets_read)
            images = flip_some(images, targets).to(device)
            proposals = self._proposals_of(targets, device)
            learnt = [{k: v.to(device) for k, v in _learnable(target).items()} for target in targets]
            maps = _at(self._maps(encoder, images), stages)
            losses: dict[str, Tensor] = head(maps, images, learnt, proposals)[1]
            return torch.stack(list(losses.values())).sum()

        factor = 0.0 if self.frozen else self.encoder_learning_rate_factor
        return self._fit(encoder, make_head, loss_of, train, indices, name="detection", encoder_factor=factor, out=out)

    @torch.no_grad()
    def _detect(
        self,
        encoder: Encoder,
        head: DetectionHead,
        test: ImageDataset,
        indices: NDArray[np.int64],
        stages: list[int],
    ) -> Iterator[Found]:
        """Yield each test image with its true objects and its detections."""
        device = next(encoder.parameters()).device
        starts = range(0, len(indices), 4 * self.batch_size)
        for start in counted(starts, "detection: test", len(starts), unit="batch"):
            images, targets = read(test, indices[start : start + 4 * self.batch_size])
            proposals = self._proposals_of(targets, device)
            on_device = images.to(device)
            results: list[dict[str, Tensor]] = head(_at(encoder(on_device), stages), on_device, None, proposals)[0]
            for image, target, result in zip(images, targets, results, strict=True):
                yield _found(image, target, result)

    def _with_proposals(self, data: ImageDataset, indices: NDArray[np.int64]) -> ImageDataset:
        """Return the data set with the key `proposals` in the targets of some images; unchanged for Faster R-CNN."""
        if self.proposals is None:
            return data
        given = proposals_for(self.proposals, data, indices, most=self.most_proposals, seed=self.seed)
        return _Proposed(data, given)

    def _proposals_of(self, targets: list[Target], device: torch.device) -> list[Tensor] | None:
        """Return the given proposals of each image; None for Faster R-CNN."""
        if self.proposals is None:
            return None
        return [target["proposals"].as_subclass(Tensor).to(device) for target in targets]


class _Proposed(View):
    """A data set with a further key in its targets: `proposals`, tv_tensors.BoundingBoxes M×4."""

    def __init__(self, base: ImageDataset, proposals: dict[int, Tensor]) -> None:
        super().__init__(base)
        self.proposals = proposals

    def origin(self, index: int) -> tuple[ImageDataset, int]:
        return self.base, index

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 S S"], Target]:
        image, target = self.base[index]
        return image, target | {"proposals": tv_tensors.wrap(self.proposals[index], like=target["boxes"])}

    @property
    def fingerprint(self) -> str:
        boxes = (part for index, some in self.proposals.items() for part in (str(index), some.numpy().tobytes()))
        return digest(self.base.fingerprint, *boxes)


def _at(maps: list[Tensor], stages: list[int]) -> list[Tensor]:
    return [maps[i] for i in stages]


def _shows_objects(data: ImageDataset, index: int) -> bool:
    """Return whether an image can be decoded and has an object to learn from."""
    try:
        return len(_learnable(data[index][1])["boxes"]) > 0
    except BadImage:
        return False


def _same_boxes(train: ImageDataset, indices: NDArray[np.int64], side: int) -> Detections:
    """Return one box for each class that the training images show, scored by the number of its objects."""
    found: dict[int, list[Tensor]] = {}
    for index in indices.tolist():
        try:
            target = _learnable(train[index][1])
        except BadImage:  # training has reported it
            continue
        for box, label in zip(target["boxes"], target["labels"].tolist(), strict=True):
            found.setdefault(label - 1, []).append(box)
    boxes = torch.stack([torch.stack(some).float().quantile(0.5, dim=0) for some in found.values()])
    counts = np.array([len(some) for some in found.values()], dtype=np.float32)
    return Detections(boxes.clamp(0, side).numpy(), np.array([*found], dtype=np.int64), counts / counts.sum())


def _columns(coco: NDArray[np.float64], voc: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return the metrics of each class by name."""
    return {"AP50": coco[:, 1], "AP": coco[:, 0], "AP75": coco[:, 2], "VOC07 mAP": voc}


def _learnable(target: Target) -> dict[str, Tensor]:
    """Return boxes and labels of the objects that are not difficult; labels start at 1, 0 is the background."""
    kept = ~_difficult(target)
    return {"boxes": target["boxes"].as_subclass(Tensor)[kept], "labels": target["labels"][kept] + 1}


def _difficult(target: Target) -> Tensor:
    difficult: Tensor = target.get("difficult", torch.zeros(len(target["labels"]), dtype=torch.bool))
    return difficult


def _found(image: UInt8[Tensor, "3 S S"], target: Target, result: dict[str, Tensor]) -> Found:
    truth = Truth(target["boxes"].as_subclass(Tensor).numpy(), target["labels"].numpy(), _difficult(target).numpy())
    boxes, labels, scores = (result[name].cpu().numpy() for name in ("boxes", "labels", "scores"))
    return Found(image, truth, Detections(boxes, labels - 1, scores))


def _per_class(
    classes: tuple[str, ...], counts: NDArray[np.int64], by_class: dict[str, NDArray[np.float64]]
) -> tuple[list[str], list[list[object]]]:
    """Return the header and the rows of `per_class.csv`; undefined values are empty."""
    columns = [["" if np.isnan(value) else f"{value:.2f}" for value in column] for column in by_class.values()]
    return ["class", "objects", *by_class], [[*row] for row in zip(classes, counts, *columns, strict=True)]
