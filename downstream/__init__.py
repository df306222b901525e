"""Evaluate encoders on downstream tasks: classification, detection, segmentation.

probes          the probes, one file each; the file name is the probe's name
features        pooled features of every stage
feature_files   their cache
fitting         the training loop of the probes that train a head: AdamW, warm-up, cosine schedule
resuming        checkpoints of that loop
reading         which pictures a probe reads, in which order, and reading them
classification  top-1, top-5 and mean average precision
metrics         detection AP (COCO, VOC 2007), mean IoU
label_sampling  draw labelled images: balanced draws, k per class, shares of the labels
sample_files    read and write low-shot samples
layer_rates     freeze stages; layer-wise learning rate decay
detector        Faster and Fast R-CNN heads: necks and anchors
rcnn            torchvision's proposal network and box heads (with NMS), and RoIAlign, for a whole batch at once
proposals       object proposals: selective search, or from a file
corruptions     common image corruptions
sheets          sheets of images: detections, segmentations, corruptions
per_class       write per_class.csv
picture_files   names of a data set's image files
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretext.system.lazy_imports import lazy_names

if TYPE_CHECKING:
    from downstream.probes.detection import Detection
    from downstream.probes.fine_tune import FineTune
    from downstream.probes.knn import Knn
    from downstream.probes.label_free import LabelFree
    from downstream.probes.linear import Linear
    from downstream.probes.low_shot import LowShot
    from downstream.probes.robustness import Robustness
    from downstream.probes.segmentation import Segmentation
    from downstream.probes.svm import Svm

__all__ = [
    "Detection",
    "FineTune",
    "Knn",
    "LabelFree",
    "Linear",
    "LowShot",
    "Robustness",
    "Segmentation",
    "Svm",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Detection": "probes.detection",
        "FineTune": "probes.fine_tune",
        "Knn": "probes.knn",
        "LabelFree": "probes.label_free",
        "Linear": "probes.linear",
        "LowShot": "probes.low_shot",
        "Robustness": "probes.robustness",
        "Segmentation": "probes.segmentation",
        "Svm": "probes.svm",
    },
)
