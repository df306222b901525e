"""An audit as text for the terminal, as a CSV file of classes, and as JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from pretext.auditing.counting import Counted
from pretext.datasets.base import Fault, ImageDataset
from pretext.datasets.findings import summary
from pretext.system.errors import on_one_line

CLASSES = 30
"""Classes that are listed on the terminal: of more, the first ones."""
NAME = 24
"""Characters of a class name that are shown on the terminal."""
MODES = 6
"""File formats and modes that are named on the terminal."""


def text(data: ImageDataset, counted: Mapping[str, Counted], notes: Sequence[str]) -> str:
    """Return the audit in lines of at most 80 characters, but for names and faults, which are not broken.

    Args:
        data: The data set.
        counted: What each split holds.
        notes: Everything that is to be said; what is wrong is a `Fault`.
    """
    faults = [note for note in notes if isinstance(note, Fault)]
    decided = [note for note in notes if not isinstance(note, Fault)]
    blocks = [[summary(data)], _table(_split_rows(data, counted)), _files(counted)]
    if data.classes:
        blocks.append(_class_lines(data, counted))
    blocks.append([f"wrong: {fault}" for fault in faults] or ["nothing wrong was found"])
    blocks.append([f"note: {note}" for note in decided])
    return "\n\n".join("\n".join(map(on_one_line, block)) for block in blocks if block)


def class_csv(data: ImageDataset, counted: Mapping[str, Counted]) -> str:
    """Return the numbers of pictures, objects and mask pixels of each class and split as CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["class", "split", "pictures", "objects", "pixels"])
    for number, name in enumerate(data.classes):
        for split, each in counted.items():
            objects = each.objects_of[number] if each.objects_of else ""
            pixels = each.pixels_of[number + 1] if each.pixels_of else ""
            writer.writerow([name, split, each.pictures_of[number], objects, pixels])
    return stream.getvalue()


def as_json(data: ImageDataset, counted: Mapping[str, Counted], notes: Sequence[str]) -> str:
    """Return the whole audit as JSON."""
    content = {
        "data": data.spec,
        "classes": data.classes,
        "annotations": sorted(data.annotations),
        "faults": [note for note in notes if isinstance(note, Fault)],
        "notes": [note for note in notes if not isinstance(note, Fault)],
        "splits": {name: dataclasses.asdict(each) for name, each in counted.items()},
    }
    return json.dumps(content, indent=2) + "\n"


def _split_rows(data: ImageDataset, counted: Mapping[str, Counted]) -> list[list[str]]:
    boxes, labelled = "boxes" in data.annotations, "labels" in data.annotations
    head = ["split", "pictures", "unreadable"]
    head += ["objects", "difficult"] if boxes else []
    head += ["empty"] if labelled else []
    rows = [[*head, "sides in pixels"]]
    for name, each in counted.items():
        row = [name, f"{each.pictures:,}", f"{len(each.unreadable):,}"]
        row += [f"{each.objects:,}", f"{each.difficult:,}"] if boxes else []
        row += [f"{each.empty:,}"] if labelled else []
        rows.append([*row, _sizes(each.sizes)])
    return rows


def _sizes(sizes: Mapping[str, int]) -> str:
    """Return the one size of all pictures, or the shortest and the longest side and how many sizes there are."""
    if len(sizes) < 2:
        return next(iter(sizes), "–")
    sides = [int(side) for size in sizes for side in re.findall(r"\d+", size)]
    return f"{min(sides):,} to {max(sides):,}, {len(sizes):,} sizes"


def _files(counted: Mapping[str, Counted]) -> list[str]:
    modes: Counter[str] = sum((Counter(each.modes) for each in counted.values()), Counter())
    named = [f"{mode} {count:,}" for mode, count in modes.most_common(MODES)]
    rest = sum(modes.values()) - sum(count for _, count in modes.most_common(MODES))
    turned = sum(each.turned for each in counted.values())
    line = ", ".join([*named, *([f"others {rest:,}"] if rest else [])])
    return [f"files: {line}{f'; turned by EXIF: {turned:,}' if turned else ''}"] if line else []


def _class_lines(data: ImageDataset, counted: Mapping[str, Counted]) -> list[str]:
    """Return pictures by class and split, and beside them objects, or the share of mask pixels where there are none."""
    boxes, masks = "boxes" in data.annotations, "masks" in data.annotations
    second = "objects" if boxes else "% of pixels" if masks else ""
    heads = [f"{name} pictures" for name in counted] + ([f"{name} {second}" for name in counted] if second else [])
    rows = [["class", *heads]]
    for number, name in enumerate(map(on_one_line, data.classes[:CLASSES])):
        row = [name if len(name) <= NAME else f"{name[: NAME - 1]}…"]
        row += [f"{each.pictures_of[number]:,}" for each in counted.values()]
        if boxes:
            row += [f"{each.objects_of[number]:,}" for each in counted.values()]
        elif masks:
            row += _pixel_shares(counted, number + 1)
        rows.append(row)
    if masks and not boxes:
        empty = [""] * len(counted)
        rows += [["(background)", *empty, *_pixel_shares(counted, 0)]] if data.has_background else []
        rows.append(["(ignored)", *empty, *_pixel_shares(counted, -1)])
    lines = _table(rows)
    if len(data.classes) > CLASSES:
        lines.append(f"and {len(data.classes) - CLASSES:,} more classes; --out DIR writes all")
    return lines


def _pixel_shares(counted: Mapping[str, Counted], value: int) -> list[str]:
    """Return the share of each split's mask pixels that have a value: 0 background, k + 1 a class, -1 ignored."""
    return [f"{100 * each.pixels_of[value] / max(1, sum(each.pixels_of)):.1f}" for each in counted.values()]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as aligned lines; headings of two words take two lines."""
    head = [heading.split(" ", 1) if " " in heading else ["", heading] for heading in rows[0]]
    lines = [*([[each[line] for each in head] for line in (0, 1)]), *rows[1:]]
    lines = lines if any(lines[0]) else lines[1:]
    widths = [max(len(line[column]) for line in lines) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
