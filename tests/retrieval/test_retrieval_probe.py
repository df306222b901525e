from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from index_samples import SIZE, SPEC, make_encoder
from PIL import Image
from torchvision import tv_tensors

import retrieval.probes
from pretext.datasets import ImageDataset, at_size, open_dataset
from pretext.encoders import Encoder, save_encoder
from pretext.judging import probes_in
from pretext.system.errors import UserError
from pretext.transforms.masks import MEAN_COLOUR
from retrieval.__main__ import main
from retrieval.indexing.index import PatchIndex
from retrieval.measures import chance_precision, hits, nearest
from retrieval.originals import file_of, original
from retrieval.patches import cut, describe, describe_regions, windows
from retrieval.probes.retrieval import Retrieval
from retrieval.regions import PATCH, WHOLE, Mode, Regions, expand, patch_rows
from retrieval.searcher import Searchable
from retrieval.sheets import Tile, neighbour_sheet


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRETEXT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return make_encoder()


@pytest.fixture(scope="module")
def encoder_file(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    save_encoder(encoder, path, {})
    return path


@pytest.fixture(scope="module")
def data(cache: None) -> ImageDataset:
    return at_size(open_dataset(SPEC), SIZE, bad_images="stop")


@pytest.fixture(scope="module")
def features(encoder: Encoder, data: ImageDataset) -> np.ndarray:
    return describe_regions(encoder, data, Regions(), stage="pool5", bad_images="stop")[0]


# Regions and vectors


def test_a_window_is_cut_at_its_own_pixels() -> None:
    pictures = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    windows = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.5, 0.5]])
    whole, _ = cut(pictures, torch.tensor([1, 0]), windows, None, side=16)
    torch.testing.assert_close(whole, pictures[1].float() / 255)
    part = cut(pictures, torch.tensor([0]), windows[1:], None, side=8)[0]
    torch.testing.assert_close(part, pictures[0, :, 8:16, 4:12].float() / 255)
    halved = cut(pictures, torch.tensor([0]), windows[:1], None, side=8)[0]
    blocks = pictures[0].double().reshape(3, 8, 2, 8, 2).mean(dim=(2, 4)) / 255
    torch.testing.assert_close(halved.double(), blocks, atol=1e-6, rtol=0)


def test_nothing_of_what_is_hidden_is_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8, generator=generator)
    box = torch.tensor([[0.27, 0.3, 0.33, 0.41]])  # pixels 4 to 9 across, 4 to 11 down
    which = torch.tensor([0])
    window = expand(box, 2.0)
    seen = cut(picture, which, window, box, side=24)
    inside, outside = picture.clone(), picture.clone()
    inside[..., 4:12, 4:10] = 255 - inside[..., 4:12, 4:10]
    outside[..., 3, 4:10] = 255 - outside[..., 3, 4:10]
    assert torch.equal(cut(inside, which, window, box, side=24), seen)
    assert not torch.equal(cut(outside, which, window, box, side=24), seen)
    middle = seen[0, :, 8:16, 8:16].mean(dim=(1, 2))
    torch.testing.assert_close(middle, torch.tensor(MEAN_COLOUR))


def test_beyond_the_picture_lies_the_mean_colour() -> None:
    white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    seen = cut(white, torch.tensor([0]), torch.tensor([[-1.0, 0.0, 2.0, 1.0]]), None, side=16)[0]
    torch.testing.assert_close(seen[:, :, :7], torch.tensor(MEAN_COLOUR).view(3, 1, 1).expand(3, 16, 7))
    torch.testing.assert_close(seen[:, :, 9:], torch.ones(3, 16, 7))


@pytest.mark.parametrize("regions", [Regions(mode="objects", margin=0.5), Regions(mode="contexts", hole=0.5)])
def test_a_box_is_seen_with_its_surroundings(regions: Regions) -> None:
    picture = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows = patch_rows(0, [(0.25, 0.25, 0.5, 0.5)], [0])  # half of its sides again on each side is all there is
    ((crops, _),) = windows(iter([(picture, rows)]), regions, side=8)
    expected = picture.float() / 255
    if regions.mode == "contexts":
        expected[:, 2:6, 2:6] = torch.tensor(MEAN_COLOUR)[:, None, None]
    torch.testing.assert_close(crops[0], expected, atol=1e-5, rtol=0)


def test_an_expanded_box_keeps_its_centre() -> None:
    expanded = expand(torch.tensor([[0.2, 0.4, 0.2, 0.1]]), 3.0)
    torch.testing.assert_close(expanded, torch.tensor([[0.0, 0.3, 0.6, 0.3]]))


def target(with_masks: bool) -> dict[str, object]:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 2.0, 8.0, 8.0], [7.0, 7.0, 8.0, 8.0]])
    masks = torch.zeros(8, 8, dtype=torch.uint8)
    masks[:4, :4] = 1
    masks[4:, 4:] = 255
    masks[3:5, 3:6] = 3
    found: dict[str, object] = {
        "label": torch.tensor(4),
        "labels": torch.tensor([0, 2, 1]),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(8, 8)),
        "difficult": torch.tensor([False, False, True]),
    }
    return found | ({"masks": tv_tensors.Mask(masks)} if with_masks else {})


@pytest.mark.parametrize(
    ("regions", "with_masks", "count", "labels"),
    [
        (Regions(mode="images"), False, 1, [4]),
        (Regions(mode="objects"), True, 2, [0, 2]),  # the third is difficult
        (Regions(mode="contexts"), True, 1, [2]),  # 6 pixels of class 2, 3 of class 0 in the middle 4×4
        (Regions(mode="contexts"), False, 1, [2]),  # the centres of both easy boxes; the second is larger
        (Regions(grid=2), True, 4, [0, 2, -1, 2]),  # a single pixel of class 2 does not name the third
        (Regions(grid=2), False, 4, [0, -1, -1, 2]),
    ],
)
def test_regions_have_the_class_that_is_in_them(
    regions: Regions, with_masks: bool, count: int, labels: list[int]
) -> None:
    boxes, found = regions.boxes(target(with_masks), 8)
    assert len(boxes) == count
    assert found == labels


def test_a_grid_covers_the_picture_at_every_scale() -> None:
    boxes, labels = Regions(grid=3, scales=(0.5, 1 / 3)).boxes({}, 8)
    assert len(boxes) == 18
    assert labels == [-1] * 18
    for scale in (boxes[:9], boxes[9:]):
        assert min(x for x, _, _, _ in scale) == 0
        assert max(y + h for _, y, _, h in scale) == pytest.approx(1)


@pytest.mark.parametrize("wrong", [{"grid": 0}, {"scales": ()}, {"scales": (1.5,)}, {"hole": 1.0}, {"margin": -1.0}])
def test_regions_refuse_what_cannot_be_cut(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Regions(**wrong)  # type: ignore[arg-type]


def test_a_vector_is_the_pooled_map_of_its_crop(encoder: Encoder, data: ImageDataset) -> None:
    table = np.array([(3, *WHOLE, -1)], dtype=PATCH)
    found = describe(encoder, data, table, Regions(mode="images"), stages=["conv2", "pool5"])
    with torch.inference_mode():
        maps = encoder.eval()(data[3][0][None])
    for name, values in (("conv2", maps[1]), ("pool5", maps[-1])):
        pooled = values[0].double().mean(dim=(1, 2)).numpy()
        np.testing.assert_allclose(found[name][0], pooled / np.linalg.norm(pooled), atol=1e-5)


def test_the_encoder_is_left_as_it_was(data: ImageDataset) -> None:
    encoder = make_encoder()
    encoder.train()
    encoder.get_submodule("convs.0").eval()  # a frozen part
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    describe_regions(encoder, data, Regions(mode="images"), stage="pool5", bad_images="stop")
    assert encoder.training
    assert not encoder.get_submodule("convs.0").training
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])


def test_pictures_that_stream_give_the_vectors_of_a_pack(
    encoder: Encoder, features: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRETEXT_PACK_GB", "0")
    streamed = at_size(open_dataset(SPEC), SIZE, bad_images="stop")
    found, _ = describe_regions(encoder, streamed, Regions(), stage="pool5", bad_images="stop")
    np.testing.assert_allclose(found, features, atol=1e-6)


# The probe


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


@pytest.mark.parametrize(("mode", "prefix"), [("objects", ""), ("contexts", "context ")])
def test_measures_are_those_of_a_count_in_numpy(
    probe: Retrieval, encoder: Encoder, data: ImageDataset, mode: Mode, prefix: str
) -> None:
    tables = probe._tables(data, Regions(mode="objects"))
    scores = {(s.metric, s.stage): s for s in probe.evaluate(encoder, data)}
    on_val = {}
    for stage in (stage.name for stage in encoder.stages):
        vectors = {
            split: describe(encoder, data.split(split), table, Regions(mode=mode), stages=[stage])[stage]
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


def class_folders(root: Path, pictures: int) -> Path:
    rng = np.random.default_rng(0)
    for number, name in enumerate(("dark", "light")):
        (root / name).mkdir(parents=True)
        for i in range(pictures):
            pixels = rng.integers(200 * number, 200 * number + 50, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def test_pictures_with_one_label_are_judged_whole(probe: Retrieval, encoder: Encoder, tmp_path: Path) -> None:
    data = open_dataset(f"folder:{class_folders(tmp_path, 30)}")
    scores = list(probe.evaluate(encoder, data))
    plain = {score.metric for score in scores if " by " not in score.metric}
    assert plain == {"precision@5", "precision@1", "recall@5", "mAP"}
    (headline,) = [score for score in scores if score.headline]
    assert headline.value > 95  # dark among dark
    assert headline.chance == pytest.approx(50, abs=5)


def test_a_database_smaller_than_k_is_named(encoder: Encoder, tmp_path: Path) -> None:
    data = open_dataset(f"folder:{class_folders(tmp_path, 5)}")
    with pytest.raises(UserError, match=r"precision@10 needs 10 .* train has \d"):
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
        probe.examples(each, data, mode="contexts", stage="conv5", count=2) for each in (encoder, make_encoder(seed=1))
    ]
    queries = found[0][0]
    assert [tile.caption for tile in queries] == [tile.caption for tile in found[1][0]]
    one = neighbour_sheet(queries, {"random": found[0][1]})
    two = neighbour_sheet(queries, {"random": found[0][1], "other": found[1][1]})
    assert two.height - 6 == 2 * (one.height - 6)  # a gap, then the rows
    assert one.width >= 6 * 112


def test_a_box_is_outlined_where_it_is() -> None:
    black = torch.zeros(3, 8, 8, dtype=torch.uint8)
    plain = neighbour_sheet([Tile(black, WHOLE, "")], {"a": [[Tile(black, WHOLE, "")]]})
    boxed = neighbour_sheet([Tile(black, (0.5, 0.5, 0.5, 0.5), "")], {"a": [[Tile(black, WHOLE, "")]]})
    red = (np.asarray(boxed) == [255, 45, 85]).all(axis=-1)
    rows, columns = red.nonzero()
    assert not (np.asarray(plain) == [255, 45, 85]).all(axis=-1).any()
    assert (rows.min(), columns.min()) == (6 + 56, 6 + 56)
    assert (rows.max(), columns.max()) == (6 + 111, 6 + 111)


@pytest.mark.parametrize("pack_gb", ["4", "0"])
def test_a_picture_leads_back_to_its_photograph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack_gb: str) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        pixels = rng.integers(0, 256, (20 + number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    if pack_gb == "4":  # a pack leaves out what cannot be decoded, and what follows has another number
        for name in ("0a.png", "3a.png"):
            (tmp_path / name).write_bytes(b"no picture")
    monkeypatch.setenv("PRETEXT_PACK_GB", pack_gb)
    splits = at_size(open_dataset(f"folder:{tmp_path}"), SIZE, bad_images="skip").splits
    found = {}
    for split in splits.values():
        for index in range(len(split)):
            file = file_of(split, index)
            assert file is not None
            with Image.open(file) as photograph:
                expected = np.asarray(photograph)
            assert np.array_equal(original(split, index).permute(1, 2, 0), expected)
            found[Path(file).name] = index
    assert set(found) == {f"{number}.png" for number in range(8)}


def test_a_drawn_picture_is_in_no_file(data: ImageDataset) -> None:
    assert file_of(data, 3) is None
    assert torch.equal(original(data, 3), data[3][0])


@pytest.mark.parametrize("box", [(0.5, 0.25, 0.004, 0.004), (0.0, 0.99, 0.01, 0.01), (0.2, 0.2, 0.01, 0.6)])
def test_a_tiny_box_is_seen_on_a_sheet(box: tuple[float, float, float, float]) -> None:
    black = torch.zeros(3, 224, 224, dtype=torch.uint8)
    plain = Tile(black, WHOLE, "")
    sheet = np.asarray(neighbour_sheet([Tile(black, box, "")], {"a": [[plain]]}))[6:118, 6:118]
    marked = (sheet == (255, 45, 85)).all(axis=-1)
    assert marked.sum() >= 12
    rows, columns = (each.mean() / 112 for each in marked.nonzero())
    assert (columns, rows) == pytest.approx((box[0] + box[2] / 2, box[1] + box[3] / 2), abs=0.06)


def test_a_photograph_is_not_squashed_on_a_sheet() -> None:
    wide = torch.zeros(3, 10, 40, dtype=torch.uint8)
    sheet = np.asarray(neighbour_sheet([Tile(wide, WHOLE, "")], {"a": [[Tile(wide, WHOLE, "")]]}))
    rows, columns = (sheet[:, :118] == 0).all(axis=-1).nonzero()
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == (112, 28)


# The command line


@pytest.fixture(scope="module")
def contexts(encoder_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "contexts"
    argv = [
        "--encoder",
        str(encoder_file),
        "--data",
        SPEC,
        "--out",
        str(folder),
        "--split",
        "test",
        "--mode",
        "contexts",
    ]
    assert main(["index", *argv]) == 0
    return folder


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "test 7.png"
    Image.fromarray(open_dataset(SPEC).split("test")[7][0].permute(1, 2, 0).numpy()).save(path)
    return path


def test_a_hole_finds_its_own_surroundings(contexts: Path, picture: Path, tmp_path: Path) -> None:
    argv = ["--image", str(picture), "--hole", "8", "8", "16", "16", "-k", "4", "--out", str(tmp_path)]
    assert main(["search", str(contexts), *argv]) == 0
    answer = json.loads((tmp_path / "neighbours.json").read_text())
    assert [found["rank"] for found in answer["neighbours"]] == [1, 2, 3, 4]
    assert answer["neighbours"][0]["image"] == 7
    assert answer["neighbours"][0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert answer["query"]["hidden"]
    with Image.open(tmp_path / "neighbours.png") as sheet:
        assert sheet.width > 4 * 112


def test_several_pictures_are_asked_with_at_once(
    contexts: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.asarray(Image.open(picture))
    large = tmp_path / "large.png"  # turned, and of another size: the same corners are another part of it
    Image.fromarray(np.rot90(pixels.repeat(2, axis=0).repeat(2, axis=1)).copy()).save(large)
    files = [picture, large, picture]
    asked = ["--hole", "4", "8", "16", "16", "-k", "4", "--out"]
    alone = []
    for number, file in enumerate(files):
        assert main(["search", str(contexts), "--image", str(file), *asked, str(tmp_path / str(number))]) == 0
        alone.append(json.loads((tmp_path / str(number) / "neighbours.json").read_text()))
    searches = []
    search = PatchIndex.search

    def counting(self: PatchIndex, queries: np.ndarray, *given: object, **named: object) -> object:
        searches.append(len(queries))
        return search(self, queries, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(PatchIndex, "search", counting)
    together = tmp_path / "together"
    assert main(["search", str(contexts), "--image", *map(str, files), *asked, str(together)]) == 0
    assert searches == [3]
    assert "the nearest 4 of 16 contexts to each of 3 pictures" in capsys.readouterr().out
    answers = json.loads((together / "neighbours.json").read_text())
    for answer, one in zip(answers, alone, strict=True):
        assert answer["query"] == one["query"]
        for found, expected in zip(answer["neighbours"], one["neighbours"], strict=True):
            assert found.pop("similarity") == pytest.approx(expected.pop("similarity"), abs=1e-5)
            assert found == expected
    assert answers[0]["neighbours"] == answers[2]["neighbours"] != answers[1]["neighbours"]
    assert answers[0]["query"]["box"] == [0.125, 0.25, 0.5, 0.5]
    assert answers[1]["query"]["box"] == [0.0625, 0.125, 0.25, 0.25]
    with Image.open(together / "neighbours.png") as sheet, Image.open(tmp_path / "0" / "neighbours.png") as one_row:
        assert sheet.height - 6 == 3 * (one_row.height - 6)  # a gap, then the rows
        assert sheet.width == one_row.width


def test_a_hole_in_a_whole_picture_is_asked_with_all_that_surrounds_it(encoder_file: Path, tmp_path: Path) -> None:
    argv = ["--encoder", str(encoder_file), "--data", SPEC, "--split", "test", "--mode", "images"]
    assert main(["index", *argv, "--out", str(tmp_path / "images")]) == 0
    searchable = Searchable.open(tmp_path / "images")
    pictures = torch.stack([searchable.data[i][0] for i in range(16)])
    boxes = [(i % 4 / 8, i // 4 / 8, 0.25, 0.5) for i in range(16)]
    cosines, rows = searchable.ask_many(list(pictures), boxes, 16, hidden=True)
    colour = torch.tensor(MEAN_COLOUR) * 255
    holed = pictures.clone()
    for picture, (x, y, w, h) in zip(holed, boxes, strict=True):
        rows_of, columns = slice(int(32 * y), int(32 * (y + h))), slice(int(32 * x), int(32 * (x + w)))
        picture[:, rows_of, columns] = colour.round().byte()[:, None, None]
    with torch.inference_mode():
        queries, found = (searchable.encoder.embed(each).double() for each in (holed, pictures))
    expected = torch.nn.functional.cosine_similarity(queries[:, None], found[None], dim=2).numpy()
    np.testing.assert_allclose(cosines, -np.sort(-expected, axis=1), atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(expected, rows, axis=1), cosines, atol=1e-5)
    secret = pictures.clone()
    for picture, (x, y, w, h) in zip(secret, boxes, strict=True):
        picture[:, int(32 * y) : int(32 * (y + h)), int(32 * x) : int(32 * (x + w))] = 255
    np.testing.assert_array_equal(searchable.ask_many(list(secret), boxes, 16, hidden=True)[1], rows)


def test_an_index_of_patches_takes_no_holes(encoder_file: Path, tmp_path: Path) -> None:
    argv = ["--encoder", str(encoder_file), "--data", SPEC, "--split", "test", "--out", str(tmp_path / "grid")]
    assert main(["index", *argv]) == 0
    searchable = Searchable.open(tmp_path / "grid")
    with pytest.raises(UserError, match="this index holds grid; ask what surrounds a hole"):
        searchable.ask(searchable.data[0][0], (0.25, 0.25, 0.5, 0.5), hidden=True)


def test_a_picture_of_the_index_is_not_its_own_neighbour(contexts: Path, tmp_path: Path) -> None:
    assert main(["search", str(contexts), "--query", "7", "--out", str(tmp_path)]) == 0
    answer = json.loads((tmp_path / "neighbours.json").read_text())
    assert len(answer["neighbours"]) == 10
    assert 7 not in {found["image"] for found in answer["neighbours"]}


def test_neighbours_of_a_class_alone_by_the_command_and_in_three_lines(contexts: Path, tmp_path: Path) -> None:
    assert main(["search", str(contexts), "--query", "7", "-k", "16", "--out", str(tmp_path)]) == 0
    every = [found["label"] for found in json.loads((tmp_path / "neighbours.json").read_text())["neighbours"]]
    name = next(label for label in reversed(every) if label is not None)
    assert 0 < every.count(name) < len(every)
    argv = ["--query", "7", "-k", "16", "--label", name, "--out", str(tmp_path)]
    assert main(["search", str(contexts), *argv]) == 0
    of_class = json.loads((tmp_path / "neighbours.json").read_text())["neighbours"]
    assert [found["label"] for found in of_class] == [name] * every.count(name)
    searchable = Searchable.open(contexts)
    centre = (0.25, 0.25, 0.5, 0.5)
    picture = searchable.data[7][0]
    cosines, rows = searchable.ask(picture, centre, 16, hidden=True, without_image=7, label=name)
    np.testing.assert_allclose(cosines, [found["similarity"] for found in of_class], atol=1e-6)
    assert searchable.index.table["image"][rows].tolist() == [found["image"] for found in of_class]


def test_a_box_finds_its_own_patch(encoder_file: Path, picture: Path, tmp_path: Path) -> None:
    index = str(tmp_path / "grid")
    argv = [
        "--encoder",
        str(encoder_file),
        "--data",
        SPEC,
        "--out",
        index,
        "--split",
        "test",
        "--stage",
        "conv3",
        "--limit",
        "16",
    ]
    assert main(["index", *argv]) == 0
    argv = ["--image", str(picture), "--box", "16", "0", "16", "16", "--out", str(tmp_path)]
    assert main(["search", index, *argv]) == 0
    best = json.loads((tmp_path / "neighbours.json").read_text())["neighbours"][0]
    assert (best["image"], best["box"]) == (7, [0.5, 0, 0.5, 0.5])


def test_a_whole_folder_is_indexed_and_every_neighbour_named(encoder_file: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(photographs / f"{number}.png")
    argv = ["--encoder", str(encoder_file), "--data", f"folder:{photographs}", "--mode", "images"]
    assert main(["index", *argv, "--out", str(tmp_path / "index")]) == 0
    argv = ["--image", str(photographs / "5.png"), "-k", "12", "--out", str(tmp_path)]
    assert main(["search", str(tmp_path / "index"), *argv]) == 0
    found = json.loads((tmp_path / "neighbours.json").read_text())["neighbours"]
    assert {Path(each["file"]).name for each in found} == {f"{number}.png" for number in range(12)}
    assert Path(found[0]["file"]).name == "5.png"


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["--image", "PICTURE", "--hole", "20", "8", "16", "16"], "not within the picture, which is 32×32"),
        (["--image", "PICTURE", "--hole", "8", "8", "0", "16"], "not within"),
        (["--image", "PICTURE", "--hole", "nan", "8", "8", "16"], "not within"),
        (["--image", "PICTURE", "--box", "8", "8", "16", "16"], "holds contexts"),
        (["--image", "nowhere.png"], "nowhere.png"),
        (["--image", "PICTURE", "nowhere.png"], "nowhere.png"),
        (
            ["--image", "PICTURE", "PICTURE", "--hole", "20", "8", "16", "16"],
            r"not within the picture .*test 7.png, ",
        ),
        (["--image"], "either --image"),
        (["--image", "PICTURE", "--query", "1"], "either --image"),
        ([], "either --image"),
        (["--query", "16"], "numbered 0 to 15"),
        (["--query", "1", "-k", "0"], "k is 0"),
        (["--query", "1", "--label", "unicorn"], "no region of the index is of a class 'unicorn'"),
        (["--query", "1", "--data", "scenes?train=40&val=12&test=16&size=32&seed=1"], "not the data"),
        (["--query", "1", "--encoder", "OTHER"], "another"),
    ],
)
def test_a_question_that_cannot_be_asked_is_one_line(
    contexts: Path, picture: Path, tmp_path: Path, argv: list[str], word: str
) -> None:
    other = tmp_path / "other.safetensors"
    save_encoder(make_encoder(seed=5), other, {})
    given = [{"PICTURE": str(picture), "OTHER": str(other)}.get(arg, arg) for arg in argv]
    out = tmp_path / "out"
    with pytest.raises(UserError, match=word) as caught:
        main(["search", str(contexts), *given, "--out", str(out)])
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_a_missing_or_empty_folder_is_named(encoder_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        main(["search", str(tmp_path / "nowhere"), "--query", "0"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no index"):
        main(["search", str(tmp_path / "empty"), "--query", "0"])
    out = tmp_path / "out"
    with pytest.raises(UserError, match="empty"):
        data = f"folder:{tmp_path / 'empty'}"
        main(["index", "--encoder", str(encoder_file), "--data", data, "--out", str(out)])
    assert not out.exists()
    with pytest.raises(UserError, match="did you mean 'search'"):
        main(["serach"])


@pytest.mark.parametrize(("mode", "word"), [("objects", "needs boxes"), ("grid", "no stage 'conv9'")])
def test_an_index_that_cannot_be_made_is_one_line(encoder_file: Path, tmp_path: Path, mode: str, word: str) -> None:
    data = f"folder:{class_folders(tmp_path / 'photos', 10)}"
    stage = [] if mode == "objects" else ["--stage", "conv9"]
    argv = ["--encoder", str(encoder_file), "--data", data, "--mode", mode, *stage]
    with pytest.raises(UserError, match=word):
        main(["index", *argv, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_real_photographs_find_themselves(encoder_file: Path, tmp_path: Path) -> None:
    root = os.environ.get("PRETEXT_TEST_DATA")
    if not root:
        pytest.skip("PRETEXT_TEST_DATA is not set")
    spec = f"folder:{root}/tiny-imagenet-20?limit=12"
    photo = tmp_path / "photo.png"
    Image.fromarray(open_dataset(spec).split("test")[5][0].permute(1, 2, 0).numpy()).save(photo)
    index = str(tmp_path / "index")
    argv = ["--encoder", str(encoder_file), "--data", spec, "--split", "test", "--mode", "contexts"]
    assert main(["index", *argv, "--out", index]) == 0
    assert main(["search", index, "--image", str(photo), "--out", str(tmp_path)]) == 0
    best = json.loads((tmp_path / "neighbours.json").read_text())["neighbours"][0]
    assert best["image"] == 5
    assert best["similarity"] == pytest.approx(1, abs=1e-5)
