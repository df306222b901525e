"""VOC's XML files without lists in ImageSets: beside their pictures, or in a folder beside that of the pictures.

Labelling tools and Roboflow write them so, in one folder or in the sub-folders train, valid and test.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pretext.datasets.base import Fault
from pretext.datasets.files import some
from pretext.datasets.folder import split_folders
from pretext.datasets.voc_format import Part, by_stem, xml_and_pictures
from pretext.system.errors import UserError


def parts_in_folders(spec: str, root: Path, named: Mapping[str, str | None]) -> tuple[dict[str, Part], list[str]]:
    """Return the files of each split, and notes on pictures that are left out.

    Args:
        spec: The start of error messages.
        root: The data set's folder.
        named: The user's names for the folders of train, val and test; None for the default names.

    Raises:
        UserError: If no XML file lies beside a picture, or an XML file has no picture.
    """
    parts: dict[str, Part] = {}
    notes: list[str] = []
    for split, folder in split_folders(spec, root, dict(named)).items():
        pair = xml_and_pictures(folder)
        if pair is None:
            if split == "train" or named[split] is not None:
                where = f"voc:{root.parent}" if (root.parent / "ImageSets").is_dir() else "a VOCdevkit folder"
                raise UserError(
                    f"{spec}: no lists in ImageSets, here or in a VOCyyyy folder, and in {folder} no XML files beside "
                    f"pictures or in Annotations beside JPEGImages; give {where}, or the folder of both"
                )
            notes.append(Fault(f"No picture in the folder {folder.name} has an XML file: it is not used."))
            continue
        annotations, pictures = pair
        if alone := sorted(annotations.keys() - pictures.keys()):
            raise UserError(f"{spec}: {annotations[alone[0]]} has no picture: {alone[0]}.jpg is missing")
        if bare := sorted(pictures.keys() - annotations.keys()):
            files = some([Path(pictures[name]).name for name in bare])
            notes.append(Fault(f"{len(bare):,} pictures in {split} have no XML file and are left out: {files}."))
        names, masks = sorted(annotations), by_stem(folder / "SegmentationClass")
        parts[split] = Part(
            [pictures[name] for name in names],
            [annotations[name] for name in names],
            [masks.get(name, "") for name in names],
        )
    return parts, notes
