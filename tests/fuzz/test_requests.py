"""Requests to the search page: every answer is a picture, JSON, or an error of one sentence; none is a 500."""

from __future__ import annotations

import io
import json
import random

import pytest
from damage_samples import damaged
from fuzz_samples import check, share
from index_samples import build, make_encoder, opened, photographs
from PIL import Image

from pretext.encoders.files import save_encoder
from pretext.system.errors import UserError
from retrieval.regions import Regions
from retrieval.searcher import Searchable

demo = pytest.importorskip("retrieval.demo.server", reason="fastapi is not installed")
TestClient = pytest.importorskip("starlette.testclient", reason="httpx is not installed").TestClient

SOUND = {"query": {"index": 0, "number": 1}, "box": [0.1, 0.1, 0.5, 0.5], "k": 3, "hidden": False}
PATHS = [
    "/api/search",
    "/api/fill",
    "/api/upload",
    "/api/indexes",
    "/api/picture/0/1",
    "/api/region/0/1",
    "/api/example/1",
    "/",
    "/page/demo.js",
]
PIECES = [
    "0",
    "-1",
    "9" * 40,
    "..",
    "%2e%2e",
    "%00",
    "x" * 3000,
    "é",
    "%ff",
    "1e3",
    "",
    "NaN",
    "demo.js",
    "٣",
    "?a=1",
    "#",
]
HEADERS = ["host", "origin", "content-length", "content-type", "sec-fetch-site", "accept", "range", "expect", "x" * 200]
VALUES = [
    "",
    "null",
    "127.0.0.1",
    "127.0.0.1:1",
    "-1",
    "9" * 60,
    "bytes=0-1",
    "multipart/form-data; boundary=",
    "a" * 5000,
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page with two indexes: one of patches, one of contexts."""
    root = tmp_path_factory.mktemp("page")
    folders = (root / "grid", root / "contexts")
    data = photographs(root / "photographs", range(4))
    for folder, mode in zip(folders, ("grid", "contexts"), strict=True):
        build(
            make_encoder(),
            opened(data),
            Regions(mode=mode),
            folder,
            split="all",
            encoder_source=str(root / "encoder.safetensors"),
        )
    save_encoder(make_encoder(), root / "encoder.safetensors", {})
    searchables = [Searchable.open(folder, data=f"folder:{data}") for folder in folders]
    app = demo.make_app(searchables, folders)
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=True) as client:
        yield client


def uploaded(drawn: random.Random) -> bytes:
    content = io.BytesIO()
    name = drawn.choice(["PNG", "JPEG", "WEBP", "GIF", "BMP", "ICO", "TIFF", "PPM"])
    Image.effect_noise((drawn.choice([1, 16, 40]), 16), 50).convert("RGB").save(content, name)
    return damaged(content.getvalue(), drawn)[1] if drawn.random() < 0.8 else content.getvalue()


def body(drawn: random.Random, uploads: list[str]) -> bytes:
    sound = dict(SOUND)
    sound["query"] = drawn.choice(
        [{"index": 0, "number": 1}, {"index": 1, "number": 0}, {"upload": drawn.choice(uploads or [""])}]
    )
    sound["hidden"] = drawn.random() < 0.5
    if drawn.random() < 0.3:
        sound["box"] = [drawn.choice([0, 1, 0.5, -0.1, 1e-9, 1.0001, 0.999]) for _ in range(4)]
    content = json.dumps(sound).encode()
    return damaged(content, drawn)[1] if drawn.random() < 0.85 else content


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["json", "upload", "address"])
def test_any_request_gets_an_answer(kind, page):
    uploads: list[str] = []

    def ask(drawn):
        if kind == "upload":
            answer = page.post("/api/upload", content=uploaded(drawn))
            if answer.status_code == 200:
                uploads.append(answer.json()["upload"])
                assert page.get(f"/api/upload/{uploads[-1]}").status_code == 200
        elif kind == "json":
            answer = page.post(drawn.choice(["/api/search", "/api/fill"]), content=body(drawn, uploads))
        else:
            path = drawn.choice(PATHS)
            if drawn.random() < 0.8:
                parts = path.split("/")
                parts[drawn.randrange(len(parts))] = drawn.choice(PIECES)
                path = "/" + "/".join(parts).lstrip("/")
            headers = {drawn.choice(HEADERS): drawn.choice(VALUES) for _ in range(drawn.choice([0, 1, 2]))}
            method = drawn.choice(["GET", "GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH"])
            drawn.about.append((method, path, headers))
            answer = page.request(method, path, headers=headers, content=b"{}" if method == "POST" else b"")
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400:
            if answer.request.method == "HEAD":
                return
            plain = answer.headers["content-type"].startswith("text/plain")  # the server's own, of a malformed range
            said = answer.text if plain else answer.json()["error"]
            assert "\n" not in said and len(said) < 500 + len(str(answer.request.url)), said
            raise UserError(said)

    check(f"requests, {kind}", share("requests", kind, ["json", "upload", "address"]), ask)
