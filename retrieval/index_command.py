"""`python -m retrieval index`: write the index of a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pretext.datasets import at_size, open_dataset, say_opened
from pretext.datasets.packed import BadImages
from pretext.datasets.splitting import split_or_all
from pretext.encoders import load_encoder
from pretext.encoders.foreign import loaded_line, with_allow_partial
from pretext.encoders.weights import is_spec, weights_file
from pretext.system.command_line import parse
from pretext.system.device import device_of
from pretext.system.errors import UserError
from pretext.system.plugins import absolute_file
from pretext.system.specs import parse_spec, with_option
from retrieval.indexing.blocks import recover
from retrieval.indexing.building import build_index, check_target
from retrieval.indexing.factory import effort, stored_dimensions
from retrieval.probes.retrieval import Retrieval
from retrieval.regions import Regions, region_noun

PROG = "python -m retrieval index"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index(Regions):
    """Encode regions of a data set's pictures and write them as an index that can be searched.

    Examples:
        python -m retrieval index --encoder mine.safetensors --data folder:photos --out index
        python -m retrieval index --encoder timm:resnet18 --data folder:photos --mode images --out whole
    """

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "what": ("encoder", "allow_partial", "data", "split", "limit", "bad_images"),
        "regions": ("mode", "grid", "scales", "margin", "hole", "pool"),
        "the index": ("stage", "choose", "factory", "pca"),
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
    choose: bool = False
    """Choose --stage and --pool by precision@10 on the validation split; the data set needs labels."""
    factory: str | None = None
    """FAISS index-factory string; if omitted, exact up to 200,000 vectors and inverted lists beyond."""
    pca: int | None = None
    """Reduce the vectors by whitened PCA to this many dimensions; no PCA if omitted."""
    limit: int | None = None
    """Maximum number of pictures of each split."""
    bad_images: BadImages = "skip"
    """What to do about pictures that cannot be decoded: skip and report them, or stop."""
    device: str = "auto"
    """Torch device: cpu, cuda, …; auto uses a GPU if there is one."""
    overwrite: bool = False
    """Replace an existing index, or an unfinished one with other settings."""
    add: bool = False
    """Add the pictures that the data set has gained to an existing index; create it if there is none."""


def index_command(argv: list[str]) -> int:
    """Run `python -m retrieval index`."""
    options = parse(Index, argv, prog=PROG)
    recover(options.out)
    check_target(options.out, overwrite=options.overwrite, add=options.add)
    spec = _absolute_data(options.data)
    if options.limit is not None:
        spec += f"{'&' if '?' in spec else '?'}limit={options.limit}"
    source = with_allow_partial(options.encoder, options.allow_partial)
    encoder = load_encoder(source).to(device_of(options.device))
    print(loaded_line(encoder, source))
    regions = Regions(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Regions)})
    size = regions.picture_size(encoder.input_size)
    data = open_dataset(spec)
    say_opened(data)
    stage = options.stage
    if options.choose:
        if stage is not None or regions.pool is not None:
            raise UserError(f"{PROG}: --choose chooses --stage and --pool; give neither")
        stage, pool = Retrieval().best_reading(encoder, data, regions)
        regions = dataclasses.replace(regions, pool=pool)
        print(f"chosen on val: --stage {stage} --pool {pool}")
    made = build_index(
        encoder,
        at_size(split_or_all(data, options.split), size, bad_images=options.bad_images),
        regions,
        options.out,
        encoder_source=_absolute_encoder(source),
        split=options.split,
        picture_size=size,
        stage=stage,
        factory=options.factory,
        bad_images=options.bad_images,
        pca=options.pca,
        overwrite=options.overwrite,
        add=options.add,
    )
    print(
        f"{options.out}: {len(made.table)} {region_noun(regions.mode)} of {spec}, "
        f"{'all splits' if options.split == 'all' else 'split ' + options.split}; "
        f"{stored_dimensions(made.vectors)} dimensions, {made.manifest.factory}, {effort(made.vectors)}"
    )
    return 0


def _absolute_encoder(encoder: str) -> str:
    """Return the encoder's source with an absolute path."""
    if not is_spec(encoder):
        return str(Path(encoder).resolve())
    weights, encoder = weights_file(encoder), absolute_file(encoder)
    return encoder if weights is None else with_option(encoder, "weights", str(weights.resolve()))


def _absolute_data(data: str) -> str:
    """Return a data set's spec with an absolute path."""
    path = parse_spec(data).path
    is_pattern = parse_spec(data).kind in ("wds", "parquet", "hf") and "," not in path
    if not path or not (is_pattern or Path(path).exists()):
        return data
    body, mark, options = data.partition("?")
    return body.removesuffix(path) + str(Path(path).resolve()) + mark + options
