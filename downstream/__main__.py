"""Judge an encoder by one probe: how well its features transfer.

Examples:
  python -m downstream linear --encoder mine.safetensors --data folder:labelled
  python -m downstream detection --encoder timm:resnet18 --data voc:VOCdevkit

`python -m downstream PROBE --help` explains the flags and a probe's settings.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pretext.system import catalogue, help_page
from pretext.system.command_line import flags_of_settings, parse, settings_in, with_settings
from pretext.system.declarations import read_class
from pretext.system.errors import UserError, did_you_mean, run_command
from pretext.system.plugins import is_file
from pretext.system.ranges import check_image_size

if TYPE_CHECKING:
    from pretext.datasets.base import ImageDataset
    from pretext.encoders import Encoder
    from pretext.judging import Score

PROG = "python -m downstream"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """Judge an encoder by one probe, and print its scores on the test split.

    Examples:
        python -m downstream PROBE --encoder mine.safetensors --data voc:VOCdevkit
        python -m downstream PROBE --encoder timm:resnet18 --data folder:photos --out judged
    """

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "what": ("encoder", "allow_partial", "data", "download", "image_size"),
        "where": ("device", "cache_gb", "out"),
    }

    encoder: str
    """Encoder file; `timm:NAME` or `torchvision:NAME`; your own `my_encoder.py`; external weights, as in
    `timm:resnet50?weights=FILE`; or random weights of --seed, as in `random:alexnet?width=0.25`."""
    allow_partial: bool = False
    """Accept a weights file that covers only part of the encoder; the rest stays random."""
    data: str
    """Data set, KIND[:PATH][?key=value&…], such as folder:photographs or voc:VOCdevkit."""
    image_size: int | None = None
    """Side in pixels; not allowed with an encoder file, which records its own."""
    device: str = "auto"
    """Torch device: cpu, cuda, …; auto uses a GPU if there is one."""
    download: bool = False
    """Download a torchvision data set that is not on disk."""
    cache_gb: float | None = None
    """Maximum size in GB of the cache of features; 4 if omitted, 0 disables the cache."""
    out: Path | None = None
    """Folder for scores.json, judged.json (what was judged), sheets and curves; nothing is written if omitted."""

    def __post_init__(self) -> None:
        check_image_size(self.image_size)


def main(argv: list[str]) -> int:
    """Run the probe that the first word names; return the exit code."""
    probes = catalogue.declared_probes("downstream.probes")
    if not argv or argv[0] in ("-h", "--help"):
        listed = help_page.list_of_names((name, _summary(probe)) for name, probe in probes.items())
        print(f"{(__doc__ or '').strip()}\n\nprobes:\n{listed}")
        return 0
    name = argv[0]
    if not is_file(name) and name not in probes:
        raise UserError(f"{PROG}: unknown probe {name!r}; {did_you_mean(name, probes)}")
    if help_page.is_asked(argv):
        print(_help(name))
        return 0
    return _judge(name, argv[1:])


def _judge(name: str, argv: list[str]) -> int:
    import downstream.probes
    from downstream.features import limit_cache
    from pretext.datasets import open_dataset, say_opened
    from pretext.encoders.foreign import with_allow_partial
    from pretext.judging import probe_in_file, probes_in
    from pretext.system.device import device_of

    kind = probe_in_file(Path(name)) if is_file(name) else probes_in(downstream.probes)[name]
    command = with_settings(Judge, kind(), field="probe", prefix="probe", file=name if is_file(name) else "")
    options: Any = parse(command, argv, prog=f"{PROG} {name}")
    probe = settings_in(options, field="probe", kind=kind)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)  # fail before the computation if it cannot be written
    if options.cache_gb is not None:
        limit_cache(options.cache_gb)
    data = open_dataset(options.data, download=options.download)
    say_opened(data)
    source = with_allow_partial(options.encoder, options.allow_partial)
    encoder = _encoder(source, options.image_size, seed=probe.seed).to(device_of(options.device))
    if probe.can_judge(data):  # else evaluate says what it lacks
        probe.check_splits(data.split("train"), data.split("test"), encoder.input_size)
    scores = list(probe.evaluate(encoder, data, options.out))
    if options.out is not None:  # before printing: a closed pipe must not lose the scores
        _write(options.out / "scores.json", [_plain(score) for score in scores])
        _write(options.out / "judged.json", _judged(name, options, probe, encoder, data))
    print(table(scores))
    return 0


def table(scores: list[Score]) -> str:
    """Return scores as lines of text; an arrow marks the headline."""
    width = max([14, *(len(score.metric) for score in scores)])
    lines = [f"  {'stage':12} {'metric':{width}} {'value':>8} {'chance':>8} {'n':>7}"]
    for score in scores:
        chance = "" if score.chance is None else f"{score.chance:.1f}"
        mark = "→" if score.headline else " "
        value = f"{score.value:.2f}{score.unit}"
        lines.append(f"{mark} {score.stage or '-':12} {score.metric:{width}} {value:>8} {chance:>8} {score.n:>7}")
    return "\n".join(lines)


def _summary(probe: Any) -> str:
    """Return the first paragraph of a probe's docstring."""
    return " ".join(str(probe.about).split("\n\n")[0].split())


def _help(name: str) -> str:
    """Return the help of one probe: the command's flags and the probe's settings."""
    command = read_class("downstream.__main__:Judge")
    if is_file(name):
        probe = catalogue.declared_probe_in_file(Path(name))
    else:
        probe = catalogue.declared_probes("downstream.probes")[name]
    settings = [] if probe is None else probe.settings()
    taken = {setting.name for setting in command.settings()}
    file = name if is_file(name) else ""
    flags = flags_of_settings([each.name for each in settings], taken, prefix="probe", file=file)
    settings = [dataclasses.replace(each, name=flags[each.name]) for each in settings]
    what, where = help_page.groups_of(command, rest="flags")
    about = command.about.replace("PROBE", name)
    about = about if probe is None else f"{_summary(probe)}\n\n{about}"
    groups = [what, help_page.Group(f"settings of {name}", settings), where]
    return help_page.HelpPage(f"{PROG} {name}", about, groups).text()


def _encoder(source: str, image_size: int | None, *, seed: int) -> Encoder:
    from pretext.encoders import build_encoder, load_encoder
    from pretext.encoders.foreign import loaded_line
    from pretext.encoders.weights import is_spec

    if source.startswith("random:"):
        return build_encoder(source.removeprefix("random:"), input_size=image_size or 64, seed=seed).eval()
    if image_size is not None and not is_spec(source):
        raise UserError(f"--image-size: {source} records its own size; leave the flag out")
    encoder = load_encoder(source, input_size=image_size)
    print(loaded_line(encoder, source))
    return encoder


def _judged(name: str, options: Any, probe: Any, encoder: Encoder, data: ImageDataset) -> dict[str, Any]:
    """Return what the scores depend on: the probe's settings, the encoder and its weights, the data, the code."""
    from pretext.encoders.files import encoder_digest
    from pretext.system.revision import revision

    return {
        "probe": name,
        "settings": dataclasses.asdict(probe),
        "encoder": {
            "source": options.encoder,
            "architecture": encoder.spec,
            "input_size": encoder.input_size,
            "sha256": encoder_digest(encoder),
            "record": encoder.record,
        },
        "data": {
            "spec": options.data,
            "fingerprints": {split: part.fingerprint for split, part in data.splits.items()},
            "notes": data.notes,
        },
        "revision": revision()._asdict(),
    }


def _write(path: Path, content: Any) -> None:
    from pretext.system.checkpoint import atomic_write

    with atomic_write(path) as beside:
        beside.write_text(json.dumps(content, indent=2, default=str) + "\n")


def _plain(score: Score) -> dict[str, Any]:
    about = dataclasses.asdict(score)
    about["items"] = None if score.items is None else score.items.tolist()
    return about


if __name__ == "__main__":
    run_command(main)
