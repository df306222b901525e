"""Retrieval by class: of what lies nearest to a region of a test picture, how much is of the same class.

Objects where the data set has boxes, whole pictures where it has but one label each. With boxes there is a
second question, the one that a context encoder is trained for: with the object hidden, do the pictures whose
surroundings are nearest hide an object of the same class?

    precision@k              share of the k nearest that are right; by encoders, with the object seen, also precision@1
    recall@k                 share of queries with at least one right one among the k nearest
    mAP                      mean over queries of the average precision over the whole ranked database; queries whose
                             class is not in it have none, and n counts the others
    context …                the same with the object hidden; its class is what counts
    … by raw pixels          the same of what needs no network; by colour histogram; by HOG (`retrieval.baselines`)
    approximate recall@k     share of the k nearest that an approximate index finds, at the stage that was chosen; left
                             out where the database has fewer than 360 regions (`retrieval.measures`)

Source: recall@k as in Jégou, Douze and Schmid 2011 and in Musgrave, Belongie and Lim 2020, which is not the share of
    all that is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.packed import at_size
from pretext.encoders.base import Encoder
from pretext.judging import Probe, Score
from pretext.system.errors import UserError
from retrieval.baselines import describe_plainly
from retrieval.measures import (
    approximate_recall,
    average_precisions,
    chance_average_precision,
    chance_precision,
    chance_recall,
    hits,
    nearest,
)
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
    highest precision@k for queries of the validation split. Chance is what a random order of the same database
    would score.
    """

    k: int = 10
    """Neighbours that are judged."""
    database: int = 2000
    """Regions of the training split that are searched, at most."""
    queries: int = 500
    """Regions of the test split, and of the validation split, that are searched for, at most."""
    baselines: bool = True
    """Also judge what needs no network, with the same queries in the same database."""

    needs: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"labels", "boxes"}), frozenset({"label"}))

    def __post_init__(self) -> None:
        if self.k < 1 or self.queries < 1:
            raise ValueError(f"k is {self.k} and queries {self.queries}; both are at least 1")
        if self.database < self.k:
            raise ValueError(f"database is {self.database}; at least k = {self.k} regions are needed")

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """See `Probe.evaluate`; the module says what the metrics are. Writes a sheet a kind of region."""
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
        """Yield the scores of every stage and baseline for one kind of region; no headline for contexts."""
        names = [stage.name for stage in encoder.stages]
        vectors: dict[str, Vectors] = {
            split: describe(encoder, data.split(split), table, regions, stages=names) for split, table in tables.items()
        }
        labels = {split: np.ascontiguousarray(table["label"]) for split, table in tables.items()}
        contexts = regions.mode == "contexts"
        prefix = "context " if contexts else ""
        on_val = {
            name: hits(nearest(of_val, vectors["train"][name], self.k)[1], labels["val"], labels["train"]).mean()
            for name, of_val in vectors["val"].items()
        }
        chosen = max(names, key=lambda name: on_val[name])
        found = {name: nearest(vectors["test"][name], vectors["train"][name], self.k) for name in names}
        precisions = (self.k,) if contexts else tuple(dict.fromkeys((self.k, 1)))
        for name in names:
            of_test, of_train = vectors["test"][name], vectors["train"][name]
            for score in self._scores(found[name][1], of_test, of_train, labels, precisions):
                headline = score.metric == f"precision@{self.k}" and name == chosen and not contexts
                yield replace(score, metric=prefix + score.metric, stage=name, headline=headline)
        near = vectors["test"][chosen], vectors["train"][chosen], found[chosen][1]
        if not contexts and (shares := approximate_recall(*near)) is not None:
            score = _score(f"approximate recall@{self.k}", shares, self.k / len(labels["train"]))
            yield replace(score, stage=chosen)
        if self.baselines:
            plain = {
                split: describe_plainly(data.split(split), tables[split], regions, side=encoder.input_size)
                for split in ("train", "test")
            }
            for name, of_test in plain["test"].items():
                of_train = plain["train"][name]
                rows = nearest(of_test, of_train, self.k)[1]
                for score in self._scores(rows, of_test, of_train, labels, (self.k,)):
                    yield replace(score, metric=f"{prefix}{score.metric} by {name}")
        if out is not None:
            queries, neighbours = _tiles(data, tables, found[chosen], SHOWN, hidden=contexts)
            save_sheet(neighbour_sheet(queries, {chosen: neighbours}), out / f"{regions.mode}.png")

    def _scores(
        self,
        rows: Int64[np.ndarray, "Q K"],
        queries: Float32[np.ndarray, "Q D"],
        database: Float32[np.ndarray, "N D"],
        labels: dict[str, NDArray[Any]],
        precisions: tuple[int, ...],
    ) -> Iterator[Score]:
        """Yield what one kind of vector scores, of which `rows` are the nearest; precision at each of some k."""
        wanted, classes = labels["test"], labels["train"]
        right = hits(rows, wanted, classes)
        for k in precisions:
            yield _score(f"precision@{k}", right[:, :k].mean(axis=1), chance_precision(wanted, classes))
        yield _score(f"recall@{self.k}", right.max(axis=1), chance_recall(wanted, classes, self.k))
        found = average_precisions(queries, database, wanted, classes)
        found = found[np.isfinite(found)]
        if len(found):
            yield _score("mAP", found, chance_average_precision(wanted, classes))

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


def _score(metric: str, items: NDArray[Any], chance: float) -> Score:
    """Return the score of shares, one a query, in percent."""
    shares = 100 * items.astype(np.float64)
    return Score(metric, float(shares.mean()), "%", True, 100 * chance, len(shares), items=shares)


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
