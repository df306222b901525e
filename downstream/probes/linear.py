"""Linear probe: a linear classifier on each stage of the frozen encoder, from few labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
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
DIRECTIONS = 64
"""Maximum number of principal directions used; the sample knows further ones too badly to help."""
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
    revision: ClassVar[int] = 1

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
        found: list[tuple[Classifier, float]] = []
        for solution in minimise(inputs, targets, classes, penalties=self.penalties, iterations=self.iterations):
            classifier = Classifier(mean, scale, *solution)
            found.append((classifier, quality(classifier(val_features), val_targets)))
        known = [each for each in found if math.isfinite(each[1])]
        return max(known or found[:1], key=lambda each: each[1])


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


class _Point(NamedTuple):
    """Weights and what is known of them; without the penalty, so that every penalty can start from it."""

    at: Float[Tensor, "K D+1"]
    """Weight, and the bias as the last column."""
    logits: Float[Tensor, "N K"]
    loss: float
    gradient: Float[Tensor, "K D+1"]

    def penalised(self, penalty: float) -> tuple[float, Float[Tensor, "K D+1"]]:
        """Return the objective and its gradient."""
        weight = F.pad(self.at[:, :-1], (0, 1))  # the bias is free
        return self.loss + 0.5 * penalty * float(weight.square().sum()), self.gradient + penalty * weight


def minimise(
    inputs: Float[Tensor, "N D"],
    targets: Int[Tensor, "N ..."],
    classes: int,
    *,
    penalties: Sequence[float],
    iterations: int,
    tolerance: float = 1e-5,
    directions: Directions | None = None,
) -> Iterator[tuple[Float[Tensor, "K D"], Float[Tensor, "K"]]]:
    """Yield the weight and the bias that minimise `objective` for each penalty, by preconditioned L-BFGS.

    The first penalty starts from zero, each other one from the solution of the one before.

    Plain L-BFGS spends most of its passes over the data on learning that features vary much more in some directions
    than in others. Here the initial Hessian is c·Σ + penalty. Σ is the inputs' covariance along their principal
    directions and constant in all others; c is the mean of p(1 - p) at the start. A full step is then nearly always
    accepted, and gradient·step / 2 estimates how far the loss is above its minimum.

    Args:
        inputs: Centred inputs, preferably of similar scale.
        targets: See `class_targets`; at least one.
        classes: Number of classes, K.
        penalties: See `objective`; in this order.
        iterations: Maximum number of iterations per penalty.
        tolerance: Stop when the estimated distance of the loss from its minimum is below this.
        directions: `principal(inputs)`; computed if None.
    """
    directions = principal(inputs) if directions is None else directions

    def point(at: Tensor, logits: Tensor) -> _Point:
        with torch.enable_grad():  # only up to the logits: the product below is faster than autograd
            loss = objective(logits.requires_grad_(), targets, at, 0.0)
        by_logit = torch.autograd.grad(loss, logits)[0]
        gradient = torch.cat([by_logit.T @ inputs, by_logit.sum(0)[:, None]], dim=1)
        return _Point(at, logits.detach(), loss.item(), gradient)

    def evaluate(at: Tensor) -> _Point:
        return point(at, torch.addmm(at[:, -1:], at[:, :-1], inputs.T).T)

    start = inputs.new_zeros(classes, inputs.shape[1] + 1)
    reached = point(start, inputs.new_zeros(len(inputs), classes))
    for penalty in penalties:
        reached = _descended(reached, evaluate, targets, directions, penalty, iterations, tolerance)
        yield reached.at[:, :-1].clone(), reached.at[:, -1].clone()


def _descended(
    start: _Point,
    evaluate: Callable[[Tensor], _Point],
    targets: Int[Tensor, "N ..."],
    directions: Directions,
    penalty: float,
    iterations: int,
    tolerance: float,
) -> _Point:
    """Return the minimum for one penalty. See `minimise`."""
    probability = start.logits.softmax(1) if targets.ndim == 1 else start.logits.sigmoid()
    curvature = float((probability * (1 - probability)).mean().clamp(min=1e-3))
    vectors, variances = directions
    rest = curvature * float(variances[-1]) + penalty if len(variances) else 1.0
    shrink = rest / (curvature * variances + penalty) - 1

    def preconditioned(gradient: Tensor) -> Tensor:
        main, last = gradient[:, :-1], gradient[:, -1:]
        return torch.cat([(main + (main @ vectors * shrink) @ vectors.T) / rest, last / curvature], dim=1)

    reached = start
    loss, gradient = start.penalised(penalty)
    history: list[_Step] = []
    for _ in range(iterations):
        step = _two_loops(gradient, history, preconditioned)
        slope = _dot(gradient, step)
        if not slope / 2 > tolerance:
            break
        size = 1.0
        tried = evaluate(reached.at - step)
        new_loss, new_gradient = tried.penalised(penalty)
        while new_loss > loss - 1e-4 * size * slope and size > 1e-3:
            size /= 2
            tried = evaluate(reached.at - size * step)
            new_loss, new_gradient = tried.penalised(penalty)
        if not new_loss < loss:  # no further decrease at this precision
            break
        moved, change = -size * step, new_gradient - gradient
        if (product := _dot(moved, change)) > 0:
            history = [*history[1 - HISTORY :], (moved, change, product)]
        reached, loss, gradient = tried, new_loss, new_gradient
    return reached


_Step = tuple[Tensor, Tensor, float]
"""How the weights moved, how the gradient changed, and the product of the two."""


def _two_loops(gradient: Tensor, history: list[_Step], preconditioned: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the L-BFGS step: the approximate inverse Hessian times the gradient.

    Source: Nocedal and Wright 2006, algorithm 7.4 and equation 7.20 (the initial scale in the preconditioned metric).
    """
    shares = []
    for moved, change, product in reversed(history):
        share = _dot(moved, gradient) / product
        gradient = gradient - share * change
        shares.append(share)
    step = preconditioned(gradient)
    if history:
        _, change, product = history[-1]
        step = step * (product / _dot(change, preconditioned(change)))
    for (moved, change, product), share in zip(history, reversed(shares), strict=True):
        step = step + (share - _dot(change, step) / product) * moved
    return step


def _dot(one: Tensor, other: Tensor) -> float:
    return float(torch.dot(one.flatten(), other.flatten()))
