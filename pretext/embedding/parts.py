"""The vectors of a data set in parts, in a folder beside the output; a killed command continues after its last part.

A part holds the pictures of a fixed range of numbers, encoded in batches from its first picture on. So the vectors do
not depend on where a process was interrupted.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from pretext.datasets.base import ImageDataset
from pretext.datasets.classification import class_names_of
from pretext.datasets.files import FileDataset
from pretext.datasets.packed import BadImages, ResizedDataset, fit_for
from pretext.datasets.reading import read_batches
from pretext.datasets.splitting import Joined
from pretext.datasets.view import source_of
from pretext.embedding.encoding import check_finite, pooled_by, stage_maps
from pretext.encoders.base import Encoder
from pretext.system.checkpoint import atomic_write, remove_leftovers_in
from pretext.system.errors import UserError
from pretext.system.locks import lock_folder
from pretext.system.progress import progress_bar

PICTURES = 1024
"""A part holds at least this many pictures, in whole batches."""
SETTINGS, LOCK = "settings.json", "lock"


@dataclass(frozen=True)
class Part:
    """The pictures of a range that can be decoded, in order."""

    numbers: Int64[np.ndarray, "N"]
    """Number of each picture in the data, from 0."""
    paths: NDArray[np.str_]
    """Path of each picture's file; SPLIT/NUMBER where it has no file of its own."""
    splits: NDArray[np.str_]
    """Split of each picture."""
    labels: NDArray[np.str_]
    """Class of each picture; several are separated by commas; empty if it has none."""
    vectors: Float32[np.ndarray, "N D"]
    bad: NDArray[np.str_]
    """Why the other pictures of the range cannot be decoded."""


NAMES = tuple(field.name for field in dataclasses.fields(Part))


class Parts:
    """A locked folder of parts; see `open_parts`."""

    def __init__(self, folder: Path) -> None:
        """Take the locked folder."""
        self.folder = folder

    def column(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield one field of `Part` of every part, in order; empty ones are left out.

        Raises:
            OSError: If a part was damaged since it was written.
        """
        number = 0
        while (file := self.file(number)).exists():
            try:
                with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
                    values = stored[name]
            except Exception:  # of every kind, because the bytes can be anything
                raise OSError(5, "was changed after it was written; run the command again", str(file)) from None
            if len(values):
                yield values
            number += 1

    @property
    def is_begun(self) -> bool:
        """Whether there are parts of an earlier command."""
        return (self.folder / SETTINGS).exists()

    def start(self, settings: dict[str, Any], *, overwrite: bool) -> None:
        """Keep the parts if they were made with these settings.

        Args:
            settings: Everything that determines the content of a part, in JSON types.
            overwrite: Delete parts that were made with other settings.

        Raises:
            UserError: If there are parts made with other settings, and `overwrite` is False.
        """
        try:
            found = json.loads((self.folder / SETTINGS).read_bytes())
        except FileNotFoundError:
            found = None
        except ValueError:
            found = {}
        if found == settings:
            return
        if found is not None and not overwrite:
            known = found if isinstance(found, dict) else {}
            other = " and ".join(key for key in settings if known.get(key) != settings[key]) or "version"
            raise UserError(
                f"{self.folder} holds work that was begun with another {other}; "
                "repeat the first command, or start again with --overwrite"
            )
        self.discard()
        with atomic_write(self.folder / SETTINGS) as beside:
            beside.write_text(json.dumps(settings, indent=2) + "\n")

    def encode(
        self,
        encoder: Encoder,
        data: ImageDataset,
        *,
        stage: str,
        pool: str,
        batch_size: int,
        workers: int,
        bad_images: BadImages,
    ) -> None:
        """Encode a split from the first part that the folder lacks.

        Args:
            encoder: Runs in evaluation mode; its mode is restored.
            data: A split, or all splits joined, with pictures of any size.
            stage: Stage whose map is read.
            pool: See `pooled_by`.
            batch_size: Pictures per batch.
            workers: See `read_batches`.
            bad_images: What to do about pictures that cannot be decoded.

        Raises:
            UserError: If a picture cannot be decoded and `bad_images` is `stop`, or vectors are not finite.
        """
        size = batch_size * -(-PICTURES // batch_size)
        done = 0
        while (part := _read(self.file(done))) is not None:
            done += 1
            if bad_images == "stop" and len(part.bad):
                raise _bad_image_error(data, str(part.bad[0]))
        for later in self.folder.glob("*.npz"):  # behind a damaged one
            if int(later.stem) >= done:
                later.unlink()
        first = min(done * size, len(data))
        if done:
            print(f"{self.folder}: continues at picture {first + 1:,} of {len(data):,}", file=sys.stderr)
        sized = ResizedDataset(data, encoder.input_size, fit_for(data, "crop"))
        names = _split_names(data)
        with progress_bar(f"embed {data.spec}", len(data), initial=first, unit="img", leave=True) as bar:
            for number in range(done, -(-len(data) // size)):
                rows = np.arange(number * size, min((number + 1) * size, len(data)))
                found: dict[str, list[Any]] = {name: [] for name in NAMES}
                for read in read_batches(sized, rows, batch_size=batch_size, workers=workers):
                    if read.bad and bad_images == "stop":
                        raise _bad_image_error(data, read.bad[0])
                    found["bad"] += [_printable(each) for each in read.bad]
                    if read.indices:
                        maps = stage_maps(encoder, read.images)[stage]
                        found["vectors"].append(pooled_by(maps, pool).float().cpu())
                        check_finite(encoder, stage, found["vectors"][-1])
                        found["numbers"] += read.indices
                        found["labels"] += [class_names_of(target, data.classes) for target in read.targets]
                        for index in read.indices:
                            split, path = names(index)
                            found["splits"].append(split)
                            found["paths"].append(path)
                    bar.update(len(read.indices) + len(read.bad))
                self._write(number, found)

    def discard(self) -> None:
        """Delete everything but the lock."""
        (self.folder / SETTINGS).unlink(missing_ok=True)  # first: without it no part is used again
        for file in self.folder.glob("*.npz"):
            file.unlink()

    def _write(self, number: int, found: dict[str, list[Any]]) -> None:
        vectors = [each.numpy() for each in found["vectors"]]
        with atomic_write(self.file(number)) as beside, beside.open("wb") as file:
            np.savez(
                file,
                numbers=np.array(found["numbers"], dtype=np.int64),
                vectors=np.concatenate(vectors) if vectors else np.empty((0, 0), np.float32),
                paths=np.array(found["paths"], dtype=np.str_),
                splits=np.array(found["splits"], dtype=np.str_),
                labels=np.array(found["labels"], dtype=np.str_),
                bad=np.array(found["bad"], dtype=np.str_),
            )

    def file(self, number: int) -> Path:
        """Return the path of a part."""
        return self.folder / f"{number:06}.npz"


@contextmanager
def open_parts(folder: Path) -> Iterator[Parts]:
    """Create a folder of parts and lock it; at the end remove it if it holds nothing but the lock.

    Raises:
        UserError: If another process holds the lock, or the folder holds files that this command did not write.
    """
    if folder.exists() and not (folder.is_dir() and all(_is_ours(file) for file in folder.iterdir())):
        raise UserError(f"{folder} holds files that this command did not write; move it, or give another --out")
    with lock_folder(folder, LOCK) as held:
        if not held:
            raise UserError(f"{folder}: another process is writing this output; wait for it, or stop it")
        parts = Parts(folder)
        remove_leftovers_in(folder)
        if not parts.is_begun:  # a process was killed while it deleted its parts
            parts.discard()
        try:
            yield parts
        finally:
            if not parts.file(0).exists():
                parts.discard()


def _bad_image_error(data: ImageDataset, reason: str) -> UserError:
    return UserError(f"{data.spec}: {reason}; --bad-images skip leaves such pictures out")


def _split_names(data: ImageDataset) -> Callable[[int], tuple[str, str]]:
    """Return a function from a picture's number to its split and its path, or SPLIT/NUMBER where it has no file."""
    names = {id(part): name for name, part in data.splits.items()}

    def of(index: int) -> tuple[str, str]:
        part, place = data.origin(index) if isinstance(data, Joined) else (data, index)
        split = names[id(part)]
        source, number = source_of(part, place)
        return split, _printable(str(source.images[number]) if isinstance(source, FileDataset) else f"{split}/{place}")

    return of


def _printable(text: str) -> str:
    """Return a text that every file can hold: bytes of a file's name that are no UTF-8 are shown escaped."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _read(file: Path) -> Part | None:
    """Return a part; None if it is missing or fails the archive's checksums."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            return Part(*(stored[name] for name in NAMES))
    except Exception:  # of every kind, because the bytes can be anything
        return None


def _is_ours(file: Path) -> bool:
    return file.name in (SETTINGS, LOCK) or re.fullmatch(r"\d{6}\.npz|\..*\.tmp", file.name) is not None
