"""`python -m retrieval search`: find what is nearest to a query, as a sheet and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import tyro
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from pretext.datasets import say_opened
from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.decoding import decode
from pretext.datasets.drawing import save_sheet
from pretext.datasets.fitting import resize
from pretext.system.checkpoint import atomic_write
from pretext.system.command_line import parse
from pretext.system.errors import UserError
from retrieval.indexing.manifest import Manifest
from retrieval.originals import file_of, original
from retrieval.regions import WHOLE, Box, Regions, region_noun
from retrieval.searcher import Searchable
from retrieval.sheets import Tile, class_name, neighbour_sheet, neighbour_tiles

PROG = "python -m retrieval search"
Corners = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """Find the regions of an index that are nearest to a query, or to each of several.

    Examples:
        python -m retrieval search index --image a.jpg --box 40 60 120 90 -k 10
        python -m retrieval search index --image a.jpg --hole 40 60 120 90 --out neighbours
    """

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "the query": ("folder", "image", "query", "box", "hole"),
        "the answer": ("k", "label", "out"),
        "where things are": ("encoder", "data", "device"),
    }

    folder: tyro.conf.Positional[Path]
    """Folder of the index."""
    image: tuple[Path, ...] = ()
    """Query picture, or several."""
    query: int | None = None
    """Use picture number N of the index as the query; its own regions are left out of the answer."""
    box: Annotated[Corners | None, tyro.conf.arg(metavar="X Y W H")] = None
    """Part of each query picture to search with: left, top, width, height in pixels (with --query, of the index's
    picture)."""
    hole: Annotated[Corners | None, tyro.conf.arg(metavar="X Y W H")] = None
    """Part to hide, in the same form: the search uses only what surrounds it."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    """Number of neighbours."""
    label: str | None = None
    """Return only regions of this class."""
    encoder: str | None = None
    """Encoder that made the index, if its file has moved."""
    data: str | None = None
    """Data set that was indexed, if it has moved."""
    device: str = "auto"
    """Torch device: cpu, cuda, …; auto uses a GPU if there is one."""
    out: Path = Path("neighbours")
    """Folder for neighbours.png, one row a query, and neighbours.json: one answer, or a list of several."""


def search_command(argv: list[str]) -> int:
    """Run `python -m retrieval search`."""
    options = parse(Search, argv, prog=PROG)
    searchable = Searchable.open(options.folder, encoder=options.encoder, data=options.data, device=options.device)
    say_opened(searchable.data)
    manifest, data, table = searchable.index.manifest, searchable.data, searchable.index.table
    queries = _queries(options, data, manifest)
    cosines, rows = searchable.search_many(
        [query.picture for query in queries],
        [query.box for query in queries],
        options.k,
        hidden=queries[0].hidden,
        without_image=options.query,
        label=options.label,
    )
    tiles = [Tile(query.shown, query.box, query.name, query.hidden) for query in queries]
    found = [neighbour_tiles(data, table[r], c, manifest.classes) for r, c in zip(rows, cosines, strict=True)]
    save_sheet(neighbour_sheet(tiles, {manifest.stage: found}), options.out / "neighbours.png")
    answers = [
        {
            "index": str(options.folder),
            "query": {"image": query.source, "box": query.box, "hidden": query.hidden},
            "neighbours": _neighbours(data, table[query_rows], query_cosines, manifest.classes),
        }
        for query, query_rows, query_cosines in zip(queries, rows, cosines, strict=True)
    ]
    with atomic_write(options.out / "neighbours.json") as temporary:
        temporary.write_text(json.dumps(answers[0] if len(answers) == 1 else answers, indent=2) + "\n")
    each = f" to each of {len(queries)} pictures" if len(queries) > 1 else ""
    print(
        f"{options.out / 'neighbours.png'}: the nearest {rows.shape[1]} of {len(table)} "
        f"{region_noun(manifest.regions.mode)}{each}"
    )
    return 0


class _Query(NamedTuple):
    """One query picture and its region."""

    source: str | int
    """The picture's file, or its number in the index."""
    name: str
    """Caption on the sheet."""
    picture: UInt8[Tensor, "3 S S"]
    """The picture at the index's picture size."""
    shown: UInt8[Tensor, "3 H W"]
    """The picture at its own size."""
    box: Box
    """The query region."""
    hidden: bool
    """Whether the region is hidden."""


def _queries(options: Search, data: ImageDataset, manifest: Manifest) -> list[_Query]:
    """Return the queries of the command line, at least one."""
    if (not options.image) == (options.query is None):
        raise UserError("python -m retrieval search: give either --image FILE or --query NUMBER")
    if options.query is not None:
        if not 0 <= options.query < len(data):
            raise UserError(f"--query {options.query}: no picture of the index; allowed is from 0 to {len(data) - 1}")
        try:
            picture, shown = data[options.query][0], original(data, options.query)
        except BadImage as error:
            raise UserError(f"--query {options.query}: {error}; give another number, or mend the file") from None
        box, hidden = _region(options, manifest.regions, picture)
        return [_Query(options.query, "query", picture, shown, box, hidden)]
    queries, several = [], len(options.image) > 1
    for path in options.image:
        try:
            shown = decode(path)
        except BadImage as error:
            raise UserError(f"--image {error}; give another picture") from None
        box, hidden = _region(options, manifest.regions, shown, f" {path}" if several else "")
        name = path.name if several else "query"
        queries.append(_Query(str(path), name, resize(shown, {}, manifest.picture_size)[0], shown, box, hidden))
    return queries


def _neighbours(
    data: ImageDataset, found: NDArray[Any], cosines: NDArray[Any], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the neighbours of a query as they are written to JSON."""
    return [
        {
            "rank": rank,
            "similarity": float(cosine),
            "image": int(row["image"]),
            "file": file_of(data, int(row["image"])),
            "box": [float(row[side]) for side in "xywh"],
            "label": class_name(row, classes) or None,
        }
        for rank, (row, cosine) in enumerate(zip(found, cosines, strict=True), 1)
    ]


def _region(options: Search, regions: Regions, picture: UInt8[Tensor, "3 H W"], name: str = "") -> tuple[Box, bool]:
    """Return the query region, in shares of the picture, and whether it is hidden."""
    if options.box is not None and options.hole is not None:
        raise UserError("--box and --hole are both given; give one of them")
    if options.hole is not None and regions.mode in ("grid", "objects"):
        raise UserError(f"--hole: this index holds {regions.mode}; make one with --mode contexts to search by context")
    if options.box is not None and regions.mode == "contexts":
        raise UserError("--box: this index holds contexts; give --hole, or make an index with --mode grid")
    for flag, given in (("--box", options.box), ("--hole", options.hole)):
        if given is not None:
            return _in_shares(flag, given, picture, name), flag == "--hole"
    if regions.mode == "contexts":
        edge = (1 - regions.hole) / 2
        return (edge, edge, regions.hole, regions.hole), True
    return WHOLE, False


def _in_shares(flag: str, given: Corners, picture: UInt8[Tensor, "3 H W"], name: str) -> Box:
    (x, y, w, h), (height, width) = given, picture.shape[-2:]
    # Phrased so that NaN fails too.
    if not (x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= width and y + h <= height):
        text = " ".join(f"{value:g}" for value in given)
        raise UserError(f"{flag} {text}: not within the picture{name}, which is {width}×{height} pixels; give X Y W H")
    return x / width, y / height, w / width, h / height
