"""A sheet of some pictures of each split, with their boxes, masks and classes drawn on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from pretext.datasets.base import IGNORE, BadImage, ImageDataset, Target
from pretext.datasets.classification import class_names_of
from pretext.datasets.drawing import FONT_SIZE, draw_boxes, save_sheet, with_mask
from pretext.datasets.findings import standing

COLUMNS, ROWS = 6, 2
"""Pictures of each split: so many side by side, in so many rows."""
CELL = 208
"""Longer side of a picture on the sheet, in pixels."""
GAP, HEADING, CAPTION = 8, 22, 16
SEED = 0
NAMED_FROM = 0.02
"""Share of a picture that a class in its mask must cover to be named."""


def write_contact_sheet(data: ImageDataset, path: Path) -> None:
    """Write a PNG with pictures of each split, drawn by a fixed seed and shown with their own aspect.

    Args:
        data: Any split of a data set.
        path: The PNG file.
    """
    shown = {name: _drawn(data.splits[name]) for name in sorted(data.splits, key=standing)}
    rows = [
        (name, pictures[start : start + COLUMNS])
        for name, pictures in shown.items()
        for start in range(0, len(pictures), COLUMNS)
    ]
    heights = [max(picture.height for picture, _ in row) for _, row in rows]
    height = GAP + len(shown) * HEADING + sum(heights) + len(rows) * (CAPTION + GAP)
    sheet = Image.new("RGB", (COLUMNS * (CELL + GAP) + GAP, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    top = GAP
    before = ""
    for (name, row), tallest in zip(rows, heights, strict=True):
        if name != before:
            pen.text((GAP, top), f"{name}: {len(shown[name])} of {len(data.splits[name]):,} pictures", "black", font)
            before, top = name, top + HEADING
        for column, (picture, caption) in enumerate(row):
            left = GAP + column * (CELL + GAP)
            sheet.paste(picture, (left + (CELL - picture.width) // 2, top + (tallest - picture.height) // 2))
            pen.text((left + CELL / 2, top + tallest), _fitting(caption, font), "black", font, anchor="ma")
        top += tallest + CAPTION + GAP
    save_sheet(sheet, path)


def _drawn(part: ImageDataset) -> list[tuple[Image.Image, str]]:
    """Return some pictures with what is annotated, and their captions; those that cannot be decoded are passed over."""
    found: list[tuple[Image.Image, str]] = []
    for index in np.random.default_rng(SEED).permutation(len(part)).tolist():
        if len(found) == COLUMNS * ROWS:
            break
        try:
            image, target = part[index]
        except BadImage:
            continue  # counted and named in the audit
        found.append(_with_annotations(image, target, part.classes))
    return found


def _with_annotations(image: torch.Tensor, target: Target, classes: tuple[str, ...]) -> tuple[Image.Image, str]:
    height, width = image.shape[1:]
    scale = CELL / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).resize(size, Image.Resampling.BICUBIC)
    mask = np.asarray(target.get("masks", IGNORE))
    if (mask != IGNORE).any():  # a picture without a mask would be white
        named_from = math.inf if "boxes" in target else NAMED_FROM  # boxes name the classes
        picture = with_mask(picture, mask, ("background", *classes), named_from=named_from)
    is_drawn = "label" not in target and bool({"boxes", "masks"} & target.keys())  # which names the classes
    caption = "" if is_drawn else class_names_of(target, classes)
    if "boxes" in target:
        labels = target["labels"].tolist()
        difficult = target["difficult"].tolist() if "difficult" in target else [False] * len(labels)
        captions = [f"{classes[k]}{' (difficult)' if hard else ''}" for k, hard in zip(labels, difficult, strict=True)]
        edges = np.array([size[0] / width, size[1] / height] * 2, dtype=np.float32)
        draw_boxes(picture, np.asarray(target["boxes"], dtype=np.float32) * edges, labels, captions)
    return picture, caption


def _fitting(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return a caption cut to the width of a cell."""
    while caption and font.getlength(caption) > CELL:
        caption = f"{caption[:-2]}…"
    return caption
