"""The search page: its HTTP responses and invalid requests."""

from __future__ import annotations

import base64
import io
import re
import socket

import numpy as np
import pytest
from demo_samples import DATA, png
from PIL import Image

from pretext.datasets import BadImage, open_dataset
from pretext.system.errors import UserError
from retrieval.__main__ import main
from retrieval.searcher import Searchable

demo = pytest.importorskip("retrieval.demo.server", reason="fastapi is not installed")
uploads = pytest.importorskip("retrieval.demo.uploads", reason="fastapi is not installed")
TestClient = pytest.importorskip("starlette.testclient", reason="httpx is not installed").TestClient


@pytest.fixture(scope="module")
def page(demo_folders):
    app = demo.make_app([Searchable.open(folder) for folder in demo_folders], demo_folders)
    with TestClient(app, base_url="http://127.0.0.1") as opened:
        yield opened


def search(page, **asked):
    return page.post("/api/search", json={"query": {"index": 0, "number": 3}, "k": 4} | asked)


def test_the_page_asks_nothing_of_another_host(page):
    texts = [page.get(path).text for path in ("/", *(f"/page/{name}" for name in demo.ASSETS))]
    assert {file.name for file in demo.PAGE.iterdir()} == {"index.html", *demo.ASSETS}
    assert not re.search(r"https?://|//[a-z]+\.", "".join(texts))
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


def test_neighbours_are_those_of_the_index(page, demo_folders):
    whole, contexts, grid = search(page).json()
    assert "error" in contexts and len(grid["neighbours"]) == len(whole["neighbours"]) == 4
    opened = Searchable.open(demo_folders[0])
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
    assert grid["error"] == "This index holds patches. Search with a region instead."


def test_a_hole_is_filled_by_every_method(page):
    box = [0.25, 0.25, 0.5, 0.5]
    fills = page.post("/api/fill", json={"query": {"index": 0, "number": 3}, "box": box}).json()
    pictures = {}
    for each in fills:
        content = base64.b64decode(each["picture"].partition(",")[2])
        pictures[each["name"]] = np.asarray(Image.open(io.BytesIO(content))).astype(int)
    assert sum(name.startswith("nearest by") for name in pictures) == 3
    assert {"decoded by context_encoder", "mean colour", "interpolated", "original"} <= set(pictures)
    truth = pictures["original"]
    hole = np.zeros(truth.shape[:2], bool)
    hole[8:24, 8:24] = True
    for name, filled in pictures.items():
        assert np.array_equal(filled[~hole], truth[~hole]), name
        assert name == "original" or not np.array_equal(filled[hole], truth[hole]), name


def test_no_method_fills_a_hole_from_the_picture_itself(page):
    truth = open_dataset(DATA).split("train")[3][0].permute(1, 2, 0).numpy()
    written = io.BytesIO()
    Image.fromarray(truth).save(written, "PNG")
    upload = page.post("/api/upload", content=written.getvalue()).json()
    found = []
    for query in (upload, {"index": 0, "number": 3}):
        fills = page.post("/api/fill", json={"query": query, "box": [0.25, 0.25, 0.5, 0.5]}).json()
        nearest = {each["name"]: each["picture"] for each in fills if each["name"].startswith("nearest by")}
        assert len(nearest) == 3
        for name, picture in nearest.items():
            filled = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2])))).astype(int)
            assert np.abs(filled - truth).max() > 20, name
        found.append(nearest)
    assert found[0] == found[1]  # an upload of a picture of the index is filled as that picture is


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
    for _ in range(uploads.MAX_UPLOADS):
        page.post("/api/upload", content=png())
    answer = search(page, query=query)
    assert answer.status_code == 400 and "has expired" in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a readable picture"),
        (b"<html>", "not a readable picture"),
        (png()[:60], "not a readable picture"),
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
        ({"box": [0, 0, 2, 1]}, "outside the picture"),
        ({"box": ["nan", 0, 1, 1]}, "left, top, width and height"),
        ({"box": [0, 1]}, "left, top, width and height"),
        ({"query": "3"}, "query must be {upload: NAME}"),
        ({"query": {"upload": [3]}}, "has expired"),
        ({"k": "many"}, "'many' is not a whole number from 1 to 50"),
        ({"k": None}, "None is not a whole number"),
        ({"k": 0}, "not a whole number"),
        ({"k": 1000}, "not a whole number"),
    ],
)
def test_what_cannot_be_asked_gets_a_sentence(page, asked, said):
    answer = search(page, **asked)
    assert answer.status_code == 400 and said in answer.json()["error"]


@pytest.mark.parametrize("content", [b"[]", b"3", b"no json"])
def test_a_question_of_another_form_gets_a_sentence(page, content):
    answer = page.post("/api/search", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and answer.json() == {"error": "/api/search: the request has the wrong form"}


def test_a_picture_that_cannot_be_read_any_more_gets_a_sentence(page, monkeypatch):
    def gone(*given):
        raise BadImage("3.jpg: No such file or directory")

    monkeypatch.setattr(demo, "original", gone)
    for answer in (page.get("/api/picture/0/3"), page.get("/api/region/0/3"), search(page)):
        assert answer.status_code == 400 and answer.json() == {"error": "3.jpg: No such file or directory"}


def test_a_program_that_draws_a_picture_is_not_run(page, monkeypatch):
    written = io.BytesIO()
    Image.new("RGB", (40, 30)).save(written, "EPS")
    run = []
    monkeypatch.setattr(
        "PIL.EpsImagePlugin.Ghostscript", lambda *given: run.append(given) or Image.new("RGB", (40, 30)).im
    )
    answer = page.post("/api/upload", content=written.getvalue())
    assert answer.status_code == 400 and "not a readable picture" in answer.json()["error"]
    assert not run


def test_a_hole_in_the_only_picture_is_filled_by_what_needs_no_other(demo_folders, tmp_path):
    arguments = ["--encoder", str(demo_folders[0].parent / "random.safetensors"), "--split", "test", "--limit", "1"]
    main(["index", *arguments, "--data", DATA, "--mode", "images", "--out", str(tmp_path / "one")])
    app = demo.make_app([Searchable.open(tmp_path / "one")], (tmp_path / "one",))
    with TestClient(app, base_url="http://127.0.0.1") as opened:
        asked = {"query": {"index": 0, "number": 0}, "box": [0.25, 0.25, 0.5, 0.5]}
        assert opened.post("/api/search", json=asked).json()[0]["neighbours"] == []
        fills = [each["name"] for each in opened.post("/api/fill", json=asked).json()]
    assert fills == ["mean colour", "interpolated", "original"]


def test_the_command_refuses_in_one_line(tmp_path):
    with pytest.raises(UserError, match="give --index"):
        demo.demo_command([])
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        demo.demo_command(["--index", str(tmp_path)])


def test_the_printed_address_can_be_connected_to(demo_folders, monkeypatch, capsys):
    def connect(server, sockets):
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", capsys.readouterr().out)[1])
        socket.create_connection(("127.0.0.1", port), timeout=60).close()

    monkeypatch.setattr("uvicorn.Server.run", connect)
    assert demo.demo_command(["--index", str(demo_folders[0]), "--port", "0"]) == 0
