"""Linear probe: a linear classifier on each stage of the frozen encoder, from few labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from downstream.classification import classification_scores, quality, with_headline
from downstream.features import labelled_features
from pretext.datasets.base import ImageDataset
from pretext.encoders.base import Encoder
from pretext.judging import Probe, Score


@final
@dataclass(frozen=True)
class Linear(Probe):
    """Logistic regression on standardised features; stage and penalty are chosen on val, every stage is told.

    Source: Zhang et al. 2016 and Goyal et al. 2019 (AlexNet's stages, pooled to about the same size).
    Deviations: few labels; L-BFGS on the whole objective in place of SGD, so that there is no learning rate.
    """

    needs: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"label"}), frozenset({"labels"}))

    train_images: int = 400
    """Labelled pictures, drawn by the seed, classes in turn; 0 takes all."""
    val_images: int = 1000
    """Pictures on which stage and penalty are chosen, at most; 0 takes all."""
    features: int = 1024
    """Numbers a picture that a stage is pooled to, at most."""
    penalties: tuple[float, ...] = (1.0, 0.1, 0.01, 0.001)
    """Weights of half the squared norm of the classifier, beside the mean loss; tried from the first to the last."""
    iterations: int = 60
    """Of L-BFGS for each penalty, each starting from the one before."""

    def __post_init__(self) -> None:
        for name in ("train_images", "val_images"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed is 0 or more")
        for name in ("features", "iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed is 1 or more")
        if not self.penalties or min(self.penalties) < 0:
            raise ValueError(f"penalties are {self.penalties}; give one or more, each 0 or above")

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Yield top-1 and top-5, or mAP, of every stage. See `Probe.evaluate`."""
        if not self.can_judge(data):
            data.require("label")
        train, val, test = labelled_features(
            encoder, data, train_images=self.train_images, most=self.features, seed=self.seed
        )
        found: list[Score] = []
        best, best_quality = encoder.stages[-1].name, -1.0
        for stage in train.stages:
            kept = slice(self.val_images or None)
            classifier, reached = self.fit(
                train.stages[stage],
                train.targets,
                val.stages[stage][kept],
                val.targets[kept],
                len(data.classes),
            )
            if reached > best_quality:
                best, best_quality = stage, reached
            found += classification_scores(classifier(test.stages[stage]), test.targets, stage=stage, spec=data.spec)
        yield from with_headline(found, best)

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
        weight, bias = torch.zeros(classes, features.shape[1]), torch.zeros(classes)
        best, best_quality = Classifier(mean, scale, weight, bias), -1.0
        for penalty in self.penalties:
            weight, bias = minimise(inputs, targets, weight, bias, penalty=penalty, iterations=self.iterations)
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
    """Return the mean cross-entropy (one class a picture) or the mean over pictures of binary ones, and the penalty."""
    if targets.ndim == 1:
        loss = F.cross_entropy(logits, targets)
    else:
        known = targets >= 0
        each = F.binary_cross_entropy_with_logits(logits, targets.clamp(min=0).to(logits), reduction="none")
        loss = (each * known).sum() / max(1, len(targets))
    return loss + 0.5 * penalty * weight.square().sum()


def minimise(
    inputs: Float[Tensor, "N D"],
    targets: Int[Tensor, "N ..."],
    weight: Float[Tensor, "K D"],
    bias: Float[Tensor, "K"],
    *,
    penalty: float,
    iterations: int,
) -> tuple[Float[Tensor, "K D"], Float[Tensor, "K"]]:
    """Return weight and bias that minimise `objective`, from where they are given; L-BFGS with strong Wolfe steps."""
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=iterations,
        history_size=10,
        tolerance_grad=1e-5,
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = objective(F.linear(inputs, weight, bias), targets, weight, penalty)
        torch.autograd.backward(loss)
        return loss

    with torch.enable_grad():
        solver.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
