"""Judges encoders by what they transfer to: classification, detection, segmentation."""

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
