"""Metrics of classification: top-1, top-5, and mean average precision over classes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pretext.judging import Score
from pretext.system.errors import UserError


def classification_scores(
    scores: Float[Tensor, "N K"], targets: Int[Tensor, "N ..."], *, stage: str = "", spec: str = ""
) -> list[Score]:
    """Return top-1 (and top-5 with more than five classes) for one class per image, mAP for multi-label data.

    Args:
        scores: One per class; higher is more likely.
        targets: See `class_targets`.
        stage: The encoder stage that was read.
        spec: Spec of the data set, for errors.

    Raises:
        UserError: If no class has both positive and negative images.
    """
    if targets.ndim == 1:
        known = targets >= 0
        return list(_top(scores[known], targets[known], stage))
    value = mean_average_precision(scores, targets)
    if math.isnan(value):
        raise UserError(f"{spec}: no class has both positive and negative test images; give more data")
    evaluated = [k for k in range(targets.shape[1]) if _both(targets[:, k])]
    chance = 100 * float(np.mean([_share(targets[:, k]) for k in evaluated]))
    return [Score("mAP", value, "%", higher_is_better=True, chance=chance, n=len(targets), stage=stage)]


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


def _top(scores: Tensor, targets: Tensor, stage: str) -> Iterator[Score]:
    classes = scores.shape[1]
    for k in (1, 5) if classes > 5 else (1,):
        right = (scores.topk(k, dim=1).indices == targets[:, None]).any(dim=1)
        items = 100 * right.double().numpy()
        yield Score(
            f"top{k}",
            float(items.mean()),
            "%",
            higher_is_better=True,
            chance=100 * k / classes,
            n=len(items),
            stage=stage,
            items=items,
        )


def _both(column: Tensor) -> bool:
    return bool((column == 1).any() and (column == 0).any())


def _share(column: Tensor) -> float:
    return float((column == 1).sum() / (column >= 0).sum())
