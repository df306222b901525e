"""Supervised: classify with labels, as an upper bound (He et al. 2016).

The only task that may see labels; pretext tasks are compared with it. Cross-entropy on the averaged deepest map as in
He et al. 2016, arXiv 1512.03385, section 3.4; for images with any number of classes, one binary cross-entropy per
class. Mild random resized crops and flips reduce overfitting, so that the bound is one of labels. AlexNet, ImageNet,
published: linear probe conv1…conv5 19.3 36.3 44.2 48.3 50.5 % top-1 (Zhang et al. 2017, arXiv 1611.09842, table 1).

Deviations: crops cover half of the area or more, where Inception-style training starts at 0.08; one linear layer
instead of AlexNet's three.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pretext.encoders.base import Encoder
from pretext.modules.losses import many_class_loss, one_class_loss
from pretext.tasks.base import Batch, LabelKind, Task
from pretext.transforms.augmentation import CropAndFlip, augment, cropping


@final
class Supervised(Task):
    """Encoder and a linear classifier on its averaged deepest map."""

    @dataclass(frozen=True)
    class Config(CropAndFlip):
        """The random crops and flips."""

        crop_min: float = 0.5
        """Smallest share of the image area that a random crop covers."""
        flip: float = 0.5
        """Probability of a horizontal flip."""

    needs_labels = True

    def __init__(self, encoder: Encoder, config: Config, labels: LabelKind | None) -> None:
        """Build the classifier.

        Raises:
            ValueError: If there are no classes.
        """
        super().__init__(encoder)
        if labels is None or labels.classes < 1:
            raise ValueError("there are no classes to learn; the data set must annotate label or labels")
        self.multi_label = labels.multi_label
        self.crops = cropping(config.crop_min, flip=config.flip)
        self.classifier = nn.Linear(encoder.stages[-1].channels, labels.classes)
        self._accuracy = torch.zeros(())

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the cross-entropy with the labels; unknown labels do not count.

        Raises:
            ValueError: If the batch has no labels.
        """
        if batch.labels is None:
            raise ValueError("the batch has no labels; the data set must annotate label or labels")
        labels = batch.labels.to(batch.device, torch.int64)
        logits = self.classifier(self.encoder.embed(augment(batch.pictures, self.crops, batch.generator)))
        guess = (logits.detach() > 0).long() if self.multi_label else logits.detach().argmax(dim=1)
        self._accuracy = (guess == labels).sum() / (labels >= 0).sum().clamp(min=1)
        yield "task", (many_class_loss if self.multi_label else one_class_loss)(logits, labels)

    def metrics(self) -> Mapping[str, float]:
        """Return the accuracy of the last step: of images, or of single labels if images have several."""
        return {"accuracy": float(self._accuracy)}

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each image and a random crop of it."""
        view = augment(batch.pictures, self.crops, batch.generator)
        return {"picture": batch.images.float() / 255, "view": view}
