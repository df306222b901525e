"""`python -m pretext inpaint`: fill holes in test images by trained decoders; write a sheet and print the scores.

python -m pretext inpaint --checkpoint DIR [--checkpoint DIR2 …] --data SPEC [--out DIR] [--n N]
                          [--hole central|random_block|random_region] [--seed N]
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import tyro
from torch import Tensor

from pretext.datasets import open_dataset, say_opened
from pretext.inpainting.measuring import (
    HoledPictures,
    baseline_fills,
    drawn_pictures,
    filled_by,
    scores_of,
)
from pretext.judging import Score
from pretext.system.checkpoint import atomic_write
from pretext.system.command_line import parse
from pretext.system.errors import UserError
from pretext.system.stored_json import read_json
from pretext.tasks.base import Inpainter
from pretext.training.run_folder import load_task
from pretext.training.sample_sheets import sample_sheet
from pretext.transforms.masks import MaskKind

PROG = "python -m pretext inpaint"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inpaint:
    """Fill holes of test pictures by the decoders of training runs, and measure the error.

    Examples:
        python -m pretext inpaint --checkpoint runs/mine --data folder:photos
        python -m pretext inpaint --checkpoint runs/a --checkpoint runs/b --data scenes --n 4
    """

    checkpoint: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """Folder of a training run; repeat the flag to compare several runs."""
    data: str
    """Data set whose test split is used: KIND[:PATH][?key=value&…]."""
    out: Path = Path("inpaintings")
    """Output folder for inpaintings.png and inpaintings.json."""
    n: int = 8
    """Images on the sheet."""
    hole: MaskKind = "central"
    """Shape of the hole: a central square of half the side, several blocks, or a random region."""
    test_images: int = 500
    """Maximum number of images to measure."""
    seed: int = 0
    """Seed of the choice of images and holes."""

    def __post_init__(self) -> None:
        if self.n < 1 or self.test_images < 1:
            raise ValueError(f"n is {self.n}, test_images is {self.test_images}; allowed is at least 1 for both")


def inpaint_command(argv: list[str]) -> int:
    """Run the command; return the exit code.

    Raises:
        UserError: If a checkpoint cannot be read, has no decoder, or was trained at another image size than the first.
    """
    options = parse(Inpaint, argv, prog=PROG)
    tasks = inpainters(options.checkpoint)
    size = next(iter(tasks.values())).encoder.input_size
    data = open_dataset(options.data)
    say_opened(data)
    pictures = drawn_pictures(
        data,
        image_size=size,
        test_images=options.test_images,
        seed=options.seed,
        hole=options.hole,
    )
    about = {
        "data": options.data,
        "split": "test",
        "checkpoints": [str(folder) for folder in options.checkpoint],
        "image_size": size,
        "hole": options.hole,
        "seed": options.seed,
    }
    show_fills(
        {name: filled_by(task, pictures) for name, task in tasks.items()} | baseline_fills(pictures),
        pictures,
        options.out / "inpaintings.png",
        shown=options.n,
        about=about,
        title=f"{len(pictures.images)} test images of {options.data} at {size} px, hole {options.hole}",
    )
    return 0


def show_fills(
    fills: dict[str, Tensor], pictures: HoledPictures, sheet: Path, *, shown: int, about: dict[str, Any], title: str
) -> None:
    """Measure fills; write a sheet and, beside it, the scores as JSON; print the scores.

    Args:
        fills: The filled pictures by the name of what filled them.
        pictures: The pictures and their holes.
        sheet: The PNG file.
        shown: Number of pictures on the sheet.
        about: What was measured, for the JSON file.
        title: A line above the scores.
    """
    scores = {name: scores_of(filled, pictures) for name, filled in fills.items()}
    columns = {
        "input": pictures.shown()[:shown].float() / 255,
        **{name: filled[:shown] for name, filled in fills.items()},
        "original": pictures.images[:shown].float() / 255,
    }
    sample_sheet(columns, sheet)
    with atomic_write(sheet.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(about | {"scores": _by_metric(scores)}, indent=2) + "\n")
    print(title)
    print(_table(scores))
    print(sheet)


def inpainters(folders: tuple[Path, ...]) -> dict[str, Inpainter]:
    """Return the tasks of several run folders by name; equal names are followed by the folder.

    Raises:
        UserError: See `inpaint_command`.
    """
    if not folders:
        raise UserError(f"{PROG}: give --checkpoint DIR, the folder of a training run")
    tasks: dict[Path, Inpainter] = {}
    for folder in folders:
        task = load_task(folder)
        if not isinstance(task, Inpainter):
            raise UserError(
                f"--checkpoint {folder}: {_task_name(folder)} has no decoder that fills holes; "
                "give a run of a task that has one, such as context_encoder"
            )
        tasks[folder] = task
    sizes = {folder: task.encoder.input_size for folder, task in tasks.items()}
    for folder, size in sizes.items():
        if size != sizes[folders[0]]:
            raise UserError(
                f"--checkpoint {folder} was trained at {size} px, but {folders[0]} at {sizes[folders[0]]} px; "
                "give runs with one image size"
            )
    names = [_task_name(folder) for folder in tasks]
    return {
        name if names.count(name) == 1 else f"{name} {folder}": task
        for name, (folder, task) in zip(names, tasks.items(), strict=True)
    }


def _task_name(folder: Path) -> str:
    path = folder / "run.json"  # written when a run finishes
    if not path.is_file():
        return folder.name
    return str(read_json(path, {"task": str}, remedy="move it away; the folder's name is shown then")["task"])


def _by_metric(scores: dict[str, list[Score]]) -> dict[str, Any]:
    """Return value, unit and number of images by name and metric, ready for JSON."""
    return {
        name: {score.metric: {"value": score.value, "unit": score.unit, "n": score.n} for score in measured}
        for name, measured in scores.items()
    }


def _table(scores: dict[str, list[Score]]) -> str:
    """Return the scores as a text table: one row per name, one column per metric."""
    width = max(len(name) for name in scores)
    first = next(iter(scores.values()))
    headings = [f"{score.metric} {score.unit}".strip() for score in first]
    lines = [" ".join([f"{'inside the hole':<{width}}", *(f"{heading:>9}" for heading in headings)])]
    for name, measured in scores.items():
        cells = [f"{score.value:>9.{2 if score.unit else 3}f}" for score in measured]
        lines.append(" ".join([f"{name:<{width}}", *cells]))
    return "\n".join(lines)
