"""`python -m retrieval demo`: a local web page to pick a picture, draw a box or a hole, and see the neighbours.

python -m retrieval demo --index DIR [--index DIR2 …] [--port N]

The server listens on 127.0.0.1 only, makes no outgoing requests, and writes no files. It keeps the last few uploads in
memory.
"""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path
from typing import Any

import tyro
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from jaxtyping import UInt8
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp
from torch import Tensor

from pretext.datasets import say_opened
from pretext.datasets.base import BadImage
from pretext.system.command_line import parse
from pretext.system.errors import UserError
from pretext.system.progress import working
from pretext.system.ranges import check_range
from pretext.tasks.base import Inpainter
from pretext.training.run_folder import load_task
from retrieval.demo.answers import data_url, jpeg_response, search_one
from retrieval.demo.closeness import random_cosine
from retrieval.demo.examples import example
from retrieval.demo.fills import ShownIndex, box_of, crop, fill_by_all
from retrieval.demo.guard import Guard, JsonBody, RequestError, read_body
from retrieval.demo.questions import requested_box, requested_flag, whole_number
from retrieval.demo.uploads import MAX_BYTES, TOO_LARGE, Uploads
from retrieval.originals import original
from retrieval.regions import WHOLE
from retrieval.searcher import Searchable

PROG = "python -m retrieval demo"
PAGE = Path(__file__).parent / "page"
ASSETS = ("demo.css", "demo.js", "query.js", "neighbours.js", "fills.js")
MAX_NEIGHBOURS = 50
MAX_EXAMPLES = 10**6
WITHOUT_LEARNING = {"hog": "HOG", "pixels": "raw pixels"}
"""Names on the page of encoders that learn nothing; these have one stage."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """Serve a page to search indexes with a mouse, on this machine only.

    Examples:
        python -m retrieval demo --index index
        python -m retrieval demo --index mine --index random --port 8080
    """

    index: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """Folder of an index; repeat to compare encoders side by side."""
    port: int = 8000
    """Port on 127.0.0.1; 0 takes any free port."""
    device: str = "auto"
    """Torch device: cpu, cuda, …; auto takes a GPU if there is one."""
    seed: int = 0
    """Seed of the examples; the page opens with the first one."""

    def __post_init__(self) -> None:
        check_range(self, "port", least=0, most=65535)


def demo_command(argv: list[str]) -> int:
    """Serve the page until it is interrupted; return the exit code.

    Raises:
        UserError: If no index is given, one cannot be opened, or the port is in use.
    """
    options = parse(Demo, argv, prog=PROG)
    if not options.index:
        raise UserError(f"{PROG}: give --index DIR; python -m retrieval index makes one")
    opened = [Searchable.open(folder, device=options.device) for folder in options.index]
    for searchable in opened:
        say_opened(searchable.data)
    with working("prepare the page"):
        served = make_app(opened, options.index, seed=options.seed)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", options.port))
            listener.listen()  # before the address is printed: a client that reads it may connect at once
        except OSError as error:
            raise UserError(f"--port {options.port}: {error.strerror}; give another port") from None
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/  (stop with Ctrl-C)", flush=True)
        uvicorn.Server(uvicorn.Config(served, log_level="warning")).run([listener])
    return 0


def make_app(searchables: list[Searchable], folders: tuple[Path, ...], *, seed: int = 0) -> ASGIApp:
    """Return the page and its API as an ASGI application.

    Args:
        searchables: The opened indexes.
        folders: Their folders; distinguish two indexes of one encoder by name.
        seed: Seed of the examples.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)  # these pages would load scripts from other hosts
    shown = _with_names(searchables, folders)
    uploads = Uploads()

    @app.exception_handler(RequestError)
    @app.exception_handler(UserError)
    @app.exception_handler(BadImage)
    async def invalid(_: Request, error: Exception) -> JSONResponse:
        status = error.status if isinstance(error, RequestError) else 400
        return JSONResponse({"error": str(error)}, status_code=status)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, _: Exception) -> JSONResponse:
        return JSONResponse({"error": f"{request.url.path}: the request has the wrong form"}, status_code=400)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": f"{request.url.path}: {error.detail}"}, status_code=error.status_code)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: Exception) -> Response:
        return Response(status_code=400)  # nobody reads it

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/page/{name}")
    def asset(name: str) -> FileResponse:
        if name not in ASSETS:
            raise RequestError(f"{name} does not exist")
        return FileResponse(PAGE / name)

    @app.get("/api/indexes")
    def indexes() -> list[dict[str, Any]]:
        return [
            {
                "name": each.name,
                "mode": each.searchable.index.manifest.regions.mode,
                "regions": len(each.searchable.index.table),
                "pictures": len(each.searchable.data),
                "data": each.searchable.index.manifest.data,
                "boxes": each.searchable.takes_boxes,
                "holes": each.searchable.takes_holes,
                "random_cosine": round(each.random_cosine, 3),
            }
            for each in shown
        ]

    @app.get("/api/example/{number}")
    def an_example(number: int) -> dict[str, Any]:
        whole_number(0, len(shown))
        return example(shown[0].searchable, seed, whole_number(number, MAX_EXAMPLES))

    def picture_of(query: Any) -> tuple[UInt8[Tensor, "3 H W"], Searchable | None, int | None]:
        """Return a query's picture; if it comes from an index, also that index and its number there."""
        if not isinstance(query, dict):
            raise RequestError("query must be {upload: NAME} or {index: NUMBER, number: NUMBER}")
        if "upload" in query:
            return uploads.get(query["upload"]), None, None
        index, number = whole_number(query.get("index"), len(shown)), query.get("number")
        searchable = shown[index].searchable
        number = whole_number(number, len(searchable.data))
        return original(searchable.data, number), searchable, number

    @app.get("/api/picture/{index}/{number}")
    def picture(index: int, number: int) -> Response:
        return jpeg_response(picture_of({"index": index, "number": number})[0])

    @app.get("/api/region/{index}/{row}")
    def region(index: int, row: int) -> Response:
        searchable = shown[whole_number(index, len(shown))].searchable
        found = searchable.index.table[whole_number(row, len(searchable.index.table))]
        return jpeg_response(crop(original(searchable.data, int(found["image"])), box_of(found)))

    @app.get("/api/upload/{name}")
    def uploaded(name: str) -> Response:
        return jpeg_response(picture_of({"upload": name})[0])

    @app.post("/api/upload")
    async def upload(request: Request) -> dict[str, Any]:
        content = await read_body(request, MAX_BYTES, TOO_LARGE)
        return {"upload": await uploads.add(content)}

    @app.post("/api/search")
    def search(body: JsonBody) -> list[dict[str, Any]]:
        image, own, number = picture_of(body.get("query"))
        box, hidden = requested_box(body), requested_flag(body, "hidden")
        k = whole_number(body.get("k", 8), MAX_NEIGHBOURS + 1, low=1)
        return [search_one(i, each, image, own, number, box, hidden, k) for i, each in enumerate(shown)]

    @app.post("/api/fill")
    def fill(body: JsonBody) -> list[dict[str, str]]:
        image, own, number = picture_of(body.get("query"))
        box = requested_box(body)
        if box == WHOLE:
            raise RequestError("mark a hole first")
        fills = fill_by_all(shown, image, own, number, box)
        return [{"name": name, "picture": data_url(filled)} for name, filled in fills.items()]

    return Guard(app)


def _with_names(searchables: list[Searchable], folders: tuple[Path, ...]) -> list[ShownIndex]:
    """Return the indexes with unique names, and the decoder of each encoder's training run."""
    names = [_name(each) for each in searchables]
    for more in ([folder.name for folder in folders], [f"index {number}" for number in range(1, len(names) + 1)]):
        names = [
            name if names.count(name) == 1 else f"{name}, {distinct}"
            for name, distinct in zip(names, more, strict=True)
        ]
    return [
        ShownIndex(name, each, _decoder(each), random_cosine(each))
        for name, each in zip(names, searchables, strict=True)
    ]


def _name(searchable: Searchable) -> str:
    task = str(searchable.encoder.record.get("task") or searchable.encoder.spec)
    plain = WITHOUT_LEARNING.get(task.partition("?")[0])
    return plain or f"{task} {searchable.index.manifest.stage}"


def _decoder(searchable: Searchable) -> Inpainter | None:
    folder = Path(searchable.index.manifest.encoder).parent
    if not (folder / "checkpoint.safetensors").is_file():
        return None
    task = load_task(folder)
    return task if isinstance(task, Inpainter) else None
