"""The map of the vectors as one HTML page that loads nothing from outside."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.classification import SEVERAL
from pretext.datasets.findings import standing
from pretext.datasets.view import source_of
from pretext.embedding.projection import Drawn
from pretext.system.checkpoint import atomic_write

THUMBNAIL, QUALITY = 96, 70
"""Longer side of a picture on the page in pixels, and its JPEG quality."""
MOST_GROUPS = 32
"""Classes with a colour and shape of their own; the page has 8 colours and 4 shapes."""
OTHERS, MANY, NONE = "other classes", "several classes", "no class"


def write_map(
    file: Path,
    data: ImageDataset,
    drawn: Drawn,
    points: Float[np.ndarray, "M 2"],
    sentences: Sequence[str],
) -> None:
    """Write the page.

    Args:
        file: The HTML file; replaced atomically.
        data: The data that the drawn pictures' numbers refer to, with pictures of any size.
        drawn: The pictures on the map.
        points: Their places.
        sentences: What the page says of itself, above the map.
    """
    content = json.dumps(_content(data, drawn, points), separators=(",", ":")).replace("<", "\\u003c")
    page = files("pretext.embedding") / "page"
    style, script = ((page / name).read_text(encoding="utf-8") for name in ("map.css", "map.js"))
    body = (page / "map.html").read_text(encoding="utf-8")
    parts = {
        "SPEC": escape(data.spec),
        "STYLE": style,
        "ABOUT": "".join(f"<p>{escape(each)}</p>" for each in sentences),
        "HIDDEN": "" if data.notes else " hidden",
        "NOTES": "".join(f"<p>{escape(each)}</p>" for each in data.notes),
        "CONTENT": content,
        "SCRIPT": script,
    }
    pieces = body.split("%%")  # text and names of parts in turn
    pieces[1::2] = [parts[name] for name in pieces[1::2]]
    with atomic_write(file) as beside:
        beside.write_text("".join(pieces), encoding="utf-8")


def _content(data: ImageDataset, drawn: Drawn, points: Float[np.ndarray, "M 2"]) -> dict[str, Any]:
    """Return what the script draws: places in 0 to 1 with equal scales, groups, names and pictures."""
    low, high = points.min(axis=0), points.max(axis=0)
    extent = (high - low).max() or 1.0
    places = (points - (low + high) / 2) / extent + 0.5
    groups: dict[str, dict[str, Any]] = {}
    if any(drawn.labels):
        groups["class"] = _grouped([_class_group(label, data.classes) for label in drawn.labels.tolist()])
    splits = drawn.splits.tolist()
    if len(set(splits)) > 1 or not groups:
        groups["split"] = _grouped(splits, sorted(set(splits), key=standing))
    return {
        "x": places[:, 0].round(5).tolist(),
        "y": (1 - places[:, 1]).round(5).tolist(),
        "names": [Path(path).name if "." in path else path for path in drawn.paths.tolist()],
        "labels": drawn.labels.tolist(),
        "splits": splits,
        "groups": groups,
        "pictures": [*_thumbnails(data, drawn.numbers.tolist())],
    }


def _class_group(label: str, classes: Sequence[str]) -> str:
    return NONE if not label else MANY if SEVERAL in label and label not in classes else label


def _grouped(values: Sequence[str], order: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the groups, largest first, and each point's group; the smallest beyond `MOST_GROUPS` become one."""
    counts = Counter(values)
    names = list(order) if order else sorted(counts, key=lambda name: (name in (MANY, NONE), -counts[name], name))
    if len(names) > MOST_GROUPS:
        named = sorted(counts, key=lambda name: (-counts[name], name))[: MOST_GROUPS - 1]
        names = [*(name for name in names if name in named), OTHERS]
    number = {name: k for k, name in enumerate(names)}
    rest = len(names) - 1
    of = [number.get(value, rest) for value in values]
    return {
        "names": names,
        "counts": np.bincount(of, minlength=len(names)).tolist(),
        "of": of,
        "grey": [name in (MANY, NONE, OTHERS) for name in names],
    }


def _thumbnails(data: ImageDataset, numbers: Sequence[int]) -> Iterator[str]:
    """Yield each picture as base64 JPEG with its own proportions; empty if it cannot be decoded any more."""

    def one(number: int) -> str:
        source, place = source_of(data, number)
        try:
            image = source.read(place, THUMBNAIL)[0]
        except BadImage:
            return ""
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)
        written = io.BytesIO()
        picture.save(written, "JPEG", quality=QUALITY, optimize=True)
        return base64.b64encode(written.getvalue()).decode()

    with ThreadPoolExecutor(None if data.thread_safe else 1) as pool:
        yield from pool.map(one, numbers)
