"""`python -m retrieval demo`: a page on this machine to pick a picture, draw a box or a hole, and see what is near.

python -m retrieval demo --index DIR [--index DIR2 …] [--port N]

It listens on 127.0.0.1 alone, asks nothing of any other host, and writes no file: uploads stay in memory, the last few
of them.
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
from retrieval.demo.fills import SHOWN_SIDE, Shown, box_of, fills_of, own_number, part_of
from retrieval.originals import original
from retrieval.regions import WHOLE, Box
from retrieval.searcher import Searchable
from retrieval.sheets import class_name

PROG = "python -m retrieval demo"
PAGE = Path(__file__).parent / "page"
MOST_BYTES = 20_000_000
MOST_PIXELS = 40_000_000
KEPT = 8
"""Uploads that are remembered; the oldest goes."""
MOST_NEIGHBOURS = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """Serve a page to search indexes with a mouse, on this machine only.

    Examples:
        python -m retrieval demo --index index
        python -m retrieval demo --index mine --index random --port 8080
    """

    index: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """Folder of an index; give it again to compare encoders side by side."""
    port: int = 8000
    """Port on 127.0.0.1; 0 takes any that is free."""
    device: str = "auto"
    """cpu, cuda, …; auto takes a GPU where there is one."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}; allowed is from 0 to 65535")


def demo_command(argv: list[str]) -> int:
    """Run the command until it is interrupted; return the exit code.

    Raises:
        UserError: If there is no index, one cannot be opened, or the port is taken.
    """
    options = parse(Demo, argv, prog=PROG)
    if not options.index:
        raise UserError(f"{PROG}: give --index DIR, made by python -m retrieval index")
    served = make_app([Searchable.open(folder, device=options.device) for folder in options.index], options.index)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", options.port))
        except OSError as error:
            raise UserError(f"--port {options.port}: {error.strerror}; give another") from None
        print(f"http://127.0.0.1:{listening.getsockname()[1]}/  (Ctrl-C ends it)", flush=True)
        uvicorn.Server(uvicorn.Config(served, log_level="warning")).run([listening])
    return 0


class RefusedError(Exception):
    """What a request asks for cannot be; its words are shown."""


def make_app(searchables: list[Searchable], folders: tuple[Path, ...]) -> Any:
    """Return the page and its answers as an ASGI application.

    Args:
        searchables: The opened indexes.
        folders: Where they lie: what tells two of the same encoder apart.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)  # their pages would load scripts from elsewhere
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    shown = _named(searchables, folders)
    uploads: OrderedDict[str, UInt8[Tensor, "3 H W"]] = OrderedDict()

    @app.middleware("http")
    async def guarded(request: Request, go_on: Any) -> Any:
        answer = await go_on(request)
        answer.headers["Content-Security-Policy"] = "default-src 'self'; img-src 'self' data:"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Cache-Control"] = "no-store"
        return answer

    @app.exception_handler(RefusedError)
    @app.exception_handler(UserError)
    async def refused(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=400)

    @app.exception_handler(RequestValidationError)
    async def unreadable(request: Request, _: Exception) -> JSONResponse:
        return JSONResponse({"error": f"{request.url.path} cannot be asked so"}, status_code=400)

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/page/{name}")
    def part(name: str) -> FileResponse:
        if name not in ("demo.js", "demo.css"):
            raise RefusedError(f"there is no {name}")
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
        """Return a query's picture, and where it is one of an index's own, which."""
        if not isinstance(query, dict):
            raise RefusedError("a query is an upload, or the number of an index and that of a picture in it")
        if "upload" in query:
            if str(query["upload"]) not in uploads:
                raise RefusedError("this picture is no longer kept; choose it again")
            return uploads[str(query["upload"])], None, None
        index, number = _whole(query.get("index"), len(shown)), query.get("number")
        searchable = shown[index].searchable
        number = _whole(number, len(searchable.data))
        return original(searchable.data, number), searchable, number

    @app.get("/api/picture/{index}/{number}")
    def picture(index: int, number: int) -> Response:
        return _jpeg_answer(picture_of({"index": index, "number": number})[0])

    @app.get("/api/region/{index}/{row}")
    def region(index: int, row: int) -> Response:
        searchable = shown[_whole(index, len(shown))].searchable
        line = searchable.index.table[_whole(row, len(searchable.index.table))]
        return _jpeg_answer(part_of(original(searchable.data, int(line["image"])), box_of(line)))

    @app.get("/api/upload/{name}")
    def uploaded(name: str) -> Response:
        return _jpeg_answer(picture_of({"upload": name})[0])

    @app.post("/api/upload")
    async def upload(request: Request) -> dict[str, Any]:
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > MOST_BYTES:
                raise RefusedError(f"this file is larger than {MOST_BYTES // 10**6} MB; choose a smaller one")
        name = secrets.token_urlsafe(12)
        uploads[name] = _decoded(bytes(content))
        while len(uploads) > KEPT:
            uploads.popitem(last=False)
        return {"upload": name}

    @app.post("/api/search")
    def search(asked: dict[str, Any]) -> list[dict[str, Any]]:
        image, own, number = picture_of(asked.get("query"))
        box, hidden = _asked_box(asked), bool(asked.get("hidden"))
        k = _whole(asked.get("k", 8), MOST_NEIGHBOURS + 1, least=1)
        return [_answer(at, each, image, own, number, box, hidden, k) for at, each in enumerate(shown)]

    @app.post("/api/fill")
    def fill(asked: dict[str, Any]) -> list[dict[str, str]]:
        image, own, number = picture_of(asked.get("query"))
        box = _asked_box(asked)
        if box == WHOLE:
            raise RefusedError("draw a hole first")
        fills = fills_of(shown, image, own, number, box)
        return [{"name": name, "picture": _data_url(filled)} for name, filled in fills.items()]

    return app


def _named(searchables: list[Searchable], folders: tuple[Path, ...]) -> list[Shown]:
    """Return the indexes with names that differ, and the decoders that lie beside their encoders."""
    names = [
        f"{each.encoder.record.get('task') or each.encoder.spec} {each.index.manifest.stage}" for each in searchables
    ]
    return [
        Shown(name if names.count(name) == 1 else f"{name}, {folder.name}", each, _decoder(each))
        for name, folder, each in zip(names, folders, searchables, strict=True)
    ]


def _decoder(searchable: Searchable) -> Inpainter | None:
    folder = Path(searchable.index.manifest.encoder).parent
    if not (folder / "checkpoint.safetensors").is_file():
        return None
    task = load_task(folder)
    return task if isinstance(task, Inpainter) else None


def _answer(
    at: int,
    shown: Shown,
    image: UInt8[Tensor, "3 H W"],
    own: Searchable | None,
    number: int | None,
    box: Box,
    hidden: bool,
    k: int,
) -> dict[str, Any]:
    searchable = shown.searchable
    manifest = searchable.index.manifest
    if hidden and not searchable.takes_holes:
        what = "patches" if manifest.regions.mode == "grid" else manifest.regions.mode
        return {"name": shown.name, "error": f"It holds {what}: ask with a marked part."}
    if not hidden and not searchable.takes_boxes:
        return {"name": shown.name, "error": "It holds surroundings of holes: ask with what surrounds a part."}
    begun = time.perf_counter()
    small = resize(image, {}, manifest.picture_size)[0]
    without = own_number(searchable, own, number)
    cosines, numbers = searchable.ask(small, box, k, hidden=hidden, without_image=without)
    seconds = time.perf_counter() - begun
    rows = searchable.index.table[numbers]
    return {
        "name": shown.name,
        "seconds": round(seconds, 3),
        "neighbours": [
            {
                "similarity": round(float(cosine), 3),
                "label": class_name(row, manifest.classes),
                "number": int(row["image"]),
                "box": box_of(row),
                "picture": f"/api/picture/{at}/{int(row['image'])}",
                "region": f"/api/region/{at}/{place}",
            }
            for cosine, place, row in zip(cosines, numbers, rows, strict=True)
        ],
    }


def _asked_box(asked: dict[str, Any]) -> Box:
    given = asked.get("box")
    if given is None:
        return WHOLE
    try:
        x, y, w, h = (float(value) for value in given)
    except (TypeError, ValueError):
        raise RefusedError("a box is left, top, width and height, as shares of the picture") from None
    # written so that a NaN fails it too
    if not (x >= 0 and y >= 0 and w > 0.01 and h > 0.01 and x + w <= 1.001 and y + h <= 1.001):
        raise RefusedError("this box is not within the picture, or too small; draw another")
    return x, y, min(w, 1 - x), min(h, 1 - y)


def _whole(value: Any, below: int, *, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < below:
        raise RefusedError(f"{value!r} is not a whole number from {least} to {below - 1}")
    return value


def _decoded(content: bytes) -> UInt8[Tensor, "3 H W"]:
    """Return the picture in an upload."""
    try:
        with Image.open(io.BytesIO(content)) as opened:
            if not Image.MIME.get(opened.format or "", "").startswith("image/"):
                raise ValueError("a program such as PostScript, or another container")
            if opened.width * opened.height > MOST_PIXELS:
                raise RefusedError(
                    f"this picture has more than {MOST_PIXELS // 10**6} million pixels; choose a smaller one"
                )
        return decode(io.BytesIO(content))
    except (OSError, ValueError, Image.DecompressionBombError, BadImage):
        raise RefusedError("this file is no picture that can be read; choose a JPEG, PNG or the like") from None


def _jpeg_answer(image: UInt8[Tensor, "3 H W"]) -> Response:
    return Response(_encoded(image, "JPEG"), media_type="image/jpeg")


def _data_url(image: UInt8[Tensor, "3 H W"]) -> str:
    return "data:image/png;base64," + base64.b64encode(_encoded(image, "PNG")).decode()


def _encoded(image: UInt8[Tensor, "3 H W"], form: str) -> bytes:
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    written = io.BytesIO()
    picture.save(written, form, quality=90)
    return written.getvalue()
