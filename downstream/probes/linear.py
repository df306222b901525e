"""Linear probe: a linear classifier on each stage of the frozen encoder, from few labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from downstream.classification import ClassProbe, classification_scores, quality, with_headline
from downstream.features import Features, labelled_features
from pretext.datasets.base import ImageDataset
from pretext.encoders.base import Encoder
from pretext.judging import Score
from pretext.modules.losses import many_class_terms
from pretext.system.ranges import check_range

SAMPLED = 512
"""Maximum number of inputs used to estimate the principal directions."""
DIRECTIONS = 256
"""Maximum number of principal directions used."""
HISTORY = 10
"""Number of past steps that L-BFGS uses."""


@final
@dataclass(frozen=True)
class Linear(ClassProbe):
    """Logistic regression on frozen features; stage and penalty are chosen on val.

    Features are standardised. Every stage is reported, each with its best penalty.

    Source: Zhang et al. 2016 and Goyal et al. 2019 (AlexNet's stages, pooled to about the same size).
    Deviations: few labels; full-batch L-BFGS instead of SGD, so that there is no learning rate; each penalty starts
    from the solution of the one before. `benchmarks/timing/speed.py --linear` compares its speed with scikit-learn.
    """

    reads_features: ClassVar[bool] = True

    train_images: int = 400
    """Number of labelled training images, drawn by the seed, balanced by class; 0 uses all."""
    val_images: int = 1000
    """Number of val images that choose stage and penalty, drawn like the training images; 0 uses all."""
    features: int = 1024
    """Maximum number of features per image after pooling a stage."""
    penalties: tuple[float, ...] = (1.0, 0.1, 0.01, 0.001)
    """L2 penalties to try, in this order: weights of half the squared norm, added to the mean loss."""
    iterations: int = 60
    """Maximum number of L-BFGS iterations per penalty; 10 to 25 are usual."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "train_images", "val_images", least=0)
        check_range(self, "features", "iterations", least=1)
        if not self.penalties or not all(0 <= penalty < math.inf for penalty in self.penalties):
            raise ValueError(f"penalties are {self.penalties}; give one or more, each 0 or above")

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Yield top-1, top-5 and mean per-class accuracy, or mAP, for every stage. See `Probe.evaluate`."""
        if not self.can_judge(data):
            data.require("label")
        train, val, test = labelled_features(
            encoder, data, train_images=self.train_images, most=self.features, seed=self.seed
        )
        classifiers, best = self.classifiers(train, val, len(data.classes))
        found: list[Score] = []
        for stage, classifier in classifiers.items():
            logits = classifier(test.stages[stage])
            found += classification_scores(
                logits, test.targets, training=train.split_targets, stage=stage, spec=data.spec
            )
        yield from with_headline(found, best)

    def classifiers(self, train: Features, val: Features, classes: int) -> tuple[dict[str, Classifier], str]:
        """Return the classifier of every stage, and the stage that does best on val."""
        val = val.drawn(self.val_images, seed=self.seed)
        found = {
            stage: self.fit(features, train.targets, val.stages[stage], val.targets, classes)
            for stage, features in train.stages.items()
        }
        known = {stage: reached for stage, (_, reached) in found.items() if math.isfinite(reached)}
        best = max(known, key=lambda stage: known[stage]) if known else [*found][-1]
        return {stage: classifier for stage, (classifier, _) in found.items()}, best

    def fit(
        self,
        features: Float[Tensor, "N D"],
        targets: Int[Tensor, "N ..."],
        val_features: Float[Tensor, "V D"],
        val_targets: Int[Tensor, "V ..."],
        classes: int,
    ) -> tuple[Classifier, float]:
        """Return the classifier with the best penalty on val, and its `quality` there."""
        mean = features.mean(0)
        scale = features.std(0, unbiased=False).clamp(min=1e-6)
        inputs = (features - mean) / scale
        directions = principal(inputs)
        weight, bias = torch.zeros(classes, features.shape[1]), torch.zeros(classes)
        best, best_quality = Classifier(mean, scale, weight, bias), -1.0
        for penalty in self.penalties:
            weight, bias = minimise(
                inputs, targets, weight, bias, penalty=penalty, iterations=self.iterations, directions=directions
            )
            classifier = Classifier(mean, scale, weight, bias)
            reached = quality(classifier(val_features), val_targets)
            if reached > best_quality or best_quality < 0:
                best, best_quality = classifier, reached
        return best, best_quality


class Classifier:
    """A linear classifier that standardises its inputs."""

    def __init__(self, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> None:
        self.mean, self.scale, self.weight, self.bias = mean, scale, weight, bias

    def __call__(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Return the logits."""
        return F.linear((features - self.mean) / self.scale, self.weight, self.bias)


def objective(
    logits: Float[Tensor, "N K"], targets: Int[Tensor, "N ..."], weight: Float[Tensor, "K D"], penalty: float
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy plus the penalty.

    With several classes per image, the mean over images of the sum of the binary cross-entropies. This is K
    independent logistic regressions; `many_class_loss` would weaken the penalty of each with the number of classes.
    """
    if targets.ndim == 1:
        loss = F.cross_entropy(logits, targets)
    else:
        loss = many_class_terms(logits, targets).sum() / max(1, len(targets))
    return loss + 0.5 * penalty * weight.square().sum()


class Directions(NamedTuple):
    """Principal directions of the inputs, from which the solver builds its preconditioner."""

    vectors: Float[Tensor, "D R"]
    """Matrix with orthonormal columns."""
    variances: Float[Tensor, "R"]
    """Variances of the inputs along `vectors`, in descending order."""


def principal(inputs: Float[Tensor, "N D"]) -> Directions:
    """Return the directions of largest variance, estimated on a random sample of the inputs.

    Args:
        inputs: Centred inputs.
    """
    rows = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[:SAMPLED].to(inputs.device)
    part = inputs[rows]
    squares, vectors = torch.linalg.eigh(part @ part.T)
    squares, vectors = squares.flip(0)[:DIRECTIONS], vectors.flip(1)[:, :DIRECTIONS]
    kept = squares > 1e-5 * squares[0]
    return Directions(part.T @ vectors[:, kept] / squares[kept].sqrt(), squares[kept] / len(part))


def minimise(
    inputs: Float[Tensor, "N D"],
    targets: Int[Tensor, "N ..."],
    weight: Float[Tensor, "K D"],
    bias: Float[Tensor, "K"],
    *,
    penalty: float,
    iterations: int,
    tolerance: float = 1e-5,
    directions: Directions | None = None,
) -> tuple[Float[Tensor, "K D"], Float[Tensor, "K"]]:
    """Return the weight and the bias that minimise `objective`, by preconditioned L-BFGS.

    Plain L-BFGS spends most of its passes over the data on learning that features vary much more in some directions
    than in others. Here the initial Hessian is c·Σ + penalty. Σ is the inputs' covariance along their principal
    directions and constant in all others; c is the mean of p(1 - p) at the start. A full step is then nearly always
    accepted, and gradient·step / 2 estimates how far the loss is above its minimum.

    Args:
        inputs: Centred inputs, preferably of similar scale.
        targets: See `class_targets`; at least one.
        weight: Initial weight.
        bias: Initial bias.
        penalty: See `objective`.
        iterations: Maximum number of iterations.
        tolerance: Stop when the estimated distance of the loss from its minimum is below this.
        directions: `principal(inputs)`; computed if None.
    """
    directions = principal(inputs) if directions is None else directions

    def evaluate(at: Tensor) -> tuple[float, Tensor, Tensor]:
        weight, bias = at[:, :-1], at[:, -1]
        logits = torch.addmm(bias, inputs, weight.T.contiguous())
        with torch.enable_grad():  # only up to the logits: the products below are faster than autograd
            loss = objective(logits.requires_grad_(), targets, weight, penalty)
        by_logit = torch.autograd.grad(loss, logits)[0]
        gradient = torch.cat([by_logit.T @ inputs + penalty * weight, by_logit.sum(0)[:, None]], dim=1)
        return loss.item(), gradient, logits.detach()

    at = torch.cat([weight, bias[:, None]], dim=1)
    loss, gradient, logits = evaluate(at)
    probability = logits.softmax(1) if targets.ndim == 1 else logits.sigmoid()
    curvature = float((probability * (1 - probability)).mean().clamp(min=1e-3))
    vectors, variances = directions
    rest = curvature * float(variances[-1]) + penalty if len(variances) else 1.0
    shrink = rest / (curvature * variances + penalty) - 1

    def preconditioned(gradient: Tensor) -> Tensor:
        main, last = gradient[:, :-1], gradient[:, -1:]
        return torch.cat([(main + (main @ vectors * shrink) @ vectors.T) / rest, last / curvature], dim=1)

    history: list[tuple[Tensor, Tensor]] = []
    for _ in range(iterations):
        step = _two_loops(gradient, history, preconditioned)
        slope = float((gradient * step).sum())
        if not slope / 2 > tolerance:
            break
        size, (new_loss, new_gradient, _) = 1.0, evaluate(at - step)
        while new_loss > loss - 1e-4 * size * slope and size > 1e-3:
            size /= 2
            new_loss, new_gradient, _ = evaluate(at - size * step)
        if not new_loss < loss:  # no further decrease at this precision
            break
        moved, change = -size * step, new_gradient - gradient
        if float((moved * change).sum()) > 0:
            history = [*history[1 - HISTORY :], (moved, change)]
        at, loss, gradient = at + moved, new_loss, new_gradient
    return at[:, :-1].clone(), at[:, -1].clone()


def _two_loops(
    gradient: Tensor, history: list[tuple[Tensor, Tensor]], preconditioned: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the L-BFGS step: the approximate inverse Hessian times the gradient.

    Source: Nocedal and Wright 2006, algorithm 7.4 and equation 7.20 (the initial scale in the preconditioned metric).
    """
    shares = []
    for moved, change in reversed(history):
        share = (moved * gradient).sum() / (moved * change).sum()
        gradient = gradient - share * change
        shares.append(share)
    step = preconditioned(gradient)
    if history:
        moved, change = history[-1]
        step = step * ((moved * change).sum() / (change * preconditioned(change)).sum())
    for (moved, change), share in zip(history, reversed(shares), strict=True):
        step = step + (share - (change * step).sum() / (moved * change).sum()) * moved
    return step
