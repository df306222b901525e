"""Linear SVMs on every stage of the frozen encoder: full-shot, and low-shot from k images per class."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple, final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from downstream.classification import (
    ClassProbe,
    average_precisions,
    check_classes,
    classification_scores,
    quality,
    with_headline,
)
from downstream.features import split_features
from downstream.label_sampling import (
    draw_labelled,
    every_metric_over_samples,
    few_of_each,
    reached_by_all,
    strata,
)
from downstream.probes.linear import Linear
from downstream.sample_files import Sample, read_sample, write_samples
from pretext.datasets import at_size
from pretext.datasets.base import ImageDataset
from pretext.datasets.classification import class_targets
from pretext.encoders.base import Encoder
from pretext.judging import Score
from pretext.system.ranges import check_range

AT_ONCE = 2**25
"""Maximum number of images times problems solved at once; limits the memory."""


class TrainingSet(NamedTuple):
    """Rows of the training features, and their targets."""

    rows: Int[Tensor, "M"]
    targets: Int[Tensor, "M ..."]


@final
@dataclass(frozen=True)
class Svm(ClassProbe):
    """Linear SVMs on frozen features, full-shot and low-shot; headline full-shot mAP or top-1.

    The SVMs are one-vs-rest, with L2 penalty and squared hinge loss, on features of unit length. The metric is mAP for
    multi-label data and top-1 otherwise. Full-shot, cross-validation chooses the cost: one per class for mAP, one for
    all classes for top-1, where classes compete. Low-shot, k images per class are too few for cross-validation: one
    cost per k is chosen on val. Every stage is reported; the headline is at the stage that does best on val.

    A low-shot sample depends only on the positions of images in the training split, not on the seed; k images are a
    subset of 2k. If a class has fewer than k images, that k is left out with a message. `sd` is the standard deviation
    over samples, with n - 1 degrees of freedom.

    Source: Goyal et al. 2019, arXiv 1905.01235, and its published code (unit features, weight 2 for positives, three
        folds, costs 0.1, 0.01 and 2^-4, 2^-5, …, 2^-19).
    Deviations: fewer and larger costs by default, for the fewer features of smaller encoders; the published code seems
        to choose the low-shot cost on test; the published sample files cover only VOC 2007 trainval and are not
        included (`samples_from` reads them), so samples are drawn in the same manner, except that a class's negatives
        are the images drawn for other classes. The objective is liblinear's; Newton's method solves it for all classes
        and costs together, since liblinear took seconds where this takes tenths.
    """

    title: ClassVar[str] = "SVM"
    reads_features: ClassVar[bool] = True

    train_images: int = 1000
    """Number of labelled images for the full-shot SVMs, drawn by the seed, balanced by class; 0 uses all."""
    val_images: int = Linear.val_images
    """Number of val images that choose stage and low-shot cost, drawn like the training images; 0 uses all."""
    features: int = Linear.features
    """Maximum number of features per image after pooling a stage."""
    costs: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    """SVM costs C to try: weights of the summed losses, added to half the squared norm; the first wins a tie."""
    folds: int = 3
    """Number of cross-validation folds, at least 2."""
    positive_weight: float = 2.0
    """Weight of the images that show the class; the others have weight 1."""
    shots: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 96)
    """Numbers of images per class for the low-shot SVMs."""
    samples: int = 5
    """Number of low-shot samples per k."""
    samples_from: str | None = None
    """Folder of low-shot samples to read: `sample1_k4.csv` etc. as this probe writes them, or `…sample1_k4.npy` of
    Goyal et al. Drawn if omitted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "train_images", "val_images", least=0)
        check_range(self, "features", "samples", least=1)
        check_range(self, "folds", least=2)
        if not self.costs or not all(0 < cost < math.inf for cost in self.costs):
            raise ValueError(f"costs are {self.costs}; give one or more, each above 0")
        check_range(self, "positive_weight", above=0)
        if not all(k >= 1 for k in self.shots):
            raise ValueError(f"shots are {self.shots}; each is at least 1")

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Yield top-1, top-5 and mean per-class accuracy, or mAP, for every stage, full-shot and for each k.

        Each k is without top-5. See `Probe.evaluate`.

        Writes drawn low-shot samples to the folder `samples`.
        """
        if not self.can_judge(data):
            data.require("label")
        train_data = at_size(data.split("train"), encoder.input_size, bad_images="skip", fit="crop")
        known = class_targets(train_data)
        chosen = draw_labelled(known, self.train_images, seed=self.seed)
        check_classes(data.spec, known[torch.from_numpy(chosen)], drawn=self.train_images > 0)
        drawn = self._samples(train_data, known)
        if out is not None and self.samples_from is None:
            write_samples(out / "samples", train_data, drawn)
        pool = np.unique(np.concatenate([chosen, *(indices for each in drawn.values() for indices, _ in each)]))
        train = split_features(encoder, data, "train", most=self.features, indices=pool)
        val, test = (split_features(encoder, data, split, most=self.features) for split in ("val", "test"))

        def training_set(indices: Int[np.ndarray, "M"], targets: Int[Tensor, "M ..."]) -> TrainingSet:
            rows = train.rows(indices)
            return TrainingSet(rows[rows >= 0], targets[rows >= 0])

        full = training_set(chosen, known[torch.from_numpy(chosen)])
        few = {k: [training_set(*each) for each in of_k] for k, of_k in drawn.items()}
        val = val.drawn(self.val_images, seed=self.seed)
        found: list[Score] = []
        best, best_quality = encoder.stages[-1].name, -1.0
        for stage, values in train.stages.items():
            inputs = unit(values)
            # along principal axes the solver's diagonal preconditioner is nearly exact
            axes = torch.linalg.eigh(inputs.T.double() @ inputs.double()).eigenvectors.float()
            inputs, val_inputs, test_inputs = (
                each @ axes for each in (inputs, unit(val.stages[stage]), unit(test.stages[stage]))
            )
            weights = self.fit(inputs[full.rows], full.targets, len(data.classes))
            reached = quality(val_inputs @ weights, val.targets)
            if reached > best_quality:
                best, best_quality = stage, reached
            judge = partial(classification_scores, targets=test.targets, training=known, stage=stage, spec=data.spec)
            found += judge(test_inputs @ weights)
            for k, samples in few.items():
                fitted = [self._of_all_costs(inputs[rows], targets, len(data.classes)) for rows, targets in samples]
                cost = best_of(
                    [
                        float(np.mean([quality(val_inputs @ weights[i], val.targets) for weights in fitted]))
                        for i in range(len(self.costs))
                    ]
                )
                of_samples = [judge(test_inputs @ weights[cost]) for weights in fitted]
                found += every_metric_over_samples(of_samples, f"{{}}@k={k}")
        yield from with_headline(found, best)

    def _samples(self, train_data: ImageDataset, known: Int[Tensor, "N ..."]) -> dict[int, list[Sample]]:
        """Return the low-shot samples of each k."""
        if self.samples_from is not None:
            folder, numbers = Path(self.samples_from), range(1, self.samples + 1)
            return {k: [read_sample(folder, train_data, known, k=k, number=i) for i in numbers] for k in self.shots}
        return {
            k: [few_of_each(known, k, sample=sample) for sample in range(self.samples)]
            for k in reached_by_all(train_data, known, self.shots)
        }

    def fit(self, inputs: Float[Tensor, "N D"], targets: Int[Tensor, "N ..."], classes: int) -> Float[Tensor, "D K"]:
        """Return the SVMs of all classes, with costs chosen by cross-validation.

        Args:
            inputs: See `unit`; fastest along their principal axes.
            targets: See `class_targets`.
            classes: Number of classes K.
        """
        costs = torch.tensor(self.costs)
        which = self._chosen_costs(inputs, targets, classes) if len(costs) > 1 else torch.zeros(classes).long()
        return solve(inputs, signs_of(targets, classes), costs[which], positive_weight=self.positive_weight)

    def _chosen_costs(
        self, inputs: Float[Tensor, "N D"], targets: Int[Tensor, "N ..."], classes: int
    ) -> Int[Tensor, "K"]:
        """Return the index into `costs` for each class: the best on the held-out folds."""
        fold = torch.empty(len(targets), dtype=torch.int64)
        fold[torch.from_numpy(np.argsort(strata(targets), kind="stable"))] = torch.arange(len(targets)) % self.folds
        held_out = torch.zeros(len(self.costs), len(targets), classes)
        for i in range(self.folds):
            weights = self._of_all_costs(inputs[fold != i], targets[fold != i], classes)
            held_out[:, fold == i] = inputs[fold == i] @ weights
        if targets.ndim == 1:
            return torch.full((classes,), best_of([quality(scores, targets) for scores in held_out]))
        parts = [fold == i for i in range(self.folds) if (fold == i).any()]
        reached = [
            torch.stack([average_precisions(scores[part], targets[part]) for part in parts]).nanmean(0)
            for scores in held_out
        ]
        return torch.stack(reached).nan_to_num(nan=-1.0).argmax(0)

    def _of_all_costs(
        self, inputs: Float[Tensor, "N D"], targets: Int[Tensor, "N ..."], classes: int
    ) -> Float[Tensor, "C D K"]:
        """Return the SVMs of every cost."""
        signs = signs_of(targets, classes).repeat(1, len(self.costs))
        costs = torch.tensor(self.costs).repeat_interleave(classes)
        weights = solve(inputs, signs, costs, positive_weight=self.positive_weight)
        return weights.reshape(-1, len(self.costs), classes).movedim(1, 0)


def unit(features: Float[Tensor, "N D"]) -> Float[Tensor, "N D1"]:
    """Return unit features with a constant 1 appended for the bias, as liblinear does with intercept scaling 1."""
    return F.pad(F.normalize(features, dim=1), (0, 1), value=1.0)


def signs_of(targets: Int[Tensor, "N ..."], classes: int) -> Float[Tensor, "N K"]:
    """Return 1 where an image shows a class, -1 where it does not, 0 where that is unknown."""
    if targets.ndim == 1:
        return 2 * F.one_hot(targets, classes).float() - 1
    return torch.where(targets >= 0, 2 * targets - 1, 0).float()


def best_of(qualities: list[float]) -> int:
    """Return the index of the first maximum; nan ranks last."""
    return max(range(len(qualities)), key=lambda i: (qualities[i] == qualities[i], qualities[i]))


def solve(
    inputs: Float[Tensor, "N D"],
    signs: Float[Tensor, "N P"],
    costs: Float[Tensor, "P"],
    *,
    positive_weight: float,
    tolerance: float = 1e-5,
    rounds: int = 50,
) -> Float[Tensor, "D P"]:
    """Return the weights w that minimise ½|w|² + cost · Σ weight · max(0, 1 - sign · w·input)² for P problems.

    Newton's method runs on all problems in parallel. Conjugate gradients, preconditioned by the Hessian's diagonal,
    find each step. A step that overshoots is halved.

    Args:
        inputs: Inputs, shared by all problems.
        signs: 1, -1, or 0 for an input that a problem does not use.
        costs: One per problem.
        positive_weight: Weight of inputs with sign 1; the others have weight 1.
        tolerance: Stop after the step from a point whose objective is estimated to be within this relative distance
            of its minimum; the result is much closer.
        rounds: Maximum number of Newton steps; 5 to 10 are usual.

    Source: Keerthi and DeCoste 2005 (the finite Newton method); the objective is that of Fan et al. 2008 (LIBLINEAR).
    """
    at_once = max(1, AT_ONCE // len(inputs))
    parts = [slice(start, start + at_once) for start in range(0, len(costs), at_once)]
    found = [_newton(inputs, signs[:, part], costs[part], positive_weight, tolerance, rounds) for part in parts]
    return torch.cat(found, dim=1)


def _newton(
    inputs: Tensor, signs: Tensor, costs: Tensor, positive_weight: float, tolerance: float, rounds: int
) -> Tensor:
    importance = costs * torch.where(signs > 0, positive_weight, signs.square())
    diagonal = 1 + 2 * inputs.square().T @ importance
    weights, outputs = inputs.new_zeros(inputs.shape[1], len(costs)), torch.zeros_like(signs)
    found, which = torch.zeros_like(weights), torch.arange(len(costs))

    def objective(weights: Tensor, outputs: Tensor) -> Tensor:
        return 0.5 * weights.square().sum(0) + (importance * (1 - signs * outputs).clamp(min=0).square()).sum(0)

    for _ in range(rounds):
        hinge = (1 - signs * outputs).clamp(min=0)
        gradient = weights - 2 * inputs.T @ (importance * signs * hinge)
        step, change = _conjugate_gradients(inputs, 2 * importance * (hinge > 0), gradient, diagonal)
        value, slope = objective(weights, outputs), (gradient * step).sum(0)
        length = torch.ones_like(value)
        for _ in range(12):
            new = objective(weights + length * step, outputs + length * change)
            too_long = new > value + 1e-4 * length * slope + 1e-6 * value  # the last term allows for rounding
            if not too_long.any():
                break
            length = torch.where(too_long, length / 2, length)
        weights, outputs = weights + length * step, outputs + length * change
        found[:, which] = weights
        active = -slope > 2 * tolerance * value
        if not active.any():
            break
        which, signs, importance, diagonal, weights, outputs = (
            each[..., active] for each in (which, signs, importance, diagonal, weights, outputs)
        )
    return found


def _conjugate_gradients(
    inputs: Tensor, curvature: Tensor, gradient: Tensor, diagonal: Tensor, most: int = 100
) -> tuple[Tensor, Tensor]:
    """Return the Newton step of every problem, and the change of the outputs."""
    step, change = torch.zeros_like(gradient), torch.zeros_like(curvature)
    left = -gradient
    scaled = left / diagonal
    direction, energy = scaled, (left * scaled).sum(0)
    enough = 1e-2 * energy  # a tenth of the initial norm
    for _ in range(most):
        seen = inputs @ direction
        bent = direction + inputs.T @ (curvature * seen)
        length = energy / (direction * bent).sum(0).clamp(min=1e-30)
        step, change, left = step + length * direction, change + length * seen, left - length * bent
        scaled = left / diagonal
        new = (left * scaled).sum(0)
        if (new <= enough).all():
            break
        direction, energy = scaled + new / energy.clamp(min=1e-30) * direction, new
    return step, change
