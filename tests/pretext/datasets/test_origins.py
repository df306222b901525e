"""Data sets that show another one: where each picture comes from."""

from __future__ import annotations

from pathlib import Path

import dataset_samples
import pytest
import torch

from pretext.datasets import at_size, open_dataset
from pretext.datasets.files import FileDataset
from pretext.datasets.packing import item_at
from pretext.datasets.splitting import Subset, split_or_all
from pretext.datasets.view import source_of


@pytest.mark.parametrize("pack_gb", ["4", "0"])
def test_the_source_of_a_picture_is_the_data_set_that_holds_its_file(tmp_path, monkeypatch, pack_gb):
    monkeypatch.setenv("PRETEXT_PACK_GB", pack_gb)
    data = open_dataset(dataset_samples.make("folder", tmp_path))
    if pack_gb == "4":  # the pack leaves it out, which shifts the later indices
        (tmp_path / "train" / "a" / "train2.png").write_bytes(b"no picture")
    sized = at_size(split_or_all(data, "all"), 8, bad_images="skip")
    some = Subset(sized, [13, 0, 2, 7])
    files = []
    for index in range(len(some)):
        source, place = source_of(some, index)
        assert isinstance(source, FileDataset)
        assert torch.equal(item_at(source, place, 8, "squash")[0], some[index][0])
        files.append(source.images[place])
    assert len(set(files)) == 4
    assert Path(files[2]).stem == {"4": "train1", "0": "train4"}[pack_gb]


def test_a_pack_with_unknown_pixels_is_its_own_source(tmp_path):
    data = open_dataset(dataset_samples.make("folder", tmp_path))
    (tmp_path / "train" / "a" / "train2.png").write_bytes(b"no picture")
    packed = at_size(data, 8, bad_images="skip")
    packed.images[3] = 255 - packed.images[3]
    assert source_of(packed, 3) == (packed, 3)


def test_a_subset_knows_the_labels_of_its_pictures_without_decoding(tmp_path):
    data = open_dataset(dataset_samples.make("voc", tmp_path))
    chosen = Subset(data, [4, 1])
    assert chosen.label is None and chosen.clip_of is None
    assert torch.equal(chosen.objects.labels, torch.stack([data[index][1]["labels"][0] for index in (4, 1)]))
    labelled = open_dataset(dataset_samples.make("coco", tmp_path / "coco"))
    assert torch.equal(Subset(labelled, [3, 0]).label, labelled.label[[3, 0]])
