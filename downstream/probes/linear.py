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

from downstream.classification import classification_scores, quality, with_headline
from downstream.features import Features, labelled_features
from pretext.datasets.base import ImageDataset
from pretext.encoders.base import Encoder
from pretext.judging import Probe, Score
from pretext.modules.losses import many_class_terms

SKETCHED = 512
"""Rows of the inputs from which their principal directions are estimated."""
DIRECTIONS = 256
"""How many of these are used."""
REMEMBERED = 10
"""Moves that L-BFGS goes by."""


@final
@dataclass(frozen=True)
class Linear(Probe):
    """Logistic regression on standardised features; stage and penalty are chosen on val, every stage is told.

    Source: Zhang et al. 2016 and Goyal et al. 2019 (AlexNet's stages, pooled to about the same size).
    Deviations: few labels; L-BFGS on the whole objective in place of SGD, so that there is no learning rate; it
    starts each penalty where the one before ended. `benchmarks/speed.py --linear` times it beside scikit-learn's.
    """

    needs: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"label"}), frozenset({"labels"}))

    train_images: int = 400
    """Labelled pictures, drawn by the seed, classes in turn; 0 takes all."""
    val_images: int = 1000
    """Pictures on which stage and penalty are chosen, drawn as those for training; 0 takes all."""
    features: int = 1024
    """Numbers a picture that a stage is pooled to, at most."""
    penalties: tuple[float, ...] = (1.0, 0.1, 0.01, 0.001)
    """Weights of half the squared norm of the classifier, beside the mean loss; tried from the first to the last."""
    iterations: int = 60
    """Of L-BFGS for each penalty, at most; it mostly takes 10 to 25."""

    def __post_init__(self) -> None:
        for name in ("train_images", "val_images"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed is 0 or more")
        for name in ("features", "iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed is 1 or more")
        if not self.penalties or not all(0 <= penalty < math.inf for penalty in self.penalties):
            raise ValueError(f"penalties are {self.penalties}; give one or more, each 0 or above")

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Yield top-1 and top-5, or mAP, of every stage. See `Probe.evaluate`."""
        if not self.can_judge(data):
            data.require("label")
        train, val, test = labelled_features(
            encoder, data, train_images=self.train_images, most=self.features, seed=self.seed
        )
        classifiers, best = self.classifiers(train, val, len(data.classes))
        found: list[Score] = []
        for stage, classifier in classifiers.items():
            found += classification_scores(classifier(test.stages[stage]), test.targets, stage=stage, spec=data.spec)
        yield from with_headline(found, best)

    def classifiers(self, train: Features, val: Features, classes: int) -> tuple[dict[str, Classifier], str]:
        """Return every stage's classifier, and the stage whose classifier did best on val."""
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
        """Return the classifier whose penalty did best on val, and how well it did."""
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
    """A linear classifier of standardised features."""

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
    """Where inputs vary most: what the solver knows of the objective's curvature beforehand."""

    vectors: Float[Tensor, "D R"]
    """Of length 1, at right angles to one another."""
    variances: Float[Tensor, "R"]
    """Of the inputs along them, from the largest."""


def principal(inputs: Float[Tensor, "N D"]) -> Directions:
    """Return the directions of the largest variance, estimated on some of the inputs.

    Args:
        inputs: Centred.
    """
    some = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[:SKETCHED].to(inputs.device)
    part = inputs[some]
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
    """Return weight and bias that minimise `objective`, from where they are given: L-BFGS, preconditioned.

    Plain L-BFGS spends most of its passes over the data on learning that features vary far more in some directions
    than in others. Here its first guess of the Hessian is c·Σ + penalty, where Σ is the inputs' covariance along
    their principal directions and the same in all others, and c the mean of p(1 - p) at the start. With that, a
    whole step is nearly always right, and half of gradient·step is a rough guess at what the minimum lies below.

    Args:
        inputs: Centred, and best of like scale.
        targets: See `class_targets`; at least one.
        weight: Where to start.
        bias: Where to start.
        penalty: See `objective`.
        iterations: At most.
        tolerance: Ends when the minimum lies no farther below than this, by that guess.
        directions: `principal(inputs)`, where somebody has them.
    """
    directions = principal(inputs) if directions is None else directions

    def evaluate(at: Tensor) -> tuple[float, Tensor, Tensor]:
        weight, bias = at[:, :-1], at[:, -1]
        logits = torch.addmm(bias, inputs, weight.T.contiguous())
        with torch.enable_grad():  # to the logits alone: PyTorch is slow from them to the weights
            loss = objective(logits.requires_grad_(), targets, weight, penalty)
        off = torch.autograd.grad(loss, logits)[0]
        gradient = torch.cat([off.T @ inputs + penalty * weight, off.sum(0)[:, None]], dim=1)
        return loss.item(), gradient, logits.detach()

    at = torch.cat([weight, bias[:, None]], dim=1)
    loss, gradient, logits = evaluate(at)
    likely = logits.softmax(1) if targets.ndim == 1 else logits.sigmoid()
    curvature = float((likely * (1 - likely)).mean().clamp(min=1e-3))
    vectors, variances = directions
    rest = curvature * float(variances[-1]) + penalty if len(variances) else 1.0
    shrink = rest / (curvature * variances + penalty) - 1

    def scaled(gradient: Tensor) -> Tensor:
        main, last = gradient[:, :-1], gradient[:, -1:]
        return torch.cat([(main + (main @ vectors * shrink) @ vectors.T) / rest, last / curvature], dim=1)

    history: list[tuple[Tensor, Tensor]] = []
    for _ in range(iterations):
        step = _two_loops(gradient, history, scaled)
        slope = float((gradient * step).sum())
        if not slope / 2 > tolerance:
            break
        size, (new_loss, new_gradient, _) = 1.0, evaluate(at - step)
        while new_loss > loss - 1e-4 * size * slope and size > 1e-3:
            size /= 2
            new_loss, new_gradient, _ = evaluate(at - size * step)
        if not new_loss < loss:  # no more to be had at this precision
            break
        moved, turned = -size * step, new_gradient - gradient
        if float((moved * turned).sum()) > 0:
            history = [*history[1 - REMEMBERED :], (moved, turned)]
        at, loss, gradient = at + moved, new_loss, new_gradient
    return at[:, :-1].clone(), at[:, -1].clone()


def _two_loops(gradient: Tensor, history: list[tuple[Tensor, Tensor]], scaled: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the inverse Hessian, as the last moves show it, times the gradient.

    Source: Nocedal and Wright 2006, algorithm 7.4 and equation 7.20 (its first guess in the metric of `scaled`).
    """
    shares = []
    for moved, turned in reversed(history):
        share = (moved * gradient).sum() / (moved * turned).sum()
        gradient = gradient - share * turned
        shares.append(share)
    step = scaled(gradient)
    if history:
        moved, turned = history[-1]
        step = step * ((moved * turned).sum() / (turned * scaled(turned)).sum())
    for (moved, turned), share in zip(history, reversed(shares), strict=True):
        step = step + (share - (turned * step).sum() / (moved * turned).sum()) * moved
    return step
