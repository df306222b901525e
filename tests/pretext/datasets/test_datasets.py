"""What every kind of data set keeps, and what `open_dataset` says to what it cannot use."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import dataset_samples
import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from torchvision import tv_tensors

from pretext.datasets import ANNOTATIONS, IGNORE, at_size, dataset_kinds, open_dataset
from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.classification import class_targets, is_multi_label
from pretext.datasets.files import FileDataset, images_below
from pretext.datasets.objects import Objects
from pretext.datasets.splitting import split_or_all
from pretext.datasets.torchvision_sets import BY_HAND, SETS
from pretext.system.errors import UserError

KINDS = dataset_kinds()


@pytest.fixture
def unchecked(monkeypatch):
    """Let torchvision take made-up files for its own, whose checksums it knows."""
    for name in ("cifar", "stl10", "svhn", "flowers102", "places365"):
        module = sys.modules[f"torchvision.datasets.{name}"]
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: Path(path).is_file())


@pytest.fixture(params=KINDS)
def sample(request, tmp_path, unchecked):
    return dataset_samples.make(request.param, tmp_path / "data")


def one_line(excinfo):
    text = str(excinfo.value)
    assert "\n" not in text
    return text


def check_target(data, image, target):
    assert image.dtype == torch.uint8
    assert image.ndim == 3 and image.shape[0] == 3 and image.is_contiguous()
    assert set(target) - {"difficult"} == data.annotations
    height, width = image.shape[1:]
    if "label" in target:
        assert target["label"].dtype == torch.int64 and target["label"].ndim == 0
        assert 0 <= target["label"] < len(data.classes)
    if "labels" in target:
        assert target["labels"].dtype == torch.int64 and target["labels"].ndim == 1
        assert all(0 <= label < len(data.classes) for label in target["labels"])
    if "boxes" in target:
        boxes = target["boxes"]
        assert isinstance(boxes, tv_tensors.BoundingBoxes) and boxes.dtype == torch.float32
        assert boxes.format == tv_tensors.BoundingBoxFormat.XYXY and boxes.canvas_size == (height, width)
        assert boxes.shape == (len(target["labels"]), 4)
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes[:, 2:] <= torch.tensor([width, height])).all()
    if "clip" in target:
        assert target["clip"].dtype == torch.int64 and target["clip"].ndim == 0
    if "difficult" in target:
        assert target["difficult"].dtype == torch.bool and len(target["difficult"]) == len(target["labels"])
    if "masks" in target:
        assert isinstance(target["masks"], tv_tensors.Mask) and target["masks"].dtype == torch.uint8
        assert target["masks"].shape == (height, width)
        assert set(target["masks"].unique().tolist()) <= {*range(len(data.classes) + 1), IGNORE}


def test_every_kind_has_a_sample_here():
    assert sorted([*dataset_samples.OWN, *dataset_samples.TORCHVISION]) == KINDS


def test_items_are_what_the_contract_says(sample):
    train = open_dataset(sample)
    assert {"train", "val", "test"} <= set(train.splits) and train.splits["train"] is train
    assert train.annotations <= ANNOTATIONS
    for data in train.splits.values():
        assert isinstance(data, ImageDataset) and len(data) > 0
        assert data.spec == sample and data.classes == train.classes and data.annotations == train.annotations
        for index in range(len(data)):
            check_target(data, *data[index])


def test_items_of_one_size_are_what_the_contract_says(sample):
    train = at_size(open_dataset(sample), 16, bad_images="stop")
    for name, data in train.splits.items():
        assert len(data) == len(open_dataset(sample).split(name))
        image, target = data[0]
        assert image.shape == (3, 16, 16)
        check_target(data, image, target)


def test_an_item_is_nobody_elses_memory(sample):
    data = open_dataset(sample)
    image, target = data[0]
    kept = image.clone(), {name: value.clone() for name, value in target.items()}
    image.zero_()
    for value in target.values():
        value.zero_()
    again, target_again = data[0]
    assert torch.equal(again, kept[0])
    assert all(torch.equal(target_again[name], value) for name, value in kept[1].items())


def test_the_fingerprint_is_of_the_content_and_of_nothing_else(sample, tmp_path, unchecked):
    kind = sample.partition(":")[0].partition("?")[0]
    same = open_dataset(dataset_samples.make(kind, tmp_path / "elsewhere" / "the same"))
    other = open_dataset(dataset_samples.make(kind, tmp_path / "other", shade=2))
    data = open_dataset(sample)
    assert len(data.fingerprint) == 32
    for name, part in data.splits.items():
        assert part.fingerprint == same.split(name).fingerprint != other.split(name).fingerprint
    assert len({part.fingerprint for part in data.splits.values()}) == len(data.splits)


def test_all_splits_in_one(sample):
    data = open_dataset(sample)
    whole = split_or_all(data, "all")
    pictures = [image.numpy().tobytes() for part in data.splits.values() for image, _ in part]
    assert [image.numpy().tobytes() for image, _ in whole] == pictures and len(whole) == len(pictures)
    assert whole.fingerprint not in {part.fingerprint for part in data.splits.values()}
    assert split_or_all(data, "val") is data.split("val")


def test_a_limit_draws_the_same_pictures_every_time(sample):
    joint = "&" if "?" in sample else "?"
    few, again, fewer = (open_dataset(f"{sample}{joint}limit={limit}") for limit in (3, 3, 2))
    assert max(map(len, few.splits.values())) <= 3 and any("limit=3" in note for note in few.notes)
    assert few.fingerprint == again.fingerprint
    pictures = [image.numpy().tobytes() for image, _ in few]
    assert all(image.numpy().tobytes() in pictures for image, _ in fewer)
    for text in ("0", "-1", "many"):
        with pytest.raises(UserError, match="limit"):
            open_dataset(f"{sample}{joint}limit={text}")


def test_a_data_set_can_be_sent_to_a_worker(sample):
    data = open_dataset(sample)
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again[0][0], data[0][0]) and again.fingerprint == data.fingerprint


def test_classes_without_decoding_are_the_classes_of_the_items(sample):
    data = open_dataset(sample)
    for part in data.splits.values():
        if not {"label", "labels"} & part.annotations:
            with pytest.raises(UserError, match="needs label"):
                class_targets(part)
            continue
        truth = class_targets(part)
        if not is_multi_label(part):
            assert truth.tolist() == [int(target["label"]) for _, target in part]
            continue
        assert truth.shape == (len(part), len(part.classes))
        for row, (_, target) in zip(truth, part, strict=True):
            sure = set(target["labels"][~target.get("difficult", torch.zeros_like(target["labels"])).bool()].tolist())
            assert set((row == 1).nonzero().flatten().tolist()) == sure
            assert set((row != 0).nonzero().flatten().tolist()) == set(target["labels"].tolist())


def test_unknown_options_are_named_with_those_that_are_known(sample):
    with pytest.raises(UserError, match="unknown option 'limits'; did you mean 'limit'") as excinfo:
        open_dataset(f"{sample}{'&' if '?' in sample else '?'}limits=3")
    one_line(excinfo)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "scenes"])
def test_a_path_that_is_missing_or_wrong_is_one_line(kind, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for path, named in (("", kind), (tmp_path / "nowhere", "nowhere"), (empty, "empty")):
        with pytest.raises(UserError) as excinfo:
            open_dataset(f"{kind}:{path}")
        assert named in one_line(excinfo)
        if kind in SETS and kind not in BY_HAND and path:
            assert "--download" in one_line(excinfo)
    assert not (tmp_path / "nowhere").exists()


def test_scenes_have_no_path():
    with pytest.raises(UserError, match="without a path"):
        open_dataset("scenes:somewhere")


def test_unknown_kinds_are_named_with_those_that_are_known():
    with pytest.raises(UserError, match="unknown kind of data 'scense'; did you mean 'scenes'") as excinfo:
        open_dataset("scense")
    assert "cifar10" in one_line(excinfo) and "voc" in one_line(excinfo)


def test_download_goes_to_torchvision_and_nowhere_else(tmp_path, monkeypatch):
    asked = []

    class Fetched(torchvision.datasets.MNIST):
        def download(self):
            if not asked:
                dataset_samples.make("mnist", Path(self.root))
            asked.append(self.root)

    Fetched.__name__ = "MNIST"
    monkeypatch.setattr(torchvision.datasets, "MNIST", Fetched)
    data = open_dataset(f"mnist:{tmp_path / 'mnist'}", download=True)
    assert asked and len(data) == 11  # 12, one of them for val
    with pytest.raises(UserError, match="nothing to download"):
        open_dataset(f"folder:{tmp_path}", download=True)
    with pytest.raises(UserError, match="torchvision cannot download it"):
        open_dataset(f"imagenet:{tmp_path}?download=true")


def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch):
    def fail(*args, **keywords):
        raise OSError("<urlopen error no route>")

    monkeypatch.setattr(sys.modules["torchvision.datasets.cifar"], "download_and_extract_archive", fail)
    with pytest.raises(UserError, match=r"could not be downloaded into .*no route") as excinfo:
        open_dataset(f"cifar10:{tmp_path}?download=true")
    one_line(excinfo)


def test_torchvision_files_are_checked_before_they_are_unpickled(tmp_path):
    spec = dataset_samples.make("cifar10", tmp_path)  # its pickles are not CIFAR-10's
    with pytest.raises(UserError, match=r"no sound train of CIFAR10 .*corrupted"):
        open_dataset(spec)


def test_pets_are_masked_by_their_breed(tmp_path):
    data = open_dataset(dataset_samples.make("oxford_iiit_pet", tmp_path)).split("test")
    assert data.classes == ("Great Dane", "Siamese")
    for number, (_, target) in enumerate(data):
        mask = target["masks"]
        assert int(target["label"]) == number % 2
        assert (mask[6:14, 6:14] == number % 2 + 1).all() and (mask[0] == 0).all() and (mask[5, 5:15] == 255).all()


def test_array_sets_hold_the_pixels_that_were_stored(tmp_path, unchecked):
    grey = open_dataset(dataset_samples.make("mnist", tmp_path / "mnist")).split("test")
    assert np.array_equal(grey[3][0].numpy(), np.stack(3 * [dataset_samples.pixels(1, 3, 28, 28)[..., 0]]))
    colour = open_dataset(dataset_samples.make("cifar100", tmp_path / "cifar")).split("test")
    assert np.array_equal(colour[2][0].permute(1, 2, 0).numpy(), dataset_samples.pixels(1, 12, 32, 32))
    columns = open_dataset(dataset_samples.make("stl10", tmp_path / "stl")).split("test")
    assert np.array_equal(columns[1][0].permute(1, 2, 0).numpy(), dataset_samples.pixels(1, 1, 96, 96))


# --- masks:DIR


def test_masks_open_in_all_three_layouts(tmp_path):
    spec = dataset_samples.make("masks", tmp_path / "a")
    by_split = open_dataset(spec)
    turned = tmp_path / "b"
    for split in ("train", "val", "test"):
        for kind in ("images", "masks"):
            (turned / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "a" / kind / split).rename(turned / split / kind)
    (tmp_path / "a" / "classes.txt").rename(turned / "classes.txt")
    turned_data = open_dataset(f"masks:{turned}")
    flat = open_dataset(f"masks:{turned / 'train'}?classes=sea,land")
    assert len(by_split) == len(turned_data) == 6 and len(flat) == 4 and len(flat.notes) == 2
    target = turned_data[1][1]
    assert target["labels"].tolist() == [1] and (target["masks"][6:14, 5:15] == 2).all()
    assert flat.classes == turned_data.classes == ("sea", "land")


def test_mask_classes_can_be_chosen_and_a_number_ignored(tmp_path):
    spec = dataset_samples.make("masks", tmp_path)
    data = open_dataset(f"{spec}?classes=land&ignore=0")
    with pytest.raises(BadImage, match=r"masks/train/0\.png: index 255 in the mask is no class"):
        data[0]
    for file in (tmp_path / "masks").rglob("*.png"):
        stored = np.array(Image.open(file))
        stored[stored == 255] = 0
        Image.fromarray(stored).save(file)
    data = open_dataset(f"{spec}?classes=land&ignore=0")
    assert data.classes == ("land",)
    assert data[0][1]["masks"].unique().tolist() == [0, 255]  # sea is background now, 0 is ignored
    assert data[1][1]["masks"].unique().tolist() == [1, 255]


def test_faults_of_masks_are_named(tmp_path):
    spec = dataset_samples.make("masks", tmp_path)
    for options, named in (
        ("?classes=lake", "no class 'lake'"),
        ("?train=trian", "train=trian: no such folder"),
        ("?ignore=300", "ignore=300"),
        ("?images=pictures", "pictures"),
    ):
        with pytest.raises(UserError, match=named) as excinfo:
            open_dataset(spec + options)
        one_line(excinfo)
    dataset_samples.save(tmp_path / "masks" / "val" / "2.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(BadImage, match=r"2\.png: the mask is 4×3, its picture 24×20"):
        list(open_dataset(spec).split("val"))
    (tmp_path / "masks" / "val" / "2.png").unlink()
    with pytest.raises(UserError, match=r"val/2\.jpg has no mask"):
        open_dataset(spec)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"name the classes .*classes\.txt"):
        open_dataset(spec)


# --- folder:DIR, and the splits that a source lacks


def test_a_folder_without_splits_is_split_by_class(tmp_path):
    for number in range(40):
        dataset_samples.save(tmp_path / "ab"[number % 2] / f"{number}.png", dataset_samples.pixels(1, number))
    data = open_dataset(f"folder:{tmp_path}")
    assert {name: len(part) for name, part in data.splits.items()} == {"train": 29, "val": 3, "test": 8}
    assert class_targets(data.split("test")).bincount().tolist() == [4, 4]
    assert sum("drawn from train by a fixed seed" in note for note in data.notes) == 2
    shown = [image.numpy().tobytes() for part in data.splits.values() for image, _ in part]
    assert len(set(shown)) == len(shown) == 40


def test_a_val_without_test_is_the_test(tmp_path):
    spec = dataset_samples.make("folder", tmp_path)
    held_out = open_dataset(spec).split("val").fingerprint
    for file in (tmp_path / "test").rglob("*.png"):
        file.unlink()
    (tmp_path / "test" / "a").rmdir()
    (tmp_path / "test" / "b").rmdir()
    (tmp_path / "test").rmdir()
    data = open_dataset(spec)
    assert data.split("test").fingerprint == held_out
    assert any("no test split" in note for note in data.notes)


def test_no_picture_may_be_in_two_splits(tmp_path):
    dataset_samples.make("folder", tmp_path)
    with pytest.raises(UserError, match="6 pictures are in train and in val"):
        open_dataset(f"folder:{tmp_path}?train=train&val=train")


def test_an_unlabelled_folder_needs_no_class_folders(tmp_path):
    for number in range(10):
        dataset_samples.save(tmp_path / "deep" / "down" / f"{number}.PNG", dataset_samples.pixels(1, number))
    data = open_dataset(f"folder:{tmp_path}")
    assert data.annotations == frozenset() and data.classes == () and data[0][1] == {}
    with pytest.raises(UserError, match="needs label, and the data set annotates nothing"):
        data.require("label")


def test_a_class_that_only_test_has_is_an_error(tmp_path):
    spec = dataset_samples.make("folder", tmp_path)
    dataset_samples.save(tmp_path / "test" / "c" / "1.png", dataset_samples.pixels(1, 1))
    with pytest.raises(UserError, match="test has a class 'c' that train lacks"):
        open_dataset(spec)


def test_objects_of_a_subset_are_those_of_its_pictures(tmp_path):
    data = open_dataset(dataset_samples.make("scenes", tmp_path))
    targets = [data[index][1] for index in range(len(data))]
    objects = Objects.gather(
        (target["labels"].tolist(), target["boxes"].tolist(), target["difficult"].tolist()) for target in targets
    )
    order = torch.tensor([5, 0, 5, 3])
    taken = objects.take(order)
    for row, index in enumerate(order.tolist()):
        for name, value in taken.target(row, 24, 24).items():
            assert torch.equal(value, objects.target(index, 24, 24)[name])


# --- odd files, made here and as found in the wild


def odd_pictures(root):
    rgb = Image.fromarray(dataset_samples.pixels(1, 0, 30, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = {
        "grey.jpg": (rgb.convert("L"), {}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "alpha.png": (rgb.convert("RGBA"), {}),
        "palette.png": (rgb.convert("P"), {}),
        "one-bit.png": (rgb.convert("1"), {}),
        "sixteen.png": (Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50), {}),
        "web.webp": (rgb, {}),
        "UPPER.JPG": (rgb, {}),
        "turned.jpg": (rgb, {"exif": exif}),
        "tall.png": (rgb.resize((3, 200)), {}),
        "name with spaces äöü 한글.jpg": (rgb, {}),
    }
    root.mkdir(parents=True)
    for name, (picture, options) in pictures.items():
        picture.save(root / name, **options)
    return len(pictures)


def broken_pictures(root):
    root.mkdir(parents=True, exist_ok=True)
    whole = root / "whole.jpg"
    Image.fromarray(dataset_samples.pixels(1, 0, 64, 64)).save(whole)
    content = whole.read_bytes()
    whole.unlink()
    broken = {
        "cut.jpg": content[: len(content) // 2],
        "empty.jpg": b"",
        "text.jpg": b"this is no picture",
        "header.png": b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR",
    }
    for name, data in broken.items():
        (root / name).write_bytes(data)
    return sorted(broken)


def check_good(folder, count):
    data = open_dataset(f"folder:{folder}")
    parts = list(data.splits.values())
    assert sum(map(len, parts)) == count
    for part in parts:
        for image, _ in part:
            assert image.dtype == torch.uint8 and image.shape[0] == 3
        assert len(at_size(part, 8, bad_images="stop")) == len(part)


def check_bad(good, bad, names, tmp_path, capsys):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for file in (*good.iterdir(), *bad.iterdir()):
        (mixed / file.name).write_bytes(file.read_bytes())
    sound = len(list(good.iterdir()))
    whole = FileDataset(root=tmp_path, images=list(images_below(mixed)))
    whole.spec, whole.splits = f"folder:{mixed}", {"train": whole}
    packed = at_size(whole, 8, bad_images="skip")
    assert len(packed) == sound and len(packed.skipped) == len(names)
    for name in names:
        assert sum(name in reason for reason in packed.skipped) == 1
    assert packed.fingerprint != whole.fingerprint
    assert f"left out {len(names)} of {len(whole)} pictures" in capsys.readouterr().err
    assert any(f"{len(names)} of {len(whole)} pictures could not be decoded" in note for note in packed.notes)
    with pytest.raises(UserError, match=f"{len(names)} of {len(whole)} pictures cannot be decoded") as excinfo:
        at_size(whole, 8, bad_images="stop")
    assert "--bad-images skip" in one_line(excinfo)


def test_odd_pictures_load_and_broken_ones_are_named(tmp_path, capsys):
    count = odd_pictures(tmp_path / "good")
    names = broken_pictures(tmp_path / "bad")
    check_good(tmp_path / "good", count)
    turned = FileDataset(root=tmp_path, images=[str(tmp_path / "good" / "turned.jpg")])
    assert turned[0][0].shape == (3, 40, 30)
    check_bad(tmp_path / "good", tmp_path / "bad", names, tmp_path, capsys)


def test_odd_files_of_the_wild(tmp_path, capsys):
    if not (root := os.environ.get("PRETEXT_TEST_DATA")):
        pytest.skip("PRETEXT_TEST_DATA names no folder of real photographs")
    good, bad = Path(root) / "odd-files" / "good", Path(root) / "odd-files" / "bad"
    check_good(good, len(list(good.iterdir())))
    check_bad(good, bad, [file.name for file in bad.iterdir()], tmp_path, capsys)


def test_nothing_but_broken_pictures_is_an_error_either_way(tmp_path):
    broken_pictures(tmp_path)
    whole = FileDataset(root=tmp_path, images=sorted(map(str, tmp_path.iterdir())))
    whole.spec = "folder:x"
    for bad_images in ("skip", "stop"):
        with pytest.raises(UserError, match="all 4 pictures cannot be decoded"):
            at_size(whole, 8, bad_images=bad_images)
