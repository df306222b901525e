"""The profiles: functions that return a frozen `Recipe`. Every number of a comparison is here or a default.

The comparison is fair by construction: all rows share one data set, one encoder and one image budget. A row may
override its learning rate or batch size, never the budget. Timings were measured on two CPU cores of a small
server unless stated otherwise. `expected_s` only feeds the time estimate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.planning.cells import AnyProbe, Inpainting
from benchmarks.planning.probes import probe
from benchmarks.planning.rows import UNTOUCHED, Row, by_name
from pretext.system.ranges import check_range
from pretext.training.config import TrainConfig

SCENES = "scenes?size=32&test=4000"
ROWS: dict[str, str] = {
    "random": "random",
    UNTOUCHED: UNTOUCHED,
    "supervised": "supervised",
    "autoencoder": "autoencoder",
    "denoising_autoencoder": "denoising_autoencoder",
    "context_encoder": "context_encoder",
    "context_encoder:adversarial": "context_encoder:adversarial",
    "rotation": "rotation",
    "kmeans": "kmeans",
}
"""Rows of the large profiles: task spec by row name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a comparison."""

    name: str
    """Name of the profile."""
    rows: tuple[Row, ...]
    encoder: str
    """Architecture spec of all rows."""
    image_size: int
    """Image side in pixels."""
    train: TrainConfig
    """Training settings of all rows; the cell sets the seed."""
    probes: Mapping[str, AnyProbe]
    """Probes with their settings, by name."""
    processes: int = 1
    """Processes that train an encoder together, each on a GPU of its own."""
    seeds: int
    """Number of seeds (0, 1, …) of pretraining and probes."""
    data: str
    """Data set, unless the user names another."""
    expected_s: Mapping[str, float]
    """Expected seconds per cell: by probe, by row for its pretraining, and `pretrain` for the other rows."""
    probe_bytes: float = 0.0
    """Largest memory that a probe's process had with these settings; 0 if it was not measured."""
    sized: str = ""
    """The reason for the number of seeds and the sizes; the report quotes this sentence."""

    def __post_init__(self) -> None:
        check_range(self, "seeds", least=1)

    def with_training(self, train: TrainConfig) -> Recipe:
        """Return the recipe with other training settings; time estimates scale with the number of images."""
        factor = train.images / self.train.images if train.images and self.train.images else 1.0
        expected = {
            name: value * (factor if name == "pretrain" or name in by_name(self.rows) else 1.0)
            for name, value in self.expected_s.items()
        }
        return dataclasses.replace(self, train=train, expected_s=expected)


def trained(tasks: Mapping[str, str], training: Mapping[str, Mapping[str, Any]] | None = None) -> tuple[Row, ...]:
    """Return rows that tasks train.

    Args:
        tasks: Task spec by row name.
        training: The rows' own training settings, by row name, where a task needs another learning rate or batch size.
    """
    training = training or {}
    if unknown := {*training} - {*tasks}:
        raise ValueError(f"training settings of {', '.join(sorted(unknown))}, which are no rows")
    return tuple(Row(name, task, training=training.get(name, {})) for name, task in tasks.items())


def smoke() -> Recipe:
    """Check in less than two minutes that everything works: each row of `laptop`, each probe. Numbers mean nothing.

    Cost: 6 trained rows of 512 images, on two cores. Expect: every column filled, almost no significant difference.
    """
    few = {"train_images": 32, "test_images": 16, "steps": 3}
    cheap = {"val_images": 32, "features": 128}
    return Recipe(
        name="smoke",
        rows=tuple(Row(row.name, row.name if row.name == "context_encoder" else row.task) for row in laptop().rows),
        encoder="alexnet?width=0.1&stem_stride=2",
        image_size=32,
        train=TrainConfig(images=512, batch_size=64, workers=0),
        probes={
            "linear": probe("linear"),
            "knn": probe("knn"),
            "svm": probe("svm", train_images=64, costs=(0.1, 1.0), folds=2, shots=(1, 2), samples=2, **cheap),
            "fine_tune": probe("fine_tune", **few),
            "low_shot": probe(
                "low_shot", percents=(10.0,), shots=(2,), samples=2, steps=2, epochs=0, iterations=10, **cheap
            ),
            "detection": probe("detection", width=16, hidden=32, **few),
            "segmentation": probe("segmentation", train_images=32, test_images=32, steps=5),
            "retrieval": probe("retrieval", database=200, queries=50),
            "robustness": probe("robustness", train_images=64, test_images=16, iterations=10, **cheap),
            "label_free": probe("label_free", images=64, features=128),
            "nearest_fill": probe("nearest_fill", database=64, test_images=16),
            "inpainting": Inpainting(test_images=32),
        },
        seeds=1,
        data="scenes?size=32&train=256&val=64&test=64",
        expected_s={
            **{"pretrain": 0.5, "linear": 0.5, "knn": 0.1, "svm": 0.1, "fine_tune": 0.1, "low_shot": 0.7},
            **{"detection": 0.6, "segmentation": 0.7, "retrieval": 1.1, "robustness": 0.5, "label_free": 0.1},
            **{"nearest_fill": 0.4, "inpainting": 0.2},
        },
        probe_bytes=0.92e9,
    )


def laptop() -> Recipe:
    """Compare eleven rows on synthetic scenes, without a download; the default profile.

    Cost: 40 to 50 minutes from an empty clone; `docs/results/laptop.md` shows the last run. Expect: the supervised row
    best in all probes but retrieval, where HOG is as good; k-means first of those without labels, and the context
    encoder one to three points above random weights.

    Mask, learning rate and batch size were tuned for the context encoder on other images (`LOG.md`); all rows share
    them. The steps of the fitted probes bring random weights within three points of twice as many, on other images.
    Rotation turns each image once, so that all rows see the same number of images. Decoders and discriminators
    are as narrow as the encoder.
    """
    narrow = "decoder_width=0.25"
    return Recipe(
        name="laptop",
        rows=trained(
            {
                "random": "random",
                UNTOUCHED: UNTOUCHED,
                "supervised": "supervised",
                "autoencoder": f"autoencoder?{narrow}",
                "context_encoder": f"context_encoder?mask=central&{narrow}",
                "context_encoder:adversarial": (
                    f"context_encoder:adversarial?mask=central&{narrow}&discriminator_width=0.25"
                ),
                "rotation": "rotation?rotations=one",
                "simclr": "simclr:small",
                "kmeans": "kmeans",
            },
            {"simclr": {"batch_size": 128}},  # the negatives are the other images of the batch
        ),
        encoder="alexnet?width=0.25&stem_stride=2",
        image_size=32,
        train=TrainConfig(images=80_000, batch_size=64, learning_rate=2e-3, workers=0),
        probes={
            "linear": probe("linear", train_images=1000),
            "knn": probe("knn"),
            "fine_tune": probe("fine_tune", train_images=1000, learning_rate=5e-3, steps=750),
            "detection": probe("detection", train_images=300, test_images=500, steps=1000),
            "segmentation": probe("segmentation", train_images=300, test_images=1000, steps=1000),
            "retrieval": probe("retrieval"),
            "inpainting": Inpainting(test_images=500),
        },
        seeds=4,
        data=SCENES,
        expected_s={
            "pretrain": 55,
            **dict.fromkeys(("random", UNTOUCHED), 1),
            **{"kmeans": 8, "supervised": 45, "rotation": 43, "context_encoder:adversarial": 68, "simclr": 79},
            **{"linear": 4.5, "knn": 5.5, "fine_tune": 16, "detection": 31, "segmentation": 16, "retrieval": 7.5},
            "inpainting": 2.3,
        },
        probe_bytes=3.9e9,
        sized=(
            "Seeds and sizes are what two slow cores do in three quarters of an hour; more seeds (--seeds 8) would see "
            "smaller differences."
        ),
    )


def tasks() -> Recipe:
    """Compare every pretext task that works with the laptop profile's encoder, at its budget.

    Cost: 21 rows that train by steps, and three seeds; an hour or more on two cores. Expect: instance discrimination,
    colorization and the context encoder above random weights in classification; their order is within the noise.

    Each row trains at the better of two learning rates, 5e-4 and 2e-3; tasks with two views use larger batches. The
    rates were chosen at half the budget on other images (`LOG.md`). Transformers have tasks of their own:
    `--architecture 'timm:test_vit?patch_size=4' --tasks mae ijepa simmim dino moco:v3`.
    """
    base = laptop()
    narrow = "decoder_width=0.25"
    two_views = ("simclr", "moco", "byol", "simsiam", "barlow_twins", "vicreg", "swav", "dino")
    reconstruction = ("denoising_autoencoder", "context_encoder", "simmim", "colorization")
    geometry = ("rotation", "temporal:order", "egomotion")
    training: dict[str, dict[str, Any]] = {row: {"batch_size": 128} for row in two_views}
    for row in ("moco", "byol", "simsiam", "swav", "dino", *reconstruction, *geometry):
        training.setdefault(row, {})["learning_rate"] = 5e-4
    return dataclasses.replace(
        base,
        name="tasks",
        rows=trained(
            {
                "random": "random",
                UNTOUCHED: UNTOUCHED,
                "supervised": "supervised",
                "data_dependent": "data_dependent",
                "kmeans": "kmeans",
                "autoencoder": f"autoencoder?{narrow}",
                "denoising_autoencoder": f"denoising_autoencoder?{narrow}",
                "context_encoder": f"context_encoder?mask=central&{narrow}",
                "simmim": "simmim",
                "colorization": "colorization",
                "split_brain": "split_brain",
                "relative_location": "relative_location",
                "jigsaw": "jigsaw",
                "rotation": "rotation?rotations=one",
                "temporal": "temporal",
                "temporal:order": "temporal:order",
                "egomotion": "egomotion",
                "simclr": "simclr:small",
                "moco": "moco",
                "byol": "byol:small",
                "simsiam": "simsiam",
                "barlow_twins": "barlow_twins",
                "vicreg": "vicreg",
                "swav": "swav",
                "dino": "dino",
            },
            training,
        ),
        probes={name: protocol for name, protocol in base.probes.items() if name != "detection"},
        seeds=3,
        sized="Three seeds so that all tasks take about an hour; more (--seeds 8) would see smaller differences.",
        expected_s={**base.expected_s, "pretrain": 60, "swav": 80, "dino": 110, "relative_location": 110},
    )


def workstation() -> Recipe:
    """Compare on one GPU in about an hour, with AlexNet at full width and 128 px.

    Cost: seven rows that train on a million images, and two seeds; not yet timed on a GPU. Expect: the order of rows of
    `laptop`, with narrower intervals. Linear and k-NN read 10,000 labels; the fitted probes take ten thousand steps.
    """
    return Recipe(
        name="workstation",
        rows=trained(ROWS | {"simclr": "simclr"}),
        encoder="alexnet?stem_stride=2",
        image_size=128,
        train=TrainConfig(images=1_000_000, batch_size=256),
        probes={
            "linear": probe("linear", train_images=10_000),
            "knn": probe("knn", train_images=10_000),
            "fine_tune": probe("fine_tune", train_images=10_000, learning_rate=5e-3, steps=10_000),
            "detection": probe("detection", train_images=5000, batch_size=16, steps=10_000),
            "segmentation": probe("segmentation", train_images=5000, batch_size=16, steps=10_000),
            "retrieval": probe("retrieval", database=10_000, queries=1000),
            "inpainting": Inpainting(test_images=1000),
        },
        seeds=2,
        data="scenes?size=128&train=50000",
        expected_s={"pretrain": 160, "fine_tune": 300, "detection": 900, "segmentation": 600},
    )


def paper() -> Recipe:
    """Repeat the paper: AlexNet, 227 px, ImageNet, 100,000 iterations with batches of 128.

    Cost: 12.8 million images per row, which took 14 h on one Titan X in 2016 as published, and a disk with
    ImageNet. On two CPU cores (58 images/s, forward and backward) a row takes two and a half days; a GPU is needed
    in practice. Expect, after fine-tuning, VOC 2007 classification mAP, VOC 2007 detection mAP and VOC 2012 mIoU:
    random 53.3, 43.4, 19.8; context encoder 56.5, 44.5, 29.7 (table 2; its first row recalled).

    The published transfer is on VOC: evaluate the encoder files of this run again with
    `--data voc:DIR --encoder NAME=FILE`. ImageNet has labels but neither boxes nor masks, so only linear, k-NN,
    fine-tuning, retrieval and inpainting run on it.

    Source: Pathak et al. 2016. Deviations: AdamW, and the probes' own protocols instead of Caffe's; see each probe.
    """
    return Recipe(
        name="paper",
        rows=trained(ROWS | {"simclr": "simclr"}),
        encoder="alexnet",
        image_size=227,
        train=TrainConfig(steps=100_000, batch_size=128),
        probes={
            "linear": probe("linear", train_images=0, val_images=10_000),
            "knn": probe("knn", train_images=0, val_images=10_000),
            "fine_tune": probe("fine_tune", train_images=0, batch_size=128, steps=50_000),
            "detection": probe("detection", train_images=0, width=256, hidden=1024, steps=40_000),
            "segmentation": probe("segmentation", train_images=0, steps=40_000),
            "retrieval": probe("retrieval", database=50_000, queries=5000),
            "inpainting": Inpainting(test_images=5000),
        },
        seeds=1,
        data="imagenet:imagenet",
        expected_s={
            **{"pretrain": 220_000, "linear": 20_000, "knn": 20_000, "fine_tune": 100_000, "retrieval": 2000},
            **{"detection": 80_000, "segmentation": 80_000, "inpainting": 300},
        },
    )


PROFILES: dict[str, Callable[[], Recipe]] = {
    function.__name__: function for function in (smoke, laptop, tasks, workstation, paper)
}
