"""Data sets: `open_dataset` opens one by its spec; an item is a picture and its target.

Every data set:
    base               the interface `ImageDataset`, the keys of a target, and `BadImage`
    view               data sets that show the pictures of another one
    splitting          train, val and test, drawn where the source lacks them; subsets and `limit`
    twins              which pictures are equal
    findings           what is wrong with a data set, and the lines that commands print of it
    packed             every picture at one size, packed on disk or decoded on the fly: `at_size`
    packing            build, check and open packs
    classification     the classes of all pictures as one tensor

Pictures in files:
    files              pictures, labels, boxes and masks in files: `FileDataset`
    mask_values        what the values in index masks mean
    decoding           decode an image file; resize a picture together with its target
    drawing            draw boxes, masks and class names on a picture
    objects            labels and boxes of many pictures in flat arrays
    fingerprints       content hashes of files, cached
    layouts            the kind of data set that fits a folder, and annotations there that no kind reads

Kinds of data set:
    folder             a folder of pictures, with or without class folders
    tiny_imagenet      class folders and lists as Tiny-ImageNet has them
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

To add a kind, add a module named after it. It has a frozen dataclass `Options`, whose fields are the keys after
`?` in a spec, and a function

    def open_splits(path: str, options: Options) -> dict[str, ImageDataset]

that returns the splits of the source, `train` among them. It checks its input when it is called and raises
`UserError` for faults. `open_dataset` handles `limit`, `download` and splits that the source lacks.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from pretext.datasets.base import ANNOTATIONS, IGNORE, BadImage, Fault, ImageDataset, Target
from pretext.datasets.files import FileDataset, some
from pretext.datasets.findings import faults_of, say_opened
from pretext.datasets.layouts import fitting_spec
from pretext.datasets.packed import PackedDataset, at_size
from pretext.datasets.splitting import Subset, complete, limited
from pretext.datasets.twins import equal_pictures
from pretext.system.errors import UserError, did_you_mean
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
    "open_dataset",
    "say_opened",
]

OpenSplits = Callable[[str, Any], dict[str, ImageDataset]]


def dataset_kinds() -> list[str]:
    """Return the names of all kinds: modules with `open_splits`, and torchvision's data sets."""
    from pretext.datasets import torchvision_sets

    own = [info.name for info in pkgutil.iter_modules(__path__) if _module(info.name) is not None]
    return sorted([*own, *torchvision_sets.SETS])


def open_dataset(spec: str, *, download: bool = False) -> ImageDataset:
    """Open a data set and return its training split; `.splits` holds train, val and test.

    Splits that the source lacks are drawn from train by a fixed seed, stratified by class where classes are
    known: val 10 %, test 20 %. Entries with equal pictures come into one split. A source with val but no test uses
    that val as test. `.notes` reports both, and what is wrong with the data.

    Args:
        spec: `KIND[:PATH][?key=value&…]`. Every kind accepts `limit=N`: at most N pictures of each split, drawn
            by a fixed seed.
        download: Download a torchvision data set if its files are missing.

    Raises:
        UserError: If the spec is invalid or the data cannot be opened.
    """
    parsed = parse_spec(spec)
    options_type, open_splits = _opener(parsed.kind)
    with_limit: Any = dataclasses.make_dataclass(
        "Options", [("limit", int | None, None)], bases=(options_type,), frozen=True
    )
    options = options_into(with_limit, parsed)
    if options.limit is not None and options.limit < 1:
        raise UserError(f"{parsed.kind}: limit={options.limit}; expected 1 or more")
    if download:
        if not hasattr(options, "download"):
            raise UserError(f"{parsed.kind}: this kind has nothing to download; remove --download")
        options = dataclasses.replace(options, download=True)

    # the data set may keep its options, and the class made above cannot be pickled
    own = {field.name: getattr(options, field.name) for field in dataclasses.fields(options_type)}
    given = open_splits(parsed.path, options_type(**own))
    for name, part in given.items():
        part.notes += tuple(_mend_boxes(name, part))
    notes = [note for part in given.values() for note in part.notes]
    for path in filter(None, (part.few_bits for part in given.values() if isinstance(part, FileDataset))):
        notes.append(f"16-bit pictures that use 12 bits or fewer, such as {path}, are scaled to full brightness.")
        break
    equal = equal_pictures(given)
    splits, drawn = complete(spec, given, equal)
    notes += [*faults_of(given, equal, splits), *drawn]
    if options.limit is not None and any(len(part) > options.limit for part in splits.values()):
        splits = {name: limited(part, options.limit) for name, part in splits.items()}
        notes.append(f"limit={options.limit}: at most that many pictures of each split, drawn by a fixed seed.")
    for part in splits.values():
        part.spec, part.splits, part.notes = spec, splits, tuple(dict.fromkeys(notes))
        part.lacking = given["train"].lacking
    return splits["train"]


def _mend_boxes(name: str, part: ImageDataset) -> list[Fault]:
    """Put faulty boxes of a split right, and return notes on them."""
    if not isinstance(part, FileDataset) or part.objects is None:
        return []
    part.objects, faults = part.objects.mended(part.sizes)
    notes = []
    for fault, pictures in faults.items():
        files = [Path(part.images[index]).name for index in pictures.nonzero().flatten().tolist()]
        notes.append(Fault(f"Boxes of {len(files):,} of {len(part):,} pictures in {name} {fault}: {some(files)}."))
    return notes


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
    module = importlib.import_module(f"{__name__}.{name}")
    return module if hasattr(module, "open_splits") else None
