"""Metrics of detection and segmentation: average precision (COCO, VOC 2007) and mean IoU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor


class Truth(NamedTuple):
    """The true objects of one image."""

    boxes: NDArray[np.float32]
    """N×4, XYXY in pixels."""
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    """Objects that the evaluation ignores, found or not."""


class Detections(NamedTuple):
    """The detections in one image."""

    boxes: NDArray[np.float32]
    """N×4, XYXY in pixels."""
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]


def coco_by_class(
    truths: Sequence[Truth], detections: Sequence[Detections], *, num_classes: int
) -> Float[NDArray[np.float64], "K 3"]:
    """Return AP, AP50 and AP75 of each class in percent; NaN if it has no object that is not difficult.

    Args:
        truths: One per image.
        detections: One per image; only the 100 with the highest scores in each class count.
        num_classes: K; labels are 0 to K - 1.

    Raises:
        ValueError: If there is no object that is not difficult.

    Source: Lin et al. 2014 and COCO's own evaluation (101 recall points, areas of all sizes).
    Deviations: COCO has no difficult objects. Here they are its `crowd` objects, which it also ignores; a detection
    matches one by the share of its own area inside, not by IoU.
    """
    _require_objects(truths)
    from faster_coco_eval import COCO, COCOeval_faster

    sizes: list[dict[str, Any]] = [{"id": i} for i in range(len(truths))]
    annotations: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for i, (truth, detection) in enumerate(zip(truths, detections, strict=True)):
        for box, label, difficult in zip(truth.boxes, truth.labels, truth.difficult, strict=True):
            annotations.append(_entry(len(annotations) + 1, i, box, label) | {"iscrowd": int(difficult)})
        for box, label, score in zip(detection.boxes, detection.labels, detection.scores, strict=True):
            found.append(_entry(len(found) + 1, i, box, label) | {"score": float(score)})
    present = object_counts(truths, num_classes=num_classes) > 0
    if not found:
        return np.where(present[:, None], 0.0, np.full((num_classes, 3), np.nan))
    categories = [{"id": k + 1, "name": str(k)} for k in range(num_classes)]
    coco = COCO({"images": sizes, "annotations": annotations, "categories": categories})
    evaluation = COCOeval_faster(coco, coco.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    # thresholds × recalls × classes × areas (the first is all) × detections (the last is 100)
    by_threshold = 100 * evaluation.eval["precision"][:, :, :, 0, -1].mean(axis=1)
    by_class = np.stack([by_threshold.mean(axis=0), by_threshold[0], by_threshold[5]], axis=1)
    return np.where(present[:, None], by_class, np.nan)


def voc07_by_class(
    truths: Sequence[Truth], detections: Sequence[Detections], *, num_classes: int
) -> Float[NDArray[np.float64], "K"]:
    """Return the average precision of each class in percent, at IoU 0.5 with eleven recall points.

    It is NaN if a class has no object that is not difficult. A detection of a difficult object is ignored; a second
    detection of an object is a false positive.

    Args:
        truths: One per image.
        detections: One per image.
        num_classes: K; labels are 0 to K - 1.

    Raises:
        ValueError: If there is no object that is not difficult.

    Source: Everingham et al. 2010, section 4.2, and the development kit of 2007.
    Deviations: box coordinates are continuous; the kit adds one pixel to width and height.
    """
    _require_objects(truths)
    values = np.full(num_classes, np.nan)
    for label, total in enumerate(object_counts(truths, num_classes=num_classes)):
        if total:
            scores, hits = _matched(truths, detections, label)
            values[label] = 100 * _eleven_points(hits[np.argsort(-scores, kind="stable")], int(total))
    return values


def object_counts(truths: Sequence[Truth], *, num_classes: int) -> Int[NDArray[np.int64], "K"]:
    """Return the number of objects of each class that are not difficult."""
    labels = [truth.labels[~truth.difficult] for truth in truths]
    return np.bincount(np.concatenate([*labels, np.zeros(0, np.int64)]), minlength=num_classes)


def box_iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the N×M intersections over union of N and M boxes, XYXY."""
    first, second = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    both = sides.clip(min=0).prod(axis=-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(axis=-1) for box in (first, second)]
    union = areas[0] + areas[1] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def confusion_matrix(
    truth: Int[Tensor, "*shape"], predicted: Int[Tensor, "*shape"], *, num_classes: int, ignore: int
) -> Int[Tensor, "K K"]:
    """Count pixels by true class (row) and predicted class (column).

    Args:
        truth: Classes 0 to `num_classes` - 1, or `ignore`.
        predicted: Classes 0 to `num_classes` - 1.
        num_classes: K, including the background.
        ignore: The value in `truth` of pixels to ignore.
    """
    valid = truth != ignore
    pairs = truth[valid].long() * num_classes + predicted[valid].long()
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def mean_iou(confusion: Int[Tensor, "K K"]) -> float:
    """Return the mean of `class_iou` in percent, over the classes in truth or prediction.

    Source: Everingham et al. 2010 (VOC's segmentation accuracy), with one matrix over the pixels of all images.
    """
    return float(class_iou(confusion).nanmean())


def class_iou(confusion: Int[Tensor, "K K"]) -> Float[Tensor, "K"]:
    """Return the intersection over union of each class in percent; nan if neither truth nor prediction has it."""
    counts = confusion.double()
    both = counts.diagonal()
    return 100 * both / (counts.sum(0) + counts.sum(1) - both)


def pixel_accuracy(confusion: Int[Tensor, "K K"]) -> float:
    """Return the share of correctly classified pixels, in percent."""
    return 100 * float(confusion.diagonal().sum()) / float(confusion.sum())


def _require_objects(truths: Sequence[Truth]) -> None:
    if not any((~truth.difficult).any() for truth in truths):
        raise ValueError("there is no object that is not difficult; average precision is undefined")


def _entry(number: int, image: int, box: NDArray[np.float32], label: np.int64) -> dict[str, Any]:
    x1, y1, x2, y2 = map(float, box)
    width, height = x2 - x1, y2 - y1
    return {
        "id": number,
        "image_id": image,
        "category_id": int(label) + 1,
        "bbox": [x1, y1, width, height],
        "area": width * height,
    }


def _matched(
    truths: Sequence[Truth], detections: Sequence[Detections], label: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the scores of a class's detections and whether each is correct, without those of difficult objects."""
    scores, hits = [], []
    for truth, detection in zip(truths, detections, strict=True):
        objects, mine = truth.labels == label, np.flatnonzero(detection.labels == label)
        difficult = truth.difficult[objects]
        taken = np.zeros(len(difficult), dtype=bool)
        mine = mine[np.argsort(-detection.scores[mine], kind="stable")]
        overlaps = box_iou(detection.boxes[mine], truth.boxes[objects])
        for row, score in zip(overlaps, detection.scores[mine], strict=True):
            best = int(row.argmax()) if len(row) else -1
            found = best >= 0 and row[best] >= 0.5
            if found and difficult[best]:
                continue
            scores.append(float(score))
            hits.append(bool(found and not taken[best]))
            if found:
                taken[best] = True
    return np.array(scores, dtype=np.float64), np.array(hits, dtype=bool)


def _eleven_points(hits: NDArray[np.bool_], total: int) -> float:
    """Return the mean over recalls of 0, 0.1, …, 1 of the best precision at that recall or above."""
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    # integers, so that a recall of 3/10 reaches 0.3
    reached = [precision[10 * right >= point * total] for point in range(11)]
    return float(np.mean([values.max() if len(values) else 0.0 for values in reached]))
