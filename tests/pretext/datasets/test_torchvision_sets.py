"""torchvision's data sets: downloads, checks of their files, and the pixels and masks that they give."""

from __future__ import annotations

import sys
from pathlib import Path

import dataset_samples
import numpy as np
import pytest
import torchvision.datasets
from dataset_samples import one_line

from pretext.datasets import open_dataset
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
