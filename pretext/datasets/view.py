"""Data sets that show the pictures of another data set: a selection, all splits in one, another size."""

from __future__ import annotations

from abc import abstractmethod

from pretext.datasets.base import ImageDataset


class View(ImageDataset):
    """A data set whose pictures come from another one.

    Attributes:
        base: The data set behind this one.
    """

    def __init__(self, base: ImageDataset) -> None:
        """Take everything that describes the data set from `base`; each attribute may be assigned afterwards.

        The annotations that are known without decoding (`label`, `clip_of`, `objects`) are not taken: a subclass
        sets those that stay true.
        """
        self.base = base
        self.spec, self.classes, self.annotations = base.spec, base.classes, base.annotations
        self.splits, self.notes, self.synthetic = base.splits, base.notes, base.synthetic
        self.lacking, self.thread_safe = base.lacking, base.thread_safe
        self.has_background = base.has_background
        self.squash, self.load_size, self.side = base.squash, base.load_size, base.side

    @abstractmethod
    def origin(self, index: int) -> tuple[ImageDataset, int]:
        """Return the data set that picture `index` comes from, and its index there.

        If the picture cannot be found there, return this data set and `index`.
        """


def source_of(data: ImageDataset, index: int) -> tuple[ImageDataset, int]:
    """Return the data set that holds picture `index` itself, behind all views, and its index there.

    If a view cannot find the picture, return that view and the index in it.
    """
    while isinstance(data, View):
        base, place = data.origin(index)
        if base is data:
            break
        data, index = base, place
    return data, index
