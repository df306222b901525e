"""Few labels: a share of the labels or k images per class, on the frozen encoder and by fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from downstream.classification import ClassProbe, check_classes, classification_scores, with_headline
from downstream.features import split_features
from downstream.fitting import write_curve
from downstream.label_sampling import (
    every_metric_over_samples,
    few_of_each,
    reached_by_all,
    share_of_each,
)
from downstream.probes.fine_tune import FineTune
from downstream.probes.linear import Linear
from pretext.datasets import at_size
from pretext.datasets.base import ImageDataset
from pretext.datasets.classification import class_targets
from pretext.datasets.kept import for_views
from pretext.datasets.packed import SizedDataset
from pretext.encoders.base import Encoder
from pretext.judging import Score
from pretext.system.errors import UserError
from pretext.system.precision import Precision
from pretext.system.ranges import check_range


@final
@dataclass(frozen=True)
class LowShot(ClassProbe):
    """Linear probe and fine-tuning on a share of the labels or k per class; mean over samples.

    The linear probe is evaluated at every stage, with the penalty chosen on val; fine-tuning trains the whole encoder.
    The headline is the linear probe on the smallest share (the smallest k if there are no shares), at the stage that
    does best on val.

    A sample depends only on the positions of images in the training split, not on the seed. Smaller samples are subsets
    of larger ones. Every class gives the same share of its images, but at least one; with rare classes the total share
    is therefore larger. In multi-label data, an image drawn for one class may also show others, so a class may have
    more than k. If a class has fewer than k images, that k is left out with a message. `sd` is the standard deviation
    over samples, with n - 1 degrees of freedom.

    Source: Hénaff et al. 2020, arXiv 1905.09272, and Chen et al. 2020, arXiv 2002.05709 (from 1 % and 10 % of
        ImageNet's labels).
    Deviations: several samples drawn by this package instead of the published file lists for ImageNet; the protocols
        are those of the probes `linear` and `fine_tune`; val keeps all its labels.
    """

    title: ClassVar[str] = "Few labels"
    revision: ClassVar[int] = 3

    percents: tuple[float, ...] = (1.0, 5.0, 10.0)
    """Shares of the labels to train on, in percent."""
    shots: tuple[int, ...] = ()
    """Numbers of images per class to train on, e.g. `1 4 16`."""
    samples: int = 3
    """Number of samples for each share and each k; all labels are one sample."""
    fine_tuned: bool = True
    """Also fine-tune; this takes most of the time."""
    steps: int = 500
    """Minimum number of steps of each fine-tuning."""
    epochs: float = 10.0
    """Passes of each fine-tuning over its labelled images, if these take more steps."""
    batch_size: int = FineTune.batch_size
    """Number of images per batch in fine-tuning."""
    precision: Precision = FineTune.precision
    """Number format of the encoder's layers in fine-tuning; see fine-tuning."""
    val_images: int = Linear.val_images
    """Number of val images that choose stage and penalty, drawn by the seed, balanced by class; 0 uses all."""
    features: int = Linear.features
    """Maximum number of features per image after pooling a stage."""
    penalties: tuple[float, ...] = Linear.penalties
    """L2 penalties that the linear probe tries; see the linear probe."""
    iterations: int = Linear.iterations
    """Maximum number of L-BFGS iterations per penalty; see the linear probe."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 < percent <= 100 for percent in self.percents):
            raise ValueError(f"percents are {self.percents}; each is above 0 and at most 100")
        if not all(k >= 1 for k in self.shots):
            raise ValueError(f"shots are {self.shots}; each is at least 1")
        if not self.percents and not self.shots:
            raise ValueError(f"percents are {self.percents} and shots are {self.shots}; give one or more of either")
        check_range(self, "samples", least=1)
        check_range(self, "epochs", least=0)
        check_range(self, "batch_size", least=2)
        self._linear(), self.fine_tuning(0)  # check the ranges of their fields

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Yield top-1 and mean per-class accuracy, or mAP, for every share and k. See `Probe.evaluate`.

        The linear probe comes first, at every stage, then fine-tuning.

        Writes the loss curve of each fine-tuning to its own folder, which keeps the checkpoint until all are done.
        """
        if not self.can_judge(data):
            data.require("label")
        train = at_size(data.split("train"), encoder.input_size, bad_images="skip", fit="crop")
        known = class_targets(train)
        check_classes(data.spec, known)
        drawn = {
            f"{p:g}%": [share_of_each(known, p / 100, sample=i) for i in range(self.samples_of(p))]
            for p in sorted(self.percents)
        } | {
            f"k={k}": [few_of_each(known, k, sample=i)[0] for i in range(self.samples)]
            for k in reached_by_all(data, known, sorted(self.shots))
        }
        if not drawn:
            raise UserError(
                f"{data.spec}: some class has fewer training images than the smallest of shots; lower shots"
            )
        yield from self._evaluate_linear(encoder, data, drawn)
        if self.fine_tuned:
            yield from self._evaluate_fine_tuned(encoder, data, train, drawn, out)

    def samples_of(self, percent: float) -> int:
        """Return the number of samples of a share of the labels: all labels are one."""
        return self.samples if percent < 100 else 1

    def fine_tuning(self, labelled: int) -> FineTune:
        """Return the protocol of fine-tuning on a number of labelled images."""
        return FineTune(
            seed=self.seed,
            train_images=0,
            steps=max(self.steps, math.ceil(self.epochs * labelled / self.batch_size)),
            batch_size=self.batch_size,
            precision=self.precision,
        )

    def _evaluate_linear(
        self, encoder: Encoder, data: ImageDataset, drawn: dict[str, list[NDArray[np.int64]]]
    ) -> Iterator[Score]:
        pool = np.unique(np.concatenate([indices for samples in drawn.values() for indices in samples]))
        train = split_features(encoder, data, "train", most=self.features, indices=pool)
        val, test = (split_features(encoder, data, split, most=self.features) for split in ("val", "test"))
        val = val.drawn(self.val_images, seed=self.seed)
        found: list[Score] = []
        best, best_quality = encoder.stages[-1].name, -1.0
        for stage, values in train.stages.items():
            for name, samples in drawn.items():
                of_samples: list[list[Score]] = []
                reached: list[float] = []
                for indices in samples:
                    rows = train.rows(indices)
                    rows = rows[rows >= 0]
                    check_classes(data.spec, train.targets[rows])
                    classifier, on_val = self._linear().fit(
                        values[rows],
                        train.targets[rows],
                        val.stages[stage],
                        val.targets,
                        len(data.classes),
                    )
                    reached.append(on_val)
                    logits = classifier(test.stages[stage])
                    of_samples.append(
                        classification_scores(
                            logits, test.targets, training=train.split_targets, stage=stage, spec=data.spec
                        )
                    )
                if name == next(iter(drawn)) and np.mean(reached) > best_quality:
                    best, best_quality = stage, float(np.mean(reached))
                found += every_metric_over_samples(of_samples, f"{{}}@{name}")
        yield from with_headline(found, best)

    def _evaluate_fine_tuned(
        self,
        encoder: Encoder,
        data: ImageDataset,
        train: SizedDataset,
        drawn: dict[str, list[NDArray[np.int64]]],
        out: Path | None,
    ) -> Iterator[Score]:
        whole = for_views(data.split("train"), encoder.input_size, bad_images="skip")
        curves: dict[Path, list[float]] = {}
        for name, samples in drawn.items():
            of_samples: list[list[Score]] = []
            for i, indices in enumerate(samples):
                # where their numbers differ, only one of the two still holds the images that cannot be decoded
                same = len(whole) == len(train)
                rows = indices if same else np.array([train.origin(int(index))[1] for index in indices])
                folder = None if out is None else out / f"{name} sample {i}"
                scores, curve = self.fine_tuning(len(rows)).tuned(encoder, data, folder, indices=rows)
                of_samples.append([replace(score, headline=False) for score in scores])
                if folder is not None:
                    curves[folder] = curve
            yield from every_metric_over_samples(of_samples, f"tuned {{}}@{name}")
        for (
            folder,
            curve,
        ) in curves.items():  # only now, since it deletes the checkpoints that an interrupted run resumes from
            write_curve(folder, curve)

    def _linear(self) -> Linear:
        return Linear(
            seed=self.seed,
            val_images=self.val_images,
            features=self.features,
            penalties=self.penalties,
            iterations=self.iterations,
        )
