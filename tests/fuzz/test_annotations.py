"""Lists, XML, JSON, class names and files of every kind of data set, damaged: it opens, or one line refuses it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from pathlib import Path

import dataset_samples
import pytest
from damage_samples import ODD, damaged
from fuzz_samples import check, share

from pretext.datasets import at_size, open_dataset

WORDS = ["../../x", "a b", "\ufeffsea", "\x00", "é" * 300, "nul", "-1", "1e400", "car", "/", "", "\u2028", "*", "?x=1"]
TAGS = ["<object/>", "<size/>", "<!DOCTYPE x [<!ENTITY a 'b'>]>&a;", "<bndbox><xmin>nan</xmin></bndbox>", "<a>" * 2000]
TAGS += ["<?xml version='1.0' encoding='utf-16'?>", "<?xml version='1.0' encoding='no-such'?>", "]]>", "&#0;", "\x00"]


def voc_damage(content: bytes, drawn: random.Random) -> bytes:
    text = content.decode()
    way = drawn.randrange(4)
    if way == 0:
        at = drawn.randrange(len(text))
        return (text[:at] + drawn.choice(TAGS) + text[at:]).encode()
    if way == 1:  # the value of an element
        starts = [i + 1 for i, letter in enumerate(text[:-1]) if letter == ">" and text[i + 1] != "<"]
        at = drawn.choice(starts)
        return (text[:at] + drawn.choice([*ODD, *WORDS]) + text[text.index("<", at) :]).encode(errors="surrogatepass")
    if way == 2:
        return text.encode(drawn.choice(["utf-16", "utf-32", "utf-8-sig", "cp037"]))
    return damaged(content, drawn)[1]


def list_damage(content: bytes, drawn: random.Random) -> bytes:
    lines = content.decode().splitlines()
    way = drawn.randrange(4)
    if way == 0:
        lines[drawn.randrange(len(lines))] = drawn.choice(WORDS)
    elif way == 1:
        lines = [line + drawn.choice([" -1", " 1", " x", "\t0", " nan", " 1 2 3"]) for line in lines]
    elif way == 2:
        lines *= 2
    else:
        return damaged(content, drawn)[1]
    return drawn.choice(["\n", "\r\n", "\r", "\x0b"]).join(lines).encode(errors="surrogatepass")


def file_damage(file: Path, root: Path, drawn: random.Random, *, pipes: bool) -> None:
    """Put something else where a file was."""
    way = drawn.choice([0, 1, 2, 4, 5, *[3] * pipes])
    file.unlink()
    if way == 0:
        file.mkdir()
    elif way == 1:
        file.symlink_to(root / "nowhere")
    elif way == 2:
        file.symlink_to(file)
    elif way == 3:
        os.mkfifo(file)
    elif way == 4:
        file.symlink_to(drawn.choice([path for path in sorted(root.rglob("*")) if path.is_file()]))
    else:
        file.with_name(drawn.choice(["\udcff.png", "a\nb.png", "-.jpg", "é" * 100 + ".png"])).touch()


KINDS = ["voc", "coco", "masks", "folder", "clips", *dataset_samples.TORCHVISION]
KINDS.remove("stanford_cars")  # scipy crashes on damaged MATLAB files; the others' are checked before they are read
PICTURES = (".png", ".jpg", ".jpeg", ".JPEG", ".ppm")
BY_SUFFIX = {".xml": voc_damage, ".txt": list_damage}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_data_set_opens_or_is_refused(kind, tmp_path):
    root = tmp_path / "data"
    spec = dataset_samples.make(kind, root)
    shutil.copytree(root, tmp_path / "kept")
    texts = [
        file.relative_to(root) for file in sorted(root.rglob("*")) if file.suffix not in PICTURES and file.is_file()
    ]
    files = [file.relative_to(root) for file in sorted(root.rglob("*")) if file.is_file()]

    def opened(drawn):
        shutil.rmtree(root)
        shutil.copytree(tmp_path / "kept", root)
        for _ in range(drawn.choice([1, 1, 2])):
            if texts and drawn.random() < 0.8:
                file = root / drawn.choice(texts)
                change = BY_SUFFIX.get(file.suffix, lambda content, r: damaged(content, r)[1])
                if file.is_file() and not file.is_symlink():
                    with contextlib.suppress(ValueError):  # the first damage has left no text to change
                        file.write_bytes(change(file.read_bytes() or b"x\n", drawn))
            else:
                file = root / drawn.choice(files)
                if file.is_file() and not file.is_symlink():
                    file_damage(file, root, drawn, pipes=kind not in dataset_samples.TORCHVISION)  # torchvision waits
            drawn.about.append(file.name)
        data = open_dataset(spec)
        for split in data.splits.values():
            assert split.fingerprint
            sized = at_size(split, 8, bad_images=drawn.choice(["skip", "stop"]))
            for index in range(len(sized)):
                sized[index]

    check(f"{kind} data", share("annotations", kind, KINDS), opened)
