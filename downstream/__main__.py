"""Judge an encoder: python -m downstream PROBE --encoder FILE|timm:NAME|random:SPEC --data SPEC [--out DIR]."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import tyro

import downstream.probes
from downstream.features import limit_cache
from pretext.datasets import open_dataset
from pretext.datasets.base import ImageDataset
from pretext.encoders import Encoder, build_encoder, load_encoder
from pretext.encoders.files import encoder_digest
from pretext.encoders.foreign import loaded_line, with_allow_partial
from pretext.encoders.weights import is_spec
from pretext.judging import Probe, Score, probe_in_file, probes_in
from pretext.system.checkpoint import atomic_write
from pretext.system.command_line import parse
from pretext.system.device import device_of
from pretext.system.errors import UserError, did_you_mean, run_command
from pretext.system.plugins import is_file
from pretext.system.revision import revision

PROG = "python -m downstream"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """Judge an encoder by one probe."""

    encoder: str
    """Encoder file, `timm:NAME`, weights from elsewhere as in `timm:resnet50?weights=FILE`, or `random:SPEC` for random
    weights of --seed, as in `random:alexnet?width=0.25`."""
    allow_partial: bool = False
    """Go on where a file of weights from elsewhere holds less than the whole encoder; the rest stays random."""
    data: str
    """Data set: KIND[:PATH][?key=value&…]."""
    image_size: int | None = None
    """Side in pixels; not for an encoder file, which knows its own."""
    device: str = "auto"
    """cpu, cuda, …; auto takes a GPU where there is one."""
    download: bool = False
    """Fetch a torchvision set that is not there."""
    cache_gb: float | None = None
    """Most gigabytes of features that are kept for other probes; 4 where it is left out, 0 keeps none."""
    out: Path | None = None
    """Folder for scores.json, what was judged (judged.json), sheets and curves; nothing is written where None."""


def main(argv: list[str]) -> int:
    """Run the probe that the first word names; return the exit code."""
    probes = probes_in(downstream.probes)
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{__doc__}\n\nprobes: {', '.join(probes)}; {PROG} PROBE --help shows a probe's settings")
        return 0
    name = argv[0]
    if is_file(name):
        kind = probe_in_file(Path(name))
    elif name in probes:
        kind = probes[name]
    else:
        raise UserError(f"{PROG}: unknown probe {name!r}; {did_you_mean(name, probes)}")
    options: Any = parse(_flags_of(kind), argv[1:], prog=f"{PROG} {name}")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)  # what cannot be written should not be computed first
    if options.cache_gb is not None:
        limit_cache(options.cache_gb)
    data = open_dataset(options.data, download=options.download)
    source = with_allow_partial(options.encoder, options.allow_partial)
    encoder = _encoder(source, options.image_size, seed=options.probe.seed).to(device_of(options.device))
    scores = list(options.probe.evaluate(encoder, data, options.out))
    print(table(scores))
    for note in data.notes:
        print(note)
    if options.out is not None:
        _write(options.out / "scores.json", [_plain(score) for score in scores])
        _write(options.out / "judged.json", _judged(name, options, encoder, data))
    return 0


def table(scores: list[Score]) -> str:
    """Return scores as lines of text; the headline carries an arrow."""
    lines = [f"  {'stage':12} {'metric':14} {'value':>8} {'chance':>8} {'n':>7}"]
    for score in scores:
        chance = "" if score.chance is None else f"{score.chance:.1f}"
        mark = "→" if score.headline else " "
        value = f"{score.value:.2f}{score.unit}"
        lines.append(f"{mark} {score.stage or '-':12} {score.metric:14} {value:>8} {chance:>8} {score.n:>7}")
    return "\n".join(lines)


def _encoder(source: str, image_size: int | None, *, seed: int) -> Encoder:
    if source.startswith("random:"):
        return build_encoder(source.removeprefix("random:"), input_size=image_size or 64, seed=seed).eval()
    if image_size is not None and not is_spec(source):
        raise UserError(f"--image-size: {source} knows its own size; leave the flag out")
    encoder = load_encoder(source, input_size=image_size)
    print(loaded_line(encoder, source))
    return encoder


def _flags_of(probe: type[Probe]) -> type[Any]:
    """Return `Judge` with the probe's settings as flags."""
    field: Any = ("probe", Annotated[probe, tyro.conf.arg(name="")], dataclasses.field(default=probe()))
    made = dataclasses.make_dataclass("Judge", [field], bases=(Judge,), frozen=True, kw_only=True)
    made.__doc__ = Judge.__doc__
    return made


def _judged(name: str, options: Any, encoder: Encoder, data: ImageDataset) -> dict[str, Any]:
    """Return what scores are of: the probe's settings, the encoder and what was loaded into it, the data, the code."""
    return {
        "probe": name,
        "settings": dataclasses.asdict(options.probe),
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
    with atomic_write(path) as beside:
        beside.write_text(json.dumps(content, indent=2, default=str) + "\n")


def _plain(score: Score) -> dict[str, Any]:
    about = dataclasses.asdict(score)
    about["items"] = None if score.items is None else score.items.tolist()
    return about


if __name__ == "__main__":
    run_command(main)
