"""The search page's checks: who sends a request, how long it is, and the values in it."""

from __future__ import annotations

import asyncio
import io

import pytest
from PIL import Image

demo = pytest.importorskip("retrieval.demo.server", reason="fastapi is not installed")
guard = pytest.importorskip("retrieval.demo.guard", reason="fastapi is not installed")
TestClient = pytest.importorskip("starlette.testclient", reason="httpx is not installed").TestClient

HUGE = "1" + "0" * 400


@pytest.fixture
def page():
    """The page without an index: all checks come before the search."""
    with TestClient(demo.make_app([], ()), base_url="http://127.0.0.1:8000") as opened:
        yield opened


@pytest.fixture
def upload(page):
    written = io.BytesIO()
    Image.new("RGB", (40, 30)).save(written, "PNG")
    return page.post("/api/upload", content=written.getvalue()).json()["upload"]


@pytest.mark.parametrize("path", ["/api/search", "/api/fill"])
@pytest.mark.parametrize(
    ("box", "said"),
    [
        (f"[{HUGE}, 0, 1, 1]", "outside the picture"),
        (f"[0, 0, {HUGE}, 1]", "outside the picture"),
        (f"[-{HUGE}, 0, 1, 1]", "outside the picture"),
        ("[1e400, 0, 1, 1]", "outside the picture"),
        ("[-1e400, 0, 1e400, 1]", "outside the picture"),
        ("[NaN, 0, 1, 1]", "outside the picture"),
        ("[0, 0, 1, NaN]", "outside the picture"),
        ("[null, 0, 1, 1]", "left, top, width and height"),
        ("[true, 0, 1, 1]", "left, top, width and height"),
        ('["0", "0", "0.5", "0.5"]', "left, top, width and height"),
        ('"0011"', "left, top, width and height"),
        ('{"0": 1, "1": 1, "2": 1, "3": 1}', "left, top, width and height"),
        ("[[0], 0, 1, 1]", "left, top, width and height"),
        ("[0, 0, 1, 1, 1]", "left, top, width and height"),
        ("1e400", "left, top, width and height"),
    ],
)
def test_a_box_of_other_values_gets_a_sentence(page, upload, path, box, said):
    answer = page.post(path, content=f'{{"query": {{"upload": "{upload}"}}, "box": {box}}}')
    assert answer.status_code == 400 and said in answer.json()["error"]


@pytest.mark.parametrize(
    "k", [HUGE, "-" + HUGE, "1e400", "-Infinity", "NaN", "8.0", '"8"', "null", "true", "[8]", "{}"]
)
def test_a_k_of_other_values_gets_a_short_sentence(page, upload, k):
    answer = page.post("/api/search", content=f'{{"query": {{"upload": "{upload}"}}, "k": {k}}}')
    assert answer.status_code == 400 and "is not a whole number from 1 to 50" in answer.json()["error"]
    assert len(answer.json()["error"]) < 100


@pytest.mark.parametrize("hidden", ["1", '"false"', "null", "[]", HUGE])
def test_hidden_is_true_or_false(page, upload, hidden):
    answer = page.post("/api/search", content=f'{{"query": {{"upload": "{upload}"}}, "hidden": {hidden}}}')
    assert answer.status_code == 400 and "it must be true or false" in answer.json()["error"]


@pytest.mark.parametrize("query", [f'{{"upload": {HUGE}}}', '{"upload": ["x"]}', f'{{"index": {HUGE}}}', "[]", "1e400"])
def test_a_query_of_other_values_gets_a_sentence(page, query):
    answer = page.post("/api/search", content=f'{{"query": {query}}}')
    assert answer.status_code == 400 and answer.json()["error"]


@pytest.mark.parametrize(
    "content",
    [b"[]", b"3", b"", b"no json", b"\xff\xfe\x00", b'{"k": ' + b"1" * 5000 + b"}", b'{"k":' + b"[" * 50_000],
)
def test_json_of_another_form_gets_a_sentence(page, content):
    answer = page.post("/api/search", content=content)
    assert answer.status_code == 400 and answer.json() == {"error": "/api/search: the request has the wrong form"}


@pytest.mark.parametrize("number", ["9" * 30, "9" * 5000, "1e400", "-1", "nan", "\u0663"])
def test_an_address_with_another_number_gets_a_sentence(page, number):
    for path in (f"/api/picture/{number}/0", f"/api/region/{number}/0"):
        answer = page.get(path)
        assert answer.status_code == 400 and answer.json()["error"]


def test_an_unknown_address_gets_a_sentence(page):
    assert page.get("/api/other").json() == {"error": "/api/other: Not Found"}
    assert page.get("/api/search").json() == {"error": "/api/search: Method Not Allowed"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:8001"},
        {"Origin": "http://localhost:8000"},
        {"Origin": "https://127.0.0.1:8000"},
        {"Origin": "http://127.0.0.1:8000.elsewhere.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ],
)
def test_the_page_of_another_site_is_refused(page, headers):
    for answer in (
        page.post("/api/upload", content=b"x", headers=headers),
        page.post("/api/search", content=b"{}", headers=headers),
        page.get("/api/indexes", headers=headers),
    ):
        assert answer.status_code == 403 and "another site" in answer.json()["error"]


def test_a_form_of_another_site_is_refused(page):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert page.post("/api/upload", content=b"x", headers=headers).status_code == 403
    assert page.get("/", headers=headers).status_code == 200  # a link


@pytest.mark.parametrize(
    "host",
    ["elsewhere.example", "elsewhere.example:8000", "127.0.0.1.elsewhere.example", "", "localhost.", "0.0.0.0:8000"],
)
def test_another_host_name_is_refused(page, host):
    answer = page.get("/", headers={"Host": host, "Origin": f"http://{host}"})
    assert answer.status_code == 400 and "served at 127.0.0.1 and localhost only" in answer.json()["error"]


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "localhost:9000", "localhost", "LOCALHOST:8000"])
def test_the_own_page_and_command_lines_are_served(page, host):
    for headers in (
        {},
        {"Origin": f"http://{host.lower()}", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ):
        assert page.get("/api/indexes", headers={"Host": host} | headers).status_code == 200


def test_every_response_has_the_security_headers(page):
    refused = page.get("/", headers={"Origin": "null"})
    for answer in (page.get("/"), page.get("/page/demo.js"), page.post("/api/search"), page.get("/none"), refused):
        assert {name: answer.headers.get(name) for name in guard.RESPONSE_HEADERS} == guard.RESPONSE_HEADERS


def test_an_unexpected_error_has_them_too(page, upload, monkeypatch):
    monkeypatch.setattr(demo, "fill_by_all", lambda *given: 1 / 0)
    with TestClient(page.app, base_url="http://127.0.0.1", raise_server_exceptions=False) as opened:
        answer = opened.post("/api/fill", json={"query": {"upload": upload}, "box": [0, 0, 0.5, 0.5]})
    assert answer.status_code == 500
    assert {name: answer.headers.get(name) for name in guard.RESPONSE_HEADERS} == guard.RESPONSE_HEADERS


def test_a_client_that_leaves_raises_no_error():
    async def receive():
        return {"type": "http.disconnect"}

    assert send("/api/upload", [], receive=receive)[0] == 400


def send(path, chunks, headers=(), receive=None):
    """Return the status of a POST request, and how many of its chunks were read."""
    left, sent = list(chunks), []

    async def next_chunk():
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def record(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), *headers],
    }
    asyncio.run(demo.make_app([], ())(scope, receive or next_chunk, record))
    return sent[0]["status"], len(chunks) - len(left)


@pytest.mark.parametrize(
    ("path", "limit"), [("/api/upload", 20_000_000), ("/api/search", 64_000), ("/api/fill", 64_000)]
)
def test_a_long_body_is_refused_before_it_is_read_whole(page, path, limit):
    chunks = [bytes(limit // 4)] * 40
    for declared in (str(limit + 1), "9" * 5000):
        assert send(path, chunks, [(b"content-length", declared.encode())]) == (413, 0)
    assert send(path, chunks) == (413, 5)
    assert send(path, chunks, [(b"content-length", b"4")]) == (413, 5)
    assert send(path, chunks[:4]) == (400, 4)
    answer = page.post(path, content=bytes(limit + 1))
    assert answer.status_code == 413 and answer.json()["error"]
