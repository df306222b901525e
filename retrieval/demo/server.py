"""`python -m retrieval demo`: a local web page to pick a picture, draw a box or a hole, and see the neighbours.

python -m retrieval demo --index DIR [--index DIR2 …] [--port N]

The server listens on 127.0.0.1 only, makes no outgoing requests, and writes no files. It keeps the last few uploads in
memory.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import secrets
import socket
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import tyro
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from jaxtyping import UInt8
from PIL import Image
from starlette.middleware.trustedhost import TrustedHostMiddleware
from torch import Tensor

from pretext.datasets.base import BadImage
from pretext.datasets.decoding import decode, resize
from pretext.system.command_line import parse
from pretext.system.errors import UserError
from pretext.tasks.base import Inpainter
from pretext.training.run_folder import load_task
from retrieval.demo.fills import SHOWN_SIDE, ShownIndex, box_of, crop, fill_by_all, own_number
from retrieval.originals import original
from retrieval.regions import WHOLE, Box
from retrieval.searcher import Searchable
from retrieval.sheets import class_name

PROG = "python -m retrieval demo"
PAGE = Path(__file__).parent / "page"
MAX_BYTES = 20_000_000
MAX_PIXELS = 40_000_000
MAX_UPLOADS = 8
"""Uploads kept in memory; the oldest is dropped."""
MAX_NEIGHBOURS = 50


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

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}; allowed is 0 to 65535")


def demo_command(argv: list[str]) -> int:
    """Serve the page until it is interrupted; return the exit code.

    Raises:
        UserError: If no index is given, one cannot be opened, or the port is in use.
    """
    options = parse(Demo, argv, prog=PROG)
    if not options.index:
        raise UserError(f"{PROG}: give --index DIR; python -m retrieval index makes one")
    served = make_app([Searchable.open(folder, device=options.device) for folder in options.index], options.index)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", options.port))
        except OSError as error:
            raise UserError(f"--port {options.port}: {error.strerror}; give another port") from None
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/  (stop with Ctrl-C)", flush=True)
        uvicorn.Server(uvicorn.Config(served, log_level="warning")).run([listener])
    return 0


class RequestError(Exception):
    """A request is invalid; the page shows the message."""


def make_app(searchables: list[Searchable], folders: tuple[Path, ...]) -> Any:
    """Return the page and its API as an ASGI application.

    Args:
        searchables: The opened indexes.
        folders: Their folders; distinguish two indexes of one encoder by name.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)  # these pages would load scripts from other hosts
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    shown = _with_names(searchables, folders)
    uploads: OrderedDict[str, UInt8[Tensor, "3 H W"]] = OrderedDict()

    @app.middleware("http")
    async def add_headers(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = "default-src 'self'; img-src 'self' data:"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        return response

    @app.exception_handler(RequestError)
    @app.exception_handler(UserError)
    async def invalid(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=400)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, _: Exception) -> JSONResponse:
        return JSONResponse({"error": f"{request.url.path}: the request has the wrong form"}, status_code=400)

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/page/{name}")
    def asset(name: str) -> FileResponse:
        if name not in ("demo.js", "demo.css"):
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
            }
            for each in shown
        ]

    def picture_of(query: Any) -> tuple[UInt8[Tensor, "3 H W"], Searchable | None, int | None]:
        """Return a query's picture; if it comes from an index, also that index and its number there."""
        if not isinstance(query, dict):
            raise RequestError("query must be {upload: NAME} or {index: NUMBER, number: NUMBER}")
        if "upload" in query:
            if str(query["upload"]) not in uploads:
                raise RequestError("this upload has expired; upload the picture again")
            return uploads[str(query["upload"])], None, None
        index, number = _int_in(query.get("index"), len(shown)), query.get("number")
        searchable = shown[index].searchable
        number = _int_in(number, len(searchable.data))
        return original(searchable.data, number), searchable, number

    @app.get("/api/picture/{index}/{number}")
    def picture(index: int, number: int) -> Response:
        return _jpeg_response(picture_of({"index": index, "number": number})[0])

    @app.get("/api/region/{index}/{row}")
    def region(index: int, row: int) -> Response:
        searchable = shown[_int_in(index, len(shown))].searchable
        found = searchable.index.table[_int_in(row, len(searchable.index.table))]
        return _jpeg_response(crop(original(searchable.data, int(found["image"])), box_of(found)))

    @app.get("/api/upload/{name}")
    def uploaded(name: str) -> Response:
        return _jpeg_response(picture_of({"upload": name})[0])

    @app.post("/api/upload")
    async def upload(request: Request) -> dict[str, Any]:
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > MAX_BYTES:
                raise RequestError(f"this file is larger than {MAX_BYTES // 10**6} MB; choose a smaller file")
        name = secrets.token_urlsafe(12)
        uploads[name] = _decode_upload(bytes(content))
        while len(uploads) > MAX_UPLOADS:
            uploads.popitem(last=False)
        return {"upload": name}

    @app.post("/api/search")
    def search(body: dict[str, Any]) -> list[dict[str, Any]]:
        image, own, number = picture_of(body.get("query"))
        box, hidden = _requested_box(body), bool(body.get("hidden"))
        k = _int_in(body.get("k", 8), MAX_NEIGHBOURS + 1, low=1)
        return [_search(i, each, image, own, number, box, hidden, k) for i, each in enumerate(shown)]

    @app.post("/api/fill")
    def fill(body: dict[str, Any]) -> list[dict[str, str]]:
        image, own, number = picture_of(body.get("query"))
        box = _requested_box(body)
        if box == WHOLE:
            raise RequestError("mark a hole first")
        fills = fill_by_all(shown, image, own, number, box)
        return [{"name": name, "picture": _data_url(filled)} for name, filled in fills.items()]

    return app


def _with_names(searchables: list[Searchable], folders: tuple[Path, ...]) -> list[ShownIndex]:
    """Return the indexes with unique names, and the decoder of each encoder's training run."""
    names = [
        f"{each.encoder.record.get('task') or each.encoder.spec} {each.index.manifest.stage}" for each in searchables
    ]
    return [
        ShownIndex(name if names.count(name) == 1 else f"{name}, {folder.name}", each, _decoder(each))
        for name, folder, each in zip(names, folders, searchables, strict=True)
    ]


def _decoder(searchable: Searchable) -> Inpainter | None:
    folder = Path(searchable.index.manifest.encoder).parent
    if not (folder / "checkpoint.safetensors").is_file():
        return None
    task = load_task(folder)
    return task if isinstance(task, Inpainter) else None


def _search(
    position: int,
    shown: ShownIndex,
    image: UInt8[Tensor, "3 H W"],
    own: Searchable | None,
    number: int | None,
    box: Box,
    hidden: bool,
    k: int,
) -> dict[str, Any]:
    """Return one index's answer to `/api/search`: its neighbours, or why it cannot be searched this way."""
    searchable = shown.searchable
    manifest = searchable.index.manifest
    if hidden and not searchable.takes_holes:
        mode = "patches" if manifest.regions.mode == "grid" else manifest.regions.mode
        return {"name": shown.name, "error": f"This index holds {mode}. Search with a region instead."}
    if not hidden and not searchable.takes_boxes:
        return {"name": shown.name, "error": "This index holds surroundings of holes. Search with a hole instead."}
    start = time.perf_counter()
    small = resize(image, {}, manifest.picture_size)[0]
    without = own_number(searchable, own, number)
    cosines, row_numbers = searchable.search(small, box, k, hidden=hidden, without_image=without)
    seconds = time.perf_counter() - start
    rows = searchable.index.table[row_numbers]
    return {
        "name": shown.name,
        "seconds": round(seconds, 3),
        "neighbours": [
            {
                "similarity": round(float(cosine), 3),
                "label": class_name(row, manifest.classes),
                "number": int(row["image"]),
                "box": box_of(row),
                "picture": f"/api/picture/{position}/{int(row['image'])}",
                "region": f"/api/region/{position}/{row_number}",
            }
            for cosine, row_number, row in zip(cosines, row_numbers, rows, strict=True)
        ],
    }


def _requested_box(body: dict[str, Any]) -> Box:
    given = body.get("box")
    if given is None:
        return WHOLE
    try:
        x, y, w, h = (float(value) for value in given)
    except (TypeError, ValueError):
        raise RequestError("box must be left, top, width and height, as shares of the picture") from None
    # phrased so that NaN fails too
    if not (x >= 0 and y >= 0 and w > 0.01 and h > 0.01 and x + w <= 1.001 and y + h <= 1.001):
        raise RequestError("this box is outside the picture or too small; draw another")
    return x, y, min(w, 1 - x), min(h, 1 - y)


def _int_in(value: Any, end: int, *, low: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < end:
        raise RequestError(f"{value!r} is not a whole number from {low} to {end - 1}")
    return value


def _decode_upload(content: bytes) -> UInt8[Tensor, "3 H W"]:
    """Return the picture in an uploaded file."""
    try:
        with Image.open(io.BytesIO(content)) as opened:
            if not Image.MIME.get(opened.format or "", "").startswith("image/"):
                raise ValueError("not an image format; PostScript would be executed")
            if opened.width * opened.height > MAX_PIXELS:
                raise RequestError(
                    f"this picture has more than {MAX_PIXELS // 10**6} million pixels; choose a smaller one"
                )
        return decode(io.BytesIO(content))
    except (OSError, ValueError, Image.DecompressionBombError, BadImage):
        raise RequestError("this file is not a readable picture; choose a JPEG, PNG or similar") from None


def _jpeg_response(image: UInt8[Tensor, "3 H W"]) -> Response:
    return Response(_encode_image(image, "JPEG"), media_type="image/jpeg")


def _data_url(image: UInt8[Tensor, "3 H W"]) -> str:
    return "data:image/png;base64," + base64.b64encode(_encode_image(image, "PNG")).decode()


def _encode_image(image: UInt8[Tensor, "3 H W"], file_format: str) -> bytes:
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    written = io.BytesIO()
    picture.save(written, file_format, quality=90)
    return written.getvalue()
