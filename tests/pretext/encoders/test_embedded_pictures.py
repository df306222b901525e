"""`Encoder.embed` takes pictures of every kind, prepared as evaluation prepares them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from pretext.datasets import at_size, open_dataset
from pretext.datasets.view import source_of
from pretext.encoders import build_encoder, pictures
from pretext.system.errors import UserError

SIZE = 32
SHAPES = [(32, 32), (20, 50), (64, 33), (7, 9), (32, 32), (41, 40)]


@pytest.fixture(scope="module")
def encoder():
    return build_encoder("alexnet?width=0.125&stem_stride=2", input_size=SIZE, seed=0).eval()


@pytest.fixture(scope="module")
def arrays():
    return [np.random.default_rng(k).integers(0, 256, (*shape, 3), dtype=np.uint8) for k, shape in enumerate(SHAPES)]


@pytest.fixture(scope="module")
def files(arrays, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def expected(encoder, arrays):
    """The vectors, each computed alone from torchvision's own resize."""
    with torch.no_grad():
        vectors = []
        for array in arrays:
            image = torch.from_numpy(array.transpose(2, 0, 1).copy())
            image = F.resize(F.center_crop(image, [min(image.shape[1:])] * 2), [SIZE, SIZE], antialias=True)
            vectors.append(encoder(image[None])[-1].mean(dim=(2, 3))[0])
    return torch.stack(vectors)


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def as_tensor(array):
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


KINDS = {
    "paths": lambda arrays, files: files,
    "strings": lambda arrays, files: tuple(map(str, files)),
    "PIL": lambda arrays, files: [Image.open(file) for file in files],
    "arrays": lambda arrays, files: arrays,
    "tensors": lambda arrays, files: [as_tensor(array) for array in arrays],
    "mixed": lambda arrays, files: [
        files[0], str(files[1]), Image.open(files[2]), arrays[3], as_tensor(arrays[4]), Image.fromarray(arrays[5]),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [None, 4, 1])
def test_every_kind_of_picture_gives_the_same_vectors(encoder, arrays, files, expected, kind, batch_size):
    found = encoder.embed(KINDS[kind](arrays, files), batch_size=batch_size)
    close(found, expected)
    assert not found.requires_grad and not found.is_inference() and found.device.type == "cpu"


def test_one_picture_is_a_batch_of_one(encoder, arrays, files, expected):
    for one in (files[1], str(files[1]), Image.open(files[1]), arrays[1], as_tensor(arrays[1])):
        close(encoder.embed(one), expected[1:2])
    close(encoder.embed(np.stack([arrays[0], arrays[4]])), expected[[0, 4]])


def test_floats_among_bytes(encoder, arrays, expected):
    close(encoder.embed([as_tensor(arrays[0]).double() / 255, arrays[1], as_tensor(arrays[4]).half() / 255])[:2],
          expected[:2])  # fmt: skip


def test_pictures_are_prepared_as_evaluation_prepares_them(encoder, files):
    """A large JPEG too, which is decoded at a reduced size."""
    folder = files[0].parent / "large"
    for number in range(4):
        (folder / "train").mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((400, 300)).save(folder / "train" / f"{number}.jpg")
    data = at_size(open_dataset(f"folder:{folder / 'train'}"), SIZE, bad_images="stop", fit="crop")
    sources = [source_of(data, k) for k in range(len(data))]
    with torch.no_grad():
        expected = encoder.embed(torch.stack([data[k][0] for k in range(len(data))]))
    close(encoder.embed([source.images[place] for source, place in sources]), expected)


def test_a_pil_picture_is_turned_as_its_file_is(encoder, tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8))
    exif = noise.getexif()
    exif[0x0112] = 6
    noise.save(tmp_path / "turned.png", exif=exif)
    close(encoder.embed(Image.open(tmp_path / "turned.png")), encoder.embed(tmp_path / "turned.png"))
    close(encoder.embed(tmp_path / "turned.png"), encoder.embed(noise.transpose(Image.Transpose.ROTATE_270)))


def test_training_code_still_gets_gradients_and_its_own_mode():
    encoder = build_encoder("alexnet?width=0.125&stem_stride=2", input_size=SIZE, seed=0).train()
    images = torch.rand(4, 3, 24, 24)
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    encoder.embed(list(images))
    assert encoder.training and all(part.training for part in encoder.modules())
    assert all(torch.equal(value, before[name]) for name, value in encoder.named_buffers())
    vectors = encoder.embed(images)  # at its own side, and batch statistics move
    vectors.sum().backward()
    assert all(weight.grad is not None for weight in encoder.parameters())
    assert any(not torch.equal(value, before[name]) for name, value in encoder.named_buffers())
    # what is out of range is looked for in evaluation mode only
    encoder.embed(images * 1.5)


def test_vectors_can_be_learnt_from(encoder, files):
    head = torch.nn.Linear(encoder.stages[-1].channels, 2)
    head(encoder.embed(files)).sum().backward()
    assert head.weight.grad.abs().sum() > 0


WRONG = {
    "no pictures": [],
    "no rows": np.zeros((0, 8, 8, 3), np.uint8),
    "of type int": 3,
    "of type dict": {"a": 1},
    "picture 2 of 2 is of type NoneType": [np.zeros((8, 8, 3), np.uint8), None],
    "nowhere.jpg: no such file": "nowhere.jpg",
    "array of uint8, 3×8×8; give uint8, H×W×3": np.zeros((3, 8, 8), np.uint8),
    "array of float64, 8×8×3; give uint8": np.zeros((8, 8, 3)),
    "shape 8×8; give 3×H×W": torch.zeros(8, 8),
    "shape 1×3×8×8; give 3×H×W": [torch.zeros(1, 3, 8, 8)],
    "shape 2×8×8×3; give B×3×H×W": torch.zeros(2, 8, 8, 3),
    "no pixels, 0×8×3": np.zeros((0, 8, 3), np.uint8),
    "from 7 to 7; give uint8": torch.full((3, 8, 8), 7.0),
    "from nan to nan": [torch.full((3, 8, 8), torch.nan)],
    "type torch.int64; give uint8": torch.zeros(3, 8, 8, dtype=torch.int64),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_no_picture_is_refused_in_one_line_before_anything_is_encoded(encoder, said, monkeypatch):
    monkeypatch.setattr(type(encoder), "maps", lambda *_: pytest.fail("was encoded"))
    with pytest.raises(UserError, match="there are no pictures" if said == "no rows" else said) as caught:
        encoder.embed(WRONG[said], batch_size=2 if isinstance(WRONG[said], list) else None)
    assert str(caught.value).isprintable()


def test_a_file_that_cannot_be_decoded_is_named(encoder, files, tmp_path):
    (tmp_path / "cut.png").write_bytes(files[0].read_bytes()[:60])
    (tmp_path / "text.jpg").write_text("no picture")
    for bad in (tmp_path / "cut.png", tmp_path / "text.jpg", tmp_path):
        with pytest.raises(UserError, match=f"{bad.name}.*; leave it out, or mend it"):
            encoder.embed([files[0], bad])
    with pytest.raises(UserError, match=r"cut\.png"), Image.open(tmp_path / "cut.png") as opened:
        encoder.embed(opened)
    with pytest.raises(UserError, match="batch_size is 0; allowed is 1 or more"):
        encoder.embed(files, batch_size=0)


def test_memory_holds_one_batch_of_pictures(encoder, files, monkeypatch):
    stacked = []
    whole = pictures._stacked
    monkeypatch.setattr(pictures, "_stacked", lambda some: stacked.append(len(some)) or whole(some))
    encoder.embed(files * 3, batch_size=5)
    assert stacked == [5, 5, 5, 3]
