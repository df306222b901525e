"""`python -m pretext embed`: write one vector per picture of a data set, and a map of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pretext.datasets import ImageDataset, open_dataset, say_opened
from pretext.datasets.files import some
from pretext.datasets.packed import BadImages
from pretext.datasets.splitting import split_or_all
from pretext.embedding.encoding import check_pooling, stage_named
from pretext.embedding.files import check_output, write_features
from pretext.embedding.map_page import write_map
from pretext.embedding.parts import Parts, open_parts
from pretext.embedding.projection import Projection, check_projection, draw_pictures, project
from pretext.encoders import Encoder, load_encoder
from pretext.encoders.files import encoder_digest
from pretext.encoders.foreign import loaded_line, with_allow_partial
from pretext.encoders.weights import is_spec
from pretext.system.command_line import parse
from pretext.system.device import device_of
from pretext.system.errors import UserError
from pretext.system.progress import working
from pretext.system.ranges import check_range

PROG = "python -m pretext embed"
VERSION = 1
"""Raise it whenever vectors of the same settings change, so that parts of an earlier version are not continued."""
MOST_ON_MAP = 10_000
"""Largest number of pictures on a map; the page then has about 30 MB."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embed:
    """Write one float32 vector per picture of a data set to a file, with its path, split and class.

    The same command continues an interrupted one.

    Examples:
        python -m pretext embed --encoder mine.safetensors --data folder:photos --out features.parquet
        python -m pretext embed --encoder timm:resnet18 --data voc:VOCdevkit --out features.npz --map map.html
    """

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "what": ("encoder", "allow_partial", "image_size", "data", "split", "limit", "bad_images"),
        "vectors": ("stage", "pool"),
        "map": ("map", "projection", "map_pictures", "seed"),
        "where and how": ("out", "overwrite", "device", "batch_size", "workers"),
    }

    encoder: str
    """Encoder file, `timm:NAME`, or external weights, as in `timm:resnet50?weights=FILE`."""
    allow_partial: bool = False
    """Accept a weights file that covers only part of the encoder; the rest stays random."""
    image_size: int | None = None
    """Side in pixels; not allowed with an encoder file, which records its own."""
    data: str
    """Data set, KIND[:PATH][?key=value&…], such as folder:photos or voc:VOCdevkit."""
    out: Path
    """File to write, .parquet or .npz."""
    split: str = "all"
    """Split of the data set: train, val, test, or all of them."""
    limit: int | None = None
    """Maximum number of pictures of each split."""
    bad_images: BadImages = "skip"
    """What to do about pictures that cannot be decoded: skip and report them, or stop."""
    stage: str | None = None
    """Encoder stage whose map is read; the deepest if omitted."""
    pool: str = "mean"
    """One vector from the stage's map: its mean, its max, or a number N for the means of N×N cells."""
    map: Path | None = None
    """HTML page to write too: the pictures in two dimensions, in one file that works offline."""
    projection: Projection = "pca"
    """From vectors to two dimensions; umap needs the package umap-learn."""
    map_pictures: int = 2000
    """Maximum number of pictures on the map, drawn with the seed; 2,000 make a page of about 6 MB."""
    seed: int = 0
    """Seed of the map: which pictures are drawn, and UMAP's layout."""
    overwrite: bool = False
    """Replace an existing output, or an unfinished one with other settings."""
    device: str = "auto"
    """Torch device: cpu, cuda, …; auto uses a GPU if there is one."""
    batch_size: int = 64
    """Pictures per encoder batch."""
    workers: int | None = None
    """Threads that decode pictures ahead; one per processor core if omitted, 0 for none."""

    def __post_init__(self) -> None:
        check_pooling(self.pool)
        check_range(self, "workers", least=0, most=256)
        check_range(self, "batch_size", least=1)
        check_range(self, "map_pictures", least=1, most=MOST_ON_MAP)


def embed_command(argv: list[str]) -> int:
    """Run the command; return the exit code.

    Raises:
        UserError: If an input cannot be used, the output exists, or no picture can be decoded.
    """
    options = parse(Embed, argv, prog=PROG)
    check_output(options.out)
    if options.map is not None:
        check_projection(options.projection)
        if options.map.suffix not in (".html", ".htm"):
            raise UserError(f"--map {options.map}: the name must end in .html")
    with open_parts(options.out.with_name(f"{options.out.name}.parts")) as parts:
        if not options.overwrite and not parts.is_begun:
            for file in (options.out, options.map):
                if file is not None and file.exists():
                    raise UserError(f"{file} exists; give --overwrite to replace it, or another name")
        source = with_allow_partial(options.encoder, options.allow_partial)
        if options.image_size is not None and not is_spec(source):
            raise UserError(f"--image-size: {source} records its own size; leave the flag out")
        encoder = load_encoder(source, input_size=options.image_size).to(device_of(options.device))
        print(loaded_line(encoder, source))
        stage = stage_named(encoder, options.stage)
        data = _opened(options)
        parts.start(_settings(options, encoder, data, stage), overwrite=options.overwrite)
        parts.encode(
            encoder,
            data,
            stage=stage,
            pool=options.pool,
            batch_size=options.batch_size,
            workers=(os.cpu_count() or 1) if options.workers is None else options.workers,
            bad_images=options.bad_images,
        )
        print(_finish(options, parts, encoder, data, stage))
        parts.discard()
    return 0


def _opened(options: Embed) -> ImageDataset:
    spec = options.data
    if options.limit is not None:
        spec += f"{'&' if '?' in spec else '?'}limit={options.limit}"
    data = open_dataset(spec)
    say_opened(data)
    return split_or_all(data, options.split)


def _settings(options: Embed, encoder: Encoder, data: ImageDataset, stage: str) -> dict[str, Any]:
    """Return everything that determines the content of the parts."""
    return {
        "encoder": encoder_digest(encoder),
        "data": data.spec,
        "split": options.split,
        "content of the data": data.fingerprint,
        "stage": stage,
        "pool": options.pool,
        "batch_size": options.batch_size,
        "device": next(encoder.parameters()).device.type,
        "version": VERSION,
    }


def _finish(options: Embed, parts: Parts, encoder: Encoder, data: ImageDataset, stage: str) -> str:
    """Write the map and the file from finished parts, and return what to say of them."""
    total, dimensions = 0, 0
    for vectors in parts.column("vectors"):
        total, dimensions = total + len(vectors), vectors.shape[1]
    bad = [str(each) for reasons in parts.column("bad") for each in reasons]
    if not total:
        parts.discard()
        raise UserError(f"{data.spec}: no picture can be decoded, the first of them {bad[0]}; check the files")
    about = {
        "encoder": options.encoder,
        "encoder_sha256": encoder_digest(encoder),
        "architecture": encoder.spec,
        "input_size": encoder.input_size,
        "stage": stage,
        "pool": options.pool,
        "dimensions": dimensions,
        "precision": "float32",
        "data": data.spec,
        "split": options.split,
        "pictures": total,
        "left_out": len(bad),
    }
    lines = []
    if options.map is not None:
        drawn = draw_pictures(parts, total, options.map_pictures, seed=options.seed)
        with working(f"map by {options.projection}"):
            points, made = project(drawn.vectors, options.projection, seed=options.seed)
        shown = f"{len(points):,} pictures" if len(points) == total else f"{len(points):,} of {total:,} pictures"
        draw = f", drawn with seed {options.seed}" if len(points) < total else ""
        splits = "all splits" if options.split == "all" else f"split {options.split}"
        pooling = options.pool if options.pool in ("mean", "max") else f"{options.pool}×{options.pool} cells"
        write_map(
            options.map,
            data,
            drawn,
            points,
            (
                f"{shown} of {data.spec}, {splits}{draw}.",
                f"Encoder {options.encoder}, stage {stage}, pooled by {pooling}: {dimensions:,} dimensions. {made}",
            ),
        )
        lines.append(f"{options.map}: {shown}; {made}")
    labelled = bool(data.annotations & {"label", "labels"})
    with working(f"write {options.out}"):
        write_features(options.out, parts, about, labelled=labelled)
    if bad:
        lines.append(f"left out {len(bad):,} of {total + len(bad):,} pictures that cannot be decoded: {some(bad)}")
    lines.append(f"{options.out}: {total:,} vectors of {dimensions:,} dimensions, float32, stage {stage}")
    return "\n".join(lines)
