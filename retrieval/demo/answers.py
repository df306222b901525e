"""Answers to the page: the neighbours found in one index, and encoded pictures."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path
from typing import Any

from fastapi.responses import Response
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from pretext.datasets.fitting import resize
from retrieval.demo.closeness import closeness, word_for
from retrieval.demo.fills import SHOWN_SIDE, ShownIndex, box_of, is_same, own_number
from retrieval.originals import file_of
from retrieval.regions import Box
from retrieval.searcher import Searchable
from retrieval.sheets import class_name


def search_one(
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
            _neighbour(position, shown, row, int(row_number), float(cosine))
            | {"same": without is None and is_same(searchable, int(row["image"]), small)}
            for cosine, row_number, row in zip(cosines, row_numbers, rows, strict=True)
        ],
    }


def _neighbour(position: int, shown: ShownIndex, row: Any, row_number: int, cosine: float) -> dict[str, Any]:
    data, number = shown.searchable.data, int(row["image"])
    file, close = file_of(data, number), closeness(cosine, shown.random_cosine)
    return {
        "similarity": round(cosine, 3),
        "closeness": round(close, 3),
        "word": word_for(close),
        "name": f"picture {number}" if file is None else Path(file).name,
        "label": class_name(row, shown.searchable.index.manifest.classes),
        "number": number,
        "box": box_of(row),
        "picture": f"/api/picture/{position}/{number}",
        "region": f"/api/region/{position}/{row_number}",
    }


def jpeg_response(image: UInt8[Tensor, "3 H W"]) -> Response:
    """Return a picture as a JPEG response, at most `SHOWN_SIDE` pixels wide and high."""
    return Response(_encode_image(image, "JPEG"), media_type="image/jpeg")


def data_url(image: UInt8[Tensor, "3 H W"]) -> str:
    """Return a picture as the data URL of a PNG, at most `SHOWN_SIDE` pixels wide and high."""
    return "data:image/png;base64," + base64.b64encode(_encode_image(image, "PNG")).decode()


def _encode_image(image: UInt8[Tensor, "3 H W"], file_format: str) -> bytes:
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    written = io.BytesIO()
    picture.save(written, file_format, quality=90)
    return written.getvalue()
