"""`python -m retrieval inpaint`: fill holes from the nearest pictures, by HOG and by encoders' features.

Draws a sheet of the fills and measures them.

python -m retrieval inpaint --encoder FILE [--encoder FILE2 …] --data SPEC [--checkpoint DIR …] [--out DIR]
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro
from torch import Tensor

from pretext.datasets import open_dataset, say_opened
from pretext.embedding.encoding import stage_named
from pretext.encoders import load_encoder
from pretext.inpainting.command import inpainters, show_fills
from pretext.inpainting.measuring import baseline_fills, drawn_pictures, filled_by
from pretext.system.command_line import parse
from pretext.system.device import device_of
from pretext.system.errors import UserError
from pretext.system.ranges import check_range
from retrieval.filling import by_hog, by_stages, fill_from_nearest

PROG = "python -m retrieval inpaint"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inpaint:
    """Fill the central hole of test pictures from the nearest training pictures.

    Examples:
        python -m retrieval inpaint --encoder mine.safetensors --data folder:photos
        python -m retrieval inpaint --encoder timm:resnet18 --image-size 64 --data scenes
    """

    encoder: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Encoder file, or `timm:NAME`, that finds the nearest picture; repeat to compare several."""
    checkpoint: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """Training run whose decoder is compared with the nearest-neighbour fills; repeat for several."""
    data: str
    """Data set: KIND[:PATH][?key=value&…]; its train split is searched, its test split is filled."""
    out: Path = Path("fills")
    """Output folder for fills.png and fills.json."""
    stage: str | None = None
    """Encoder stage whose features are compared; the deepest if omitted."""
    image_size: int | None = None
    """Picture side in pixels, for `timm:` encoders only; an encoder file has its own."""
    database: int = 5000
    """Maximum number of training pictures to fill from."""
    blended: bool = True
    """Blend the filled pixels with their surroundings."""
    n: int = 8
    """Number of pictures on the sheet."""
    test_images: int = 500
    """Maximum number of test pictures that are measured."""
    seed: int = 0
    """Random seed that draws the pictures."""
    device: str = "auto"
    """Torch device: cpu, cuda, …; auto takes a GPU if there is one."""

    def __post_init__(self) -> None:
        check_range(self, "database", "n", "test_images", least=1)


def inpaint_command(argv: list[str]) -> int:
    """Run the command; return the exit code.

    Raises:
        UserError: If there is no encoder, or encoders and checkpoints have different input sizes.
    """
    options = parse(Inpaint, argv, prog=PROG)
    if not options.encoder:
        raise UserError(f"{PROG}: give --encoder FILE or timm:NAME")
    encoders = {source: load_encoder(source, input_size=options.image_size) for source in options.encoder}
    tasks = inpainters(options.checkpoint) if options.checkpoint else {}
    size = next(iter(encoders.values())).input_size
    for name, other in {**encoders, **{name: task.encoder for name, task in tasks.items()}}.items():
        if other.input_size != size:
            raise UserError(f"{name} has input size {other.input_size} px, the first one {size} px; give one size")
    data = open_dataset(options.data)
    say_opened(data)
    pictures, database = (
        drawn_pictures(data, split=split, image_size=size, test_images=count, seed=options.seed, hole="central")
        for split, count in (("test", options.test_images), ("train", options.database))
    )

    def filled(queries: Tensor, vectors: Tensor) -> Tensor:
        return fill_from_nearest(pictures, database.images, queries, vectors, blended=options.blended)

    fills = {"nearest by HOG": filled(by_hog(pictures), by_hog(database))}
    for source, encoder in encoders.items():
        encoder.to(device_of(options.device))
        stage = stage_named(encoder, options.stage)
        name = f"nearest by {encoder.record.get('task', source)} {stage}"
        name = name if name not in fills else f"{name} {source}"
        fills[name] = filled(*(by_stages(encoder, part)[stage] for part in (pictures, database)))
    fills |= {name: filled_by(task, pictures) for name, task in tasks.items()} | baseline_fills(pictures)
    count, others = len(pictures.images), len(database.images)
    show_fills(
        fills,
        pictures,
        options.out / "fills.png",
        shown=options.n,
        about={"data": options.data, "database": others, "image_size": size, "seed": options.seed},
        title=f"{count} test pictures of {options.data}, {size} px; filled from {others} others",
    )
    return 0
