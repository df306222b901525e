"""Data sets: `open_dataset` opens one by its spec; an item is a picture and its target.

Every data set:
    base               the interface `ImageDataset`, the keys of a target, and `BadImage`
    view               data sets that show the pictures of another one
    completing         train, val and test of a source, with notes on what is wrong: `completed`
    splitting          train, val and test, drawn where the source lacks them; subsets and `limit`
    twins              which pictures are equal
    findings           what is wrong with a data set, and the lines that commands print of it
    packed             every picture at one size, packed on disk or decoded on the fly: `at_size`
    kept               pictures with their own shape, from which views are cut: `for_views`
    pictures           a batch of pictures of different sizes
    fitting            squash, cut or pad a picture together with its target
    packing            build, check and open packs
    reading            read chosen pictures in batches, decoded ahead by threads
    classification     the classes of all pictures as one tensor; the names of one picture's
    given              what Python code has as an `ImageDataset`: arrays, paths, torch data sets: `as_dataset`
    items              any indexed collection of pictures: PIL, arrays or tensors, with or without a class

Pictures in files:
    files              pictures, labels, boxes and masks in files: `FileDataset`
    mask_values        what the values in index masks mean
    decoding           decode an image file
    drawing            draw boxes, masks and class names on a picture
    objects            labels and boxes of many pictures in flat arrays
    fingerprints       content hashes of files, cached
    stores             pictures inside larger files, read by their offset
    stored_splits      names, order and classes of such pictures
    shards             patterns of files, and the split of each file
    tar_index          what lies where in a tar shard
    arrow_columns      pictures and classes in the tables of `parquet` and `hf`
    layouts            the kind of data set that fits a place, and annotations there that no kind reads

Kinds of data set:
    folder             a folder of pictures, with or without class folders
    joined_folders     several folders as one data set
    tiny_imagenet      class folders and lists as Tiny-ImageNet has them
    list_              a text file that names pictures and classes (`list:`)
    wds                WebDataset's tar shards
    parquet            Parquet files
    hf                 data sets that Hugging Face's `datasets` saved
    clips              a folder of clips, each a folder of frames
    masks              pictures and index masks, for segmentation
    voc                PASCAL VOC
    voc_format         read one of its XML files
    voc_folders        its XML files without lists in ImageSets
    coco               COCO's JSON
    coco_format        read and check one of its files
    coco_turned        match its annotations to photographs that EXIF turns
    torchvision_sets   torchvision's data sets by name (`cifar10`, …)
    scenes             the embedded data set of drawn pictures
    scenery            the program that draws them

To add a kind, add a module named after it; `_` follows a name of Python's own. It has a frozen dataclass `Options`,
whose fields are the keys after `?` in a spec, and a function

    def open_splits(path: str, options: Options) -> dict[str, ImageDataset]

that returns the splits of the source, `train` among them. It checks its input when it is called and raises
`UserError` for faults. `open_dataset` handles `limit`, `download` and splits that the source lacks.
"""

from __future__ import annotations

import builtins
import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

from pretext.datasets.base import ANNOTATIONS, IGNORE, BadImage, Fault, ImageDataset, Target
from pretext.datasets.completing import completed
from pretext.datasets.findings import say_opened
from pretext.datasets.kept import for_views
from pretext.datasets.layouts import fitting_spec
from pretext.datasets.packed import PackedDataset, at_size
from pretext.datasets.splitting import Subset
from pretext.system.errors import UserError, did_you_mean
from pretext.system.progress import working
from pretext.system.ranges import MOST
from pretext.system.specs import options_into, parse_spec, path_of

__all__ = [
    "ANNOTATIONS",
    "IGNORE",
    "BadImage",
    "Fault",
    "ImageDataset",
    "PackedDataset",
    "Subset",
    "Target",
    "at_size",
    "dataset_kinds",
    "for_views",
    "open_dataset",
    "say_opened",
]

OpenSplits = Callable[[str, Any], dict[str, ImageDataset]]


def dataset_kinds() -> list[str]:
    """Return the names of all kinds: modules with `open_splits`, and torchvision's data sets."""
    from pretext.datasets import torchvision_sets

    own = [kind for info in pkgutil.iter_modules(__path__) if _module(kind := info.name.rstrip("_")) is not None]
    return sorted([*own, *torchvision_sets.SETS])


def open_dataset(spec: str, *, download: bool = False) -> ImageDataset:
    """Open a data set and return its training split; `.splits` holds train, val and test.

    Splits that the source lacks are drawn from train by a fixed seed, stratified by class where classes are
    known: test 20 %, then val 10 % of what is left, which is 8 % of all if both are lacking. Entries with equal
    pictures come into one split. A source with val but no test uses that val as test. `.notes` reports both, and what
    is wrong with the data.

    Args:
        spec: `KIND[:PATH][?key=value&…]`. Every kind accepts `limit=N`: at most N pictures of each split, drawn
            by a fixed seed; `resize=squash`: pictures are squashed to squares instead of keeping their shape; and
            `load_size=N`: see `ImageDataset.load_size`.
        download: Download a torchvision data set if its files are missing.

    Raises:
        UserError: If the spec is invalid or the data cannot be opened.
    """
    parsed = parse_spec(spec)
    options_type, open_splits = _opener(parsed.kind)
    general = [("limit", int | None, None), ("resize", str, "keep"), ("load_size", int | None, None)]
    with_general: Any = dataclasses.make_dataclass("Options", general, bases=(options_type,), frozen=True)
    options = options_into(with_general, parsed)
    if options.resize not in ("keep", "squash"):
        raise UserError(
            f"{parsed.kind}: resize={options.resize}; give keep (own shape) or squash (to a square, distorted)"
        )
    if options.load_size is not None and not 1 <= options.load_size <= MOST["image_size"]:
        raise UserError(f"{parsed.kind}: load_size={options.load_size}; expected 1 to {MOST['image_size']} pixels")
    if options.limit is not None and options.limit < 1:
        raise UserError(f"{parsed.kind}: limit={options.limit}; expected 1 or more")
    if download:
        if not hasattr(options, "download"):
            raise UserError(f"{parsed.kind}: this kind has nothing to download; remove --download")
        options = dataclasses.replace(options, download=True)

    # the data set may keep its options, and the class made above cannot be pickled
    own = {field.name: getattr(options, field.name) for field in dataclasses.fields(options_type)}
    with working(f"open {spec}"):
        opened = completed(spec, open_splits(parsed.path, options_type(**own)), limit=options.limit)
    for part in opened.splits.values():
        part.squash, part.load_size = options.resize == "squash", options.load_size
    return opened


def _opener(kind: str) -> tuple[type, OpenSplits]:
    from pretext.datasets import torchvision_sets

    if kind in torchvision_sets.SETS:
        return torchvision_sets.Options, functools.partial(torchvision_sets.open_named, kind)
    known = dataset_kinds()
    if kind not in known:
        if path_of(kind).exists() or "/" in kind:
            raise UserError(f"{kind}: a path alone does not say what lies there; write {fitting_spec(kind)}")
        raise UserError(f"unknown kind of data set {kind!r}; {did_you_mean(kind, known)}")
    module = _module(kind)
    assert module is not None
    return module.Options, module.open_splits


def _module(name: str) -> ModuleType | None:
    """Return the module of that name if it defines a kind of data set, else None."""
    module = importlib.import_module(f"{__name__}.{name}{'_' if hasattr(builtins, name) else ''}")
    return module if hasattr(module, "open_splits") else None
