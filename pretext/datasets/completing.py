"""Complete the splits of a source to train, val and test, and note what is wrong with its pictures and boxes."""

from __future__ import annotations

from pathlib import Path

from pretext.datasets.base import Fault, ImageDataset
from pretext.datasets.files import FileDataset, some
from pretext.datasets.findings import faults_of
from pretext.datasets.splitting import complete, limited
from pretext.datasets.twins import equal_pictures


def completed(spec: str, given: dict[str, ImageDataset], *, limit: int | None = None) -> ImageDataset:
    """Return the training split of a data set, with the splits that its source lacks; see `open_dataset`.

    Args:
        spec: The spec of the data set.
        given: The splits of the source.
        limit: Maximum number of pictures of each split.

    Raises:
        UserError: If train is missing, a split is empty, or train has too few pictures to draw the others from.
    """
    for name, part in given.items():
        part.notes += tuple(_mend_boxes(name, part))
    notes = [note for part in given.values() for note in part.notes]
    for path in filter(None, (part.few_bits for part in given.values() if isinstance(part, FileDataset))):
        notes.append(f"16-bit pictures that use 12 bits or fewer, such as {path}, are scaled to full brightness.")
        break
    equal = equal_pictures(given)
    splits, drawn = complete(spec, given, equal)
    notes += [*faults_of(given, equal, splits), *drawn]
    if limit is not None and any(len(part) > limit for part in splits.values()):
        splits = {name: limited(part, limit) for name, part in splits.items()}
        notes.append(f"limit={limit}: at most that many pictures of each split, drawn by a fixed seed.")
    for part in splits.values():
        part.spec, part.splits, part.notes = spec, splits, tuple(dict.fromkeys(notes))
        part.lacking = given["train"].lacking
    return splits["train"]


def _mend_boxes(name: str, part: ImageDataset) -> list[Fault]:
    """Put faulty boxes of a split right, and return notes on them."""
    if not isinstance(part, FileDataset) or part.objects is None:
        return []
    part.objects, faults = part.objects.mended(part.sizes)
    notes = []
    for fault, pictures in faults.items():
        files = [Path(part.images[index]).name for index in pictures.nonzero().flatten().tolist()]
        notes.append(Fault(f"Boxes of {len(files):,} of {len(part):,} pictures in {name} {fault}: {some(files)}."))
    return notes
