"""Retrieval by class: how many nearest neighbours of a test region have the same class.

Regions are objects if the data set has boxes, and whole pictures if it has one label per picture. With boxes there is a
second set of metrics, which matches what a context encoder is trained for: with the object hidden, do the nearest
surroundings belong to an object of the same class?

    precision@k              share of the k nearest with the right class; also precision@1 for encoders, object visible
    recall@k                 share of queries with at least one right neighbour among the k nearest
    mAP                      mean over queries of the average precision over the whole ranked database; queries whose
                             class is not in it are excluded, and n counts the others
    context …                the same with the object hidden; its class must match
    approximate recall@k     share of the k nearest that an approximate index finds, at the headline's stage; omitted if
                             the database has fewer than 360 regions (`retrieval.measures`)

Source: recall@k as in Jégou, Douze and Schmid 2011 and in Musgrave, Belongie and Lim 2020; it is not the share of all
    relevant rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.drawing import save_sheet
from pretext.datasets.packed import at_size
from pretext.encoders.base import Encoder
from pretext.judging import Probe, Score
from pretext.system.errors import UserError
from retrieval.measures import (
    approximate_recall,
    average_precisions,
    chance_average_precision,
    chance_precision,
    chance_recall,
    hits,
    nearest,
)
from retrieval.patches import describe_pooled
from retrieval.regions import PATCH, Mode, Regions, labelled_regions, patch_rows, regions_of
from retrieval.sheets import Tile, class_name, neighbour_sheet, neighbour_tiles, tile_of

Vectors = dict[str, NDArray[np.float32]]
SHOWN = 4
"""Number of queries on a sheet."""


class Reading(NamedTuple):
    """How a stage is read."""

    on_val: float
    """Precision@k on the validation split."""
    pool: int
    """Cells per side to which its map is averaged."""
    mean: NDArray[np.float32] | None
    """Subtracted from every vector; None subtracts nothing."""


@dataclass(frozen=True)
class Retrieval(Probe):
    """Exact nearest neighbours by cosine in the training split, scored by class.

    Objects marked difficult are neither queries nor in the database; they are cut from pictures of twice the encoder's
    side. Every stage is reported, with the reading that has the highest precision@k on the validation split: few cells
    forget where in the region something is, many keep it, as raw pixels and HOG do; centring removes what all regions
    share. The best stage there is the headline. Chance is the expected score of a random ranking of the same database.
    """

    k: int = 10
    """Number of neighbours k in precision@k and recall@k."""
    database: int = 2000
    """Maximum number of training regions in the database."""
    queries: int = 500
    """Maximum number of query regions, each of the test and validation split."""
    pools: tuple[int, ...] = (1, 2, 4)
    """Cells per side to which a stage's map is averaged; the best is chosen on val for each stage."""

    centred: bool = True
    """Also try the vectors less the mean of the database; chosen on val for each stage and pooling."""

    needs: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"labels", "boxes"}), frozenset({"label"}))
    reads_features: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1 or self.queries < 1:
            raise ValueError(f"k is {self.k} and queries is {self.queries}; both must be 1 or more")
        if self.database < self.k:
            raise ValueError(f"database is {self.database}; it must be at least k = {self.k}")
        if not self.pools or min(self.pools) < 1:
            raise ValueError(f"pools are {self.pools}; give one or more, each at least 1")

    def check_splits(self, train: ImageDataset, test: ImageDataset, size: int) -> None:
        """See `Probe.check_splits`."""
        for split, name, least in ((train, "train", self.k), (test, "test", 1)):
            if (count := labelled_regions(split)) is not None:
                _check_enough(split, name, count, least)

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """See `Probe.evaluate`; the module docstring lists the metrics. Writes one sheet per kind of region."""
        if not self.can_judge(data):
            data.require("label")
        regions = regions_of(data)
        sized = _sized(data, regions, encoder)
        tables = self._tables(sized, regions)
        yield from self._mode_scores(encoder, sized, tables, regions, out)
        if regions.mode == "objects":
            yield from self._mode_scores(encoder, sized, tables, Regions(mode="contexts"), out)

    def _tables(self, data: ImageDataset, regions: Regions) -> dict[str, NDArray[Any]]:
        """Return the patch tables of the database (train) and of the queries (val, test)."""
        tables: dict[str, NDArray[Any]] = {}
        wanted = {"train": (self.database, self.k), "val": (self.queries, 1), "test": (self.queries, 1)}
        for stream, (name, (most, least)) in enumerate(wanted.items()):
            tables[name] = self._draw_regions(data.split(name), regions, most, stream)
            _check_enough(data, name, len(tables[name]), least)
        return tables

    def _draw_regions(self, data: ImageDataset, regions: Regions, count: int, stream: int) -> NDArray[Any]:
        """Return up to `count` regions with a class, from pictures in random order; of pictures without, any."""
        labelled = "label" in data.annotations
        order = np.random.default_rng((self.seed, stream)).permutation(len(data))
        tables: list[NDArray[Any]] = []
        for image in order:
            if sum(map(len, tables)) >= count:
                break
            try:
                picture, target = data[int(image)]
            except BadImage:  # in a data set too large to be packed; take the next picture
                continue
            rows = patch_rows(int(image), *regions.boxes(target, picture.shape[-1]))
            tables.append(rows[rows["label"] >= 0] if labelled else rows)
        return np.concatenate(tables or [np.empty(0, PATCH)])[:count]

    def _mode_scores(
        self,
        encoder: Encoder,
        data: ImageDataset,
        tables: dict[str, NDArray[Any]],
        regions: Regions,
        out: Path | None,
    ) -> Iterator[Score]:
        """Yield the scores of every stage and baseline for one kind of region. Contexts have no headline."""
        names = [stage.name for stage in encoder.stages]
        labels = {split: np.ascontiguousarray(table["label"]) for split, table in tables.items()}
        vectors, best = self._best_readings(encoder, data, tables, regions, None)
        contexts = regions.mode == "contexts"
        prefix = "context " if contexts else ""
        chosen = max(names, key=lambda name: best[name].on_val)
        found = {name: nearest(vectors["test"][name], vectors["train"][name], self.k) for name in names}
        precisions = (self.k,) if contexts else tuple(dict.fromkeys((self.k, 1)))
        for name in names:
            test_vectors, train_vectors = vectors["test"][name], vectors["train"][name]
            for score in self._scores(found[name][1], test_vectors, train_vectors, labels, precisions):
                headline = score.metric == f"precision@{self.k}" and name == chosen and not contexts
                yield replace(score, metric=prefix + score.metric, stage=name, headline=headline)
        near = vectors["test"][chosen], vectors["train"][chosen], found[chosen][1]
        if not contexts and (shares := approximate_recall(*near)) is not None:
            score = _score(f"approximate recall@{self.k}", shares, self.k / len(labels["train"]))
            yield replace(score, stage=chosen)
        if out is not None:
            queries, neighbours = _tiles(data, tables, found[chosen], SHOWN, hidden=contexts)
            save_sheet(neighbour_sheet(queries, {chosen: neighbours}), out / f"{regions.mode}.png")

    def best_reading(self, encoder: Encoder, data: ImageDataset, regions: Regions) -> tuple[str, int]:
        """Return the stage with the highest precision@k on the validation split and its pooling, without centring.

        Pictures are read as those of an index are.

        Args:
            encoder: Its state is restored.
            data: Any split of a data set with labels; `objects` and `contexts` need boxes too.
            regions: The regions of the index. Patches of a grid have no class of their own: objects stand for them, or
                pictures.
        """
        whole = regions.mode == "images" or (regions.mode == "grid" and regions_of(data).mode == "images")
        data.require(*(("label",) if whole else ("labels", "boxes")))
        drawn = replace(regions, mode="images" if whole else "objects")
        read = regions if regions.mode == "contexts" else drawn
        sized = at_size(data, read.picture_size(encoder.input_size), bad_images="skip")
        tables = {split: table for split, table in self._tables(sized, drawn).items() if split != "test"}
        best = replace(self, centred=False)._best_readings(encoder, sized, tables, read, None)[1]
        stage = max(best, key=lambda name: best[name].on_val)
        return stage, best[stage].pool

    def _best_readings(
        self,
        encoder: Encoder,
        data: ImageDataset,
        tables: dict[str, NDArray[Any]],
        regions: Regions,
        stages: Sequence[str] | None,
    ) -> tuple[dict[str, Vectors], dict[str, Reading]]:
        """Return the vectors by split and stage, each stage read as is best on val, and how it is read."""
        sides = {stage.name: max(1, encoder.input_size // stage.stride) for stage in encoder.stages}
        names = [*sides] if stages is None else stages
        coarsest, *finer = sorted(self.pools)
        pools = {name: [coarsest, *(pool for pool in finer if pool <= sides[name])] for name in names}
        readings = [(name, pool) for name in names for pool in pools[name]]
        every = {
            split: describe_pooled(encoder, data.split(split), table, regions, readings)
            for split, table in tables.items()
        }
        best: dict[str, Reading] = {}
        for name in names:
            for pool in pools[name]:
                for mean in (None, every["train"][name, pool].mean(axis=0))[: 1 + self.centred]:
                    val, train = (_less(every[split][name, pool], mean) for split in ("val", "train"))
                    right = hits(nearest(val, train, self.k)[1], tables["val"]["label"], tables["train"]["label"])
                    if name not in best or right.mean() > best[name].on_val:
                        best[name] = Reading(float(right.mean()), pool, mean)
        chosen = {
            split: {name: _less(vectors[name, reading.pool], reading.mean) for name, reading in best.items()}
            for split, vectors in every.items()
        }
        return chosen, best

    def _scores(
        self,
        rows: Int64[np.ndarray, "Q K"],
        queries: Float32[np.ndarray, "Q D"],
        database: Float32[np.ndarray, "N D"],
        labels: dict[str, NDArray[Any]],
        precisions: tuple[int, ...],
    ) -> Iterator[Score]:
        """Yield the scores of one kind of vector. `rows` are the nearest; `precisions` lists each k of precision@k."""
        query_classes, classes = labels["test"], labels["train"]
        right = hits(rows, query_classes, classes)
        for k in precisions:
            yield _score(f"precision@{k}", right[:, :k].mean(axis=1), chance_precision(query_classes, classes))
        yield _score(f"recall@{self.k}", right.max(axis=1), chance_recall(query_classes, classes, self.k))
        found = average_precisions(queries, database, query_classes, classes)
        found = found[np.isfinite(found)]
        if len(found):
            yield _score("mAP", found, chance_average_precision(query_classes, classes))

    def examples(
        self, encoder: Encoder, data: ImageDataset, *, mode: Mode, stage: str, count: int, shown: int
    ) -> tuple[list[Tile], list[list[Tile]]]:
        """Return queries, one of each class and each from another picture, and their neighbours.

        The queries are the same for all encoders of one input size. Without classes they are pictures in random order.

        Args:
            encoder: Its state is restored.
            data: See `evaluate`.
            mode: `objects` or `contexts` if the data set has boxes, else `images`.
            stage: Encoder stage to read, such as that of the headline.
            count: Maximum number of queries.
            shown: Maximum number of neighbours of each; there are at most `k`.
        """
        regions = Regions(mode=mode)
        drawn = Regions(mode="objects") if mode == "contexts" else regions
        sized = _sized(data, drawn, encoder)
        tables = self._tables(sized, drawn)
        vectors, _ = self._best_readings(encoder, sized, tables, regions, [stage])
        found = nearest(vectors["test"][stage], vectors["train"][stage], min(shown, self.k))
        return _tiles(sized, tables, found, count, hidden=mode == "contexts", one_per_class=True)


def _check_enough(data: ImageDataset, split: str, count: int, least: int) -> None:
    if count < least:
        raise UserError(
            f"{data.spec}: retrieval needs {least} labelled {regions_of(data).mode} in {split}, which has {count}; "
            f"give more data{' or a smaller k' if least > 1 else ''}"
        )


def _sized(data: ImageDataset, regions: Regions, encoder: Encoder) -> ImageDataset:
    """Return the data set with pictures as regions are cut from them: objects from whole, larger pictures."""
    whole = regions.mode == "images"
    side = regions.picture_size(encoder.input_size)
    return at_size(data, side, bad_images="skip", fit="crop" if whole else "pad")


def _less(vectors: NDArray[np.float32], mean: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return vectors less a mean, of length 1 again; the vectors themselves without a mean."""
    if mean is None:
        return vectors
    return F.normalize(torch.from_numpy(vectors - mean), dim=1).numpy()


def _score(metric: str, items: NDArray[Any], chance: float) -> Score:
    """Return the score of shares, one per query, in percent."""
    shares = 100 * items.astype(np.float64)
    return Score(metric, float(shares.mean()), "%", True, 100 * chance, len(shares), items=shares)


def _tiles(
    data: ImageDataset,
    tables: dict[str, NDArray[Any]],
    found: tuple[NDArray[np.float32], NDArray[np.int64]],
    count: int,
    *,
    hidden: bool,
    one_per_class: bool = False,
) -> tuple[list[Tile], list[list[Tile]]]:
    test, train = tables["test"], tables["train"]
    chosen = np.sort(np.unique(test["image"], return_index=True)[1])
    if one_per_class and (test["label"] >= 0).any():
        chosen = chosen[np.sort(np.unique(test["label"][chosen], return_index=True)[1])]
        chosen = chosen[test["label"][chosen] >= 0]
    chosen = chosen[:count]
    queries = [
        tile_of(data.split("test"), row, f"query: {class_name(row, data.classes)}".removesuffix(": "), hidden=hidden)
        for row in test[chosen]
    ]
    neighbours = [
        neighbour_tiles(data.split("train"), train[rows], cosines, data.classes)
        for cosines, rows in zip(found[0][chosen], found[1][chosen], strict=True)
    ]
    return queries, neighbours
