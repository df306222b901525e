"""Images that cannot be decoded, in data sets too large to be packed: skipped or not, counted, and reported."""

from __future__ import annotations

import sys

from jaxtyping import UInt8
from torch import Tensor

from pretext.datasets.base import BadImage, Fault, ImageDataset
from pretext.datasets.fitting import fitted
from pretext.datasets.packed import BadImages
from pretext.system.distributed import everyones, rank
from pretext.system.errors import UserError

IN_A_ROW = 100
"""A run ends if this many images in a row cannot be decoded, and as many as a batch has."""


class LeftOut:
    """The images of a data set too large to be packed that could not be decoded, each with the reason.

    All processes share what they found: `share` is to be called by all of them at the same time.
    """

    def __init__(self, data: ImageDataset, bad_images: BadImages) -> None:
        """Start with none.

        Args:
            data: The data set.
            bad_images: `skip` counts an image, `stop` raises at the first.
        """
        self.data, self.bad_images = data, bad_images
        self.reasons: dict[int, str] = {}
        self._own: dict[int, str] = {}
        self._in_a_row = 0

    def add(self, index: int, reason: str) -> None:
        """Note an image that this process could not decode."""
        self._own[index] = reason

    def share(self, rows: int, batch_size: int) -> int:
        """Tell all processes what this one found in a batch; return the number of rows that each of them has.

        Args:
            rows: Rows of this process's part of the batch; negative if its workers were stopped by a signal.
            batch_size: Images in the batch, over all processes.

        Raises:
            UserError: If `bad_images` is `stop` and an image cannot be decoded, or if too many in a row cannot.
        """
        found = everyones((rows, self._own))
        self._own = {}
        for _, reasons in found:
            self.reasons |= reasons
        if self.reasons and self.bad_images == "stop":
            raise UserError(
                f"{self.data.spec}: a picture cannot be decoded: {self.reasons[min(self.reasons)]}; "
                "--bad-images skip leaves such pictures out"
            )
        self._in_a_row = 0 if any(each > 0 for each, _ in found) else self._in_a_row + batch_size
        if self._in_a_row >= max(IN_A_ROW, batch_size):
            raise UserError(f"{self.data.spec}: cannot decode any of {self._in_a_row} images in a row; check the files")
        return min(each for each, _ in found)

    def notes(self) -> list[Fault]:
        """Return how many images were left out since this start of the run, and why; nothing if none was."""
        if not self.reasons:
            return []
        some = [self.reasons[index] for index in sorted(self.reasons)[:5]]
        rest = f"; and {len(self.reasons) - len(some)} more" if len(self.reasons) > len(some) else ""
        counts = f"left out {len(self.reasons)} of {len(self.data)} pictures that cannot be decoded"
        return [Fault(f"{counts}: {'; '.join(some)}{rest}")]

    def report(self) -> None:
        """Print the notes on stderr."""
        if rank() == 0:
            for note in self.notes():
                print(f"{self.data.spec}: {note}", file=sys.stderr)


def sound_images(data: ImageDataset, side: int, count: int, left_out: LeftOut) -> list[UInt8[Tensor, "3 S S"]]:
    """Return the first `count` images that can be decoded, at one side, from the start again if there are fewer.

    Raises:
        UserError: If no image can be decoded, or if the first that cannot is to end the run.
    """
    images: list[Tensor] = []
    for index in range(len(data)):
        if len(images) == count:
            break
        try:
            images.append(fitted(data[index][0], {}, side, "crop")[0])
        except BadImage as error:
            left_out.add(index, str(error))
            if left_out.bad_images == "stop":
                break
    left_out.share(len(images), batch_size=0)
    if not images:
        raise UserError(
            f"{data.spec}: all {len(data)} pictures cannot be decoded, the first of them {left_out.reasons[0]}"
        )
    return [images[k % len(images)] for k in range(count)]
