"""The page to search with: its answers through HTTP, what it refuses, and, slowly, a real browser."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image

from pretext.datasets import open_dataset
from pretext.encoders import build_encoder, save_encoder
from pretext.errors import UserError
from pretext.train import train
from pretext.train_config import TrainConfig
from retrieval.__main__ import main
from retrieval.asking import Searchable

demo = pytest.importorskip("retrieval.demo", reason="fastapi is not installed")
TestClient = pytest.importorskip("starlette.testclient", reason="httpx is not installed").TestClient

DATA, SIZE = "scenes?size=32&train=30&val=6&test=6", 32
SPEC = "alexnet?width=0.125&stem_stride=2"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An index of whole pictures and one of contexts, of a context encoder, and one of patches, of random weights."""
    root = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRETEXT_CACHE", str(root / "cache"))
        config = TrainConfig(steps=1, batch_size=4, workers=0, device="cpu")
        trained = train("context_encoder", SPEC, open_dataset(DATA), config, root / "run", image_size=SIZE)
        random = root / "random.safetensors"
        save_encoder(build_encoder(SPEC, input_size=SIZE, seed=0), random, {"task": "random"})
        for mode, file in (("images", trained), ("contexts", trained), ("grid", random)):
            main(["index", "--encoder", str(file), "--data", DATA, "--mode", mode, "--out", str(root / mode)])
        yield tuple(root / name for name in ("images", "contexts", "grid"))


@pytest.fixture(scope="module")
def page(folders):
    app = demo.make_app([Searchable.open(folder) for folder in folders], folders)
    with TestClient(app, base_url="http://127.0.0.1") as opened:
        yield opened


def search(page, **asked):
    return page.post("/api/search", json={"query": {"index": 0, "number": 3}, "k": 4} | asked)


def png(size=(40, 30), colour="red"):
    written = io.BytesIO()
    Image.new("RGB", size, colour).save(written, "PNG")
    return written.getvalue()


def test_the_page_asks_nothing_of_another_host(page):
    texts = [page.get(path).text for path in ("/", "/page/demo.js", "/page/demo.css")]
    assert not re.search(r"https?://|//[a-z]+\.", "".join(texts).replace("// A question", "").replace("// a later", ""))
    assert page.get("/").headers["content-security-policy"].startswith("default-src 'self'")
    for path in ("/page/../demo.py", "/page/other.js", "/docs", "/openapi.json"):
        assert page.get(path).status_code in (400, 404)


def test_another_host_is_not_served(page):
    assert page.get("/", headers={"Host": "elsewhere.example"}).status_code == 400


def test_indexes_say_what_they_can_be_asked(page):
    found = page.get("/api/indexes").json()
    assert [(each["mode"], each["boxes"], each["holes"]) for each in found] == [
        ("images", True, True),
        ("contexts", False, True),
        ("grid", True, False),
    ]
    assert len({each["name"] for each in found}) == 3
    assert all(each["pictures"] == 42 for each in found)


def test_neighbours_are_those_of_the_index(page, folders):
    whole, contexts, grid = search(page).json()
    assert "error" in contexts and len(grid["neighbours"]) == len(whole["neighbours"]) == 4
    opened = Searchable.open(folders[0])
    vectors = opened.index.vectors.reconstruct_n(0, 42)
    order = np.argsort(-vectors @ vectors[3])
    assert [each["number"] for each in whole["neighbours"]] == [k for k in order if k != 3][:4]
    similarities = [each["similarity"] for each in whole["neighbours"]]
    assert similarities == sorted(similarities, reverse=True)
    for each in whole["neighbours"]:
        for address in (each["picture"], each["region"]):
            assert Image.open(io.BytesIO(page.get(address).content)).format == "JPEG"


def test_a_hole_is_asked_where_it_can_be(page):
    whole, contexts, grid = search(page, box=[0.25, 0.25, 0.5, 0.5], hidden=True).json()
    assert len(whole["neighbours"]) == len(contexts["neighbours"]) == 4
    assert grid["error"] == "It holds patches: ask with a marked part."


def test_a_hole_is_filled_by_every_method(page):
    box = [0.25, 0.25, 0.5, 0.5]
    fills = page.post("/api/fill", json={"query": {"index": 0, "number": 3}, "box": box}).json()
    pictures = {}
    for each in fills:
        content = base64.b64decode(each["picture"].partition(",")[2])
        pictures[each["name"]] = np.asarray(Image.open(io.BytesIO(content))).astype(int)
    assert sum(name.startswith("nearest by") for name in pictures) == 2
    assert {"painted by context_encoder", "mean colour", "interpolated", "as it was"} <= set(pictures)
    truth = pictures["as it was"]
    hole = np.zeros(truth.shape[:2], bool)
    hole[8:24, 8:24] = True
    for name, filled in pictures.items():
        assert np.array_equal(filled[~hole], truth[~hole]), name
        assert name == "as it was" or not np.array_equal(filled[hole], truth[hole]), name


def test_a_fill_leaves_the_rest_of_a_picture_as_it_was_given(page):
    rng = np.random.default_rng(0)
    given = rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)
    written = io.BytesIO()
    Image.fromarray(given).save(written, "PNG")
    query = page.post("/api/upload", content=written.getvalue()).json()
    fills = page.post("/api/fill", json={"query": query, "box": [0.2, 0.1, 0.5, 0.5]}).json()
    for each in fills:
        filled = np.asarray(Image.open(io.BytesIO(base64.b64decode(each["picture"].partition(",")[2]))))
        other = (filled != given).any(axis=2)
        other[3:18, 10:35] = False
        assert not other.any(), each["name"]


def test_an_upload_is_a_query(page):
    query = page.post("/api/upload", content=png()).json()
    assert Image.open(io.BytesIO(page.get(f"/api/upload/{query['upload']}").content)).size == (40, 30)
    (whole, *_) = search(page, query=query).json()
    assert len(whole["neighbours"]) == 4
    for _ in range(demo.KEPT):
        page.post("/api/upload", content=png())
    answer = search(page, query=query)
    assert answer.status_code == 400 and "no longer kept" in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no picture"),
        (b"<html>", "no picture"),
        (png()[:60], "no picture"),
        (b"x" * (demo.MOST_BYTES + 1), "larger than 20 MB"),
        (png((8000, 5001)), "more than 40 million pixels"),
    ],
)
def test_what_is_no_picture_gets_a_sentence(page, content, said):
    answer = page.post("/api/upload", content=content)
    assert answer.status_code == 400 and said in answer.json()["error"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"query": {"index": 9, "number": 0}}, "9 is not a whole number from 0 to 2"),
        ({"query": {"index": 0, "number": 42}}, "from 0 to 41"),
        ({"query": {"index": True, "number": 1}}, "not a whole number"),
        ({"query": {}}, "not a whole number"),
        ({"box": [0, 0, 2, 1]}, "not within the picture"),
        ({"box": ["nan", 0, 1, 1]}, "not within the picture"),
        ({"box": [0, 1]}, "left, top, width and height"),
        ({"k": 0}, "not a whole number"),
        ({"k": 1000}, "not a whole number"),
    ],
)
def test_what_cannot_be_asked_gets_a_sentence(page, asked, said):
    answer = search(page, **asked)
    assert answer.status_code == 400 and said in answer.json()["error"]


def test_the_command_refuses_in_one_line(tmp_path):
    with pytest.raises(UserError, match="give --index"):
        demo.demo_command([])
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        demo.demo_command(["--index", str(tmp_path)])


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_real_browser_shows_neighbours_and_fills(folders, tmp_path):
    words = [word for folder in folders for word in ("--index", str(folder))]
    command = [sys.executable, "-m", "retrieval", "demo", *words, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        address = re.search(r"http://127\.0\.0\.1:\d+/", served.stdout.readline())[0]
        while True:
            try:
                urllib.request.urlopen(address + "api/indexes").read()
                break
            except OSError:
                time.sleep(0.2)
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
        arguments += ["--enable-logging=stderr", f"--user-data-dir={tmp_path}", "--window-size=500,900"]
        question = f"{address}?number=3&how=hole&box=0.2,0.2,0.5,0.5&fill=1"
        dom = subprocess.run([BROWSER, *arguments, question], capture_output=True, text=True, timeout=240, check=True)
        served.terminate()
    assert "CONSOLE" not in dom.stderr, [line for line in dom.stderr.splitlines() if "CONSOLE" in line]
    assert dom.stdout.count("<figure>") >= 8 + 5
    assert not re.search(r"<img(?![^>]*alt=\"[^\"]+\")", dom.stdout)
