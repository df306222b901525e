"""Index the patches of a data set, search them, fill holes from them.

Examples:
  python -m retrieval index --encoder timm:resnet18 --data folder:a --out index
  python -m retrieval search index --image a.jpg --box 40 60 120 90 -k 10

Commands:
  index                   Encode regions of pictures and write an index.
  search INDEX            Find the regions that are nearest to a query.
  inpaint                 Fill holes of test pictures from training pictures.
  demo                    Serve a page to search indexes with a mouse.

`python -m retrieval COMMAND --help` explains a command's flags.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import tyro

from pretext.system import help_page
from pretext.system.command_line import parse
from pretext.system.declarations import read_class
from pretext.system.errors import UserError, did_you_mean, run_command
from pretext.system.specs import parse_spec, with_option

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from numpy.typing import NDArray
    from torch import Tensor

    from pretext.datasets.base import ImageDataset
    from retrieval.indexing.manifest import Manifest
    from retrieval.regions import Box, Mode, Regions

PROG = "python -m retrieval"
Corners = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """Encode regions of a data set's pictures and write them as an index that can be searched.

    Examples:
        python -m retrieval index --encoder mine.safetensors --data folder:photos --out index
        python -m retrieval index --encoder timm:resnet18 --data folder:photos --mode images --out whole
    """

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "what": ("encoder", "allow_partial", "data", "split", "limit", "bad_images"),
        "the index": ("stage", "factory", "pca"),
        "where": ("device", "out", "overwrite", "add"),
    }

    encoder: str
    """Encoder file, `timm:NAME`, or external weights, as in `timm:resnet50?weights=FILE`."""
    allow_partial: bool = False
    """Accept a weights file that covers only part of the encoder; the rest stays random."""
    data: str
    """Data set, KIND[:PATH][?key=value&…], such as folder:photos or voc:VOCdevkit."""
    out: Path
    """Folder that the index is written to."""
    split: str = "all"
    """Split of the data set: train, val, test, or all of them."""
    stage: str | None = None
    """Encoder stage whose features are stored; the deepest if omitted."""
    factory: str | None = None
    """FAISS index-factory string; if omitted, exact up to 200,000 vectors and inverted lists beyond."""
    pca: int | None = None
    """Reduce the vectors by whitened PCA to this many dimensions; no PCA if omitted."""
    limit: int | None = None
    """Maximum number of pictures of each split."""
    bad_images: Literal["skip", "stop"] = "skip"
    """What to do about pictures that cannot be decoded: skip and report them, or stop."""
    device: str = "auto"
    """Torch device: cpu, cuda, …; auto uses a GPU if there is one."""
    overwrite: bool = False
    """Replace an existing index, or an unfinished one with other settings."""
    add: bool = False
    """Add the pictures that the data set has gained to an existing index; create it if there is none."""


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


def main(argv: list[str]) -> int:
    """Run one of the commands; return the exit code."""
    commands = {"index": index, "search": search, "inpaint": inpaint, "demo": demo}
    if not argv or argv[0] in ("-h", "--help"):
        print((__doc__ or "").strip())
        return 0
    if argv[0] not in commands:
        raise UserError(f"{PROG}: unknown command {argv[0]!r}; {did_you_mean(argv[0], commands)}")
    if help_page.is_asked(argv):
        print(_help(argv[0]))
        return 0
    return commands[argv[0]](argv[1:])


def _help(command: str) -> str:
    """Return the help of a command."""
    homes = {
        "index": "retrieval.__main__:Index",
        "search": "retrieval.__main__:Search",
        "inpaint": "retrieval.filling_command:Inpaint",
        "demo": "retrieval.demo.server:Demo",
    }
    declared = read_class(homes[command])
    groups = help_page.groups_of(declared, rest="flags")
    if command == "index":
        groups[1:1] = help_page.groups_of(read_class("retrieval.regions:Regions"), rest="regions")
    return help_page.HelpPage(f"{PROG} {command}", declared.about, groups).text()


def index(argv: list[str]) -> int:
    """Run `python -m retrieval index`."""
    from pretext.datasets import at_size, open_dataset
    from pretext.datasets.splitting import split_or_all
    from pretext.encoders import load_encoder
    from pretext.encoders.foreign import loaded_line, with_allow_partial
    from pretext.system.device import device_of
    from retrieval.indexing.building import build_index, check_target
    from retrieval.indexing.factory import effort, stored_dimensions
    from retrieval.regions import Regions

    command = dataclasses.make_dataclass("Index", [], bases=(Index, Regions), frozen=True, kw_only=True)
    options: Any = parse(command, argv, prog=f"{PROG} index")
    check_target(options.out, overwrite=options.overwrite, add=options.add)
    spec = _absolute_data(options.data)
    if options.limit is not None:
        spec += f"{'&' if '?' in spec else '?'}limit={options.limit}"
    source = with_allow_partial(options.encoder, options.allow_partial)
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
    from pretext.system.checkpoint import atomic_write
    from retrieval.searcher import Searchable
    from retrieval.sheets import Tile, neighbour_sheet, neighbour_tiles, save_sheet

    options = parse(Search, argv, prog=f"{PROG} search")
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
    from pretext.encoders.weights import is_spec, weights_file

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
    from pretext.datasets.base import BadImage
    from pretext.datasets.decoding import decode, resize
    from retrieval.originals import original

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
    """Return the neighbours of a query as they are written to JSON."""
    from retrieval.originals import file_of
    from retrieval.sheets import class_name

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
    from retrieval.regions import WHOLE

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
