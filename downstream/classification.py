"""Metrics of classification: top-1, top-5, mean per-class accuracy, and mean average precision over classes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from pretext.datasets import at_size
from pretext.datasets.base import ImageDataset
from pretext.datasets.classification import class_targets
from pretext.judging import Probe, Score
from pretext.system.errors import UserError

CLASS_MEAN = "mean per-class accuracy"
"""Name of the mean over classes of the share of a class's images that are classified correctly."""
NOT_SAMPLED = ("top5",)
"""Metrics that are not averaged over samples of few labels."""


@dataclass(frozen=True)
class ClassProbe(Probe):
    """A probe whose scores are those of classifying pictures."""

    needs: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"label"}), frozenset({"labels"}))

    def check_splits(self, train: ImageDataset, test: ImageDataset, size: int) -> None:
        """See `Probe.check_splits`."""
        if test.label is None and test.objects is None:  # known only after decoding
            train, test = (at_size(split, size, bad_images="skip", fit="crop") for split in (train, test))
        check_known(class_targets(test), test.spec)
        check_classes(train.spec, class_targets(train))


def classification_scores(
    scores: Float[Tensor, "N K"],
    targets: Int[Tensor, "N ..."],
    *,
    training: Int[Tensor, "M ..."] | None = None,
    stage: str = "",
    spec: str = "",
) -> list[Score]:
    """Return the metrics of one class per image, or mAP for multi-label data; the first is a probe's headline.

    With one class per image they are top-1, top-5 if there are more than five classes, and the mean per-class
    accuracy. Chance of top-k is `chance_of_top`. Chance of mAP is one score for all images: the mean share of
    positives.

    Source: Kornblith et al. 2019, table 1 (mean per-class accuracy on Caltech-101, Pets, Aircraft and Flowers).

    Args:
        scores: One per class; higher is more likely.
        targets: See `class_targets`.
        training: Targets of the whole training split, such as `Features.split_targets`, for chance of top-k; without
            them it is left out.
        stage: The encoder stage that was read.
        spec: Spec of the data set, for errors.

    Raises:
        UserError: If no image has a known class, or no class both positive and negative images.
    """
    check_known(targets, spec)
    if targets.ndim == 1:
        known = targets >= 0
        return list(_of_one_class(scores[known], targets[known], training, stage))
    value = mean_average_precision(scores, targets)
    evaluated = [k for k in range(targets.shape[1]) if _both(targets[:, k])]
    chance = 100 * float(np.mean([_share(targets[:, k]) for k in evaluated]))
    return [Score("mAP", value, "%", higher_is_better=True, chance=chance, n=len(targets), stage=stage)]


def chance_of_top(k: int, targets: Int[Tensor, "N"], training: Int[Tensor, "M"], *, classes: int) -> float:
    """Return the expected top-k accuracy in percent of guessing the k most frequent classes in training.

    Of equally frequent classes, it guesses some at random. Chance is never below 100·k / K, which guessing at random
    gives: if a test split was drawn from few pictures, the classes that training has most of are those it has least of.

    Args:
        k: Number of guesses per image.
        targets: Classes of the test images; at least one is known.
        training: Classes of the training images. -1 is ignored in both.
        classes: Number of classes K.
    """
    frequency, tested = (_counts(labels, classes) for labels in (training, targets))
    k = min(k, classes)
    last = np.sort(frequency)[classes - k]
    above, tied = frequency > last, frequency == last
    left = k - int(above.sum())
    # in integers: the division rounds once, so that equal fractions are equal numbers
    hits = int(tested[above].sum()) * int(tied.sum()) + int(tested[tied].sum()) * left
    return max(100 * k / classes, 100 * hits / (int(tied.sum()) * int(tested.sum())))


def mean_class_accuracy(predicted: Int[Tensor, "N"], targets: Int[Tensor, "N"]) -> float:
    """Return the mean over the classes in `targets` of the percentage of a class's images that is predicted."""
    classes = int(targets.max()) + 1
    tested, right = _counts(targets, classes), _counts(targets[predicted == targets], classes)
    shown = tested > 0
    return float((100 * right[shown] / tested[shown]).mean())


def quality(scores: Float[Tensor, "N K"], targets: Int[Tensor, "N ..."]) -> float:
    """Return the criterion for model selection: top-1 plus 1e-3 · mean log-likelihood, or mAP; nan if undefined."""
    if targets.ndim == 1:
        known = targets >= 0
        likelihood = -F.cross_entropy(scores[known].double(), targets[known]).item()
        right = (scores[known].argmax(1) == targets[known]).double().mean().item()
        return 100 * right + 1e-3 * likelihood
    return mean_average_precision(scores, targets)


def mean_average_precision(scores: Float[Tensor, "N K"], targets: Int[Tensor, "N K"]) -> float:
    """Return the mean over classes of average precision in percent; targets of -1 are ignored.

    Classes without both positive and negative images are left out; nan if none is left.

    Source: the area under the precision-recall curve as a sum over its steps (scikit-learn's, VOC's since 2010).
    """
    return float(average_precisions(scores, targets).nanmean())


def average_precisions(scores: Float[Tensor, "N K"], targets: Int[Tensor, "N K"]) -> Float[Tensor, "K"]:
    """Return each class's average precision in percent; see `mean_average_precision`. nan if undefined."""
    ordered, order = scores.double().sort(dim=0, descending=True)
    hits, counted = ((kind.gather(0, order)).double() for kind in (targets == 1, targets >= 0))
    # tied images are retrieved together: each has the precision at the end of its group
    last = F.pad(ordered[1:] != ordered[:-1], (0, 0, 0, 1), value=True)
    places = torch.arange(len(scores))[:, None].expand_as(order)
    end = places.where(last, len(scores)).flip(0).cummin(dim=0).values.flip(0)
    precision = (hits.cumsum(0) / counted.cumsum(0).clamp(min=1)).gather(0, end)
    both = (targets == 1).any(0) & (targets == 0).any(0)
    return torch.where(both, 100 * (hits * precision).sum(0) / hits.sum(0), math.nan)


def with_headline(scores: list[Score], chosen: str) -> Iterator[Score]:
    """Yield the scores; the first one of the chosen stage becomes the headline."""
    done = False
    for score in scores:
        headline = not done and score.stage == chosen
        done = done or headline
        yield replace(score, headline=headline)


def check_classes(spec: str, targets: Int[Tensor, "N ..."], *, drawn: bool = False) -> None:
    """Raise a `UserError` unless the training images can train a classifier: two classes, or both labels of one.

    Args:
        spec: Spec of the data set.
        targets: See `class_targets`.
        drawn: Whether the setting `train_images` has drawn them.
    """
    there = f"{len(targets)} training images"
    remedy = f"{'raise train_images, or ' if drawn else ''}give more data"
    if targets.ndim == 1:
        if len(torch.unique(targets[targets >= 0])) < 2:
            raise UserError(f"{spec}: {there} show fewer than two classes; {remedy}")
    elif not ((targets == 1).any(0) & (targets == 0).any(0)).any():
        raise UserError(f"{spec}: no class has both positive and negative images in {there}; {remedy}")


def check_known(targets: Int[Tensor, "N ..."], spec: str) -> None:
    """Raise a UserError if no image has a known class, or no class both positive and negative images."""
    if targets.ndim == 1 and not (targets >= 0).any():
        raise UserError(f"{spec}: no test image has a class; give more data")
    if targets.ndim == 2 and not any(_both(column) for column in targets.T):
        raise UserError(f"{spec}: no class has both positive and negative test images; give more data")


def _of_one_class(scores: Tensor, targets: Tensor, training: Tensor | None, stage: str) -> Iterator[Score]:
    classes = scores.shape[1]
    for k in (1, 5) if classes > 5 else (1,):
        right = (scores.topk(k, dim=1).indices == targets[:, None]).any(dim=1)
        items = 100 * right.double().numpy()
        chance = None if training is None else chance_of_top(k, targets, training, classes=classes)
        yield Score(f"top{k}", float(items.mean()), "%", True, chance, len(items), stage=stage, items=items)
    value = mean_class_accuracy(scores.topk(1, dim=1).indices[:, 0], targets)
    yield Score(CLASS_MEAN, value, "%", True, 100 / len(torch.unique(targets)), len(targets), stage=stage)


def _counts(labels: Tensor, classes: int) -> NDArray[np.int64]:
    """Return the number of images of each class; -1 is ignored."""
    return labels[labels >= 0].bincount(minlength=classes).numpy()


def _both(column: Tensor) -> bool:
    return bool((column == 1).any() and (column == 0).any())


def _share(column: Tensor) -> float:
    return float((column == 1).sum() / (column >= 0).sum())
