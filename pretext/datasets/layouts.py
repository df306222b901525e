"""The kind of data set that fits what lies in a folder, for the message about a path without a kind."""

from __future__ import annotations

from pathlib import Path

from pretext.datasets.decoding import check_regular


def fitting_kind(path: Path) -> str:
    """Return the kind whose layout the folder has; `folder` if it has none of the others'."""
    root = path.expanduser()
    if any(root.glob("VOC[0-9]*")) or ((root / "Annotations").is_dir() and (root / "JPEGImages").is_dir()):
        return "voc"
    for pattern in ("*.json", "annotations/*.json", "*/*coco.json"):
        if any(_starts_like_coco(file) for file in root.glob(pattern)):
            return "coco"
    if any((folder / "masks").is_dir() and (folder / "images").is_dir() for folder in (root, root / "train")):
        return "masks"
    return "folder"


def _starts_like_coco(file: Path) -> bool:
    """Return whether a JSON file names COCO's lists near its start or its end; large files are not read whole."""
    try:
        check_regular(file)
        with file.open("rb") as stream:
            start = stream.read(1 << 16)
            stream.seek(max(0, file.stat().st_size - (1 << 16)))
            ends = start + stream.read()
    except OSError:  # not readable: another kind may fit
        return False
    return any(f'"{key}"'.encode() in ends for key in ("annotations", "categories", "image_id"))
