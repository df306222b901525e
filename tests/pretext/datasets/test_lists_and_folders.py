"""Lists of files, and several folders as one data set."""

from __future__ import annotations

import dataset_samples
import pytest
from dataset_samples import fails, save
from store_samples import write_lists

from pretext.datasets import open_dataset
from pretext.datasets.stored_splits import as_label, class_numbers


@pytest.fixture
def folder(tmp_path):
    dataset_samples.folder(tmp_path / "folder", 1)
    return tmp_path / "folder"


def test_the_order_of_the_lines_and_the_place_of_the_list_do_not_matter(folder, tmp_path):
    wanted = open_dataset(write_lists(folder)).fingerprint
    lines = (folder / "train.txt").read_text().splitlines()
    (folder / "train.txt").write_text("\ufeff" + "\r\n".join([*sorted(lines), "", ""]), encoding="utf-8")
    assert open_dataset(f"list:{folder / 'train.txt'}").splits["train"].base.base.fingerprint == wanted
    (tmp_path / "elsewhere.txt").write_text("".join(f"folder/{line}\n" for line in lines))
    moved = open_dataset(f"list:{tmp_path / 'elsewhere.txt'}")
    assert len({part.fingerprint for part in moved.splits.values()}) == 3 and moved.classes == ("a", "b")


def test_classes_of_a_list(folder):
    file = folder / "some.txt"
    file.write_text("train/a/train0.png\ntrain/b/train1.png\ntrain/a/train2.png\n")
    assert open_dataset(f"list:{file}").annotations == frozenset()
    file.write_text("train/a/train0.png\t2\ntrain/b/train1.png\t0\ntrain/a/train2.png\t0\n")
    assert open_dataset(f"list:{file}").classes == ("0", "1", "2")
    (folder / "names.txt").write_text("x\ny\nz\n")
    assert open_dataset(f"list:{file}?classes=names.txt").classes == ("x", "y", "z")
    assert open_dataset(f"list:{file}?label=none").annotations == frozenset()
    file.write_text("train/a/train0.png\tcat\ntrain/b/train1.png\ntrain/a/train2.png\tdog\n")
    fails(f"list:{file}", "1 of 3 pictures in train have no class, .*train1.png among them")
    fails(f"list:{folder / 'nothing.txt'}", "no such file")
    file.write_text("\n")
    fails(f"list:{file}", "some.txt: names no pictures")
    file.write_text("train/a/train0.png\n\ntrain/a/gone.png\n")
    fails(f"list:{file}", r"some.txt, line 3: no picture .*gone.png \(1 of 2 pictures are missing\); paths start from")
    file.write_bytes(b"\xff\xfe\0")
    fails(f"list:{file}", "some.txt: not a list of pictures")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ((3000001, 3000000, 3000001), ("3000000", "3000001")),
        ((20240101, 10**17, 20240101), ("20240101", str(10**17))),
        ((1001, 0, 1001), ("0", "1001")),
        ((1000, 0, 1000), tuple(map(str, range(1001)))),  # not over 1000
    ],
)
def test_numbers_far_from_dense_are_class_names(folder, labels, classes):
    """In every split of the data set a number is the same class."""
    given = {"train": labels, "val": labels[:1], "test": labels[1:]}
    for split, some in given.items():
        files = sorted(path.relative_to(folder).as_posix() for path in folder.glob(f"{split}/*/*.png"))
        (folder / f"{split}.txt").write_text(
            "".join(f"{file}\t{label}\n" for file, label in zip(files, some, strict=False))
        )
    spec = f"list:{folder / 'train.txt'}?val=val.txt&test=test.txt"
    for split, part in open_dataset(spec).splits.items():
        assert part.classes == classes
        assert [classes[part[i][1]["label"]] for i in range(len(part))] == [str(label) for label in given[split]]
    (folder / "val.txt").write_text((folder / "val.txt").read_text().replace(str(labels[0]), "5000"))
    fails(spec, rf"val: .* has the class 5000, which is not known; there are {len(classes)} classes")


def test_digits_after_a_zero_are_a_name():
    assert [as_label(text) for text in ("7", "007", "0", "-1", "07", " 12 ", "")] == [7, "007", 0, -1, "07", 12, None]
    given = [as_label(text) for text in ("007", "7", "agent", "007")]
    assert class_numbers("x", {"train": (given, [""] * 4)}, (), [])[1] == ("007", "7", "agent")


def test_as_many_numbers_as_a_tenth_of_the_largest_are_numbers():
    tens = [*range(0, 2000, 10)]
    for last, names in ((2009, range(2010)), (2010, [*tens, 2010])):
        found = class_numbers("x", {"train": ([*tens, last], [""] * 201)}, (), [])
        assert found[1] == tuple(map(str, names)) and found[0]["train"][-1] == len(names) - 1


def test_several_folders_are_one_data_set(folder, tmp_path):
    for number in range(4):
        save(tmp_path / "more" / "b" / f"{number}.png", dataset_samples.pixels(2, number))
        save(tmp_path / "more" / "c" / f"{number}.png", dataset_samples.pixels(3, number))
    more = tmp_path / "more"
    data = open_dataset(f"folder:{folder}?also={more}")
    assert data.classes == ("a", "b", "c")
    assert {name: len(part) for name, part in data.splits.items()} == {"train": 14, "val": 6, "test": 6}
    shown = [data.classes[label] for label in data.label.tolist()]
    assert shown == [path.rsplit("/", 2)[-2] for path in data.images]
    assert data.fingerprint != open_dataset(f"folder:{folder}").fingerprint
    fails(f"folder:{folder}?also={folder}/../folder", "names a folder twice")
    fails(f"folder:{folder}?also=nowhere", "folder:nowhere: no such folder")
    assert len(open_dataset(f"folder:{folder}?also={more}&exclude=3.png")) == 12
    fails(f"folder:{folder}?also={more}&exclude=nothing", "exclude=nothing: no picture is there")
    save(tmp_path / "x, y" / "0.png", dataset_samples.pixels(4, 0))
    flat = open_dataset(f"folder:{folder}?also={tmp_path}/x, y")
    assert not flat.classes and any(
        "x, y have no classes, so none of the others are used" in note for note in flat.notes
    )
    both = open_dataset(f"folder:{folder}?also={more},{folder}/train/a")
    assert len(both) == 6 + 8 + 3
    assert any("3 of 17 pictures in train repeat" in note or "is listed twice" in note for note in both.notes)
