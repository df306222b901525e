"""Precision at k: of what lies nearest to a region of a test picture, how much is of the same class.

Objects where the data set has boxes, whole pictures where it has but one label each. With boxes there is a
second question, the one that a context encoder is trained for: with the object hidden, do the pictures whose
surroundings are nearest hide an object of the same class?
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.packed import at_size
from pretext.encoders.base import Encoder
from pretext.errors import UserError
from pretext.judging import Probe, Score
from retrieval.patches import describe
from retrieval.regions import PATCH, Mode, Regions, patch_rows
from retrieval.sheets import Tile, class_name, neighbour_sheet, neighbour_tiles, save_sheet, tile_of

Vectors = dict[str, NDArray[np.float32]]
SHOWN = 4
"""Queries on a sheet."""


@dataclass(frozen=True)
class Retrieval(Probe):
    """Nearest neighbours by cosine, exact, in the training split, judged by class.

    Objects that are marked difficult are neither searched for nor found. The stage is the one with the
    highest precision@k for queries of the validation split. Chance is the precision of neighbours drawn at
    random from the same database.
    """

    k: int = 10
    """Neighbours that are judged."""
    database: int = 2000
    """Regions of the training split that are searched, at most."""
    queries: int = 500
    """Regions of the test split, and of the validation split, that are searched for, at most."""

    needs: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"labels", "boxes"}), frozenset({"label"}))

    def __post_init__(self) -> None:
        if self.k < 1 or self.queries < 1:
            raise ValueError(f"k is {self.k} and queries {self.queries}; both are at least 1")
        if self.database < self.k:
            raise ValueError(f"database is {self.database}; at least k = {self.k} regions are needed")

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """See `Probe.evaluate`. Metrics: `precision@k`, `precision@1`, `context precision@k`."""
        if not self.can_judge(data):
            data.require("label")
        has_objects = {"labels", "boxes"} <= data.annotations
        sized = at_size(data, encoder.input_size, bad_images="skip")
        regions = Regions(mode="objects" if has_objects else "images")
        tables = self._tables(sized, regions)
        yield from self._judged(encoder, sized, tables, regions, out)
        if has_objects:
            yield from self._judged(encoder, sized, tables, Regions(mode="contexts"), out)

    def _tables(self, data: ImageDataset, regions: Regions) -> dict[str, NDArray[Any]]:
        """Return the regions that are searched and searched for, by split."""
        tables = {
            "train": self._drawn(data.split("train"), regions, self.database, 0),
            "val": self._drawn(data.split("val"), regions, self.queries, 1),
            "test": self._drawn(data.split("test"), regions, self.queries, 2),
        }
        if len(tables["train"]) < self.k:
            raise UserError(
                f"{data.spec}: precision@{self.k} needs {self.k} labelled {regions.mode} to search in, and "
                f"train has {len(tables['train'])}; give more data or a smaller k"
            )
        return tables

    def _drawn(self, data: ImageDataset, regions: Regions, count: int, stream: int) -> NDArray[Any]:
        """Return the regions of pictures in a random order, as many as asked for, as a patch table."""
        order = np.random.default_rng((self.seed, stream)).permutation(len(data))
        tables: list[NDArray[Any]] = []
        for image in order:
            if sum(map(len, tables)) >= count:
                break
            try:
                picture, target = data[int(image)]
            except BadImage:  # of a set too large to be packed; the next picture takes its place
                continue
            tables.append(patch_rows(int(image), *regions.boxes(target, picture.shape[-1])))
        table = np.concatenate(tables or [np.empty(0, PATCH)])[:count]
        if not len(table):
            raise UserError(f"{data.spec}: a split of it shows no {regions.mode} with a class; give more data")
        return table

    def _judged(
        self,
        encoder: Encoder,
        data: ImageDataset,
        tables: dict[str, NDArray[Any]],
        regions: Regions,
        out: Path | None,
    ) -> Iterator[Score]:
        """Yield every stage's scores for one kind of region; no headline for contexts."""
        names = [stage.name for stage in encoder.stages]
        vectors: dict[str, Vectors] = {
            split: describe(encoder, data.split(split), table, regions, stages=names) for split, table in tables.items()
        }
        labels = {split: np.ascontiguousarray(table["label"]) for split, table in tables.items()}
        found = {
            (split, name): nearest(vectors[split][name], vectors["train"][name], self.k)
            for split in ("val", "test")
            for name in names
        }
        on_val = {name: hits(found["val", name][1], labels["val"], labels["train"]).mean() for name in names}
        chosen = max(names, key=lambda name: on_val[name])
        chance = 100 * chance_precision(labels["test"], labels["train"])
        contexts = regions.mode == "contexts"
        for name in names:
            right = hits(found["test", name][1], labels["test"], labels["train"])
            for k in [self.k] if contexts else dict.fromkeys((self.k, 1)):
                items = 100 * right[:, :k].mean(axis=1)
                yield Score(
                    metric=f"{'context ' if contexts else ''}precision@{k}",
                    value=float(items.mean()),
                    unit="%",
                    higher_is_better=True,
                    chance=chance,
                    n=len(items),
                    stage=name,
                    headline=k == self.k and name == chosen and not contexts,
                    items=items,
                )
        if out is not None:
            queries, neighbours = _tiles(data, tables, found["test", chosen], SHOWN, hidden=contexts)
            save_sheet(neighbour_sheet(queries, {chosen: neighbours}), out / f"{regions.mode}.png")

    def examples(
        self, encoder: Encoder, data: ImageDataset, *, mode: Mode, stage: str, count: int
    ) -> tuple[list[Tile], list[list[Tile]]]:
        """Return some queries, of a picture each, and their neighbours: the arguments of `neighbour_sheet`.

        The queries are the same for every encoder of one input size.

        Args:
            encoder: Is left as it was.
            data: As for `evaluate`.
            mode: `objects` and `contexts` where the data set has boxes, `images` where it has labels.
            stage: Which to read, such as the headline's.
            count: Queries, at most.
        """
        regions = Regions(mode=mode)
        sized = at_size(data, encoder.input_size, bad_images="skip")
        tables = self._tables(sized, Regions(mode="objects") if mode == "contexts" else regions)
        vectors = {
            split: describe(encoder, sized.split(split), tables[split], regions, stages=[stage])[stage]
            for split in ("train", "test")
        }
        found = nearest(vectors["test"], vectors["train"], self.k)
        return _tiles(sized, tables, found, count, hidden=mode == "contexts")


def nearest(
    queries: Float32[np.ndarray, "Q D"], database: Float32[np.ndarray, "N D"], k: int
) -> tuple[Float32[np.ndarray, "Q K"], Int64[np.ndarray, "Q K"]]:
    """Return the cosines and rows of the k nearest, best first; exact, all vectors being of length 1."""
    found = (torch.from_numpy(queries) @ torch.from_numpy(database).T).topk(k, dim=1)
    return found.values.numpy(), found.indices.numpy()


def hits(
    rows: Int64[np.ndarray, "Q K"], queries: Int64[np.ndarray, " Q"], database: Int64[np.ndarray, " N"]
) -> NDArray[np.float64]:
    """Return Q×K: 1 where a neighbour is of its query's class, 0 elsewhere."""
    return (database[rows] == queries[:, None]).astype(np.float64)


def chance_precision(queries: Int64[np.ndarray, " Q"], database: Int64[np.ndarray, " N"]) -> float:
    """Return the expected share of right ones among neighbours drawn at random from the database."""
    return float(np.mean([(database == label).mean() for label in queries]))


def _tiles(
    data: ImageDataset,
    tables: dict[str, NDArray[Any]],
    found: tuple[NDArray[np.float32], NDArray[np.int64]],
    count: int,
    *,
    hidden: bool,
) -> tuple[list[Tile], list[list[Tile]]]:
    test, train = tables["test"], tables["train"]
    chosen = np.sort(np.unique(test["image"], return_index=True)[1])[:count]
    queries = [
        tile_of(data.split("test"), row, f"query: {class_name(row, data.classes)}", hidden=hidden)
        for row in test[chosen]
    ]
    neighbours = [
        neighbour_tiles(data.split("train"), train[rows], cosines, data.classes)
        for cosines, rows in zip(found[0][chosen], found[1][chosen], strict=True)
    ]
    return queries, neighbours
