"""Data from Python code: torch data sets, arrays, paths and pictures are data sets, in training and in probes."""

from __future__ import annotations

import dataset_samples
import numpy as np
import pytest
import torch
import torchvision
from dataset_samples import one_line
from PIL import Image
from torch.utils.data import IterableDataset, TensorDataset

from downstream import Knn
from pretext import TrainConfig, as_dataset, load_encoder, open_dataset, train
from pretext.datasets import at_size
from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.packed import ResizedDataset
from pretext.encoders.files import read_record
from pretext.system.errors import UserError


def arrays(count=24, side=20):
    return np.stack([dataset_samples.pixels(5, number, side, side) for number in range(count)])


class Own(torch.utils.data.Dataset):
    """A data set of somebody's own, whose items `make` returns."""

    def __init__(self, make, count=24):
        self.make, self.count = make, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.make(index)


PICTURES = arrays()
MAKERS = {
    "array": lambda index: PICTURES[index],
    "pil": lambda index: Image.fromarray(PICTURES[index]),
    "tensor": lambda index: torch.from_numpy(PICTURES[index]).permute(2, 0, 1),
    "floats": lambda index: torch.from_numpy(PICTURES[index]).permute(2, 0, 1) / 255,
    "pair": lambda index: (Image.fromarray(PICTURES[index]), index % 3),
    "list": lambda index: [PICTURES[index], torch.tensor(index % 3)],
    "names": lambda index: (PICTURES[index], "cab"[index % 3]),
    "dict": lambda index: {"image": Image.fromarray(PICTURES[index]), "label": index % 3},
    "boxes": lambda index: (PICTURES[index], {"boxes": torch.zeros(1, 4), "labels": torch.ones(1)}),
}


def whole(data):
    """Return every picture of a data set whose splits were drawn, in the order of its source."""
    return {image.numpy().tobytes() for part in data.splits.values() for image, _ in part}


@pytest.mark.parametrize("make", MAKERS)
def test_items_of_any_form_are_the_pictures(make):
    data = as_dataset(Own(MAKERS[make]))
    assert isinstance(data, ImageDataset) and {name: len(part) for name, part in data.splits.items()} == {
        "train": 17,
        "val": 2,
        "test": 5,
    }
    assert whole(data) == {np.ascontiguousarray(image.transpose(2, 0, 1)).tobytes() for image in PICTURES}
    if make in ("pair", "list", "names", "dict"):
        assert data.classes == (("a", "b", "c") if make == "names" else ("0", "1", "2"))
        for image, target in data:
            (index,) = (k for k in range(24) if np.array_equal(image.permute(1, 2, 0), PICTURES[k]))
            assert data.classes[target["label"]] == ("cab"[index % 3] if make == "names" else str(index % 3))
    else:
        assert data.annotations == frozenset() and data[0][1] == {}


@pytest.mark.parametrize(
    "given",
    [PICTURES, PICTURES.transpose(0, 3, 1, 2), torch.from_numpy(PICTURES), [*PICTURES], (PICTURES, [0, 1, 2] * 8)],
    ids=["NHWC", "NCHW", "tensor", "list of arrays", "pair"],
)
def test_arrays(given):
    data = as_dataset(given)
    assert whole(data) == whole(as_dataset(Own(MAKERS["array"])))
    assert bool(data.classes) == isinstance(given, tuple)


def test_grey_arrays():
    data = as_dataset(PICTURES[..., 0])
    image, _ = data[0]
    assert image.shape == (3, 20, 20) and torch.equal(image[0], image[2])


def test_a_list_of_paths_is_the_folder(tmp_path):
    dataset_samples.folder(tmp_path, 1)
    paths = sorted((tmp_path / "train").rglob("*.png"))[::-1]
    (wanted, _), data = next(iter(open_dataset(f"folder:{tmp_path}?label=top"))), as_dataset(paths)
    source = data.base.base
    assert torch.equal(source[0][0], wanted) and source.root == tmp_path / "train"
    labelled = as_dataset(([str(path) for path in paths], [path.parent.name for path in paths]))
    assert labelled.fingerprint == open_dataset(f"folder:{tmp_path / 'train'}").fingerprint


def test_given_splits_are_used_and_a_data_set_of_ones_own_class():
    data = as_dataset({"train": (PICTURES[:12], [0, 1] * 6), "validation": (PICTURES[12:], [1, 0] * 6)})
    assert {name: len(part) for name, part in data.splits.items() if name != "val"} == {"train": 11, "test": 12}
    assert data.classes == ("0", "1") and data.spec == "given:array"
    own = open_dataset("scenes?train=8&val=3&test=3&size=24")
    assert as_dataset(own) is own
    bare = TensorDataset(torch.from_numpy(PICTURES).permute(0, 3, 1, 2), torch.arange(24) % 2)
    assert as_dataset(bare).classes == ("0", "1")


def test_the_classes_of_torchvisions_data_sets(tmp_path):
    dataset_samples.folder(tmp_path, 1)
    given = torchvision.datasets.ImageFolder(str(tmp_path / "train"), torchvision.transforms.ToTensor())
    data, same = as_dataset(given), open_dataset(f"folder:{tmp_path / 'train'}")
    assert data.classes == same.classes == ("a", "b") and whole(data) == whole(same)
    (tmp_path / "train" / "a" / "train0.png").write_bytes(b"no picture")
    broken = as_dataset(torchvision.datasets.ImageFolder(str(tmp_path / "train"))).base.base
    with pytest.raises(BadImage, match="given:ImageFolder, item 0: not a picture that Pillow can read"):
        broken[0]
    assert broken[1][1] == {"label": torch.tensor(0)} and len(broken) == 6


def test_fingerprints_are_of_the_content():
    one, same = as_dataset(Own(MAKERS["pair"])), as_dataset(Own(MAKERS["pair"]))
    other = as_dataset(Own(lambda index: (255 - PICTURES[index], index % 3)))
    moved = as_dataset(Own(lambda index: (PICTURES[index], (index + 1) % 3)))
    assert one.fingerprint == same.fingerprint
    assert len({each.fingerprint for each in (one, other, moved)}) == 3


def random_picture(index):
    return np.random.default_rng().integers(0, 256, (20, 20, 3), dtype=np.uint8)


def failing(index):
    raise KeyError("no such column")


class Endless(IterableDataset):
    def __iter__(self):
        yield PICTURES[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (PICTURES / 255, "24×20×20×3 of float64; expected uint8, N×H×W×3"),
        (PICTURES[..., :2], "24×20×20×2 of uint8; expected"),
        (Own(lambda index: torch.randn(3, 20, 20)), "item 0: floats from -.* give pictures before normalisation"),
        (Own(lambda index: 3), "item 0: holds int; expected a PIL picture"),
        (Own(lambda index: PICTURES[index].astype(np.int32)), "item 0: an array of int32; expected uint8"),
        (Own(random_picture), "item 0 is another picture each time; remove the random transforms"),
        (Own(failing), "item 0: the data set fails with KeyError"),
        (Own(lambda index: (PICTURES[index], index - 1)), "1 of 24 pictures in train have no class, item 0 among them"),
        (Endless(), "Endless cannot be read by index"),
        ("folder:photos", "is text; open_dataset opens a spec"),
        (["nowhere.png"], "no file .*nowhere.png"),
        ([], "no pictures"),
        ({"test": PICTURES}, "has the splits test; train is missing"),
        ((PICTURES, [1, 2]), "24 pictures, but 2 classes"),
        (None, "NoneType cannot be read by index"),
    ],
)
def test_what_cannot_be_taken_is_one_line(given, message):
    with pytest.raises(UserError, match=message) as caught:
        as_dataset(given)
    one_line(caught)


def test_train_and_a_probe_take_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(steps=2, batch_size=4, samples=0, workers=0, device="cpu")
    spec = "alexnet?width=0.1&stem_stride=2"
    file = train("rotation", spec, PICTURES, config, tmp_path / "run", image_size=32)
    assert read_record(file)["record"]["data"] == "given:array"
    encoder = load_encoder(file)
    given = Own(lambda index: (PICTURES[index], index % 2))
    scores = [*Knn(train_images=10).evaluate(encoder, given)]
    assert [score.headline for score in scores].count(True) == 1
    monkeypatch.setenv("PRETEXT_PACK_GB", "0")
    assert isinstance(at_size(as_dataset(given), 16, bad_images="stop"), ResizedDataset)
    assert next(Knn(train_images=10).evaluate(encoder, given)).value == scores[0].value
