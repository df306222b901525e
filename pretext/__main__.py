"""Train an encoder without labels, look at what it paints, list what there is.

python -m pretext list
python -m pretext train TASK --data SPEC [--encoder SPEC] [--images N | --steps N | --seconds N] [--out DIR]
python -m pretext inpaint --checkpoint DIR --data SPEC [--out DIR]
"""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Annotated, Any

import tyro

from pretext.datasets import dataset_kinds, open_dataset
from pretext.encoders import encoder_names
from pretext.system.command_line import parse
from pretext.system.errors import UserError, did_you_mean, run_command
from pretext.system.plugins import file_row, is_file
from pretext.tasks import task_class, task_config, task_names, task_training
from pretext.training.config import TrainConfig
from pretext.training.loop import train


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Train an encoder by one pretext task."""

    task: tyro.conf.Positional[str]
    """TASK or TASK:VARIANT, which `python -m pretext list` names, or a file of your own, my_task.py."""
    data: str
    """Data set: KIND[:PATH][?key=value&…]."""
    encoder: str = "alexnet?stem_stride=2"
    """Encoder: alexnet, alexnet?width=0.5&stem_stride=2, released, timm:NAME, …"""
    image_size: int = 64
    """Side in pixels."""
    download: bool = False
    """Fetch a torchvision set that is not there."""
    out: Path | None = None
    """Folder of the run; runs/TASK where None. The same command goes on where it stopped."""
    loop: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    """How long, how fast, on what."""


def main(argv: list[str]) -> int:
    """Run one of the commands; return the exit code."""
    commands = {"train": train_command, "inpaint": inpaint, "list": list_names}
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    if argv[0] not in commands:
        raise UserError(f"python -m pretext: unknown command {argv[0]!r}; {did_you_mean(argv[0], commands)}")
    return commands[argv[0]](argv[1:])


def train_command(argv: list[str]) -> int:
    """Run `python -m pretext train`; the task's own settings are flags too."""
    prog = "python -m pretext train"
    if not argv or argv[0].startswith("-"):
        if {"-h", "--help"} & set(argv):
            parse(Train, argv, prog=prog)
        raise UserError(f"{prog}: name the task first; {did_you_mean('', task_names())}")
    spec = argv[0]
    options: Any = parse(_flags_of(spec), argv, prog=f"{prog}")
    name = file_row(spec) if is_file(spec) else spec
    out = options.out or Path("runs") / name.split("?", maxsplit=1)[0].replace(":", "-")
    file = train(
        spec.split("?", maxsplit=1)[0],
        options.encoder,
        open_dataset(options.data, download=options.download),
        options.loop,
        out,
        image_size=options.image_size,
        task_settings=options.task_settings,
    )
    print(f"{file}: trained by {spec} on {options.data}")
    return 0


def inpaint(argv: list[str]) -> int:
    """Run `python -m pretext inpaint`."""
    from pretext.inpainting.command import inpaint_command

    return inpaint_command(argv)


def list_names(argv: list[str]) -> int:
    """Run `python -m pretext list`."""
    if argv:
        raise UserError(f"python -m pretext list: {argv[0]} is not understood; it takes no flags")
    print("pretext tasks")
    for name in task_names():
        task, variant = task_class(name), name.partition(":")[2]
        about = task.variant_help[variant] if variant else inspect.getdoc(inspect.getmodule(task)) or ""
        print(f"  {name:28} {about.partition(chr(10))[0]}")
    print("encoders\n ", ", ".join(encoder_names()))
    print("data sets\n ", ", ".join(dataset_kinds()))
    return 0


def _flags_of(spec: str) -> type[Any]:
    """Return `Train` with the task's settings as flags, and a variant's published defaults."""
    settings = task_config(spec)
    defaults: dict[str, Any] = {}
    published = task_training(spec)
    own = {field.name for field in dataclasses.fields(Train)}
    defaults = {key: value for key, value in published.items() if key in own}
    loop = TrainConfig(**{key: value for key, value in published.items() if key not in own})
    fields: list[Any] = [
        (
            "task_settings",
            Annotated[type(settings), tyro.conf.arg(name="")],
            dataclasses.field(default=settings),
        ),
        ("loop", TrainConfig, dataclasses.field(default=loop)),
    ]
    hints = {"encoder": str, "image_size": int}
    fields += [(key, hints[key], dataclasses.field(default=value)) for key, value in defaults.items()]
    made = dataclasses.make_dataclass("Train", fields, bases=(Train,), frozen=True, kw_only=True)
    made.__doc__ = Train.__doc__
    return made


if __name__ == "__main__":
    run_command(main)
