"""torchvision's data sets: downloads, checks of their files, and the pixels and masks that they give."""

from __future__ import annotations

import sys
from pathlib import Path

import dataset_samples
import numpy as np
import pytest
import torchvision.datasets
from dataset_samples import one_line

from pretext.datasets import at_size, open_dataset
from pretext.system.errors import UserError


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
    with pytest.raises(UserError, match=r"no valid train split of CIFAR10 .*corrupted"):
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


@pytest.mark.parametrize(
    ("kind", "file", "old", "new", "said"),
    [
        ("food101", "food-101/meta/train.json", "pie/train0", "pie/\\ud800", "surrogates not allowed"),
        ("fashion_mnist", "FashionMNIST/raw/t10k-labels-idx1-ubyte", b"\1", b"\xc8", "class number 200, but"),
        ("fashion_mnist", "FashionMNIST/raw/t10k-labels-idx1-ubyte", b"\0\0\0\6", b"\0\0\0\5", "class numbers of"),
    ],
)
def test_lists_and_numbers_that_nothing_can_be_are_one_line(tmp_path, kind, file, old, new, said):
    spec = dataset_samples.make(kind, tmp_path)
    content = (tmp_path / file).read_bytes()
    old, new = (text.encode() if isinstance(text, str) else text for text in (old, new))
    start = 8 if len(old) == 1 else 0
    changed = content[:start] + content[start:].replace(old, new, 1)
    (tmp_path / file).write_bytes(changed[:-1] if len(old) == 4 else changed)
    with pytest.raises(UserError, match=said) as excinfo:
        open_dataset(spec)
    one_line(excinfo)


def test_a_list_with_a_null_character_names_a_bad_picture(tmp_path):
    spec = dataset_samples.make("dtd", tmp_path)
    file = next(tmp_path.rglob("train1.txt"))
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0].replace(".jpg", "\0.jpg"), *lines[1:]]) + "\n")
    data = open_dataset(spec)
    assert data.fingerprint
    packed = at_size(data, 8, bad_images="skip")
    assert len(packed) == len(data) - 1
