from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch

from downstream.metrics import (
    Detections,
    Truth,
    box_iou,
    coco_by_class,
    confusion_matrix,
    mean_iou,
    object_counts,
    pixel_accuracy,
    voc07_by_class,
)


def truth(boxes, labels, difficult=None):
    difficult = [False] * len(labels) if difficult is None else difficult
    return Truth(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(difficult, bool))


def detections(boxes, labels, scores):
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(scores, np.float32)
    )


def random_case(seed, *, pictures=25, classes=4, difficult_share=0.2):
    """Random objects, and detections of which about half are slightly moved objects."""
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(pictures):
        corner, side = rng.uniform(0, 40, (rng.integers(0, 5), 2)), rng.uniform(6, 24, (1, 2))
        boxes = np.concatenate([corner, corner + side], axis=1)
        labels = rng.integers(0, classes, len(boxes))
        truths.append(truth(boxes, labels, rng.random(len(boxes)) < difficult_share))
        moved = np.repeat(boxes, 2, axis=0)
        moved = moved + rng.normal(0, 1.5, moved.shape)
        other = rng.uniform(0, 40, (3, 2))
        everything = np.concatenate([moved, np.concatenate([other, other + rng.uniform(4, 20, (3, 2))], axis=1)])
        names = np.concatenate([np.repeat(labels, 2), rng.integers(0, classes, 3)])
        found.append(detections(everything, names, rng.random(len(everything))))
    return truths, found


def test_an_overlap_of_exactly_a_half_is_found():
    truths, found = [truth([[0, 0, 10, 10]], [0])], [detections([[0, 0, 10, 5]], [0], [0.9])]
    assert box_iou(found[0].boxes, truths[0].boxes).item() == 0.5
    assert voc07_by_class(truths, found, num_classes=1)[0] == 100


def pycocotools_ap(truths, found, classes):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    objects, results = [], []
    for i, (t, d) in enumerate(zip(truths, found, strict=True)):
        for (x1, y1, x2, y2), label, hard in zip(t.boxes.astype(float), t.labels, t.difficult, strict=True):
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": i,
                    "category_id": int(label),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(hard),
                }
            )
        for (x1, y1, x2, y2), label, score in zip(d.boxes.astype(float), d.labels, d.scores, strict=True):
            results.append(
                {
                    "image_id": i,
                    "category_id": int(label),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": float(score),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(len(truths))],
            "annotations": objects,
            "categories": [{"id": k} for k in range(classes)],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = 100 * evaluation.eval["precision"][:, :, :, 0, -1]
    by_class = np.stack([precision.mean((0, 1)), precision[0].mean(0), precision[5].mean(0)], axis=1)
    return 100 * evaluation.stats[:3], np.where(by_class < 0, np.nan, by_class)


@pytest.mark.parametrize("seed", range(4))
def test_coco_ap_equals_pycocotools(seed):
    truths, found = random_case(seed)
    ours = coco_by_class(truths, found, num_classes=5)
    assert np.isnan(ours[4]).all()  # class 4 has no object
    means, by_class = pycocotools_ap(truths, found, 5)
    assert 5 < means[0] < 95
    np.testing.assert_allclose(np.nanmean(ours, axis=0), means, atol=1e-6)
    np.testing.assert_allclose(ours, by_class, atol=1e-6)


def test_coco_ap_prints_nothing(capfd):
    coco_by_class(*random_case(0), num_classes=4)
    assert capfd.readouterr() == ("", "")


def brute_force_voc07(truths, found, classes):
    """The development kit's loop: all detections of a class in order of score, over all images."""
    values = []
    for label in range(classes):
        total = sum(1 for t in truths for k, hard in zip(t.labels, t.difficult, strict=True) if k == label and not hard)
        if not total:
            values.append(float("nan"))
            continue
        ranked = sorted(
            (-float(s), i, j)
            for i, d in enumerate(found)
            for j, (k, s) in enumerate(zip(d.labels, d.scores, strict=True))
            if k == label
        )
        used, right, wrong, points = set(), 0, 0, []
        for _, i, j in ranked:
            best, which = -1.0, -1
            for g, k in enumerate(truths[i].labels):
                overlap = one_iou(found[i].boxes[j], truths[i].boxes[g]) if k == label else -1.0
                if overlap > best:
                    best, which = overlap, g
            if best >= 0.5 and truths[i].difficult[which]:
                continue
            if best >= 0.5 and (i, which) not in used:
                used.add((i, which))
                right += 1
            else:
                wrong += 1
            points.append((right, right / (right + wrong)))
        best = [max((p for r, p in points if 10 * r >= t * total), default=0) for t in range(11)]
        values.append(100 * sum(best) / 11)
    return values


def one_iou(a, b):
    a, b = [float(x) for x in a], [float(x) for x in b]
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, width) * max(0, height)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


@pytest.mark.parametrize("seed", range(4))
def test_voc07_equals_a_brute_force_loop(seed):
    truths, found = random_case(seed)
    values = voc07_by_class(truths, found, num_classes=5)
    assert 5 < np.nanmean(values) < 95 and np.isnan(values[4])
    np.testing.assert_allclose(values, brute_force_voc07(truths, found, 5), atol=1e-9)


def test_voc07_by_hand():
    a, b, c, far = [0, 0, 10, 10], [20, 20, 30, 30], [40, 0, 50, 10], [100, 100, 110, 110]
    truths = [truth([a, b, c], [0, 0, 0], [False, False, True])]
    # right, ignored (difficult), wrong (the second of a), right: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1
    found = [detections([a, c, a, b], [0, 0, 0, 0], [0.9, 0.8, 0.7, 0.6])]
    assert voc07_by_class(truths, found, num_classes=1) == pytest.approx([100 * (6 * 1 + 5 * 2 / 3) / 11])
    nothing_right = [detections([far], [0], [0.5])]
    assert voc07_by_class(truths, nothing_right, num_classes=1) == [0]


def test_iou_by_hand():
    boxes = np.array([[0, 0, 2, 2]], np.float32)
    others = np.array([[1, 1, 3, 3], [0, 0, 2, 2], [2, 0, 4, 2], [1, 1, 1, 1]], np.float32)
    np.testing.assert_allclose(box_iou(boxes, others), [[1 / 7, 1, 0, 0]])


def test_perfect_detections_give_100_and_none_give_0():
    truths, _ = random_case(0)
    perfect = [Detections(t.boxes, t.labels, np.ones(len(t.labels), np.float32)) for t in truths]
    np.testing.assert_allclose(coco_by_class(truths, perfect, num_classes=4), np.full((4, 3), 100))
    np.testing.assert_allclose(voc07_by_class(truths, perfect, num_classes=4), np.full(4, 100))
    none = [detections([], [], []) for _ in truths]
    absent = np.array([[0.0], [0.0], [0.0], [0.0], [np.nan]])  # class 4 has no object
    np.testing.assert_array_equal(coco_by_class(truths, none, num_classes=5), absent.repeat(3, axis=1))
    np.testing.assert_array_equal(voc07_by_class(truths, none, num_classes=5), absent[:, 0])


def test_difficult_objects_do_not_count():
    truths = [truth([[0, 0, 5, 5]] * 3, [0, 2, 2], [False, False, True]), truth([], [])]
    assert object_counts(truths, num_classes=4).tolist() == [1, 0, 1, 0]
    assert object_counts([], num_classes=2).tolist() == [0, 0]


def test_nothing_to_find_is_an_error():
    empty = [truth([], []), truth([[0, 0, 5, 5]], [0], [True])]
    found = [detections([[0, 0, 5, 5]], [0], [0.5]), detections([], [], [])]
    for metric in (coco_by_class, voc07_by_class):
        with pytest.raises(ValueError, match="no object that is not difficult"):
            metric(empty, found, num_classes=2)


def test_mean_iou_by_hand():
    truth_mask = torch.tensor([[0, 0, 1], [1, 255, 255]])
    predicted = torch.tensor([[0, 1, 1], [1, 3, 0]])
    confusion = confusion_matrix(truth_mask, predicted, num_classes=4, ignore=255)
    assert confusion.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert mean_iou(confusion) == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)  # classes 2 and 3 are absent
    assert pixel_accuracy(confusion) == pytest.approx(75)


def test_a_class_that_is_only_predicted_counts_as_0():
    confusion = confusion_matrix(torch.tensor([0, 0]), torch.tensor([0, 1]), num_classes=3, ignore=255)
    assert mean_iou(confusion) == pytest.approx(100 * (1 / 2 + 0) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_mean_iou_equals_torchmetrics(seed):
    from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 6, (5, 16, 16), generator=generator)
    predicted = torch.where(
        torch.rand(target.shape, generator=generator) < 0.6,
        target,
        torch.randint(0, 6, target.shape, generator=generator),
    )
    target[torch.rand(target.shape, generator=generator) < 0.1] = 255
    confusion = sum(confusion_matrix(t, p, num_classes=6, ignore=255) for t, p in zip(target, predicted, strict=True))
    iou = MulticlassJaccardIndex(num_classes=6, ignore_index=255)(predicted, target)
    accuracy = MulticlassAccuracy(num_classes=6, ignore_index=255, average="micro")(predicted, target)
    assert mean_iou(confusion) == pytest.approx(100 * iou.item(), abs=1e-4)
    assert pixel_accuracy(confusion) == pytest.approx(100 * accuracy.item(), abs=1e-4)


def test_boxes_at_random_score_almost_nothing_so_that_chance_of_detection_is_0():
    rng = np.random.default_rng(0)
    truths, found = [], []
    for _ in range(40):
        corners = rng.uniform(0, 40, (24, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(6, 24, (24, 2))], axis=1)
        truths.append(truth(boxes[:4], rng.integers(0, 4, 4)))
        found.append(detections(boxes[4:], rng.integers(0, 4, 20), rng.random(20)))
    assert np.nanmean(coco_by_class(truths, found, num_classes=4), axis=0).max() < 2


def test_no_other_constant_answer_of_a_segmentation_scores_more_than_the_most_frequent_class():
    pixels = torch.tensor([30, 11, 50, 9])
    measured = []
    for k in range(4):
        confusion = torch.zeros(4, 4, dtype=torch.int64)
        confusion[:, k] = pixels
        measured.append((mean_iou(confusion), pixel_accuracy(confusion)))
    assert measured[2] == pytest.approx((12.5, 50)) == max(measured)
    assert max(accuracy for _, accuracy in measured) == measured[2][1]
