"""Read chosen pictures of a data set in batches; several are decoded ahead, by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from pretext.datasets.base import BadImage, ImageDataset, Target

AHEAD = 2
"""Batches that are decoded while one is used."""


_Found = tuple[Tensor, Target] | str
"""An item, or why its picture cannot be decoded."""


class Read(NamedTuple):
    """The pictures of one batch that can be decoded, and the reasons why the others cannot."""

    images: UInt8[Tensor, "B 3 S S"]
    targets: list[Target]
    indices: list[int]
    bad: list[str]


def read_batches(data: ImageDataset, indices: Int[np.ndarray, "N"], *, batch_size: int, workers: int) -> Iterator[Read]:
    """Yield the pictures at `indices`, in that order.

    Args:
        data: A data set whose pictures have one size.
        indices: Which pictures to read.
        batch_size: Pictures per batch, with those that cannot be decoded.
        workers: Threads that decode, one at most for data that is not `thread_safe`; 0 decodes between batches.

    Raises:
        UserError: If a file cannot be read at the moment.
    """
    batches = (indices[start : start + batch_size].tolist() for start in range(0, len(indices), batch_size))

    def one(index: int) -> _Found:
        try:
            return data[index]
        except BadImage as error:
            return str(error)

    if not workers:
        for batch in batches:
            yield _batch(batch, [one(index) for index in batch])
        return
    with ThreadPoolExecutor(workers if data.thread_safe else 1) as pool:
        waiting: deque[tuple[list[int], list[Future[_Found]]]] = deque()
        try:
            for batch in batches:
                waiting.append((batch, [pool.submit(one, index) for index in batch]))
                if len(waiting) > AHEAD:
                    yield _finished(*waiting.popleft())
            while waiting:
                yield _finished(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _finished(indices: list[int], found: list[Future[_Found]]) -> Read:
    return _batch(indices, [each.result() for each in found])


def _batch(indices: list[int], found: list[_Found]) -> Read:
    read = [(index, each) for index, each in zip(indices, found, strict=True) if not isinstance(each, str)]
    images = torch.stack([each[0] for _, each in read]) if read else torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    bad = [each for each in found if isinstance(each, str)]
    return Read(images, [each[1] for _, each in read], [index for index, _ in read], bad)
