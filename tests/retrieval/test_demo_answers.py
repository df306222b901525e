"""The search page's examples, the words for a similarity, and the query's own picture."""

from __future__ import annotations

import io
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from demo_samples import DATA
from PIL import Image

from pretext.datasets import open_dataset
from retrieval.__main__ import main
from retrieval.demo.closeness import WORDS, closeness, random_cosine, word_for
from retrieval.searcher import Searchable

demo = pytest.importorskip("retrieval.demo.server", reason="fastapi is not installed")
TestClient = pytest.importorskip("starlette.testclient", reason="httpx is not installed").TestClient

BOX = [0.25, 0.25, 0.5, 0.5]


@pytest.fixture(scope="module")
def plain_folders(tmp_path_factory, cache):
    """Indexes by HOG and by raw pixels, at another size than the other indexes."""
    root = tmp_path_factory.mktemp("plain")
    for name, pool, mode in (("hog", 7, "images"), ("pixels", 8, "grid")):
        arguments = ["--encoder", name, "--data", DATA, "--mode", mode, "--pool", str(pool), "--out", str(root / name)]
        main(["index", *arguments])
    return root / "hog", root / "pixels"


def serve(folders, **options):
    return TestClient(
        demo.make_app([Searchable.open(folder) for folder in folders], tuple(folders), **options),
        base_url="http://127.0.0.1",
    )


@pytest.fixture(scope="module")
def page(demo_folders, plain_folders):
    with serve((*demo_folders, *plain_folders)) as opened:
        yield opened


def search(page, query, **asked):
    answer = page.post("/api/search", json={"query": query} | asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.slow
def test_rows_without_learning_have_plain_names_and_fill_holes_once(page):
    names = [each["name"] for each in page.get("/api/indexes").json()]
    assert names[3:] == ["HOG", "raw pixels"] and len(set(names)) == 5
    assert all(len(each.get("neighbours", "1234")) == 4 for each in search(page, {"index": 0, "number": 3}, k=4))
    fills = page.post("/api/fill", json={"query": {"index": 0, "number": 3}, "box": BOX}).json()
    assert [each["name"] for each in fills].count("nearest by HOG") == 1


def test_indexes_of_one_name_in_folders_of_one_name_stay_distinct(demo_folders):
    with serve([demo_folders[2]] * 2) as opened:
        first, second = [each["name"] for each in opened.get("/api/indexes").json()]
    assert first != second


def test_an_example_is_a_region_of_the_index_and_depends_on_the_seed(demo_folders):
    def drawn(folder, seed, count=4):
        with serve([folder], seed=seed) as opened:
            found = [opened.get(f"/api/example/{number}").json() for number in range(count)]
            for each in found:
                assert len(search(opened, each["query"], box=each["box"], hidden=each["how"] == "hole")) == 1
            return found

    whole, contexts, grid = (drawn(folder, 0) for folder in demo_folders)
    assert [each["how"] for each in (whole[0], contexts[0], grid[0])] == ["whole", "hole", "box"]
    assert grid == drawn(demo_folders[2], 0) and grid != drawn(demo_folders[2], 1)
    assert len({str(each) for each in grid}) > 1
    table = Searchable.open(demo_folders[2]).index.table
    rows = {(int(row["image"]), *(float(row[side]) for side in "xywh")): int(row["label"]) for row in table}
    assert any(label < 0 for label in rows.values())
    for each in grid:
        assert rows[(each["query"]["number"], *each["box"])] >= 0  # one with a class is taken


def test_an_example_is_not_plain(demo_folders, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(12):
        grey = rng.integers(0, 256, (32, 32, 1 if number % 4 else 3), dtype=np.uint8)
        Image.fromarray(np.broadcast_to(grey, (32, 32, 3))).save(tmp_path / f"{number}.png")
    encoder = str(demo_folders[0].parent / "random.safetensors")
    arguments = ["--encoder", encoder, "--data", f"folder:{tmp_path}", "--mode", "images"]
    main(["index", *arguments, "--out", str(tmp_path / "index")])
    with serve([tmp_path / "index"]) as opened:
        taken = [opened.get(f"/api/example/{number}").json()["query"]["number"] for number in range(8)]
        colourful = 0
        for number in taken:
            content = opened.get(f"/api/picture/0/{number}").content
            red, _, blue = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int).transpose(2, 0, 1)
            colourful += bool(np.abs(red - blue).mean() > 20)
    assert colourful >= 5  # of 8; one picture in four is


@pytest.mark.parametrize("number", ["-1", "1000000", "x", "9" * 30])
def test_an_example_of_another_number_gets_a_sentence(page, number):
    answer = page.get(f"/api/example/{number}")
    assert answer.status_code == 400 and answer.json()["error"]


def test_a_neighbour_is_described_whole(page):
    (found, *_), *_ = (each["neighbours"] for each in search(page, {"index": 0, "number": 3}) if "neighbours" in each)
    assert set(found) == {
        *("similarity", "closeness", "word", "name", "label", "number", "box", "picture", "region", "same")
    }
    assert found["name"] == f"picture {found['number']}"


def test_a_neighbour_has_the_name_of_its_file(demo_folders, tmp_path):
    for number, (picture, _) in enumerate(open_dataset(DATA).split("train")[k] for k in range(5)):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"photograph {number}.png")
    encoder = str(demo_folders[0].parent / "random.safetensors")
    main(["index", "--encoder", encoder, "--data", f"folder:{tmp_path}", "--out", str(tmp_path / "index")])
    with serve([tmp_path / "index"]) as opened:
        (answer,) = search(opened, {"index": 0, "number": 0}, box=BOX, k=50)
    names = {each["name"] for each in answer["neighbours"]}
    assert len(names) == 4 and names < {f"photograph {number}.png" for number in range(5)}


def test_the_cosine_of_random_regions_is_that_of_all_pairs(demo_folders):
    for folder in demo_folders:
        opened = Searchable.open(folder)
        vectors = opened.index.vectors.reconstruct_n(0, len(opened.index.table))
        images = opened.index.table["image"]
        others = images[:, None] != images
        assert random_cosine(opened) == pytest.approx(float((vectors @ vectors.T)[others].mean()), abs=0.03)


def test_words_lie_between_random_and_equal_features():
    assert [closeness(cosine, 0.9) for cosine in (0.8, 0.9, 0.95, 1.0, 1.01)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert closeness(1.0, 1.0) == 0  # every region of the index is equal: none is close
    words = [word_for(step / 100) for step in range(101)]
    assert words[0] == "hardly similar" and words[-1] == "very similar"
    assert [word for number, word in enumerate(words) if word not in words[:number]] == [w for _, w in WORDS][::-1]


def test_words_follow_the_order_of_the_neighbours(page):
    order = [word for _, word in WORDS]
    random = [each["random_cosine"] for each in page.get("/api/indexes").json()]
    for answer, base in zip(search(page, {"index": 0, "number": 3}, k=30), random, strict=True):
        for each in answer.get("neighbours", []):
            assert each["closeness"] == pytest.approx(
                (each["similarity"] - base) / (1 - base), abs=0.001 / (1 - base) + 0.001
            )
        places = [order.index(each["word"]) for each in answer.get("neighbours", [])]
        assert places == sorted(places)


@pytest.mark.parametrize("index", range(5))
def test_a_picture_is_not_its_own_neighbour_in_an_index_of_any_size(page, index):
    for asked in ({"box": BOX}, {"box": BOX, "hidden": True}, {}):
        for answer in search(page, {"index": index, "number": 5}, k=10, **asked):
            for each in answer.get("neighbours", []):
                assert each["number"] != 5 and not each["same"]


def test_an_upload_of_a_picture_of_the_index_is_marked(page):
    picture = open_dataset(DATA).split("train")[7][0].permute(1, 2, 0).numpy()
    written = io.BytesIO()
    Image.fromarray(picture).save(written, "PNG")
    upload = page.post("/api/upload", content=written.getvalue()).json()
    for answer in search(page, upload, k=20):
        for each in answer.get("neighbours", []):
            assert each["same"] == (each["number"] == 7)
    whole = search(page, upload, k=3)[0]["neighbours"]
    assert whole[0]["same"] and whole[0]["similarity"] == pytest.approx(1, abs=0.01)


def test_a_picture_of_an_index_of_other_splits_is_marked(demo_folders, tmp_path):
    encoder = str(demo_folders[0].parent / "random.safetensors")
    arguments = ["--encoder", encoder, "--data", DATA, "--mode", "images"]
    folders: list[Path] = [tmp_path / "all", tmp_path / "test"]
    for folder in folders:
        main(["index", *arguments, "--split", folder.name, "--out", str(folder)])
    with serve(folders) as opened:
        joined, test = search(opened, {"index": 1, "number": 2}, k=3)
        fills = opened.post("/api/fill", json={"query": {"index": 1, "number": 2}, "box": BOX}).json()
    assert [each["same"] for each in joined["neighbours"]] == [True, False, False]
    assert not any(each["same"] for each in test["neighbours"])
    shown = {each["name"]: np.asarray(Image.open(urlopen(each["picture"]))).astype(int) for each in fills}
    nearest = [name for name in shown if name.startswith("nearest by")]
    assert len(nearest) == 3
    assert all(np.abs(shown[name] - shown["original"]).max() > 20 for name in nearest)
