"""Weighted k-NN: the training images nearest by cosine vote on the class of each test image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from downstream.classification import ClassProbe, classification_scores, quality
from downstream.features import Features, labelled_pooled_features
from pretext.datasets.base import ImageDataset
from pretext.encoders.base import Encoder
from pretext.judging import Score
from pretext.system.ranges import check_range
from pretext.voting import vote_shares


@final
@dataclass(frozen=True)
class Knn(ClassProbe):
    """Weighted k-NN on frozen features; stage, pooling and k are chosen on val.

    A neighbour's vote has weight exp(cosine / temperature). Every stage is reported, each with its best pooling and k.

    Source: Wu et al. 2018, section 3.4 (weighted k-NN, temperature 0.07).
    Deviations: several k, and every stage; features are centred before they are normalised to unit length.
    """

    title: ClassVar[str] = "k-NN"
    reads_features: ClassVar[bool] = True

    train_images: int = 2000
    """Number of labelled training images to search, drawn by the seed, balanced by class; 0 uses all."""
    val_images: int = 500
    """Number of val images that choose stage and k, drawn like the training images; 0 uses all."""
    ks: tuple[int, ...] = (5, 20, 100)
    """Numbers of neighbours to try; larger than the number of training images means all of them."""
    temperature: float = 0.07
    """Temperature of the votes; lower gives near neighbours more weight."""
    features: int = 1024
    """Maximum number of features per image after pooling a stage."""
    averaged: bool = True
    """Also try each stage averaged over its whole map, which forgets where in the image something is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "train_images", "val_images", least=0)
        if not self.ks or min(self.ks) < 1:
            raise ValueError(f"ks are {self.ks}; give one or more, each at least 1")
        check_range(self, "temperature", above=0)
        check_range(self, "features", least=1)

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Yield top-1, top-5 and mean per-class accuracy, or mAP, for every stage. See `Probe.evaluate`."""
        if not self.can_judge(data):
            data.require("label")
        pools = (1, self.features) if self.averaged else (self.features,)
        sizes = tuple(dict.fromkeys(pools))
        pooled = labelled_pooled_features(encoder, data, train_images=self.train_images, sizes=sizes, seed=self.seed)
        read = list(pooled.values())
        found: list[tuple[float, list[Score]]] = []
        for stage in read[0][0].stages:
            choices = [self._chosen(stage, *features, classes=len(data.classes)) for features in read]
            reached, k, (train, _, test) = max(choices, key=lambda choice: choice[0])
            votes = self._votes(train.stages[stage], train.targets, test.stages[stage], len(data.classes), [k])[k]
            scores = classification_scores(
                votes, test.targets, training=train.split_targets, stage=stage, spec=data.spec
            )
            found.append((reached, scores))
        best = max(range(len(found)), key=lambda i: found[i][0])
        for i, (_, scores) in enumerate(found):
            for j, score in enumerate(scores):
                yield replace(score, headline=i == best and j == 0)

    def _chosen(
        self, stage: str, train: Features, val: Features, test: Features, *, classes: int
    ) -> tuple[float, int, tuple[Features, Features, Features]]:
        """Return the quality on val with the best k, that k, and the features; -1 if val shows no class."""
        ks = sorted({min(k, len(train.targets)) for k in self.ks})
        drawn = val.drawn(self.val_images, seed=self.seed)
        on_val = self._votes(train.stages[stage], train.targets, drawn.stages[stage], classes, ks)
        reached = {k: quality(votes, drawn.targets) for k, votes in on_val.items()}
        k = max(ks, key=lambda k: (reached[k] == reached[k], reached[k]))
        return reached[k] if reached[k] == reached[k] else -1.0, k, (train, val, test)

    def _votes(
        self,
        database: Float[Tensor, "N D"],
        targets: Int[Tensor, "N ..."],
        queries: Float[Tensor, "Q D"],
        classes: int,
        ks: list[int],
    ) -> dict[int, Float[Tensor, "Q K"]]:
        mean = database.mean(0)
        return vote(
            F.normalize(database - mean, dim=1),
            targets,
            F.normalize(queries - mean, dim=1),
            classes=classes,
            ks=ks,
            temperature=self.temperature,
        )


def vote(
    database: Float[Tensor, "N D"],
    targets: Int[Tensor, "N ..."],
    queries: Float[Tensor, "Q D"],
    *,
    classes: int,
    ks: list[int],
    temperature: float,
) -> dict[int, Float[Tensor, "Q K"]]:
    """Return the logarithm of each class's share of the votes, by k.

    Args:
        database: Unit vectors to search.
        targets: Classes of the database; see `class_targets`. Unknown labels do not vote.
        queries: Unit vectors to classify.
        classes: Number of classes K.
        ks: Numbers of neighbours, at most N.
        temperature: A neighbour's vote is exp(cosine / temperature).
    """
    cosines, rows = nearest(queries, database, max(ks))
    return vote_shares(cosines, rows, targets, classes=classes, ks=ks, temperature=temperature)


def nearest(
    queries: Float[Tensor, "Q D"], database: Float[Tensor, "N D"], k: int
) -> tuple[Float[Tensor, "Q k"], Int[Tensor, "Q k"]]:
    """Return the cosines and rows of the k nearest vectors, best first, by exact search with FAISS.

    All vectors have unit length. The Q×N matrix is never held in memory, so whole data sets can be searched.
    """
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())  # as `retrieval.indexing.factory.use_faiss` does, and says why
    index = faiss.IndexFlatIP(database.shape[1])
    index.add(database.numpy())
    cosines, rows = index.search(queries.numpy(), k)
    return torch.from_numpy(cosines), torch.from_numpy(rows)
