"""Linear SVMs on each stage of the frozen encoder: from all labels that are allowed, and from k pictures a class."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from downstream.classification import average_precisions, classification_scores, quality, with_headline
from downstream.features import split_features
from downstream.label_sampling import (
    check_classes,
    draw_labelled,
    few_of_each,
    over_samples,
    reached_by_all,
    strata,
)
from downstream.probes.linear import Linear
from downstream.sample_files import Sample, read_sample, write_samples
from pretext.datasets import at_size
from pretext.datasets.base import ImageDataset
from pretext.datasets.classification import class_targets
from pretext.encoders.base import Encoder
from pretext.judging import Probe, Score

AT_ONCE = 2**25
"""Pictures times problems that are solved side by side; bounds the memory."""


class Taught(NamedTuple):
    """What is learnt from: rows of the training features, and what they are said to show."""

    rows: Int[Tensor, "M"]
    targets: Int[Tensor, "M ..."]


@final
@dataclass(frozen=True)
class Svm(Probe):
    """One-vs-rest linear SVMs (L2, squared hinge) on features of length 1; mAP, or top-1 where a picture has one class.

    Full-shot, the cost is chosen by cross-validation: of each class by itself for mAP, and one of all for top-1, where
    classes compete. Low-shot, k pictures a class are too few to be divided: one cost for each k does best on val.
    Every stage is told; the headline is full-shot, at the stage that does best on val.

    The low-shot samples depend on the place of a picture in the training split alone, not on the seed; k pictures are
    a part of 2k. A k that some class does not reach is left out, and a line says so. `sd` is the standard deviation
    over samples, with one degree of freedom less than there are samples.

    Source: Goyal et al. 2019, arXiv 1905.01235, and its published code (features of length 1, weight 2 for the
        pictures that show the class, three folds, costs 0.1, 0.01 and 2^-4, 2^-5, …, 2^-19).
    Deviations: fewer and larger costs by default, for fewer features of smaller encoders; the published code seems to
        take the low-shot cost that is best on test; its sample files list pictures of VOC 2007 trainval and say nothing
        of other data, so that they are not part of this package (`samples_from` reads them): samples are drawn in the
        same manner, save that a class's negatives are the pictures drawn for other classes. The objective is
        liblinear's; Newton's method solves it for all classes and costs together, since liblinear took seconds where
        this takes tenths.
    """

    needs: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"label"}), frozenset({"labels"}))

    train_images: int = 1000
    """Labelled pictures of the full-shot SVMs, drawn by the seed, classes in turn; 0 takes all."""
    val_images: int = Linear.val_images
    """Pictures on which stage and low-shot cost are chosen, drawn as those for training; 0 takes all."""
    features: int = Linear.features
    """Numbers a picture that a stage is pooled to, at most."""
    costs: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    """Weights of the summed losses beside half the squared norm; where two do equally well, the first is taken."""
    folds: int = 3
    """Of the cross-validation, at least 2."""
    positive_weight: float = 2.0
    """How often a picture that shows the class counts."""
    shots: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 96)
    """Pictures a class, low-shot."""
    samples: int = 5
    """Low-shot samples."""
    samples_from: str | None = None
    """Folder of low-shot samples to take: `sample1_k4.csv` and so on, as this probe writes them, or Goyal et al.'s
    `…sample1_k4.npy`. Drawn where None."""

    def __post_init__(self) -> None:
        for name, least in (("train_images", 0), ("val_images", 0), ("features", 1), ("folds", 2), ("samples", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed is {least} or more")
        if not self.costs or not all(0 < cost < math.inf for cost in self.costs):
            raise ValueError(f"costs are {self.costs}; give one or more, each above 0")
        if not 0 < self.positive_weight < math.inf:
            raise ValueError(f"positive_weight is {self.positive_weight}; allowed is above 0")
        if not all(k >= 1 for k in self.shots):
            raise ValueError(f"shots are {self.shots}; each is at least 1")

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Yield top-1 and top-5, or mAP, of every stage, and those of each k. See `Probe.evaluate`.

        Writes the samples that were drawn to the folder `samples`.
        """
        if not self.can_judge(data):
            data.require("label")
        pictures = at_size(data.split("train"), encoder.input_size, bad_images="skip")
        known = class_targets(pictures)
        chosen = draw_labelled(known, self.train_images, seed=self.seed)
        check_classes(data.spec, known[torch.from_numpy(chosen)])
        drawn = self._samples(pictures, known)
        if out is not None and self.samples_from is None:
            write_samples(out / "samples", pictures, drawn)
        pool = np.unique(np.concatenate([chosen, *(indices for each in drawn.values() for indices, _ in each)]))
        train = split_features(encoder, data, "train", most=self.features, indices=pool)
        val, test = (split_features(encoder, data, split, most=self.features) for split in ("val", "test"))

        def taught(indices: Int[np.ndarray, "M"], targets: Int[Tensor, "M ..."]) -> Taught:
            rows = train.rows(indices)
            return Taught(rows[rows >= 0], targets[rows >= 0])

        full = taught(chosen, known[torch.from_numpy(chosen)])
        few = {k: [taught(*each) for each in of_k] for k, of_k in drawn.items()}
        val = val.drawn(self.val_images, seed=self.seed)
        found: list[Score] = []
        best, best_quality = encoder.stages[-1].name, -1.0
        for stage, values in train.stages.items():
            inputs = unit(values)
            # along principal axes the solver's guess of the curvature is right at the start
            axes = torch.linalg.eigh(inputs.T.double() @ inputs.double()).eigenvectors.float()
            inputs, val_inputs, test_inputs = (
                each @ axes for each in (inputs, unit(val.stages[stage]), unit(test.stages[stage]))
            )
            weights = self.fit(inputs[full.rows], full.targets, len(data.classes))
            reached = quality(val_inputs @ weights, val.targets)
            if reached > best_quality:
                best, best_quality = stage, reached
            found += classification_scores(test_inputs @ weights, test.targets, stage=stage, spec=data.spec)
            for k, samples in few.items():
                fitted = [self._of_all_costs(inputs[rows], targets, len(data.classes)) for rows, targets in samples]
                cost = best_of(
                    [
                        float(np.mean([quality(val_inputs @ weights[i], val.targets) for weights in fitted]))
                        for i in range(len(self.costs))
                    ]
                )
                scores = [
                    classification_scores(test_inputs @ weights[cost], test.targets, stage=stage, spec=data.spec)[0]
                    for weights in fitted
                ]
                found += over_samples(scores, f"{scores[0].metric}@k={k}")
        yield from with_headline(found, best)

    def _samples(self, pictures: ImageDataset, known: Int[Tensor, "N ..."]) -> dict[int, list[Sample]]:
        """Return the low-shot samples of each k."""
        if self.samples_from is not None:
            folder, numbers = Path(self.samples_from), range(1, self.samples + 1)
            return {k: [read_sample(folder, pictures, known, k=k, number=i) for i in numbers] for k in self.shots}
        return {
            k: [few_of_each(known, k, sample=sample) for sample in range(self.samples)]
            for k in reached_by_all(pictures, known, self.shots)
        }

    def fit(self, inputs: Float[Tensor, "N D"], targets: Int[Tensor, "N ..."], classes: int) -> Float[Tensor, "D K"]:
        """Return the SVMs of all classes, their costs chosen by cross-validation.

        Args:
            inputs: See `unit`; fastest along their principal axes.
            targets: See `class_targets`.
            classes: K.
        """
        costs = torch.tensor(self.costs)
        which = self._chosen_costs(inputs, targets, classes) if len(costs) > 1 else torch.zeros(classes).long()
        return solve(inputs, signs_of(targets, classes), costs[which], positive_weight=self.positive_weight)

    def _chosen_costs(
        self, inputs: Float[Tensor, "N D"], targets: Int[Tensor, "N ..."], classes: int
    ) -> Int[Tensor, "K"]:
        """Return each class's cost, as a number into `costs`: the best on pictures that were held out."""
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
    """Return features at length 1, and a 1 that bears the bias, as in liblinear with an intercept scaling of 1."""
    return F.pad(F.normalize(features, dim=1), (0, 1), value=1.0)


def signs_of(targets: Int[Tensor, "N ..."], classes: int) -> Float[Tensor, "N K"]:
    """Return 1 where a picture shows a class, -1 where it does not, 0 where that is unknown."""
    if targets.ndim == 1:
        return 2 * F.one_hot(targets, classes).float() - 1
    return torch.where(targets >= 0, 2 * targets - 1, 0).float()


def best_of(qualities: list[float]) -> int:
    """Return the place of the first of the largest; nan is below all."""
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
    """Return the weights w that minimise ½|w|² + cost · Σ weight · max(0, 1 - sign · w·input)², of P problems.

    Newton's method on all problems side by side, each step by conjugate gradients with the Hessian's diagonal as
    preconditioner, halved where it overshoots.

    Args:
        inputs: Of all problems.
        signs: 1, -1, or 0 for an input that a problem does not have.
        costs: One a problem.
        positive_weight: Of inputs with sign 1; the others have 1.
        tolerance: The last step starts where the objective is above its minimum by this share of itself, as Newton's
            method estimates it; it ends far nearer.
        rounds: Newton steps, at most; it mostly takes 5 to 10.

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
        missing = (1 - signs * outputs).clamp(min=0)
        gradient = weights - 2 * inputs.T @ (importance * signs * missing)
        step, change = _conjugate_gradients(inputs, 2 * importance * (missing > 0), gradient, diagonal)
        value, slope = objective(weights, outputs), (gradient * step).sum(0)
        length = torch.ones_like(value)
        for _ in range(12):
            new = objective(weights + length * step, outputs + length * change)
            too_long = new > value + 1e-4 * length * slope + 1e-6 * value  # the last is rounding
            if not too_long.any():
                break
            length = torch.where(too_long, length / 2, length)
        weights, outputs = weights + length * step, outputs + length * change
        found[:, which] = weights
        going_on = -slope > 2 * tolerance * value
        if not going_on.any():
            break
        which, signs, importance, diagonal, weights, outputs = (
            each[..., going_on] for each in (which, signs, importance, diagonal, weights, outputs)
        )
    return found


def _conjugate_gradients(
    inputs: Tensor, curvature: Tensor, gradient: Tensor, diagonal: Tensor, most: int = 100
) -> tuple[Tensor, Tensor]:
    """Return the Newton step of every problem, and by how much it changes the outputs."""
    step, change = torch.zeros_like(gradient), torch.zeros_like(curvature)
    left = -gradient
    scaled = left / diagonal
    direction, energy = scaled, (left * scaled).sum(0)
    enough = 1e-2 * energy  # a tenth of the norm
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
