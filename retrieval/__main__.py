"""Make a data set's patches searchable, and ask what is like a patch, or what a hole's surroundings hide.

python -m retrieval index --encoder FILE|timm:NAME --data SPEC --out DIR [--mode grid|objects|images|contexts]
python -m retrieval search DIR --image FILE [FILE …] [--box X Y W H | --hole X Y W H] [-k N] [--out DIR]
python -m retrieval inpaint --encoder FILE --data SPEC [--checkpoint DIR] [--out DIR]
python -m retrieval demo --index DIR [--index DIR2] [--port N]
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from pretext.datasets import open_dataset
from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.decoding import decode, resize
from pretext.datasets.packed import BadImages, at_size
from pretext.datasets.splitting import split_or_all
from pretext.encoders import load_encoder
from pretext.encoders.foreign import allowing_partial, loaded_line
from pretext.encoders.weights import is_spec, weights_file
from pretext.system.checkpoint import atomic_write
from pretext.system.command_line import parse
from pretext.system.device import device_of
from pretext.system.errors import UserError, did_you_mean, run_command
from pretext.system.specs import parse_spec, with_option
from retrieval.indexing.building import build_index, check_target
from retrieval.indexing.factory import effort, stored_dimensions
from retrieval.indexing.manifest import Manifest
from retrieval.originals import file_of, original
from retrieval.regions import WHOLE, Box, Mode, Regions
from retrieval.searcher import Searchable
from retrieval.sheets import Tile, class_name, neighbour_sheet, neighbour_tiles, save_sheet

Corners = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index(Regions):
    """Encode a data set's regions and write them as a folder that can be searched."""

    encoder: str
    """Encoder file, `timm:NAME`, or weights from elsewhere as in `timm:resnet50?weights=FILE`."""
    allow_partial: bool = False
    """Go on where a file of weights from elsewhere holds less than the whole encoder; the rest stays random."""
    data: str
    """Data set: KIND[:PATH][?key=value&…]."""
    out: Path
    """Folder to write."""
    split: str = "all"
    """Split of the data set: train, val, test, or all of them."""
    stage: str | None = None
    """Encoder stage to read; the deepest where None."""
    factory: str | None = None
    """FAISS index-factory string; exact up to 200,000 vectors and inverted lists beyond where None."""
    pca: int | None = None
    """Whiten the vectors by PCA to so many numbers; they stay as they are where None."""
    limit: int | None = None
    """At most so many pictures of each split."""
    bad_images: BadImages = "skip"
    """Pictures that cannot be decoded: leave them out and say so, or stop."""
    device: str = "auto"
    """cpu, cuda, …; auto takes a GPU where there is one."""
    overwrite: bool = False
    """Replace an index that is there, or one that was begun with other settings."""
    add: bool = False
    """Take the pictures that the data set has gained into the index that is there; make it where there is none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """Find the regions of an index that are nearest to a query's, or to each of several."""

    folder: tyro.conf.Positional[Path]
    """The index."""
    image: tuple[Path, ...] = ()
    """Picture to ask with, or several."""
    query: int | None = None
    """Instead of a file, the number of one of the index's own pictures, kept out of its neighbours."""
    box: Corners | None = None
    """Left, top, width and height of the part of every picture to ask with, in pixels (with --query, the index's)."""
    hole: Corners | None = None
    """The same of a part to hide: what surrounds it is asked with."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    """Neighbours."""
    label: str | None = None
    """Class of the neighbours; any where it is left out."""
    encoder: str | None = None
    """The encoder that the index was made with, where its file has moved since."""
    data: str | None = None
    """The data set that the index was made of, where it has moved since."""
    device: str = "auto"
    """cpu, cuda, …; auto takes a GPU where there is one."""
    out: Path = Path("neighbours")
    """Folder for neighbours.png, a row a query, and neighbours.json: of one query, or a list of them for several."""


def main(argv: list[str]) -> int:
    """Run one of the commands; return the exit code."""
    commands = {"index": index, "search": search, "inpaint": inpaint, "demo": demo}
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    if argv[0] not in commands:
        raise UserError(f"python -m retrieval: unknown command {argv[0]!r}; {did_you_mean(argv[0], commands)}")
    return commands[argv[0]](argv[1:])


def index(argv: list[str]) -> int:
    """Run `python -m retrieval index`."""
    options = parse(Index, argv, prog="python -m retrieval index")
    check_target(options.out, overwrite=options.overwrite, add=options.add)
    spec = _absolute_data(options.data)
    if options.limit is not None:
        spec += f"{'&' if '?' in spec else '?'}limit={options.limit}"
    source = allowing_partial(options.encoder, options.allow_partial)
    encoder = load_encoder(source).to(device_of(options.device))
    print(loaded_line(encoder, source))
    regions = Regions(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Regions)})
    size = regions.picture_size(encoder.input_size)
    made = build_index(
        encoder,
        at_size(split_or_all(open_dataset(spec), options.split), size, bad_images=options.bad_images),
        regions,
        options.out,
        encoder_source=_absolute_encoder(source),
        split=options.split,
        picture_size=size,
        stage=options.stage,
        factory=options.factory,
        bad_images=options.bad_images,
        pca=options.pca,
        overwrite=options.overwrite,
        add=options.add,
    )
    print(
        f"{options.out}: {len(made.table)} {_region_noun(regions.mode)} of {spec}, "
        f"{'all splits' if options.split == 'all' else 'split ' + options.split}; "
        f"{stored_dimensions(made.vectors)} dimensions, {made.manifest.factory}, {effort(made.vectors)}"
    )
    return 0


def search(argv: list[str]) -> int:
    """Run `python -m retrieval search`."""
    options = parse(Search, argv, prog="python -m retrieval search")
    searchable = Searchable.open(options.folder, encoder=options.encoder, data=options.data, device=options.device)
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
        f"{_region_noun(manifest.regions.mode)}{each}"
    )
    return 0


def inpaint(argv: list[str]) -> int:
    """Run `python -m retrieval inpaint`."""
    from retrieval.filling_command import inpaint_command

    return inpaint_command(argv)


def demo(argv: list[str]) -> int:
    """Run `python -m retrieval demo`."""
    try:
        from retrieval.demo.server import demo_command
    except ImportError:
        raise UserError("fastapi and uvicorn are not installed; run pip install 'pretext-bench[demo]'") from None
    return demo_command(argv)


def _region_noun(mode: Mode) -> str:
    return "patches" if mode == "grid" else mode


def _absolute_encoder(encoder: str) -> str:
    """Return the encoder's source with an absolute path."""
    if not is_spec(encoder):
        return str(Path(encoder).resolve())
    weights = weights_file(encoder)
    return encoder if weights is None else with_option(encoder, "weights", str(weights.resolve()))


def _absolute_data(data: str) -> str:
    """Return a data set's spec with an absolute path."""
    path = parse_spec(data).path
    if not path or not Path(path).exists():
        return data
    body, mark, options = data.partition("?")
    return body.removesuffix(path) + str(Path(path).resolve()) + mark + options


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
            raise UserError(f"--query {options.query}: not a picture of the index; allowed is 0 to {len(data) - 1}")
        picture = data[options.query][0]
        box, hidden = _region(options, manifest.regions, picture)
        return [_Query(options.query, "query", picture, original(data, options.query), box, hidden)]
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
    """Return a query's neighbours in JSON types."""
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
    """Return the query region, as shares of the picture, and whether it is hidden."""
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


if __name__ == "__main__":
    run_command(main)
