"""A data set of squares on noise for the tests of detection."""

from __future__ import annotations

import numpy as np
import torch
from torchvision import tv_tensors

from pretext.datasets.base import ImageDataset

SIZE = 32
COLOURS = torch.tensor([[230, 20, 20], [20, 20, 230]], dtype=torch.uint8)


class Squares(ImageDataset):
    """Squares on noise, one colour per class: easy for the smallest network."""

    classes = ("red", "blue", "never")
    annotations = frozenset({"labels", "boxes"})

    def __init__(self, seed, count, *, boxes=True, difficult=False):
        self.spec, self.seed, self.count = "squares", seed, count
        self.boxes, self.difficult = boxes, difficult

    def __len__(self):
        return self.count

    @property
    def fingerprint(self):
        return f"{self.seed:02d}{self.count:04d}{int(self.boxes)}{int(self.difficult)}" * 8

    def __getitem__(self, index):
        rng = np.random.default_rng((self.seed, index))
        image = torch.from_numpy(rng.integers(90, 160, (3, SIZE, SIZE), dtype=np.uint8))
        boxes, labels = [], []
        for left in (0, 16):
            if not self.boxes or rng.random() < 0.3:  # some images stay empty
                continue
            side, x, y = rng.integers(10, 15), left + rng.integers(0, 2), rng.integers(0, 17)
            labels.append(int(rng.integers(2)))
            boxes.append([x, y, x + side, y + side])
            image[:, y : y + side, x : x + side] = COLOURS[labels[-1]][:, None, None]
        return image, {
            "labels": torch.tensor(labels, dtype=torch.int64),
            "boxes": tv_tensors.BoundingBoxes(
                torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                format="XYXY",
                canvas_size=(SIZE, SIZE),
            ),
            "difficult": torch.full((len(labels),), self.difficult),
        }


def squares(train=None, test=None):
    train, test = train or Squares(1, 80), test or Squares(2, 40)
    train.splits = test.splits = {"train": train, "val": test, "test": test}
    return train
