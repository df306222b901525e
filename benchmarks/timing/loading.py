"""Time how fast pictures are decoded and cut to views, beside torchvision's and lightly's loaders.

All loaders read the same files with as many worker processes, one loader at a time, in turns, so that other load on
the machine slows all of them. Ours decodes in the workers and cuts views of a whole batch in the main process, or on
a GPU; the others do all of it in the workers.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from benchmarks.timing.steps import steady_rate
from pretext.datasets import open_dataset
from pretext.datasets.kept import VIEW_DETAIL, KeptDataset
from pretext.system.device import device_of
from pretext.system.errors import UserError
from pretext.training.loading import load_batches
from pretext.transforms.augmentation import Augmentation, augment, cropping
from pretext.transforms.views import two_views
from retrieval.originals import file_of

BATCH = 64
"""Pictures per batch."""
TURNS = 5
"""Measurements of each loader."""
WARM_UP, TURN_BATCHES = 8, 16
"""Batches before and in each measurement."""
CROP = cropping(0.08)
"""What `RandomResizedCrop` does by default, with a horizontal flip."""


class Rate(NamedTuple):
    """Speed of a loader, and the detail of what it yields."""

    per_second: float
    """Pictures per second, median of `TURNS`."""
    detail: float
    """Mean absolute Laplacian of the views of one crop each; 0 where none is cut."""


def print_loading(spec: str, *, side: int, workers: int) -> None:
    """Print the rates of all loaders.

    Args:
        spec: Data set of picture files; its training split is read.
        side: Side of the views in pixels.
        workers: Worker processes of each loader.
    """
    data = open_dataset(spec)
    files = list(files_of(data))
    print(f"{len(files):,} files of {spec}, views of {side} px, batches of {BATCH}, {workers} workers each\n")
    with tempfile.TemporaryDirectory() as folder:
        link(files, Path(folder))
        rates = _rates(_loaders(KeptDataset(data, VIEW_DETAIL * side, None), folder, side, workers))
    print(f"{'loader':<46} {'pictures/s':>10} {'ratio':>6} {'detail':>7}")
    for ours, theirs in (("pictures at their own shape", "ImageFolder, one crop"), ("two views", "lightly, two views")):
        for name in (ours, theirs):
            rate = rates[name]
            ratio, detail = f"{rate.per_second / rates[theirs].per_second:.2f}", f"{rate.detail:.4f}"
            print(f"{name:<46} {rate.per_second:>10,.0f} {ratio:>6} {detail if rate.detail else '':>7}")


def files_of(data: Any) -> Iterator[Path]:
    """Yield the file of each picture.

    Raises:
        UserError: If the data set has no picture files.
    """
    for index in range(len(data)):
        file = file_of(data, index)
        if file is None:
            raise UserError(f"{data.spec}: has no picture files; name a folder of photographs by --data folder:DIR")
        yield Path(file)


def link(files: Iterable[Path], folder: Path) -> None:
    """Link files into a folder as torchvision's `ImageFolder` reads it: in a folder of one class."""
    below = folder / "all"
    below.mkdir(parents=True)
    for number, file in enumerate(files):
        (below / f"{number:07d}{file.suffix}").symlink_to(file.resolve())


def peer_batches(folder: Path, transform: Any, batch_size: int, workers: int, *, seed: int = 0) -> Iterator[Any]:
    """Yield the batches of torchvision's and torch's own parts, in a random order by the seed, without end."""
    from torchvision.datasets import ImageFolder

    pictures = ImageFolder(folder, transform)
    order = RandomSampler(pictures, replacement=True, num_samples=10**7, generator=torch.Generator().manual_seed(seed))
    context = "spawn" if workers else None
    loader = DataLoader(pictures, batch_size, sampler=order, num_workers=workers, multiprocessing_context=context)
    return (images for images, _ in loader)


def _loaders(data: KeptDataset, folder: str, side: int, workers: int) -> dict[str, Callable[[], Iterator[Any]]]:
    """Return functions that start each loader."""
    from lightly.transforms.simclr_transform import SimCLRTransform
    from torchvision.transforms import v2

    device = device_of("auto")
    generator = torch.Generator(device).manual_seed(0)

    def ours() -> Iterator[Any]:
        batches = load_batches(data, BATCH, side=side, seed=0, first=0, rank=0, world=1, labels=False, workers=workers)
        return (batch.to(device) for batch in batches)

    def theirs(transform: Any) -> Iterator[Any]:
        for images in peer_batches(Path(folder), transform, BATCH, workers):
            yield [image.to(device) for image in images] if isinstance(images, list) else images.to(device)

    crop = v2.Compose(
        [
            v2.RandomResizedCrop(side),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    views = Augmentation()
    return {
        "pictures at their own shape": ours,
        "ImageFolder, one crop": lambda: theirs(crop),
        "two views": lambda: (two_views(batch.pictures, views, views, generator) for batch in ours()),
        "lightly, two views": lambda: theirs(SimCLRTransform(input_size=side)),
        "one crop": lambda: (augment(batch.pictures, CROP, generator) for batch in ours()),
    }


def _rates(loaders: dict[str, Callable[[], Iterator[Any]]]) -> dict[str, Rate]:
    rates: dict[str, list[float]] = {name: [] for name in loaders if name != "one crop"}
    details = {"pictures at their own shape": _detail(next(loaders["one crop"]()))}
    for _ in range(TURNS):
        for name, each in rates.items():
            batches = loaders[name]()
            first = next(batches)
            if name == "ImageFolder, one crop":
                details[name] = _detail(first)
            each.append(steady_rate(batches, BATCH, warm_up=WARM_UP, timed=TURN_BATCHES))
    return {name: Rate(statistics.median(each), details.get(name, 0.0)) for name, each in rates.items()}


def _detail(views: Float[Tensor, "B 3 S S"]) -> float:
    grey = views.mean(dim=1)
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return float((around - 4 * grey[:, 1:-1, 1:-1]).abs().mean())
