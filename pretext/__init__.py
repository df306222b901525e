"""Train image encoders without labels: data sets, encoders, pretext tasks and the training loop.

tasks       pretext tasks, one file each: settings, views, heads and losses
datasets    data sets by spec (`folder:photos`): splits, packs of decoded images; scenery/ draws the built-in scenes
encoders    AlexNet, ResNets, timm models; encoder files and external weights
transforms  augmentation, views, colour spaces, grids and masks (add a mask in masks.py)
modules     network parts that tasks share: decoder, projector, momentum encoder, losses, schedules
training    the training loop (loop.py), its settings, run folders and checkpoints
auditing    look at every picture of a data set: counts, faults, a contact sheet, `python -m pretext data`
exporting   encoders for other libraries: timm, torchvision, TorchScript, ONNX; `python -m pretext export`
embedding   vectors of a data set's pictures as a file, and a map of them, `python -m pretext embed`
inpainting  error of hole filling, baselines without a network, `python -m pretext inpaint`
voting      weighted votes of nearest neighbours, for the k-NN probe and for watching a run
judging     `Probe` and `Score`: the interface of everything that evaluates an encoder
system      errors, command lines and help, specs, atomic files, cache, devices, processes

Public names are imported on first use, so that `import pretext` is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretext.system.lazy_imports import lazy_names

if TYPE_CHECKING:
    from pretext.datasets import ImageDataset, open_dataset
    from pretext.datasets.given import as_dataset
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
    "as_dataset",
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
        "as_dataset": "datasets.given",
        "build_encoder": "encoders",
        "build_task": "tasks",
        "load_encoder": "encoders",
        "open_dataset": "datasets",
        "save_encoder": "encoders",
        "train": "training.loop",
    },
)
