"""The commands of the documentation, as words, and a folder with the files that they name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import dataset_samples
import numpy as np
import torch
import torchvision
from module_samples import example
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "results"),
]
PROGRAM = re.compile(r"(?:\w+=\S+ )*(?:(?:\S*/)?python3?|pretext-bench|make|pip|jupyter|mkdocs|\.venv/bin/\S+)(?: |$)")
OWN_FILES = {"mean_colour.py": "task", "dilated.py": "encoder", "nearest_mean.py": "probe"}


def commands_in(text):
    """Yield each shell command of a page's code, and those in code spans that name no placeholder."""
    text = re.sub(r"\$\([^)]*\)", "NAME", re.sub(r"\\\n\s+", "", text))  # a shell's own substitution
    spans = [
        span for span in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text) if not re.search(r"…|\b[A-Z]{3,}\b|--strict", span)
    ]
    spans = [span if " -" in span.replace(" -m ", " ") else f"{span} --help" for span in spans]  # the name of a command
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    for block in re.findall(r"^```(?:sh|console)?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        lines += block.splitlines()
    for line in [*lines, *spans]:
        if PROGRAM.match(line):
            yield from (words for words in split(shlex.split(line, comments=True)) if words)


def split(words):
    """Split words at && and leave out variables set before a command."""
    parts = [[]]
    for word in words:
        if word == "&&":
            parts.append([])
        elif parts[-1] or not re.match(r"[A-Z_]+=", word):
            parts[-1].append(word)
    return parts


def write_own_files(folder):
    """Write the task, the encoder and the probe of one's own that the guide shows."""
    for name, kind in OWN_FILES.items():
        (folder / name).write_text(example(kind))


def write_named_files(folder):
    """Write small data sets, modules and weights under the names that the pages give them."""
    write_own_files(folder)
    for number in range(24):
        dataset_samples.save(folder / "photographs" / f"{number:05}.jpg", dataset_samples.pixels(1, number, 40, 48))
        place = folder / "labelled" / "ab"[number % 2] / f"{number}.jpg"
        dataset_samples.save(place, dataset_samples.pixels(2, number, 40, 48))
    (folder / "photos").symlink_to("photographs")
    (folder / "tiny-imagenet-unlabelled").symlink_to("photographs")
    for name in "abc":
        dataset_samples.save(folder / f"{name}.jpg", dataset_samples.pixels(3, ord(name), 160, 200))
    dataset_samples.coco(folder / "tiny-imagenet-20", 1)
    (folder / "tiny-imagenet-20" / "train").symlink_to("../labelled")  # class folders, as the set has them
    dataset_samples.voc(folder / "VOCdevkit", 1)
    for about in (folder / "VOCdevkit").rglob("Annotations/*[135].xml"):  # a second class
        about.write_text(about.read_text().replace("car", "cat"))
    dataset_samples.masks(folder / "camvid", 1)
    for file in (folder / "camvid" / "masks").rglob("*.png"):  # no background, and 11 for what is ignored
        mask = np.array(Image.open(file))
        Image.fromarray(np.where(mask == 255, 11, mask > 1).astype(np.uint8)).save(file)
    (folder / "camvid" / "train").symlink_to(".")
    weights = torchvision.models.resnet50(num_classes=2).state_dict()
    query = {f"module.encoder_q.{name}": tensor for name, tensor in weights.items() if not name.startswith("fc.")}
    torch.save({"state_dict": query}, folder / "moco_v2.pth.tar")
