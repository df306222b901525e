"""`python -m pretext data`: counts against a slow oracle, faults, files, the sheet, and exit codes."""

from __future__ import annotations

import csv
import json

import dataset_samples
import numpy as np
import pytest
from PIL import Image

from pretext.__main__ import main
from pretext.auditing import counting
from pretext.auditing.contact_sheet import CELL, write_contact_sheet
from pretext.auditing.counting import audit
from pretext.datasets import IGNORE, open_dataset
from pretext.system.errors import UserError


@pytest.mark.parametrize("kind", ["folder", "voc", "coco", "masks", "clips", "scenes"])
def test_counts_are_those_of_all_items(tmp_path, own_cache, kind):
    data = open_dataset(dataset_samples.make(kind, tmp_path))
    for name, counted in audit(data).items():
        part = data.split(name)
        pictures, objects = np.zeros(len(part.classes), int), np.zeros(len(part.classes), int)
        pixels, sizes = np.zeros(len(part.classes) + 2, int), []
        for image, target in part:
            sizes.append(f"{image.shape[2]}×{image.shape[1]}")
            labels = target["labels"].tolist() if "labels" in target else [int(target["label"])] if part.classes else []
            for number in labels:
                objects[number] += 1
            for number in set(labels):
                pictures[number] += 1
            for value in np.asarray(target.get("masks", [])).ravel().astype(int).tolist():
                pixels[-1 if value == IGNORE else value] += 1
        assert counted.pictures == len(part) and counted.unreadable == []
        assert counted.pictures_of == pictures.tolist()
        assert counted.sizes == {size: sizes.count(size) for size in sizes}
        if "boxes" in part.annotations:
            assert counted.objects_of == objects.tolist() and counted.objects == objects.sum()
        if "masks" in part.annotations:
            assert counted.pixels_of == pixels.tolist()


def test_a_picture_whose_class_is_unknown_is_of_no_class(tmp_path, own_cache):
    data = open_dataset(dataset_samples.make("folder", tmp_path))
    train = data.split("train")
    known = np.bincount(train.label.numpy(), minlength=len(data.classes))
    known[train.label[0]] -= 1
    train.label[0] = -1
    counted = audit(data)["train"]
    assert counted.pictures_of == known.tolist() and counted.empty == 1 and counted.pictures == len(train)


def test_turned_and_broken_pictures_and_modes_are_counted(tmp_path, capsys):
    for number in range(9):
        exif = Image.Exif()
        exif[0x0112] = 6 if number < 2 else 1
        picture = Image.fromarray(dataset_samples.pixels(1, number)).convert("L" if number == 8 else "RGB")
        picture.save(tmp_path / f"{number}.jpg", exif=exif)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert main(["data", f"folder:{tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "files: JPEG RGB 8, JPEG L 1; turned by EXIF: 2" in printed
    assert "cannot be decoded: " in printed and "broken.png: not a picture that Pillow can read" in printed
    assert all(len(line) <= 80 for line in printed.splitlines() if not line.startswith(("wrong", "note", "folder")))


def test_strict_ends_with_an_error_after_all_is_written(tmp_path, capsys):
    for number in range(8):
        dataset_samples.save(tmp_path / "in" / "ab"[number % 2] / f"{number}.png", dataset_samples.pixels(1, number))
    spec, out = f"folder:{tmp_path / 'in'}", tmp_path / "out"
    assert main(["data", spec, "--strict"]) == 0
    assert "nothing wrong was found" in capsys.readouterr().out
    (tmp_path / "in" / "a" / "again.png").write_bytes((tmp_path / "in" / "a" / "0.png").read_bytes())
    assert main(["data", spec]) == 0
    with pytest.raises(UserError, match="1 fault, listed above; mend the data"):
        main(["data", spec, "--strict", "--out", str(out)])
    stored = json.loads((out / "audit.json").read_text())
    assert "repeat another one" in stored["faults"][0] and stored["splits"]["train"]["pictures"] == 6
    with (out / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and sum(int(row["pictures"]) for row in rows if row["class"] == "a") == 5
    assert sorted(path.name for path in out.iterdir()) == ["audit.json", "classes.csv", "contact_sheet.png"]


def test_the_sheet_shows_boxes_masks_and_classes(tmp_path):
    data = open_dataset(dataset_samples.make("voc", tmp_path))
    plain = open_dataset(dataset_samples.make("folder", tmp_path / "plain"))
    for number, part in enumerate((data, plain)):
        write_contact_sheet(part, tmp_path / f"{number}.png")
    with Image.open(tmp_path / "0.png") as sheet:
        assert sheet.size[0] > 6 * CELL and sheet.size[1] > 3 * CELL * 20 / 24


def test_an_audit_is_remembered_until_the_data_changes(tmp_path, own_cache, monkeypatch):
    spec = dataset_samples.make("folder", tmp_path / "in")
    first = audit(open_dataset(spec))
    with monkeypatch.context() as without_looking:
        without_looking.setattr(counting, "_look", lambda *_: pytest.fail("pictures are decoded again"))
        assert audit(open_dataset(spec)) == first
    for stored in (own_cache / "audits").iterdir():
        stored.write_text('{"train": {"unknown": 1}}')
    assert audit(open_dataset(spec)) == first
    dataset_samples.save(tmp_path / "in" / "train" / "a" / "new.png", dataset_samples.pixels(9, 9))
    assert audit(open_dataset(spec))["train"].pictures == first["train"].pictures + 1


@pytest.mark.parametrize("words", [["data"], ["data", "folder:/nowhere"], ["data", "scenes", "--strct"]])
def test_bad_input_is_one_line(words):
    with pytest.raises(UserError) as raised:
        main(words)
    assert "\n" not in str(raised.value)


def test_a_name_that_commands_the_terminal_is_written_out(tmp_path, capsys):
    for name in ("a\n\x1b[31mb", "c"):
        for number in range(6):
            dataset_samples.save(tmp_path / name / f"{number}.png", dataset_samples.pixels(3, 10 * len(name) + number))
    assert main(["data", f"folder:{tmp_path}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("a\\n\\x1b[31mb ") for line in lines) and not any("\x1b" in line for line in lines)
