"""Detection: Faster R-CNN on the encoder, trained on few pictures; average precision on the test split."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from downstream.detector import DetectionHead, stages_for
from downstream.fitting import FittedProbe, batches, draw, fit, flip_some, read, write_curve
from downstream.metrics import Detections, Truth, coco_ap, voc07_map
from downstream.sheets import Found, detection_sheet
from pretext.datasets import at_size
from pretext.datasets.base import ImageDataset, Target
from pretext.encoders.base import Encoder
from pretext.errors import UserError
from pretext.judging import Score

SHOWN = 12
"""Test pictures on the sheet."""


@final
@dataclass(frozen=True)
class Detection(FittedProbe):
    """Faster R-CNN on the encoder's maps, fine-tuned; AP50 is what a table quotes.

    Difficult objects are left out of training and neither rewarded nor punished in the test.

    Source: Pathak et al. 2016, section 5.2 (Fast R-CNN on VOC 2007); Ren et al. 2015.
    Deviations: Faster R-CNN, whose proposals come from the same features; AdamW with a cosine; one scale.
    """

    needs: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"labels", "boxes"}),)

    train_images: int = 500
    steps: int = 300
    frozen: bool = False
    """Leave the encoder as it is and train the head alone."""
    cells: int = 8
    """Objects are sought on the deepest map with at least so many cells a side; coarser ones are added."""
    width: int = 64
    """Channels of the map that objects are sought on."""
    hidden: int = 256
    """Units of each of the box head's two layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cells", "width", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed is 1 or more")

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Yield AP50 (the headline), AP and AP75 as COCO defines them, and VOC 2007's mAP.

        Writes `detections.png` and `curve.json`. See `Probe.evaluate`.
        """
        data.require("labels", "boxes")
        train = at_size(data.split("train"), encoder.input_size, bad_images="skip")
        test = at_size(data.split("test"), encoder.input_size, bad_images="skip")
        shown = np.arange(len(test))[: self.test_images or None]
        encoder = copy.deepcopy(encoder).to(memory_format=torch.channels_last)
        stages = stages_for(encoder, cells=self.cells)
        head, curve = self._train(encoder, train, stages, out)
        found = list(self._detect(encoder, head, test, shown, stages))
        truths, detections = [each.truth for each in found], [each.detections for each in found]
        if all(truth.difficult.all() for truth in truths):
            raise UserError(f"{data.spec}: no object to find in {len(truths)} test pictures; give more test pictures")
        if out is not None:
            write_curve(out, curve)
            detection_sheet(out / "detections.png", found[:SHOWN], data.classes)
        ap, ap50, ap75 = coco_ap(truths, detections, num_classes=len(data.classes))
        voc = voc07_map(truths, detections, num_classes=len(data.classes))
        for metric, value in (("AP50", ap50), ("AP", ap), ("AP75", ap75), ("VOC07 mAP", voc)):
            yield Score(
                metric,
                value,
                "%",
                higher_is_better=True,
                chance=0.0,
                n=len(truths),
                headline=metric == "AP50",
            )

    def _train(
        self, encoder: Encoder, train: ImageDataset, stages: list[int], out: Path | None = None
    ) -> tuple[DetectionHead, list[float]]:
        """Train a head, and `encoder` in place unless frozen."""
        device = next(encoder.parameters()).device
        indices = draw(train, self.train_images, seed=self.seed)
        if not any(len(_learnable(train[int(index)][1])["boxes"]) for index in indices):
            raise UserError(
                f"{train.spec}: none of {len(indices)} training pictures has an object that is not "
                "difficult; raise train_images or give other data"
            )

        def loss_of(batch: NDArray[np.int64]) -> Tensor:
            images, targets = read(train, batch)
            images = flip_some(images, targets).to(device)
            wanted = [{k: v.to(device) for k, v in _learnable(target).items()} for target in targets]
            losses: dict[str, Tensor] = head(_maps(encoder, images, stages), images, wanted)[1]
            return torch.stack(list(losses.values())).sum()

        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            head = DetectionHead(
                [encoder.stages[i].channels for i in stages],
                width=self.width,
                hidden=self.hidden,
                num_classes=len(train.classes),
            ).to(device)
            curve = fit(
                encoder,
                head,
                loss_of,
                batches(indices, self.batch_size, self.steps, seed=self.seed),
                name="detection",
                steps=self.steps,
                learning_rate=self.learning_rate,
                encoder_factor=0.0 if self.frozen else self.encoder_learning_rate_factor,
                weight_decay=self.weight_decay,
                resume=self.resume(out, train),
            )
        return head, curve

    @torch.no_grad()
    def _detect(
        self,
        encoder: Encoder,
        head: DetectionHead,
        test: ImageDataset,
        indices: NDArray[np.int64],
        stages: list[int],
    ) -> Iterator[Found]:
        """Yield each test picture with its truth and what was found in it."""
        device = next(encoder.parameters()).device
        for start in range(0, len(indices), 4 * self.batch_size):
            images, targets = read(test, indices[start : start + 4 * self.batch_size])
            moved = images.to(device)
            results: list[dict[str, Tensor]] = head(_maps(encoder, moved, stages), moved)[0]
            for image, target, result in zip(images, targets, results, strict=True):
                yield _found(image, target, result)


def _maps(encoder: Encoder, images: UInt8[Tensor, "B 3 S S"], stages: list[int]) -> list[Tensor]:
    maps = encoder(images)
    return [maps[i] for i in stages]


def _learnable(target: Target) -> dict[str, Tensor]:
    """Return boxes and labels (from 1: torchvision's 0 is the background) of the objects to learn from."""
    kept = ~_difficult(target)
    return {"boxes": target["boxes"].as_subclass(Tensor)[kept], "labels": target["labels"][kept] + 1}


def _difficult(target: Target) -> Tensor:
    difficult: Tensor = target.get("difficult", torch.zeros(len(target["labels"]), dtype=torch.bool))
    return difficult


def _found(image: UInt8[Tensor, "3 S S"], target: Target, result: dict[str, Tensor]) -> Found:
    truth = Truth(target["boxes"].as_subclass(Tensor).numpy(), target["labels"].numpy(), _difficult(target).numpy())
    boxes, labels, scores = (result[name].cpu().numpy() for name in ("boxes", "labels", "scores"))
    return Found(image, truth, Detections(boxes, labels - 1, scores))
