"""Train an encoder without labels, use its features, look at data.

Examples:
  python -m pretext train context_encoder --data folder:photos --out runs/mine
  python -m pretext inpaint --checkpoint runs/mine --data folder:photos

Commands:
  list                    List pretext tasks, encoders and kinds of data set.
  train TASK              Train an encoder by one pretext task.
  inpaint                 Fill holes by the decoder of a training run.
  embed                   Write a vector per picture to a file, and a map.
  data SPEC               Look at a data set: counts, duplicates, faults.
  export                  Write an encoder for timm, torchvision, ONNX, ….

`python -m pretext COMMAND --help` explains a command's flags, and
`python -m pretext train TASK --help` a task's own settings too.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import tyro

from pretext.system import catalogue, help_page
from pretext.system.command_line import flags_of_settings, parse, settings_in, with_settings
from pretext.system.declarations import read_class
from pretext.system.errors import UserError, did_you_mean, run_command
from pretext.system.plugins import file_row, is_file
from pretext.system.specs import Spec, options_into, parse_spec

PROG = "python -m pretext"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Train an encoder by one pretext task. The same command resumes an interrupted run.

    Examples:
        python -m pretext train context_encoder --data folder:photos --out runs/mine
        python -m pretext train simclr --data cifar10:data --download --epochs 20
    """

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "what": ("task", "data", "download", "encoder", "image_size"),
        "where": ("out",),
    }

    task: tyro.conf.Positional[str]
    """Pretext task, TASK or TASK:VARIANT, or a file of your own, my_task.py."""
    data: str
    """Data set, KIND[:PATH][?key=value&…], such as folder:photographs or voc:VOCdevkit."""
    encoder: str = "alexnet?stem_stride=2"
    """Encoder, such as alexnet?width=0.5&stem_stride=2, released, timm:resnet18, torchvision:resnet18, or a file of
    your own, my_encoder.py. With --init it may be omitted: it is the one with these weights."""
    image_size: int = 64
    """Side in pixels of the square pictures that the encoder sees."""
    download: bool = False
    """Download a torchvision data set that is not on disk."""
    out: Path | None = None
    """Folder of the run; runs/TASK if omitted."""


def main(argv: list[str]) -> int:
    """Run one of the commands; return the exit code."""
    commands = {
        "train": train_command,
        "inpaint": inpaint,
        "embed": embed,
        "data": look_at_data,
        "export": export,
        "list": list_names,
    }
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__.strip())
        return 0
    if argv[0] not in commands:
        raise UserError(f"{PROG}: unknown command {argv[0]!r}; {did_you_mean(argv[0], commands)}")
    return commands[argv[0]](argv[1:])


def train_command(argv: list[str]) -> int:
    """Run `python -m pretext train`; the task's own settings are flags too."""
    prog = f"{PROG} train"
    spec = argv[0] if argv and not argv[0].startswith("-") else ""
    if help_page.is_asked(argv):
        print(_help(spec))
        return 0
    if not spec:
        raise UserError(f"{prog}: name the task first; {did_you_mean('', _task_names())}")
    _check_task(spec)

    from pretext.datasets import open_dataset, say_opened
    from pretext.system.distributed import one_voice, rank
    from pretext.tasks import task_config
    from pretext.training.loop import train

    with one_voice():
        settings = task_config(spec)
        options: Any = parse(_flags_of(spec, settings), argv, prog=prog)
        name = file_row(spec) if is_file(spec) else spec
        out = options.out or Path("runs") / name.split("?", maxsplit=1)[0].replace(":", "-")
        data = open_dataset(options.data, download=options.download)
        say_opened(data)
        of_init = options.loop.init is not None and not any(word.partition("=")[0] == "--encoder" for word in argv)
    file = train(
        spec.split("?", maxsplit=1)[0],
        None if of_init else options.encoder,
        data,
        options.loop,
        out,
        image_size=options.image_size,
        task_settings=settings_in(options, field="task_settings", kind=type(settings)),
    )
    if rank() == 0:
        print(f"{file}: trained by {spec} on {options.data}")
    return 0


def inpaint(argv: list[str]) -> int:
    """Run `python -m pretext inpaint`."""
    if help_page.is_asked(argv):
        return _print_help("inpaint", "pretext.inpainting.command:Inpaint")
    from pretext.inpainting.command import inpaint_command

    return inpaint_command(argv)


def embed(argv: list[str]) -> int:
    """Run `python -m pretext embed`."""
    if help_page.is_asked(argv):
        return _print_help("embed", "pretext.embedding.command:Embed")
    from pretext.embedding.command import embed_command

    return embed_command(argv)


def look_at_data(argv: list[str]) -> int:
    """Run `python -m pretext data`."""
    if help_page.is_asked(argv):
        return _print_help("data", "pretext.auditing.command:Data")
    from pretext.auditing.command import data_command

    return data_command(argv)


def export(argv: list[str]) -> int:
    """Run `python -m pretext export`."""
    if help_page.is_asked(argv):
        return _print_help("export", "pretext.exporting.command:Export")
    from pretext.exporting.command import export_command

    return export_command(argv)


def _print_help(command: str, options: str) -> int:
    """Print the help of a command without its own settings, and return the exit code."""
    declared = read_class(options)
    page = help_page.HelpPage(f"{PROG} {command}", declared.about, help_page.groups_of(declared, rest="flags"))
    print(page.text())
    return 0


def list_names(argv: list[str]) -> int:
    """Run `python -m pretext list`: names of tasks with what they do, of encoders and of data sets, in 80 columns."""
    if help_page.is_asked(argv):
        print(
            f"usage: {PROG} list [data]\n\nList pretext tasks, encoders and kinds of data set. With `data`, describe\n"
            "each kind of data set: its layout on disk and the keys of its spec."
        )
        return 0
    if argv == ["data"]:
        print(_described_datasets())
        return 0
    if argv:
        raise UserError(f"{PROG} list: {argv[0]!r} is not understood; {did_you_mean(argv[0], ['data'])}")
    tasks: list[tuple[str, str]] = []
    for name, task in catalogue.declared_tasks().items():
        tasks.append((name, task.about.partition(": ")[2] or task.about))
        tasks += [(f"  :{variant}", task.variant_help.get(variant, "")) for variant in task.variants]
    print(f"pretext tasks, and below each its variants, TASK:VARIANT\n{help_page.list_of_names(tasks)}")
    encoders = [(name, about.replace("`", "")) for name, about in catalogue.declared_encoders().items()]
    encoders.append(("my_encoder.py", "A file of your own with build and Config; CONTRIBUTING.md has an example."))
    print(f"encoders\n{help_page.list_of_names(encoders)}")
    print(f"data sets\n{help_page.list_of_names((name, '') for name in catalogue.dataset_kinds())}")
    return 0


def _described_datasets() -> str:
    """Return the layout and the keys of each kind of data set, in 80 columns."""
    every_kind = [
        ("limit=N", "At most N pictures of each split, drawn by a fixed seed."),
        ("resize=squash", "Squash pictures to squares; by default they keep their shape."),
        ("load_size=N", "Most pixels of the shorter side of pictures that views are cut from (3 times the views')."),
    ]
    blocks = ["A data set is KIND[:PATH][?key=value&…], such as folder:photos?val=held_out."]
    for about, settings in catalogue.declared_datasets().values():
        first, *paragraphs = about.split("\n\n")
        blocks.append("\n".join(textwrap.wrap(first.replace("`", ""), 80)))
        for paragraph in paragraphs:
            drawn = paragraph.startswith("    ")  # a layout, line by line
            blocks.append(
                paragraph if drawn else textwrap.indent(textwrap.fill(paragraph.replace("\n", " "), 78), "  ")
            )
        keys = [(f"{each.name}={each.values}", each.help) for each in settings]
        blocks.append(help_page.list_of_names(keys))
    return "\n\n".join([*blocks, "keys of every kind:\n\n" + help_page.list_of_names(every_kind)])


def _task_names() -> list[str]:
    tasks = catalogue.declared_tasks()
    return [name for task in tasks.values() for name in (task.name, *(f"{task.name}:{v}" for v in task.variants))]


def _check_task(spec: str) -> None:
    """Find fault with a task's name before torch is imported."""
    parsed = parse_spec(spec)
    name = f"{parsed.kind}:{parsed.path}" if parsed.path else parsed.kind
    if not is_file(spec) and name not in (known := _task_names()):
        raise UserError(f"unknown pretext task {name!r}; {did_you_mean(name, known)}")


def _help(spec: str) -> str:
    """Return the help of `train`, with the settings and published defaults of a task where one is named."""
    command, loop = read_class("pretext.__main__:Train"), read_class("pretext.training.config:TrainConfig")
    published: dict[str, Any] = {}
    task_groups: list[help_page.Group] = []
    names = {"tasks": dict.fromkeys(_task_names(), "")}
    if spec:
        _check_task(spec)
        parsed = parse_spec(spec)
        task = (
            catalogue.declared_task_in_file(Path(parsed.kind))
            if is_file(spec)
            else catalogue.declared_tasks()[parsed.kind]
        )
        if task is not None:
            published = {**task.training_defaults.get("", {}), **task.training_defaults.get(parsed.path, {})}
            taken = {setting.name for each in (command, loop) for setting in each.settings()}
            changed = {**task.variants.get(parsed.path, {}), **parsed.options}
            settings = [
                dataclasses.replace(each, default=changed.get(each.name, each.default))
                for each in task.config.settings()
            ]
            file = parsed.kind if is_file(spec) else ""
            flags = flags_of_settings([each.name for each in settings], taken, prefix="task", file=file)
            settings = [dataclasses.replace(each, name=flags[each.name]) for each in settings]
            task_groups = [help_page.Group(f"settings of {spec.partition('?')[0]}", settings)]
            names = {}
    what, where = help_page.groups_of(command, rest="flags", defaults=published)[:2]
    groups = [what, *help_page.groups_of(loop, rest="training", defaults=published), *task_groups, where]
    return help_page.HelpPage(f"{PROG} train", command.about, groups, names).text()


def _flags_of(spec: str, settings: Any) -> type[Any]:
    """Return `Train` with the loop's and the task's settings as flags, and a variant's published defaults."""
    from pretext.tasks import task_training
    from pretext.training.config import TrainConfig

    published = task_training(spec)
    named = f"{parse_spec(spec).kind}: training_defaults"
    own = {"encoder": str, "image_size": int}
    known = [*own, *(field.name for field in dataclasses.fields(TrainConfig))]
    for key, value in published.items():
        if key not in known:
            raise UserError(f"{named}: unknown setting {key!r}; {did_you_mean(str(key), known)}")
        if key in own and not isinstance(value, own[key]):
            raise UserError(f"{named}: {key} is {value!r}; give {'a text' if own[key] is str else 'a whole number'}")
    texts = {
        key: ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
        for key, value in published.items()
        if key not in own and value is not None
    }
    loop = options_into(TrainConfig, Spec(named, "", texts))
    fields: list[Any] = [("loop", TrainConfig, dataclasses.field(default=loop))]
    fields += [(k, own[k], dataclasses.field(default=value)) for k, value in published.items() if k in own]
    command = dataclasses.make_dataclass("Train", fields, bases=(Train,), frozen=True, kw_only=True)
    file = parse_spec(spec).kind if is_file(spec) else ""
    return with_settings(command, settings, field="task_settings", prefix="task", file=file)


if __name__ == "__main__":
    run_command(main)
