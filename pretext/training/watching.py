"""Watch a run: k-NN accuracy, or RankMe, of the encoder on a fixed small part of the data set.

The run does not depend on it. The labels of the watched pictures are read here and nowhere else: no task sees them, and
no checkpoint is chosen by them. Test pictures are not read.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from pretext.datasets.base import ImageDataset
from pretext.datasets.packed import ResizedDataset, fit_for
from pretext.datasets.reading import read_batches
from pretext.encoders.base import Encoder
from pretext.system.errors import UserError
from pretext.training.collapse import check_finite, rank_me
from pretext.voting import vote_shares

WatchName = Literal["knn", "rankme"]
TRAIN_IMAGES, VAL_IMAGES = 1000, 500
"""Pictures of train that are searched, or that RankMe is computed from, and pictures of val that are classified."""
SEED = 20160427
"""Seed of the draw; fixed, so that all runs on a data set are watched on the same pictures."""
LEAST = 2
"""Fewer pictures of a split say nothing."""
NEIGHBOURS = 20
TEMPERATURE = 0.07
BATCH = 64


def check_watch(watch: WatchName | None, data: ImageDataset) -> None:
    """Raise a `UserError` if the data set lacks the labels that `watch` needs."""
    if watch == "knn" and "label" not in data.annotations:
        raise UserError(f"--watch knn needs one class per picture, and {data.spec} has none; give --watch rankme")


class Watch:
    """The watched pictures, in memory, and what is measured on them."""

    def __init__(self, watch: WatchName, data: ImageDataset, *, side: int, workers: int) -> None:
        """Read the pictures as evaluation sees them: the centre of each, at the encoder's side.

        Args:
            watch: What to measure.
            data: Any split of the data set; train and val are reached through it.
            side: Side of the encoder's images in pixels.
            workers: Threads that decode.

        Raises:
            UserError: If too few pictures can be used.
        """
        self.watch = watch
        labelled = watch == "knn"
        self.images, self.labels = _drawn(data, "train", TRAIN_IMAGES, side, workers, labelled=labelled)
        if labelled:
            self.val_images, self.val_labels = _drawn(data, "val", VAL_IMAGES, side, workers, labelled=True)

    def measure(self, encoder: Encoder) -> dict[str, float]:
        """Return `knn_top1` in percent, or `rank_me`. The encoder and the random state are left as they were.

        Raises:
            UserError: If a feature is not finite.
        """
        vectors = _encoded(encoder, self.images)
        if self.watch == "rankme":
            return {"rank_me": float(rank_me(vectors))}
        return {"knn_top1": knn_accuracy(vectors, self.labels, _encoded(encoder, self.val_images), self.val_labels)}


def knn_accuracy(
    database: Float[Tensor, "N D"],
    labels: Int[Tensor, "N"],
    queries: Float[Tensor, "Q D"],
    answers: Int[Tensor, "Q"],
) -> float:
    """Return the percentage of queries that their nearest neighbours classify correctly.

    The nearest by cosine vote with weight exp(cosine / temperature), after the mean of the database is subtracted.

    Source: Wu et al. 2018, arXiv 1805.01978, section 3.4 (temperature 0.07).
    Deviations: 20 neighbours, not 200; features are centred.

    Args:
        database: Vectors to search.
        labels: Their classes, from 0.
        queries: Vectors to classify.
        answers: Their classes.
    """
    mean = database.mean(dim=0)
    cosines = F.normalize(queries - mean, dim=1) @ F.normalize(database - mean, dim=1).T
    k = min(NEIGHBOURS, len(database))
    classes = int(labels.max()) + 1
    votes = vote_shares(*cosines.topk(k, dim=1), labels, classes=classes, ks=[k], temperature=TEMPERATURE)[k]
    return 100 * int((votes.argmax(dim=1) == answers).sum()) / len(queries)


def _encoded(encoder: Encoder, images: UInt8[Tensor, "N 3 S S"]) -> Float[Tensor, "N D"]:
    vectors = encoder.embed(images, batch_size=BATCH)  # in evaluation mode, without gradients
    check_finite(vectors)
    return vectors


def _drawn(
    data: ImageDataset, split: str, count: int, side: int, workers: int, *, labelled: bool
) -> tuple[UInt8[Tensor, "N 3 S S"], Int[Tensor, "N"]]:
    """Return up to `count` pictures of a split, drawn by `SEED`, and their classes; 0 unless `labelled`."""
    part = data.split(split)
    sized = ResizedDataset(part, side, fit_for(part, "crop"))
    order = np.random.default_rng(SEED).permutation(len(part))
    images: list[Tensor] = []
    labels: list[int] = []
    for read in read_batches(sized, order, batch_size=BATCH, workers=workers):
        for image, target in zip(read.images, read.targets, strict=True):
            label = int(target["label"]) if labelled else 0
            if label >= 0 and len(labels) < count:
                images.append(image)
                labels.append(label)
        if len(labels) == count:
            break
    if len(labels) < LEAST:
        raise UserError(f"{data.spec}: {split} has {len(labels)} pictures to watch; leave out --watch, or add some")
    return torch.stack(images), torch.tensor(labels)
