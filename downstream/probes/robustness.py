"""Robustness: the linear probe, fitted on clean images and tested on corrupted ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from downstream.classification import ClassProbe, classification_scores
from downstream.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from downstream.features import image_batches, pooled, split_features, training_features
from downstream.probes.linear import Classifier, Linear
from downstream.reading import draw
from downstream.sheets import image_sheet
from pretext.datasets import at_size
from pretext.datasets.base import ImageDataset
from pretext.datasets.classification import class_targets
from pretext.encoders import build_encoder
from pretext.encoders.base import Encoder, evaluating
from pretext.judging import Score
from pretext.system.errors import UserError
from pretext.system.ranges import check_range
from pretext.system.specs import without_options

SHOWN = 1
"""Number of test images on the sheet."""


@final
@dataclass(frozen=True)
class Robustness(ClassProbe):
    """Error of the linear probe under seven corruptions at five severities each.

    The linear probe chooses the stage. `mCE`, the headline, is the mean over all corruptions and severities.
    `mCE relative to random` is the paper's relative metric, in percent: each corruption's error, summed over its
    severities, is divided by that of the baseline, then averaged over the corruptions. The baseline here is the same
    probe on random weights of the same architecture and seed; the paper's is an AlexNet trained on ImageNet. A value
    below 100 is more robust than random weights. It is left out if the baseline has no error under some corruption.

    An error is 100 - top-1, or 100 - mAP for multi-label data. Every encoder is tested on the same corrupted images.

    Source: Hendrycks and Dietterich 2019, arXiv 1903.12261, section 4; deviations in `downstream.corruptions`.
    """

    revision: ClassVar[int] = 1

    train_images: int = Linear.train_images
    """Number of labelled clean training images, drawn by the seed, balanced by class; 0 uses all."""
    val_images: int = Linear.val_images
    """Number of clean val images that choose stage and penalty; 0 uses all."""
    test_images: int = 500
    """Number of test images to corrupt, drawn by the seed; 0 uses all."""
    features: int = Linear.features
    """Maximum number of features per image after pooling a stage."""
    penalties: tuple[float, ...] = Linear.penalties
    """L2 penalties to try; see the linear probe."""
    iterations: int = Linear.iterations
    """Maximum number of L-BFGS iterations per penalty."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._linear()
        check_range(self, "test_images", least=0)

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Yield `mCE`, `clean error`, the error under each corruption, and `mCE relative to random`.

        See `Probe.evaluate`. Writes `corruptions.png`.
        """
        if not self.can_judge(data):
            data.require("label")
        spec = without_options(encoder.spec, "pretrained")
        random = build_encoder(spec, input_size=encoder.input_size, seed=self.seed)  # not every encoder has a spec
        errors, shown = self._errors(encoder, data)
        baseline, _ = self._errors(random.to(next(encoder.parameters()).device), data)
        (clean,) = errors.pop("")
        yield _mean("mCE", [score for every in errors.values() for score in every], headline=True)
        yield _mean("clean error", [clean])
        for name, every in errors.items():
            yield _mean(f"{name.replace('_', ' ')} error", every)
        if all(_mean("", baseline[name]).value > 0 for name in errors):
            shares = [_mean("", every).value / _mean("", baseline[name]).value for name, every in errors.items()]
            relative = 100 * float(np.mean(shares))
            yield Score("mCE relative to random", relative, "%", False, None, clean.n, stage=clean.stage)
        if out is not None:
            part = at_size(data.split("test"), encoder.input_size, bad_images="skip", fit="crop")
            self._write_sheet(part, shown[:SHOWN], out / "corruptions.png")

    def _errors(self, encoder: Encoder, data: ImageDataset) -> tuple[dict[str, list[Score]], list[int]]:
        """Return the errors by corruption, one per severity ("" is clean), and the indices of the tested images."""
        drawn = training_features(encoder, data, train_images=self.train_images, sizes=(self.features,), seed=self.seed)
        train, val = drawn[self.features], split_features(encoder, data, "val", most=self.features)
        classifiers, stage = self._linear().classifiers(train, val, len(data.classes))
        part = at_size(data.split("test"), encoder.input_size, bad_images="skip", fit="crop")
        indices = draw(part, self.test_images, seed=self.seed)
        logits, kept = self._logits(encoder, part, indices, classifiers[stage], stage)
        targets = class_targets(part)[kept]

        def error(logits: Tensor) -> Score:
            """Return 100 minus the first of the classification scores."""
            score = classification_scores(logits, targets, training=train.split_targets, stage=stage, spec=data.spec)[0]
            assert score.chance is not None
            items = None if score.items is None else 100 - score.items
            return Score("error", 100 - score.value, "%", False, 100 - score.chance, score.n, stage=stage, items=items)

        return {name: [error(each) for each in every] for name, every in logits.items()}, kept

    def _linear(self) -> Linear:
        return Linear(
            seed=self.seed,
            train_images=self.train_images,
            val_images=self.val_images,
            features=self.features,
            penalties=self.penalties,
            iterations=self.iterations,
        )

    def _logits(
        self,
        encoder: Encoder,
        data: ImageDataset,
        indices: Int[np.ndarray, "N"],
        classifier: Classifier,
        stage: str,
    ) -> tuple[dict[str, list[Float[Tensor, "N K"]]], list[int]]:
        """Return the logits by corruption, one per severity ("" is clean), and the indices of the decoded images."""
        device = next(encoder.parameters()).device
        index = [each.name for each in encoder.stages].index(stage)
        found: dict[tuple[str, int], list[Tensor]] = {}
        kept: list[int] = []
        generators = {(n, s): torch.Generator(device).manual_seed(self.seed) for n in CORRUPTIONS for s in SEVERITIES}
        with evaluating(encoder), torch.inference_mode():
            for images, read in image_batches(data, indices):
                kept += read
                clean = images.to(device)
                for name, severity in (("", 0), *generators):
                    shown = corrupted(clean, name, severity, generators[name, severity]) if name else clean
                    features = pooled(encoder(shown)[index], self.features).float().cpu()
                    found.setdefault((name, severity), []).append(classifier(features))
        if not kept:
            raise UserError(f"{data.spec}: no image of its test split can be decoded; check the files")
        logits: dict[str, list[Tensor]] = {}
        for (name, _), parts in found.items():
            logits.setdefault(name, []).append(torch.cat(parts))
        return logits, kept

    def _write_sheet(self, data: ImageDataset, indices: list[int], path: Path) -> None:
        images = torch.stack([data[index][0] for index in indices])
        rows = []
        for name in CORRUPTIONS:
            every = [corrupted(images, name, s, torch.Generator().manual_seed(self.seed)) for s in SEVERITIES]
            for i in range(len(images)):
                heading = f"{name.replace('_', ' ')}: clean, severities {SEVERITIES[0]} to {SEVERITIES[-1]}"
                rows.append((heading, [images[i], *(each[i] for each in every)]))
        image_sheet(path, rows)


def _mean(metric: str, errors: list[Score], *, headline: bool = False) -> Score:
    """Return the mean of errors on the same images."""
    items = [error.items for error in errors if error.items is not None]
    return Score(
        metric,
        float(np.mean([error.value for error in errors])),
        "%",
        higher_is_better=False,
        chance=errors[0].chance,
        n=errors[0].n,
        stage=errors[0].stage,
        headline=headline,
        items=np.mean(items, axis=0) if items else None,
    )
