"""`clips:DIR`: a folder of clips, each a folder of frames, at any depth, with or without splits.

The frames of a clip are the pictures directly inside one folder, in natural order of their names (`2.png` before
`10.png`). Hidden files are ignored.

Splits: found as for `folder`, or named by `train=`, `val=` and `test=`. Missing splits are drawn by whole clips,
so that no clip is in two of them. Clips that are too short are left out, and the notes name them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from pretext.datasets.base import Fault, ImageDataset
from pretext.datasets.files import FileDataset, folder_at, images_below, some
from pretext.datasets.folder import split_folders
from pretext.datasets.layouts import SPLIT_NAMES
from pretext.system.errors import UserError

NAMED = 5
"""Maximum number of clips listed in a note or an error message."""


@dataclass(frozen=True)
class Options:
    """Options of `clips:DIR?…`."""

    train: str | None = None
    """Sub-folder of the training clips; `train` if omitted."""
    val: str | None = None
    """Sub-folder of the validation clips; `val`, `valid` or `validation` if omitted."""
    test: str | None = None
    """Sub-folder of the test clips; `test` if omitted."""
    shortest: int = 2
    """Minimum number of frames, at least 2; shorter clips are left out."""


def open_splits(path: str, options: Options) -> dict[str, ImageDataset]:
    """Return the splits of the folder; the frames of each clip are consecutive.

    Raises:
        UserError: If a folder is missing, or no clip is long enough.
    """
    root, spec = folder_at("clips", path), f"clips:{path}"
    if options.shortest < 2:
        raise UserError(f"{spec}: shortest={options.shortest}; expected 2 frames or more")
    folders = split_folders(spec, root, {name: getattr(options, name) for name in SPLIT_NAMES})
    return {name: _clips(spec, root, folder, options.shortest) for name, folder in folders.items()}


def _clips(spec: str, root: Path, folder: Path, shortest: int) -> FileDataset:
    clips: dict[Path, list[str]] = {}
    outputs: list[str] = []
    for image in images_below(folder, outputs):
        clips.setdefault(Path(image).parent, []).append(image)
    if folder in clips:
        raise UserError(
            f"{spec}: {folder} contains pictures itself; give the folder that contains the folders of the clips"
        )
    filled = {clip.relative_to(folder).parts[0] for clip in [*clips, *map(Path, outputs)]}
    for below in folder.iterdir():
        if below.is_dir() and below.name not in filled and not below.name.startswith("."):
            clips[below] = []
    in_order = sorted(clips, key=_natural)
    kept = [clips[clip] for clip in in_order if len(clips[clip]) >= shortest]
    short = [clip.relative_to(root).as_posix() for clip in in_order if len(clips[clip]) < shortest]
    which = some(short, NAMED)
    if not kept:
        found = f", only shorter ones: {which}" if short else "; a clip is a folder of pictures"
        raise UserError(f"{spec}: no clips of {shortest} or more frames in {folder}{found}")
    data = FileDataset(
        root=root,
        images=[frame for frames in kept for frame in sorted(frames, key=_natural)],
        clip_of=torch.arange(len(kept)).repeat_interleave(torch.tensor([len(frames) for frames in kept])),
    )
    if outputs:
        names = [Path(output).relative_to(root).as_posix() for output in outputs]
        data.notes += (f"Outputs of commands are no data and were left out: {some(names)}.",)
    if short:
        data.notes += (Fault(f"Left out of {len(clips):,} clips, for fewer than {shortest} frames: {which}."),)
    return data


def _natural(path: str | Path) -> tuple[list[tuple[int, str]], str]:
    """Return a sort key that compares the numbers in a path by value."""
    parts = re.split(r"(\d+)", str(path))  # text, number, text, number, …
    return [(int(part), "") if k % 2 else (-1, part) for k, part in enumerate(parts)], str(path)
