"""Weighted k-NN: each test picture takes the classes of the training pictures that are nearest by cosine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from downstream.classification import classification_scores, quality
from downstream.features import labelled_features
from pretext.datasets.base import ImageDataset
from pretext.encoders.base import Encoder
from pretext.judging import Probe, Score


@final
@dataclass(frozen=True)
class Knn(Probe):
    """Neighbours vote by exp(cosine / temperature); stage and k are chosen on val, every stage is told at its best k.

    Source: Wu et al. 2018, section 3.4 (weighted k-NN, temperature 0.07).
    Deviations: several k, and every stage; features are centred before they are brought to length 1.
    """

    needs: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"label"}), frozenset({"labels"}))

    train_images: int = 2000
    """Labelled pictures that are searched, drawn by the seed, classes in turn; 0 takes all."""
    val_images: int = 500
    """Pictures on which stage and k are chosen, drawn as those that are searched; 0 takes all."""
    ks: tuple[int, ...] = (5, 20, 100)
    """Numbers of neighbours; a number larger than the pictures that are searched takes all of them."""
    temperature: float = 0.07
    """Of the votes."""
    features: int = 1024
    """Numbers a picture that a stage is pooled to, at most."""

    def __post_init__(self) -> None:
        for name in ("train_images", "val_images"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed is 0 or more")
        if not self.ks or min(self.ks) < 1:
            raise ValueError(f"ks are {self.ks}; give one or more, each at least 1")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; allowed is above 0")
        if self.features < 1:
            raise ValueError(f"features is {self.features}; allowed is 1 or more")

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Yield top-1 and top-5, or mAP, of every stage. See `Probe.evaluate`."""
        if not self.can_judge(data):
            data.require("label")
        train, val, test = labelled_features(
            encoder, data, train_images=self.train_images, most=self.features, seed=self.seed
        )
        ks = sorted({min(k, len(train.targets)) for k in self.ks})
        val = val.drawn(self.val_images, seed=self.seed)
        found: list[tuple[float, list[Score]]] = []
        for stage, database in train.stages.items():
            on_val = self._votes(database, train.targets, val.stages[stage], len(data.classes), ks)
            reached = {k: quality(votes, val.targets) for k, votes in on_val.items()}
            k = max(ks, key=lambda k: (reached[k] == reached[k], reached[k]))
            votes = self._votes(database, train.targets, test.stages[stage], len(data.classes), [k])[k]
            scores = classification_scores(votes, test.targets, stage=stage, spec=data.spec)
            found.append((reached[k] if reached[k] == reached[k] else -1.0, scores))
        best = max(range(len(found)), key=lambda i: found[i][0])
        for i, (_, scores) in enumerate(found):
            for j, score in enumerate(scores):
                yield replace(score, headline=i == best and j == 0)

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
    """Return the logarithm of each class's share of the votes, for each k.

    Args:
        database: Vectors of length 1.
        targets: Their classes; see `class_targets`. One that is unknown votes neither for nor against.
        queries: Vectors of length 1.
        classes: K.
        ks: Numbers of neighbours, none above N.
        temperature: A neighbour's vote is exp(cosine / temperature).
    """
    cosines, rows = nearest(queries, database, max(ks))
    weights = ((cosines - cosines[:, :1]) / temperature).exp()  # the nearest has 1: no overflow
    found = {}
    for k in ks:
        if targets.ndim == 1:
            votes = torch.zeros(len(queries), classes).scatter_add_(1, targets[rows[:, :k]], weights[:, :k])
            all_votes = weights[:, :k].sum(1, keepdim=True)
        else:
            theirs = targets[rows[:, :k]]
            votes, all_votes = (
                torch.einsum("qk,qkc->qc", weights[:, :k], each.float()) for each in (theirs == 1, theirs >= 0)
            )
        found[k] = (votes / all_votes.clamp(min=1e-12) + 1e-6).log()
    return found


def nearest(
    queries: Float[Tensor, "Q D"], database: Float[Tensor, "N D"], k: int
) -> tuple[Float[Tensor, "Q k"], Int[Tensor, "Q k"]]:
    """Return the cosines and rows of the k nearest, best first, all vectors being of length 1: FAISS, exact.

    No matrix of queries by database is ever held, so that whole data sets can be searched.
    """
    import faiss

    index = faiss.IndexFlatIP(database.shape[1])
    index.add(database.numpy())
    cosines, rows = index.search(queries.numpy(), k)
    return torch.from_numpy(cosines), torch.from_numpy(rows)
