"""`clips:DIR`: a folder of clips, each a folder of frames, at any depth, with or without splits.

The frames of a clip are the pictures that lie directly in one folder, in the order of their names, where a
number in a name counts as a number (`2.png` comes before `10.png`); what is hidden is left out.

Splits: as for `folder`, those that DIR holds or that `train=`, `val=` and `test=` name; else they are drawn by
clip, so that no clip is in two of them. Clips that are too short are left out, and the notes name them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from pretext.datasets.base import ImageDataset
from pretext.datasets.files import FileDataset, folder_at, images_below
from pretext.datasets.folder import SPLITS, split_folders
from pretext.system.errors import UserError

NAMED = 5
"""Clips that a note or an error names, at most."""


@dataclass(frozen=True)
class Options:
    """What the layout leaves open."""

    train: str | None = None
    """Sub-folder of the training clips; `train` where that is one."""
    val: str | None = None
    """Sub-folder of the validation clips; `val` where that is one."""
    test: str | None = None
    """Sub-folder of the test clips; `test` where that is one."""
    shortest: int = 2
    """Clips of fewer frames are left out."""


def open_splits(path: str, options: Options) -> dict[str, ImageDataset]:
    """Return the splits that the folder has, each with its clips one after the other."""
    root, spec = folder_at("clips", path), f"clips:{path}"
    if options.shortest < 2:
        raise UserError(f"{spec}: shortest={options.shortest}: a clip has at least 2 frames")
    folders = split_folders(spec, root, {name: getattr(options, name) for name in SPLITS})
    return {name: _clips(spec, root, folder, options.shortest) for name, folder in folders.items()}


def _clips(spec: str, root: Path, folder: Path, shortest: int) -> FileDataset:
    clips: dict[Path, list[str]] = {}
    for image in images_below(folder):
        clips.setdefault(Path(image).parent, []).append(image)
    if folder in clips:
        raise UserError(f"{spec}: {folder} holds pictures itself; give the folder that holds the clips' folders")
    filled = {clip.relative_to(folder).parts[0] for clip in clips}
    for below in folder.iterdir():
        if below.is_dir() and below.name not in filled and not below.name.startswith("."):
            clips[below] = []
    in_order = sorted(clips, key=_natural)
    kept = [clips[clip] for clip in in_order if len(clips[clip]) >= shortest]
    short = [clip.relative_to(root).as_posix() for clip in in_order if len(clips[clip]) < shortest]
    which = ", ".join(short[:NAMED]) + (f" and {len(short) - NAMED:,} more" if len(short) > NAMED else "")
    if not kept:
        found = f", only shorter ones: {which}" if short else "; a clip is a folder of pictures"
        raise UserError(f"{spec}: no clips of {shortest} or more frames in {folder}{found}")
    data = FileDataset(
        root=root,
        images=[frame for frames in kept for frame in sorted(frames, key=_natural)],
        clip_of=torch.arange(len(kept)).repeat_interleave(torch.tensor([len(frames) for frames in kept])),
    )
    if short:
        data.notes = (f"Left out of {len(clips):,} clips, for fewer than {shortest} frames: {which}.",)
    return data


def _natural(path: str | Path) -> tuple[list[tuple[int, str]], str]:
    """Return what sorts paths by name, with the numbers in them by value."""
    parts = re.split(r"(\d+)", str(path))  # text, number, text, number, …
    return [(int(part), "") if k % 2 else (-1, part) for k, part in enumerate(parts)], str(path)
