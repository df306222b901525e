"""Batches are the same whoever decodes them; what is not made for threads is read one by one."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.reading import AHEAD, read_batches
from pretext.system.errors import UserError


class Slow(ImageDataset):
    """Item k is a picture of value k; every seventh is broken. Counts how many are read at once and in all."""

    fingerprint = "slow"

    def __init__(self, thread_safe=True):
        self.thread_safe, self.lock, self.now, self.most, self.read = thread_safe, threading.Lock(), 0, 0, 0

    def __len__(self):
        return 100

    def __getitem__(self, index):
        with self.lock:
            self.now, self.read = self.now + 1, self.read + 1
            self.most = max(self.most, self.now)
        time.sleep(0.002)
        with self.lock:
            self.now -= 1
        if index == 99:
            raise UserError("the disk fails")
        if index % 7 == 0:
            raise BadImage(f"{index}: broken")
        return torch.full((3, 2, 2), index, dtype=torch.uint8), {"label": torch.tensor(index)}


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_batches_keep_the_order_and_name_what_is_broken(workers):
    indices = np.array([5, 3, 7, 8, 14, 0, 21, 9, 1])
    found = list(read_batches(Slow(), indices, batch_size=4, workers=workers))
    assert [each.indices for each in found] == [[5, 3, 8], [9], [1]]
    assert [each.images[:, 0, 0, 0].tolist() for each in found] == [[5, 3, 8], [9], [1]]
    assert [int(target["label"]) for each in found for target in each.targets] == [5, 3, 8, 9, 1]
    assert [each.bad for each in found] == [["7: broken"], ["14: broken", "0: broken", "21: broken"], []]
    assert list(read_batches(Slow(), indices[:0], batch_size=4, workers=workers)) == []


def test_a_batch_without_any_picture_is_empty():
    (found,) = read_batches(Slow(), np.array([7, 14]), batch_size=4, workers=2)
    assert (len(found.images), found.indices, len(found.bad)) == (0, [], 2)


@pytest.mark.parametrize(("thread_safe", "most"), [(True, 4), (False, 1)])
def test_threads_read_at_once_only_what_allows_it(thread_safe, most):
    data = Slow(thread_safe)
    for _ in read_batches(data, np.arange(1, 60), batch_size=20, workers=4):
        pass
    assert (data.most > 1) == thread_safe and data.most <= most


def test_no_more_than_a_few_batches_are_ahead():
    data = Slow()
    batches = read_batches(data, np.arange(90), batch_size=10, workers=4)
    next(batches)
    time.sleep(0.1)
    assert data.read <= 10 * (AHEAD + 1)
    batches.close()
    time.sleep(0.05)
    assert data.read <= 10 * (AHEAD + 1) and data.now == 0


@pytest.mark.parametrize("workers", [0, 3])
def test_an_error_of_the_machine_ends_the_reading(workers):
    with pytest.raises(UserError, match="the disk fails"):
        list(read_batches(Slow(), np.arange(80, 100), batch_size=8, workers=workers))
