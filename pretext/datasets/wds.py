"""`wds:PATTERN`: WebDataset's tar shards, read by an index of their members, in any order.

PATTERN is a folder, or names with `{000..127}`, `{a,b}`, `*` or `[ab]`, several of them separated by commas; quote it,
or the shell expands it. Splits: a shard is of the split that its name or a folder above it names (`train-000.tar`,
`val/000.tar`); the keys `train=`, `val=` and `test=` take other patterns, relative to the folder. Without any,
all shards are train.

Members with the same path up to the first dot of the name are one sample: a picture, and its class in `.cls` or in
`.json` (key `label=`). Shards without `.cls` and `.json` may simply be archives of a folder: each picture is a sample,
and class folders are its classes, as in `folder`.

The index is made once and kept in the cache; nothing is unpacked. Shards must lie on this machine and must not be
compressed. A picture has its path in the shard as its name, and names decide the order: a folder and its
archives give the same data set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pretext.datasets.base import Fault, ImageDataset
from pretext.datasets.files import some
from pretext.datasets.layouts import SPLIT_NAMES
from pretext.datasets.shards import split_files
from pretext.datasets.stored_splits import Label, Rows, as_label, named_classes, stored_splits
from pretext.datasets.tar_index import TarIndex, indexed, key_of, read_json_labels
from pretext.system.errors import UserError

NONE = "none"
CLS = "cls"


@dataclass(frozen=True)
class Options:
    """Options of `wds:PATTERN?…`."""

    train: str | None = None
    """Shards of the training split; None takes those whose name says train, or all that are of no other split."""
    val: str | None = None
    """Shards of the validation split; None takes those whose name says val, valid or validation."""
    test: str | None = None
    """Shards of the test split; None takes those whose name says test."""
    image: str | None = None
    """Suffix of the picture in samples that hold several, such as jpg or left.png."""
    label: str | None = None
    """Where the class is: cls, a key of the .json members (a.b for a key inside another), or none; None takes the
    .cls members, or else the folder of each picture where there are no .json members either."""
    classes: str | None = None
    """File of class names, one a line, in the order of their numbers; None looks for classes.txt beside the shards."""


def open_splits(path: str, options: Options) -> dict[str, ImageDataset]:
    """Return the splits of the shards; see the module.

    Raises:
        UserError: If a shard is missing or cannot be read, a sample holds several pictures, or classes are missing.
    """
    spec = f"wds:{path}"
    root, files, notes = split_files("wds", path, ".tar", options)
    paths = [path for some_paths in files.values() for path in some_paths]
    indices = dict(zip(paths, indexed(paths), strict=True))
    classes = named_classes(spec, root, options.classes)
    splits, lacking = {}, ""
    plain = options.image is None and not any(index.cls or index.json for index in indices.values())
    for split, shards in files.items():
        parts = [indices[shard] for shard in shards]
        rows = _samples(spec, shards, parts, plain=plain, image=options.image)
        notes += _faults(split, shards, parts, rows, plain=plain)
        rows.labels, lacking = _labels(spec, split, rows, parts, plain=plain, label=options.label, lacking=lacking)
        splits[split] = rows
    return stored_splits(spec, splits, classes=classes, notes=notes, lacking=lacking)


def _samples(spec: str, shards: Sequence[str], parts: Sequence[TarIndex], *, plain: bool, image: str | None) -> Rows:
    """Return the pictures of a split, without their classes.

    Raises:
        UserError: If a sample holds several pictures.
    """
    rows = Rows([*shards], [*shards])
    for number, index in enumerate(parts):
        wanted = [*range(len(index.names))]
        if image is not None:
            wanted = [row for row in wanted if _suffix(index.names[row]) == image.lstrip(".").lower()]
        if not plain:
            counts = Counter(key_of(index.names[row]) for row in wanted)
            key, most = max(counts.items(), key=lambda pair: pair[1], default=("", 0))
            if most > 1:
                held = sorted({_suffix(index.names[row]) for row in wanted if key_of(index.names[row]) == key})
                raise UserError(
                    f"{spec}: {shards[number]}: the sample {key} holds several pictures ({some(held)}); "
                    f"image={held[0]} takes that one of each sample"
                )
        rows.names += [index.names[row] for row in wanted]
        rows.offsets += [index.offsets[row] for row in wanted]
        rows.sizes += [index.sizes[row] for row in wanted]
        rows.file_of += [number] * len(wanted)
    if not rows.names and image is not None:
        held = sorted({_suffix(name) for index in parts for name in index.names})
        raise UserError(f"{spec}: image={image}: no sample has one; there are {some(held) or 'no pictures'}")
    return rows


def _faults(split: str, shards: Sequence[str], parts: Sequence[TarIndex], rows: Rows, *, plain: bool) -> list[Fault]:
    """Return what is wrong with the shards of a split."""
    faults = []
    if unended := [Path(shard).name for shard, index in zip(shards, parts, strict=True) if not index.ended]:
        faults.append(Fault(f"The mark of a tar archive's end is missing in {some(unended)}: it may be truncated."))
    if links := sum(index.links for index in parts):
        faults.append(Fault(f"{links:,} links in the shards of {split} lead to no picture in them; they are left out."))
    if not plain:
        pictured = {(number, key_of(name)) for number, name in zip(rows.file_of, rows.names, strict=True)}
        annotated = {(number, key) for number, index in enumerate(parts) for key in (*index.cls, *index.json)}
        if empty := sorted(annotated - pictured):
            names = [f"{Path(shards[number]).name}: {key}" for number, key in empty]
            faults.append(Fault(f"{len(empty):,} samples of {split} have no picture and are left out: {some(names)}."))
    return faults


def _labels(
    spec: str, split: str, rows: Rows, parts: Sequence[TarIndex], *, plain: bool, label: str | None, lacking: str
) -> tuple[list[Label], str]:
    """Return the class of each picture, and why there are none if that may surprise.

    Raises:
        UserError: If the members that `label` names do not exist.
    """
    nothing: list[Label] = [None] * len(rows.names)
    keys = [(number, key_of(name)) for number, name in zip(rows.file_of, rows.names, strict=True)]
    if label == NONE:
        return nothing, ""
    if label == CLS or (label is None and any(index.cls for index in parts)):
        if not any(index.cls for index in parts):
            raise UserError(f"{spec}: label=cls, but no shard holds .cls members")
        return [as_label(parts[number].cls.get(key, "")) for number, key in keys], lacking
    if label is not None:
        if not any(index.json for index in parts):
            raise UserError(f"{spec}: label={label} names a key of .json members, and the shards hold none")
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda k: read_json_labels(rows.files[k], parts[k], label), range(len(parts))))
        return [found[number].get(key) for number, key in keys], lacking
    if plain:
        folders = [_below(split, name).rpartition("/")[0] for name in rows.names]
        return ([*folders] if all(folders) and not any("/" in folder for folder in folders) else nothing), lacking
    return nothing, "the .json members may hold them; label=KEY names their key"


def _suffix(name: str) -> str:
    """Return what follows the first dot of a member's name, in lower case."""
    return name.rpartition("/")[2].partition(".")[2].lower()


def _below(split: str, name: str) -> str:
    """Return a picture's path below the folder of its split, if the archive has that folder."""
    head, _, rest = name.partition("/")
    return rest if head in SPLIT_NAMES[split] else name
