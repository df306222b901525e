"""The retrieval probe: metrics against counts in NumPy, the score contract, chance."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from index_samples import SIZE, SPEC, class_folders, make_encoder
from PIL import Image

import retrieval.probes
from pretext.datasets import ImageDataset, at_size, open_dataset
from pretext.datasets.packed import PackedDataset
from pretext.encoders import Encoder
from pretext.judging import probes_in
from pretext.system.errors import UserError
from retrieval.measures import chance_precision, hits, nearest
from retrieval.patches import Reading, describe, describe_pooled
from retrieval.probes.retrieval import Retrieval
from retrieval.regions import Mode, Regions
from retrieval.sheets import neighbour_sheet


def test_it_is_found_by_name() -> None:
    assert probes_in(retrieval.probes)["retrieval"] is Retrieval


def test_hits_are_counted_as_by_hand() -> None:
    rows = np.array([[0, 1, 2], [3, 4, 0]])
    found = hits(rows, np.array([5, 7]), np.array([5, 6, 5, 7, 8]))
    assert found.tolist() == [[1, 0, 1], [1, 0, 0]]


def test_features_without_meaning_score_chance() -> None:
    rng = np.random.default_rng(0)
    train, test = (rng.choice(4, size=n, p=[0.55, 0.25, 0.15, 0.05]) for n in (2000, 1500))
    vectors = [rng.normal(size=(len(labels), 16)).astype(np.float32) for labels in (test, train)]
    unit = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in vectors]
    precision = hits(nearest(unit[0], unit[1], 10)[1], test, train).mean(axis=1)
    expected = sum((test == c).mean() * (train == c).mean() for c in range(4))
    assert chance_precision(test, train) == pytest.approx(expected)
    error = precision.std() / len(precision) ** 0.5
    assert abs(precision.mean() - expected) < 4 * error


@pytest.fixture(scope="module")
def probe() -> Retrieval:
    return Retrieval(k=5, database=60, queries=25)


def test_scores_keep_the_contract(probe: Retrieval, encoder: Encoder, data: ImageDataset, tmp_path: Path) -> None:
    scores = list(probe.evaluate(encoder, data, tmp_path))
    stages = [stage.name for stage in encoder.stages]
    measures = ("precision@5", "recall@5", "mAP")
    for metric in ("precision@1", *measures, *(f"context {measure}" for measure in measures)):
        assert [score.stage for score in scores if score.metric == metric] == stages
    (headline,) = [score for score in scores if score.headline]
    assert headline.metric == "precision@5"
    for score in scores:
        assert score.items is not None
        assert score.n == len(score.items)
        assert score.n == 25 or "mAP" in score.metric
        assert score.value == pytest.approx(score.items.mean())
        assert score.chance is not None
        assert 0 < score.chance < 100
    assert {path.name for path in tmp_path.iterdir()} == {"objects.png", "contexts.png"}
    again = [score.value for score in probe.evaluate(encoder, data)]
    assert again == [score.value for score in scores]


def test_the_seed_draws_what_is_searched_and_searched_for(data: ImageDataset) -> None:
    regions = Regions(mode="objects")
    first, again, other = (
        Retrieval(database=20, queries=10, k=3, seed=seed)._tables(data, regions) for seed in (0, 0, 1)
    )
    for split in ("train", "val", "test"):
        assert first[split].tolist() == again[split].tolist()
        assert set(first[split]["image"]) != set(other[split]["image"])
        assert len(np.unique(first[split])) == len(first[split])


def test_pictures_without_a_class_are_neither_searched_nor_searched_for(tmp_path: Path) -> None:
    data = at_size(open_dataset(f"folder:{class_folders(tmp_path / 'pictures', 40)}"), SIZE, bad_images="stop")
    for name in ("train", "val", "test"):
        label = data.split(name).label
        assert label is not None
        label[::2] = -1
    tables = Retrieval(k=3)._tables(data, Regions(mode="images"))
    for name, table in tables.items():
        label = data.split(name).label
        assert label is not None
        known = np.flatnonzero(label.numpy() >= 0)
        assert {*table["image"]} == {*known} and len(table) == len(known) > 0
        assert table["label"].min() >= 0


@pytest.mark.parametrize(("mode", "prefix"), [("objects", ""), ("contexts", "context ")])
def test_measures_are_those_of_a_count_in_numpy(
    probe: Retrieval, encoder: Encoder, data: ImageDataset, mode: Mode, prefix: str
) -> None:
    probe = replace(probe, pools=(2,), centred=False)
    sized = at_size(data, 2 * encoder.input_size, bad_images="stop", fit="pad")
    tables = probe._tables(sized, Regions(mode="objects"))
    scores = {(s.metric, s.stage): s for s in probe.evaluate(encoder, data)}
    on_val = {}
    for stage in (stage.name for stage in encoder.stages):
        vectors = {
            split: describe(encoder, sized.split(split), table, Regions(mode=mode, pool=2), stages=[stage])[stage]
            for split, table in tables.items()
        }
        precision, recall, average = {}, {}, {}
        for split in ("val", "test"):
            rankings = [
                tables["train"]["label"][np.argsort(-(vectors["train"].astype(np.float64) @ vector))] == label
                for vector, label in zip(vectors[split].astype(np.float64), tables[split]["label"], strict=True)
            ]
            precision[split] = [100 * ranking[:5].mean() for ranking in rankings]
            recall[split] = [100 * ranking[:5].any() for ranking in rankings]
            average[split] = [
                100 * np.mean([ranking[: at + 1].mean() for at in np.flatnonzero(ranking)])
                for ranking in rankings
                if ranking.any()
            ]
        on_val[stage] = np.mean(precision["val"])
        for metric, expected in (("precision@5", precision), ("recall@5", recall), ("mAP", average)):
            np.testing.assert_allclose(np.asarray(scores[prefix + metric, stage].items), expected["test"], rtol=1e-6)
    (headline,) = [s for s in scores.values() if s.headline]
    if mode == "objects":
        assert on_val[headline.stage] == max(on_val.values())


def test_each_stage_is_pooled_as_is_best_on_val(probe: Retrieval, encoder: Encoder, data: ImageDataset) -> None:
    def precision(pools: tuple[int, ...]) -> dict[str, float]:
        scores = replace(probe, pools=pools, centred=False).evaluate(encoder, data)
        return {score.stage: score.value for score in scores if score.metric == "precision@5"}

    one, four, best = precision((1,)), precision((4,)), precision((1, 4))
    sized = at_size(data, 2 * encoder.input_size, bad_images="stop", fit="pad")
    tables = probe._tables(sized, Regions(mode="objects"))
    for stage in encoder.stages:
        on_val = {}
        for pool in (1, 4):
            regions = Regions(mode="objects", pool=pool)
            val, train = (
                describe(encoder, sized.split(split), tables[split], regions, stages=[stage.name])[stage.name]
                for split in ("val", "train")
            )
            rows = nearest(val, train, 5)[1]
            on_val[pool] = hits(rows, tables["val"]["label"], tables["train"]["label"]).mean()
        finer = on_val[4] > on_val[1] and encoder.input_size // stage.stride >= 4  # a coarser map has no 4×4 cells
        assert best[stage.name] == (four if finer else one)[stage.name]
    assert one != four
    with pytest.raises(ValueError, match="pools are"):
        replace(probe, pools=(0,))


def test_vectors_are_centred_where_that_is_better_on_val(
    probe: Retrieval, encoder: Encoder, data: ImageDataset
) -> None:
    def values(centred: bool) -> dict[str, float]:
        scores = replace(probe, pools=(1,), centred=centred).evaluate(encoder, data)
        return {score.stage: score.value for score in scores if score.metric == "precision@5"}

    sized = at_size(data, 2 * encoder.input_size, bad_images="stop", fit="pad")
    tables = probe._tables(sized, Regions(mode="objects"))
    expected, differs = {}, []
    for stage in (stage.name for stage in encoder.stages):
        vectors = {
            split: describe(encoder, sized.split(split), table, Regions(mode="objects"), stages=[stage])[stage]
            for split, table in tables.items()
        }
        mean = vectors["train"].astype(np.float64).mean(axis=0)
        found: dict[bool, dict[str, float]] = {}
        for centred in (False, True):
            moved = {split: some - mean * centred for split, some in vectors.items()}
            unit = {split: some / np.linalg.norm(some, axis=1, keepdims=True) for split, some in moved.items()}
            near = {split: np.argsort(-(unit[split] @ unit["train"].T), axis=1)[:, :5] for split in ("val", "test")}
            found[centred] = {
                split: 100 * (tables["train"]["label"][rows] == tables[split]["label"][:, None]).mean()
                for split, rows in near.items()
            }
        expected[stage] = found[found[True]["val"] > found[False]["val"]]["test"]
        differs.append(found[True]["val"] > found[False]["val"])
    assert any(differs)
    assert values(centred=True) == pytest.approx(expected)


def test_the_best_reading_on_val_is_that_of_the_headline(
    probe: Retrieval, encoder: Encoder, data: ImageDataset
) -> None:
    plain = replace(probe, centred=False)
    stage, pool = plain.best_reading(encoder, data, Regions())
    (headline,) = [score for score in plain.evaluate(encoder, data) if score.headline]
    assert headline.stage == stage
    again = [score for score in replace(plain, pools=(pool,)).evaluate(encoder, data) if score.headline]
    assert (again[0].stage, again[0].value) == (stage, headline.value)


@pytest.mark.parametrize(
    "regions",
    [
        Regions(mode="images"),
        Regions(),
        Regions(mode="objects", margin=0.5),
        Regions(mode="contexts", hole=0.3),
    ],
    ids=lambda regions: regions.mode,
)
def test_a_reading_is_chosen_for_the_regions_and_pictures_of_the_index(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, regions: Regions
) -> None:
    read = []

    def noted(network: Encoder, data: PackedDataset, table: object, given: Regions, readings: object) -> object:
        read.append((data.size, data.fit, given.reach))
        return describe_pooled(network, data, table, given, readings)  # type: ignore[arg-type]

    monkeypatch.setattr("retrieval.probes.retrieval.describe_pooled", noted)
    wide = Path(shutil.copytree(class_folders(tmp_path / "square", 20), tmp_path / "wide"))
    for file in wide.rglob("*.png"):
        with Image.open(file) as picture:
            picture.resize((48, 24)).save(file)
    whole = regions.mode in ("images", "grid")
    data = open_dataset(f"folder:{wide}" if whole else SPEC)
    Retrieval(k=2, database=20, queries=8).best_reading(encoder, data, regions)
    size = SIZE if whole else regions.picture_size(SIZE)  # pictures stand for patches
    assert read == [(size, at_size(data, SIZE, bad_images="stop").fit, regions.reach)] * 2
    assert read[0][1] == "squash"


def test_what_no_reading_uses_is_not_computed(
    probe: Retrieval, encoder: Encoder, data: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells finer than a map only repeat its own; the scores do not depend on them."""
    asked = []

    def noted(network: Encoder, part: object, table: object, given: Regions, readings: list[Reading]) -> object:
        asked.append(readings)
        return describe_pooled(network, part, table, given, readings)  # type: ignore[arg-type]

    monkeypatch.setattr("retrieval.probes.retrieval.describe_pooled", noted)
    list(replace(probe, pools=(2, 1, 16)).evaluate(encoder, data))
    sides = {stage.name: SIZE // stage.stride for stage in encoder.stages}
    expected = {(name, pool) for name, side in sides.items() for pool in (1, 2, 16) if pool <= side or pool == 1}
    assert all(set(readings) == expected and len(readings) == len(expected) for readings in asked)
    assert len(expected) < 3 * len(sides)


def test_pictures_with_one_label_are_judged_whole(probe: Retrieval, encoder: Encoder, tmp_path: Path) -> None:
    data = open_dataset(f"folder:{class_folders(tmp_path, 30)}")
    scores = list(probe.evaluate(encoder, data))
    assert {score.metric for score in scores} == {"precision@5", "precision@1", "recall@5", "mAP"}
    (headline,) = [score for score in scores if score.headline]
    assert headline.value > 95  # dark pictures find dark pictures
    assert headline.chance == pytest.approx(50, abs=5)


def test_a_database_smaller_than_k_is_named(encoder: Encoder, tmp_path: Path) -> None:
    data = open_dataset(f"folder:{class_folders(tmp_path, 5)}")
    with pytest.raises(UserError, match=r"retrieval needs 10 .* in train, which has \d"):
        list(Retrieval().evaluate(encoder, data))
    with pytest.raises(ValueError, match="database is 5"):
        Retrieval(database=5)


def test_unlabelled_pictures_cannot_be_judged(encoder: Encoder, tmp_path: Path) -> None:
    folder = class_folders(tmp_path, 10) / "dark"
    data = open_dataset(f"folder:{folder}")
    assert not Retrieval().can_judge(data)
    with pytest.raises(UserError, match="needs label"):
        list(Retrieval().evaluate(encoder, data))


def test_examples_make_a_sheet_of_several_encoders(probe: Retrieval, encoder: Encoder, data: ImageDataset) -> None:
    found = [
        probe.examples(each, data, mode="contexts", stage="conv5", count=2, shown=6)
        for each in (encoder, make_encoder(seed=1))
    ]
    queries = found[0][0]
    assert [tile.caption for tile in queries] == [tile.caption for tile in found[1][0]]
    one = neighbour_sheet(queries, {"random": found[0][1]})
    two = neighbour_sheet(queries, {"random": found[0][1], "other": found[1][1]})
    assert two.height - 6 == 2 * (one.height - 6)  # the rest is a gap
    assert one.width >= 6 * 112
    assert [len(tiles) for tiles in found[0][1]] == [probe.k] * 2  # although six were asked for
