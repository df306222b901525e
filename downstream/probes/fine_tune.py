"""Fine-tuning: the encoder and a linear classifier, trained end to end on few labels."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from downstream.classification import ClassProbe, check_classes, check_known, classification_scores
from downstream.fitting import FittedProbe, write_curve
from downstream.label_sampling import draw_labelled
from downstream.layer_rates import learning_rate_factors
from downstream.reading import read, read_each, tested
from pretext.datasets import at_size
from pretext.datasets.base import ImageDataset, Target
from pretext.datasets.classification import class_targets, is_multi_label, multi_hot
from pretext.datasets.kept import for_views
from pretext.datasets.pictures import of_any_sizes
from pretext.datasets.splitting import Subset
from pretext.encoders.base import Encoder
from pretext.judging import Score
from pretext.modules.losses import many_class_loss, one_class_loss
from pretext.system.errors import UserError
from pretext.system.progress import counted
from pretext.system.ranges import check_range
from pretext.transforms.augmentation import augment, cropping


@final
@dataclass(frozen=True)
class FineTune(ClassProbe, FittedProbe):
    """The encoder and a linear classifier, trained end to end; headline top-1 or mAP.

    The headline is top-1 for data with one class per image and mAP for multi-label data.

    Source: Pathak et al. 2016, section 5.2 (VOC 2007: random crops in training, ten crops averaged at test).
    Deviations: few labels; AdamW with a cosine schedule; the classifier is one linear layer on the averaged,
    batch-normalised deepest map; one view at test by default; crops, cut from the whole picture in training and from
    its centre at test, are resized to the encoder's input size.
    """

    title: ClassVar[str] = "Fine-tuning"

    batch_size: int = 32
    crop: float = 0.6
    """Minimum area of a training crop, as a share of the image; 1 disables cropping."""
    ten_crops: bool = False
    """Average test logits over ten crops, as in the paper: the corners, the centre and their mirror images."""
    freeze_to: str = ""
    """Freeze this stage and all before it, including batch normalisation, e.g. `conv3`; empty freezes none."""
    layer_decay: float = 1.0
    """Learning rate factor from each encoder block to the one before it, e.g. 0.75; 1 disables the decay."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 2:
            raise ValueError(f"batch_size is {self.batch_size}; allowed is 2 or more, for batch normalisation")
        check_range(self, "crop", least=0.05, most=1)
        check_range(self, "layer_decay", above=0, most=1)

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Yield top-1, top-5 and mean per-class accuracy, or mAP. Writes `curve.json`. See `Probe.evaluate`."""
        scores, curve = self.tuned(encoder, data, out)
        if out is not None:
            write_curve(out, curve)
        yield from scores

    def tuned(
        self,
        encoder: Encoder,
        data: ImageDataset,
        out: Path | None = None,
        *,
        indices: NDArray[np.int64] | None = None,
    ) -> tuple[list[Score], list[float]]:
        """Return the scores and the loss of every step, as `evaluate` does, but keep the checkpoint in `out`.

        Args:
            encoder: See `evaluate`.
            data: See `evaluate`.
            out: See `evaluate`.
            indices: Images of the training split, as `for_views` opens it, to train on; None trains on all. Chance is
                that of the whole split.
        """
        if not self.can_judge(data):
            data.require("label")
        train = for_views(data.split("train"), encoder.input_size, bad_images="skip")
        test = at_size(data.split("test"), encoder.input_size, bad_images="skip", fit="crop")
        shown = tested(test, self.test_images)
        targets = class_targets(test)[torch.from_numpy(shown)]
        check_known(targets, data.spec)  # before training
        shown = shown[known(targets)]
        encoder = copy.deepcopy(encoder).to(memory_format=torch.channels_last)
        head, curve = self._train(encoder, train, out, indices=indices)
        judged = self._classify(encoder, head, test, shown)
        scores = classification_scores(*judged, training=class_targets(train), spec=data.spec)
        return [replace(score, headline=i == 0) for i, score in enumerate(scores)], curve

    def _train(
        self,
        encoder: Encoder,
        train: ImageDataset,
        out: Path | None = None,
        *,
        indices: NDArray[np.int64] | None = None,
    ) -> tuple[nn.Module, list[float]]:
        """Train a classifier, and `encoder` in place, on some images of `train`; None draws from all."""
        device = next(encoder.parameters()).device
        channels = encoder.stages[-1].channels
        loss = many_class_loss if is_multi_label(train) else one_class_loss
        targets = class_targets(train)
        chosen = np.arange(len(train)) if indices is None else indices
        drawn_from = train if indices is None else Subset(train, indices)
        indices = chosen[draw_labelled(targets[torch.from_numpy(chosen)], self.train_images, seed=self.seed)]
        indices = indices[known(targets[torch.from_numpy(indices)])]
        check_classes(train.spec, targets[torch.from_numpy(indices)], drawn=self.train_images > 0)
        generator = torch.Generator(device).manual_seed(self.seed)
        views = cropping(self.crop)
        factors = learning_rate_factors(
            encoder,
            factor=self.encoder_learning_rate_factor,
            freeze_to=self.freeze_to,
            layer_decay=self.layer_decay,
        )

        targets_read: dict[int, Target] = {}

        def make_head() -> nn.Module:
            return nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.BatchNorm1d(channels),
                nn.Linear(channels, len(train.classes)),
            )

        def loss_of(head: nn.Module, batch: NDArray[np.int64]) -> Tensor | None:
            images, truth = read_each(train, batch, targets_read)
            if len(images) < 2:  # the others cannot be decoded, and batch normalisation needs at least two
                return None
            pictures = of_any_sizes(images, encoder.input_size).to(device)
            crops = augment(pictures, views, generator)
            return loss(head(self._maps(encoder, crops)[-1]), _classes(train, truth).to(device))

        head, curve = self._fit(
            encoder,
            make_head,
            loss_of,
            drawn_from,
            indices,
            name="fine_tune",
            encoder_factor=factors,
            out=out,
            generators=(generator,),
        )
        if not curve:
            raise UserError(f"{train.spec}: no batch has two images that can be decoded; check the files")
        return head, curve

    @torch.no_grad()
    def _classify(
        self, encoder: Encoder, head: nn.Module, test: ImageDataset, indices: NDArray[np.int64]
    ) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N ..."]]:
        """Return the logits of the test images, averaged over ten crops if set, and their classes."""
        device = next(encoder.parameters()).device
        logits, classes = [], []
        starts = range(0, len(indices), 256)
        for start in counted(starts, "fine_tune: test", len(starts), unit="batch"):
            images, truth = read(test, indices[start : start + 256])
            images, side = images.to(device), images.shape[-1]
            views = [enlarged(crop, side) for crop in ten_crops(images)] if self.ten_crops else [images]
            logits.append(torch.stack([head(encoder(view)[-1]) for view in views]).mean(0).cpu())
            classes.append(_classes(test, truth))
        return torch.cat(logits), torch.cat(classes)


def _classes(data: ImageDataset, targets: list[Target]) -> Int[Tensor, "B ..."]:
    """Return the classes of a batch, in the format of `class_targets`."""
    if is_multi_label(data):
        return torch.stack([multi_hot(target, len(data.classes)) for target in targets])
    return torch.stack([target["label"] for target in targets])


def known(targets: Int[Tensor, "N ..."]) -> NDArray[np.bool_]:
    """Return which images have a known class; an image that cannot be decoded has none."""
    return (targets >= 0 if targets.ndim == 1 else (targets >= 0).any(dim=1)).numpy()


def ten_crops(images: UInt8[Tensor, "B 3 S S"]) -> list[UInt8[Tensor, "B 3 C C"]]:
    """Return crops of 7/8 of the side, at the corners and the centre, and their mirror images."""
    side = images.shape[-1]
    crop, far = side * 7 // 8, side - side * 7 // 8
    corners = [(0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2)]
    views = [images[..., y : y + crop, x : x + crop] for y, x in corners]
    return views + [view.flip(-1) for view in views]


def enlarged(crops: UInt8[Tensor, "B 3 C C"], side: int) -> Float[Tensor, "B 3 S S"]:
    """Return crops in [0, 1], resized to side S; a vision transformer accepts only its own input size."""
    return F.interpolate(crops.float() / 255, size=(side, side), mode="bilinear", align_corners=False)
