"""The order of training batches, over epochs, resumed runs and ranks."""

from __future__ import annotations

import pytest
import torch
from training_samples import DATA

from pretext.datasets import ImageDataset, at_size, open_dataset
from pretext.system.errors import UserError
from pretext.training.loading import load_batches


def test_every_pass_sees_every_picture_and_a_later_start_the_same_batches():
    data = at_size(open_dataset(DATA).split("train"), 32, bad_images="stop")

    def images(first: int, count: int) -> list[torch.Tensor]:
        loader = load_batches(data, 40, side=32, seed=1, first=first, rank=0, world=1, labels=False, workers=0)
        return [next(loader).images for _ in range(count)]

    ordered = torch.cat(images(0, 5))
    keys = [image.numpy().tobytes() for image in ordered]
    assert len(set(keys[:96])) == 96
    assert set(keys[96:192]) == set(keys[:96])
    for early, late in zip(images(0, 5)[3:], images(3, 2), strict=True):
        assert torch.equal(early, late)


def test_two_ranks_share_a_batch():
    data = at_size(open_dataset(DATA).split("train"), 32, bad_images="stop")

    def images(rank: int, world: int) -> torch.Tensor:
        return next(
            load_batches(data, 8, side=32, seed=0, first=0, rank=rank, world=world, labels=False, workers=0)
        ).images

    whole = images(0, 1)
    assert torch.equal(whole[:4], images(0, 2))
    assert torch.equal(whole[4:], images(1, 2))


class Sizes(ImageDataset):
    """Three pictures of one width and of several heights; the value of all pixels is the height."""

    spec = fingerprint = "sizes"
    heights = (20, 31, 64)

    def __len__(self):
        return len(self.heights)

    def __getitem__(self, index):
        height = self.heights[index]
        return torch.full((3, height, 30), height, dtype=torch.uint8), {}


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_pictures_of_several_sizes_come_whole_and_from_a_worker_in_shared_memory(workers):
    batch = next(load_batches(Sizes(), 3, side=16, seed=0, first=0, rank=0, world=1, labels=False, workers=workers))
    found = sorted(batch.pictures, key=lambda picture: picture.shape[1])
    assert all(torch.equal(picture, Sizes()[index][0]) for index, picture in enumerate(found))
    assert batch.pictures.pixels.is_shared() == bool(workers)


class Fails(ImageDataset):
    """A data set whose second picture cannot be read at the moment."""

    spec = "fails"

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 1:
            raise UserError("2.png: too many open files; run the same command again")
        return torch.zeros(3, 8, 8, dtype=torch.uint8), {}

    @property
    def fingerprint(self):
        return "fails"


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_error_for_the_user_leaves_a_worker_as_one_line(workers):
    with pytest.raises(UserError) as raised:
        next(load_batches(Fails(), 4, side=8, seed=0, first=0, rank=0, world=1, labels=False, workers=workers))
    assert str(raised.value) == "2.png: too many open files; run the same command again"
