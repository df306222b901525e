"""Makes encoders: data sets, encoders, pretext tasks, and the one training loop.

    tasks         pretext tasks, one file each
    datasets      sources of pictures, one file each; scenery/ draws the built-in scenes
    encoders      networks that are trained, their files, and weights from elsewhere
    transforms    what happens to a batch of pictures: augmentation, views, colour, masks, grids
    modules       network parts that tasks share
    training      the training loop (loop.py), its settings, checkpoints and log
    inpainting    how well a decoder fills holes, beside baselines without a network
    judging       Probe and Score, the contract of everything that judges an encoder
    system        errors, command line, files, devices, processes

Public names are imported when they are first used, so that `import pretext` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretext.system.lazy_imports import lazy_names

if TYPE_CHECKING:
    from pretext.datasets import ImageDataset, open_dataset
    from pretext.encoders import Encoder, build_encoder, load_encoder, save_encoder
    from pretext.judging import Probe, Score
    from pretext.tasks import Task, build_task
    from pretext.training.config import TrainConfig
    from pretext.training.loop import train

__all__ = [
    "Encoder",
    "ImageDataset",
    "Probe",
    "Score",
    "Task",
    "TrainConfig",
    "build_encoder",
    "build_task",
    "load_encoder",
    "open_dataset",
    "save_encoder",
    "train",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Encoder": "encoders",
        "ImageDataset": "datasets",
        "Probe": "judging",
        "Score": "judging",
        "Task": "tasks",
        "TrainConfig": "training.config",
        "build_encoder": "encoders",
        "build_task": "tasks",
        "load_encoder": "encoders",
        "open_dataset": "datasets",
        "save_encoder": "encoders",
        "train": "training.loop",
    },
)
